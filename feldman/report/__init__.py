"""Figures and pages: figures from functions that take a table or arrays and return them, in one style; a run as one HTML file."""
