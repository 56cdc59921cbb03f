"""A call of a plain function, traced for the optimizer, and its results put back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jscan._base.lists import pick
from jscan._base.types import Leaf, PyTree, is_array, is_number, is_numeric
from jscan._frontend.hints import add_call
from jscan._functions.named_types import typed
from jscan._jax.naming import name_after
from jscan._jax.traces import is_staging
from jscan._state import frames
from jscan._state.updates import with_updates


@dataclass(frozen=True)
class Traced:
    """A traced call."""

    program: Any
    operands: list[Leaf]
    returned: PyTree  # by the function: what is no array, and `_RESULT` for what is
    frame: frames.Frame  # what it read of shared variables

    def with_results(self, results: Sequence[Leaf]) -> Any:
        """What the function returns, with these results of the program."""
        fresh = iter(results)
        fill = lambda leaf: next(fresh) if leaf is _RESULT else leaf
        return jax.tree.map(fill, self.returned)


_RESULT = object()


class Numbers:
    """How the Python numbers among a function's arguments are handed to it.

    They are traced, so that another number does not compile anew, until a trace needs
    the value of one. Those of a call inside a trace are constants of that.
    """

    needed = False

    def trace(self, fun: Callable[..., Any], args: Any, kwargs: Any) -> Traced:
        has_numbers = any(map(_is_python_number, jax.tree.leaves((args, kwargs))))
        if self.needed or is_staging() or not has_numbers:
            return _trace(fun, args, kwargs, numbers=False)
        try:
            return _trace(fun, args, kwargs, numbers=True)
        except Exception:
            # A number may have been needed; an error for another reason comes again.
            traced = _trace(fun, args, kwargs, numbers=False)
            self.needed = True
            return traced


def _trace(fun: Callable[..., Any], args: Any, kwargs: Any, *, numbers: bool) -> Traced:
    """Trace a call; shared variables are worth what they are worth outside."""
    keyed, tree = jax.tree.flatten_with_path((args, kwargs))
    leaves = [leaf for _, leaf in keyed]
    places = [
        index
        for index, leaf in enumerate(leaves)
        if is_array(leaf) or _is_ref(leaf) or (numbers and _is_python_number(leaf))
    ]
    frame = frames.Frame({}, frames.Scope.REWRITTEN)
    marked: PyTree = None

    def flat(*args: Any, **kwargs: Any) -> list[Any]:
        nonlocal marked
        here = list(leaves)
        operands = jax.tree.leaves((args, kwargs))
        for place, operand in zip(places, operands, strict=True):
            here[place] = operand
        with frame:
            returned = with_updates(_called(fun, *jax.tree.unflatten(tree, here)))
        results, structure = jax.tree.flatten(returned)
        computed = [is_numeric(x) or _is_ref(x) for x in results]
        pairs = zip(computed, results, strict=True)
        marks = [_RESULT if flag else leaf for flag, leaf in pairs]
        marked = jax.tree.unflatten(structure, marks)
        return pick(results, computed)

    operands = [_as_operand(leaves[place]) for place in places]
    given, named = typed(args, kwargs, [keyed[place][0] for place in places], operands)
    name_after(flat, fun)
    program = jax.make_jaxpr(flat)(*given, **named)
    return Traced(program, operands, marked, frame)


def _called(fun: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    try:
        return fun(*args, **kwargs)
    except Exception as error:
        fix = "; or pass a Python number"
        add_call(error, "the function to be optimized", fun, args, kwargs, "f", fix)
        raise


def _as_operand(leaf: Any) -> Leaf:
    # To JAX an array's `asarray` is a copy, which a derivative would store beside it.
    return leaf if isinstance(leaf, jax.Array) or _is_ref(leaf) else jnp.asarray(leaf)


def _is_ref(leaf: Any) -> bool:
    return isinstance(leaf, jax.Ref)


def _is_python_number(leaf: Any) -> bool:
    """Whether an argument is a number of Python or NumPy, but not True or False."""
    return is_number(leaf) and not isinstance(leaf, bool)
