"""Sums over the steps are taken once, behind the loop, or in place."""
