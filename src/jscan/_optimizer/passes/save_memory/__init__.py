"""Rows that nobody reads, or few of, are not stacked."""
