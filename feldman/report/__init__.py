"""Figures: every one from a function that takes a table or arrays and returns it, in one style."""
