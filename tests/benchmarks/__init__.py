"""Benchmarks print figures beside a yardstick taken in the same minutes; they assert nothing."""
