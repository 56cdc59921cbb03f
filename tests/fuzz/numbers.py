"""The arrays of a random call: small numbers, and all that is smooth as one vector."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from fuzz.loops import FLOATS, INTEGERS, Kind, Loop, Output
from support import checking as helpers

Random = np.random.Generator


class Numbers:
    """All arrays of a program: what is smooth as one vector, and the rest."""

    def __init__(self, loop: Loop, variables: tuple[Kind, ...], seed: int) -> None:
        random = np.random.default_rng(seed)
        tree = {
            "loop": _scaled(random, arrays(random, loop)),
            "variables": [array(random, kind) for kind in variables],
        }
        leaves, self.structure = jax.tree.flatten(tree)
        self.leaves = [np.asarray(leaf) for leaf in leaves]
        self.smooth = [str(leaf.dtype) in FLOATS for leaf in self.leaves]
        parts = [
            helpers.as_reals(leaf)
            for leaf, smooth in zip(self.leaves, self.smooth, strict=True)
            if smooth
        ]
        self.start = np.concatenate([np.zeros(0), *parts])
        self.direction = np.cos(1.7 * np.arange(self.start.size) + 0.3)

    def lane(self, number: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """Other numbers for every lane of a batch."""
        whole = [
            leaf
            for leaf, smooth in zip(self.leaves, self.smooth, strict=True)
            if not smooth
        ]
        return self.start * (1 - 0.2 * number), [
            leaf ^ (number % 2 == 1)
            if leaf.dtype == bool
            else (leaf + number).astype(leaf.dtype)
            for leaf in whole
        ]

    def tree(self, xp: Any, point: Any, whole: Any, wide: bool = False) -> Any:
        """The arrays, with these numbers in them."""
        leaves, used, rest = [], 0, iter(whole)
        for leaf, smooth in zip(self.leaves, self.smooth, strict=True):
            if not smooth:
                leaves.append(next(rest))
                continue
            taken = point[used : used + leaf.size]
            used += leaf.size
            dtype = leaf.dtype.name
            if dtype.startswith("complex"):
                imaginary = point[used : used + leaf.size]
                used += leaf.size
                taken = taken.astype("complex128") + 1j * imaginary.astype("complex128")
                dtype = "complex128" if wide else dtype
            elif wide:
                dtype = "float64"
            leaves.append(taken.reshape(leaf.shape).astype(dtype))
        return jax.tree.unflatten(self.structure, leaves)


def _scaled(random: np.random.Generator, loop: Any) -> Any:
    """With the scale of random draws, for the loop and those in it."""
    if loop is None:
        return None
    scale = np.asarray(np.round(random.uniform(0.2, 1.0), 2))
    return {**loop, "scale": scale, "inner": _scaled(random, loop["inner"])}


def array(
    random: np.random.Generator, kind: Kind, leading: tuple[int, ...] = ()
) -> Any:
    """Small whole numbers, or numbers in (-1, 1) with two decimals."""
    if kind.is_tree:
        one = dataclasses.replace(kind, is_tree=False)
        return {
            "half": array(random, one, leading),
            "double": array(random, one, leading),
        }
    shape = (*leading, *kind.shape)
    if kind.dtype == "bool":
        return np.asarray(random.integers(0, 2, shape), bool)
    if kind.dtype in INTEGERS:
        low = 0 if kind.dtype.startswith("u") else -4
        return np.asarray(random.integers(low, 5, shape)).astype(kind.dtype)
    values = np.round(random.uniform(-1, 1, shape), 2)
    if kind.dtype.startswith("complex"):
        values = values + 1j * np.round(random.uniform(-1, 1, shape), 2)
    return np.asarray(values).astype(kind.dtype)


def arrays(random: Random, loop: Loop | None) -> Any:
    """All numbers that a loop and the loops in it start from."""
    if loop is None:
        return None
    return {
        "sequences": [array(random, s.kind, (s.rows,)) for s in loop.sequences],
        "initials": [initial(random, output) for output in loop.outputs],
        "constants": [array(random, kind) for kind in loop.constants],
        "count": np.asarray(loop.most, "int32"),
        "inner": arrays(random, loop.inner),
    }


def initial(random: Random, output: Output) -> Any:
    if not output.taps or output.start == "number":
        return None
    kind = output.kind
    if output.start == "narrow":
        kind = dataclasses.replace(kind, dtype=narrower(kind.dtype))
    leading = () if output.taps == [-1] else (-min(output.taps) + output.extra,)
    return array(random, kind, leading)


def narrower(dtype: str) -> str:
    """A type that is promoted to this one."""
    narrow = {"float64": "float32", "complex64": "float32", "complex128": "float64"}
    narrow |= {"int64": "int8", "int32": "uint8", "uint64": "uint8", "bool": "bool"}
    narrow |= {"float32": "int32", "bfloat16": "bool", "float16": "int8"}
    return narrow.get(dtype, "bool")
