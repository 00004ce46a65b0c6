"""Bits in, numbers out: memorization and influence with their errors. NumPy only."""
