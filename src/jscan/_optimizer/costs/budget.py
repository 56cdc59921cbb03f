"""How much memory a rewrite may add."""

MEBIBYTE = 2**20
DEFAULT_BUDGET = 32 * MEBIBYTE
"""Bytes one rewrite may add: of a larger allocation every page faults at each call."""
