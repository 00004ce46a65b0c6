"""Parquet tables and the queries on them."""
