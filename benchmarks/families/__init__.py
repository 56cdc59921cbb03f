"""Families of loops as people write them, each beside what an expert would write."""

from . import maps, networks, physics, series, simulations, statistics
from ._registry import FAMILIES, Case, Family

__all__ = [
    "FAMILIES",
    "Case",
    "Family",
    "maps",
    "networks",
    "physics",
    "series",
    "simulations",
    "statistics",
]
