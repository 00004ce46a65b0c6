"""Explicit memories: the features that they look up."""
