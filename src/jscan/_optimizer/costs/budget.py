"""How much memory a rewrite may add."""

from __future__ import annotations

MEBIBYTE = 2**20

DEFAULT_BUDGET = 32 * MEBIBYTE
"""Bytes one rewrite may add: above it an allocation is mapped anew on each call."""
