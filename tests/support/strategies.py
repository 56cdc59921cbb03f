"""Hypothesis strategies for whole scan calls: `calls()` draws everything at once.

A drawn call is data (`Call`), with one step function that works on NumPy and JAX
arrays alike. New arguments of `scan` join here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
from hypothesis import strategies as st

from support import checking as helpers

Tree = Any

FLOATS = ["float64", "float32", "complex128", "complex64"]
INTEGERS = ["int32", "int64"]


@dataclass(frozen=True)
class Input:
    """A sequence: its array (or tree of arrays) and its taps."""

    tree: Tree
    taps: list[int] | None

    def argument(self, arrays: Tree) -> Any:
        if self.taps is None:
            return arrays
        return dict(input=arrays, taps=list(self.taps))


@dataclass(frozen=True)
class Output:
    """An output: a state with its initial value and taps, or (`None`) a map output."""

    initial: Tree | None
    taps: list[int]
    shape: tuple[int, ...]
    dtype: str
    as_tree: bool

    def argument(self, initial: Tree) -> Any:
        if self.initial is None:
            return None
        if self.taps == [-1] and not self.as_tree:
            return initial
        return dict(initial=initial, taps=list(self.taps))

    def widened(self) -> "Output":
        dtype = self.dtype.replace("complex64", "complex128")
        return replace(
            self,
            initial=jax.tree.map(helpers.double, self.initial),
            dtype=dtype.replace("float32", "float64"),
        )


@dataclass(frozen=True)
class Call:
    """One call of `scan`."""

    inputs: list[Input]
    outputs: list[Output]
    weight: np.ndarray | None
    options: dict[str, Any] = field(default_factory=dict)

    def arrays(self) -> dict[str, Tree]:
        """The numbers of the call, which may be replaced by others or by tracers."""
        weight = {} if self.weight is None else {"weight": self.weight}
        return weight | {
            "inputs": [item.tree for item in self.inputs],
            "initials": [item.initial for item in self.outputs],
        }

    def run(self, scan: Callable[..., Any], xp: Any, arrays: dict[str, Tree]) -> Tree:
        """Make the call with one implementation of `scan`; returns its outputs."""
        inputs = zip(self.inputs, arrays["inputs"], strict=True)
        initials = zip(self.outputs, arrays["initials"], strict=True)
        every_map = all(output.initial is None for output in self.outputs)
        infos = [output.argument(initial) for output, initial in initials]
        result = scan(
            self.step(xp),
            sequences=[item.argument(tree) for item, tree in inputs],
            outputs_info=None if every_map and len(infos) > 1 else infos,
            non_sequences=[arrays["weight"]] if "weight" in arrays else None,
            **self.options,
        )
        return result.outputs

    def widened(self) -> "Call":
        """The same call in double precision, for finite differences."""
        tree = jax.tree.map(helpers.double, [i.tree for i in self.inputs])
        return replace(
            self,
            inputs=[replace(i, tree=t) for i, t in zip(self.inputs, tree, strict=True)],
            outputs=[output.widened() for output in self.outputs],
        )

    def step(self, xp: Any) -> Callable[..., list[Tree]]:
        """A smooth step in which every argument has a weight of its own."""

        def step(*arguments: Tree) -> list[Tree]:
            leaves = jax.tree.leaves(arguments)
            return [
                mixed(xp, output, n, leaves) for n, output in enumerate(self.outputs)
            ]

        return step


def mixed(xp: Any, output: Output, position: int, leaves: list[Any]) -> Tree:
    """The value of one output: a bounded mixture of all arguments."""
    total = xp.zeros(output.shape, output.dtype)
    integer = output.dtype in INTEGERS
    for n, leaf in enumerate(leaves):
        if integer:
            # Integers stay integers: floating arguments do not reach them.
            if leaf.dtype.name in INTEGERS:
                total = total + (leaf.sum() % 5).astype(output.dtype) * (n + 1)
            continue
        factor = round(float(np.cos(1.3 * n + position)), 3)
        term = leaf if leaf.shape == output.shape else leaf.mean()
        total = total + cast(xp, term, output.dtype) * factor
    value = total % 7 if integer else bounded(xp, total)
    return {"half": value, "double": value * 2} if output.as_tree else value


def bounded(xp: Any, total: Any) -> Any:
    """Smooth and of size at most 1/2, for complex numbers as well."""
    square = xp.real(total) ** 2 + xp.imag(total) ** 2
    return total / (1 + square).astype(total.dtype)


def cast(xp: Any, term: Any, dtype: str) -> Any:
    if xp.iscomplexobj(term) and not dtype.startswith("complex"):
        term = xp.real(term) + xp.imag(term)
    return term.astype(dtype)


@st.composite
def arrays(draw: st.DrawFn, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Numbers in (-1, 1) with three decimals, or small integers."""
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    if dtype in INTEGERS:
        return generator.integers(-4, 5, shape).astype(dtype)
    values = generator.uniform(-1, 1, shape)
    if dtype.startswith("complex"):
        values = values + 1j * generator.uniform(-1, 1, shape)
    return np.round(values, 3).astype(dtype)


@st.composite
def inputs(draw: st.DrawFn, length: int) -> Input:
    """A sequence of about `length` rows, read at past, present and future taps."""
    taps = draw(
        st.none()
        | st.lists(st.integers(-3, 3), min_size=1, max_size=3)
        | st.just([-1, 0, 1])
    )
    rows = length + draw(st.sampled_from([0, 0, 1, 3]))
    shape = (rows, *draw(st.sampled_from([(), (2,), (2, 2)])))
    dtype = draw(st.sampled_from(FLOATS + INTEGERS))
    tree: Tree = draw(arrays(shape, dtype))
    if draw(st.integers(0, 4)) == 0:
        pair = {"left": tree, "right": draw(arrays((rows,), "float64"))}
        return Input(pair, taps or [0])
    return Input(tree, taps)


@st.composite
def outputs(draw: st.DrawFn) -> Output:
    """A map output or a state with one, several or gap taps."""
    shape = draw(st.sampled_from([(), (2,), (2, 2)]))
    dtype = draw(st.sampled_from([*FLOATS, "int32"]))
    as_tree = draw(st.integers(0, 4)) == 0
    taps = draw(
        st.sampled_from(
            [None, [-1], [-1], [-2], [-2, -1], [-1, -3], [-5, -3], [-4, -1]]
        )
    )
    if taps is None:
        return Output(None, [-1], shape, dtype, as_tree)
    rows = -min(taps) + draw(st.sampled_from([0, 0, 2]))
    full = shape if taps == [-1] else (rows, *shape)
    initial: Tree = draw(arrays(full, dtype))
    if as_tree:
        initial = {"half": initial, "double": draw(arrays(full, dtype))}
    return Output(initial, taps, shape, dtype, as_tree)


@st.composite
def calls(draw: st.DrawFn) -> Call:
    """A whole call: sequences, outputs, a weight, direction and number of steps."""
    length = draw(st.integers(0, 7))
    sequences = draw(st.lists(inputs(length), max_size=2))
    results = draw(st.lists(outputs(), min_size=1, max_size=3))
    weight = draw(st.none() | arrays((2, 2), "float64"))
    options: dict[str, Any] = {"go_backwards": draw(st.booleans())}
    usable = min([steps_of(item) for item in sequences], default=length)
    if not sequences or draw(st.booleans()):
        options["n_steps"] = draw(st.integers(0, usable))
    return Call(sequences, results, weight, options)


def steps_of(item: Input) -> int:
    taps = [0, *(item.taps or [])]
    rows = len(jax.tree.leaves(item.tree)[0])
    return max(0, rows + min(taps) - max(taps))
