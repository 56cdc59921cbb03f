"""A `Program`: a traced computation without hidden inputs, compared by its structure.

Two programs traced from two different lambdas are equal when they compute the same
thing in the same way. This is what lets an eager call with a fresh lambda find the
executable of the last one. Everything derived from a program (its derivative, its
batched form, its executable) is looked up by it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.core import eval_jaxpr
from jax.extend.core import (
    ClosedJaxpr,  # pyright: ignore[reportPrivateImportUsage]
    Jaxpr,
    Literal,
)

from ._types import Leaf, is_traced
from .optimize import is_marked

# These carry Python functions that only matter for differentiation.
_CUSTOM_RULES = ("custom_jvp_call", "custom_vjp_call")
CACHE_SIZE = 512  # entries of every cache of traced computations
_ORDERS = 2  # of derivatives whose rules are compared, beyond the first
_SMALL = 4096  # bytes of an array parameter compared by value; larger: by identity


class Program:
    """A closed jaxpr without constants, hashable and comparable by structure.

    Attributes:
        jaxpr: The computation; every input is explicit.
        run_key: Equal for programs that compute the same values. Equal programs
            also have the same derivative rules, and the same names for their loops.
    """

    __slots__ = ("__weakref__", "_hash", "_names", "_rules", "jaxpr", "run_key")

    def __init__(self, jaxpr: Any) -> None:
        if jaxpr.consts:
            raise AssertionError("a Program has no hidden inputs")
        writer = _KeyWriter()
        self.jaxpr = jaxpr
        self.run_key = writer.jaxpr_key(jaxpr)
        self._rules = tuple(writer.rules)
        self._names = tuple(writer.names)
        self._hash = hash((self.run_key, self._names))

    @classmethod
    def trace(cls, fun: Callable[..., Any], *inputs: Any) -> Program:
        """Trace `fun`, which must use nothing but its arguments."""
        return cls(jax.make_jaxpr(fun)(*inputs))

    @classmethod
    def close(cls, jaxpr: Any) -> tuple[Program, tuple[Leaf, ...]]:
        """Turn the constants of a closed jaxpr into leading inputs.

        Returns:
            The program, and the values of its new leading inputs.
        """
        captured = tuple(jaxpr.consts)
        if not captured:
            return cls(jaxpr), ()
        captured = tuple(
            leaf if isinstance(leaf, jax.Array | jax.Ref) else jax.numpy.asarray(leaf)
            for leaf in captured
        )
        body = open_jaxpr(jaxpr)
        names = ("",) * len(body.constvars) + tuple(body.debug_info.arg_names or ())
        explicit = body.replace(
            constvars=(),
            invars=[*body.constvars, *body.invars],
            debug_info=body.debug_info._replace(arg_names=names),
        )
        return cls(ClosedJaxpr(explicit, ())), captured

    def __call__(self, *inputs: Leaf) -> list[Leaf]:
        """Run the computation on flat inputs; under a trace, in-line."""
        return run_jaxpr(self.jaxpr, *inputs)

    @property
    def in_avals(self) -> list[Any]:
        """Abstract values of the inputs."""
        return list(self.jaxpr.in_avals)

    @property
    def out_avals(self) -> list[Any]:
        """Abstract values of the outputs."""
        return list(self.jaxpr.out_avals)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Program)
            and self._hash == other._hash
            and self.run_key == other.run_key
            and self._names == other._names
            and self._rules == other._rules
        )

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"Program({len(open_jaxpr(self.jaxpr).eqns)} equations)"


def run_jaxpr(closed_jaxpr: Any, *inputs: Leaf) -> list[Leaf]:
    """The results of a closed jaxpr; under a trace, in-line."""
    results = eval_jaxpr(open_jaxpr(closed_jaxpr), closed_jaxpr.consts, *inputs)
    # A constant truth value comes as a Python bool, of which ``~`` is an integer.
    return [jax.numpy.asarray(x) if isinstance(x, bool) else x for x in results]


def open_jaxpr(jaxpr: Any) -> Any:
    """The plain jaxpr inside a closed one (on new JAX versions they are one type)."""
    return jaxpr.jaxpr if hasattr(jaxpr, "jaxpr") else jaxpr


class _Rule:
    """The derivative rule of a call, as far as it is known to be the same.

    Each trace of a `jax.custom_jvp` makes a new object of its rule. Two of them are one
    if they compute the same; what has a rule of another kind is compared by identity.
    """

    __slots__ = ("_inputs", "_key", "params")

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = {
            name: value
            for name, value in params.items()
            if not _is_plain(value) or name == "symbolic_zeros"
        }
        self._inputs = len(params["call_jaxpr"].in_avals) - params["num_consts"]
        self._key: Any = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Rule) and self._same(other, _ORDERS)

    def _same(self, other: _Rule, orders: int) -> bool:
        mine, others = list(self.params.values()), list(other.params.values())
        if all(a is b for a, b in zip(mine, others, strict=True)):
            return True
        one, two = self._written(), other._written()
        if one is None or two is None or one[0] != two[0]:
            return False
        # A rule mostly calls its own function, whose rule is the next derivative's.
        inner = zip(one[1], two[1], strict=True)
        return not orders or all(a._same(b, orders - 1) for a, b in inner)

    def _written(self) -> tuple[Any, list[_Rule]] | None:
        """What the rule computes; `None` where it could depend on more than types."""
        rule = self.params.get("jvp_jaxpr_fun")
        if rule is None or self.params.get("symbolic_zeros"):
            return None
        if self._key is None:
            try:
                jaxpr, constants, zeros = rule.call_wrapped(*[False] * self._inputs)
            except Exception:  # a rule may refuse to be used
                return None
            writer = _KeyWriter()
            body = writer.jaxpr_key(jaxpr), tuple(map(writer.value_key, constants))
            self._key = (body, tuple(zeros)), writer.rules
        return self._key


class _Identity:
    """Compares by identity and keeps its object alive."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


class _KeyWriter:
    """Writes a jaxpr as nested tuples in which variables are numbers.

    Source positions and names of inner functions are left out: they do not change
    what is computed.

    Attributes:
        rules: The derivative rules met.
        names: The scopes of the loops (and calls) met, by which reports know them.
    """

    def __init__(self) -> None:
        self.rules: list[_Rule] = []
        self.names: list[str] = []

    def jaxpr_key(self, jaxpr: Any) -> tuple[Any, ...]:
        constants = tuple(self.value_key(c) for c in getattr(jaxpr, "consts", ()))
        body = open_jaxpr(jaxpr)
        numbers: dict[Any, int] = {}

        def number(variable: Any) -> int:
            return numbers.setdefault(variable, len(numbers))

        def atom(atom: Any) -> Any:
            if isinstance(atom, Literal):
                return (self.value_key(atom.val), atom.aval)
            return number(atom)

        inputs = tuple((number(v), v.aval) for v in (*body.constvars, *body.invars))
        equations = tuple(
            (
                equation.primitive,
                tuple(map(atom, equation.invars)),
                self.params_key(equation.primitive.name, equation.params),
                tuple((number(v), v.aval) for v in equation.outvars),
                _context_key(equation),
            )
            for equation in body.eqns
        )
        self.names += [
            str(equation.source_info.name_stack)
            for equation in body.eqns
            if any(map(_is_program, equation.params.values()))
        ]
        return (constants, inputs, equations, tuple(map(atom, body.outvars)))

    def params_key(self, primitive: str, params: dict[str, Any]) -> tuple[Any, ...]:
        entries = []
        has_rule = primitive in _CUSTOM_RULES
        if has_rule:
            self.rules.append(_Rule(params))
        for key, value in params.items():
            if has_rule and not _is_plain(value):
                continue
            # The name of a region says what is to be done with it.
            if key != "name" or not isinstance(value, str) or is_marked(value):
                entries.append((key, self.value_key(value)))
        return tuple(entries)

    def value_key(self, value: Any) -> Any:
        """A hashable stand-in; what cannot be compared safely stands for itself."""
        if isinstance(value, (Jaxpr, ClosedJaxpr)):
            return self.jaxpr_key(value)
        if isinstance(value, tuple | list):
            return (type(value), tuple(map(self.value_key, value)))
        if isinstance(value, dict):
            items = ((key, self.value_key(v)) for key, v in value.items())
            return (dict, tuple(items))
        if isinstance(value, float | complex):  # -0.0 == 0.0 and nan != nan
            return (type(value), repr(value))
        if is_traced(value):
            return _Identity(value)
        if hasattr(value, "__array__") and not isinstance(value, type):
            return self._array_key(value)
        try:
            hash(value)
        except TypeError:
            return _Identity(value)
        return (type(value), value)

    def _array_key(self, value: Any) -> Any:
        if getattr(value, "nbytes", _SMALL + 1) > _SMALL or not _is_numeric(value):
            return _Identity(value)
        array = np.asarray(value)
        return (type(value), str(value.dtype), array.shape, array.tobytes())


def _is_numeric(value: Any) -> bool:
    """False for random keys, whose bits are not to be read as numbers."""
    return not jax.numpy.issubdtype(value.dtype, jax.dtypes.extended)


def _is_program(value: Any) -> bool:
    return isinstance(value, (Jaxpr, ClosedJaxpr, Program))


def _is_plain(value: Any) -> bool:
    return isinstance(value, (Jaxpr, ClosedJaxpr, bool, int, str))


def _context_key(equation: Any) -> tuple[Any, ...]:
    context = equation.ctx
    fields = ("compute_type", "threefry_partitionable", "xla_metadata")
    return tuple(repr(getattr(context, field, None)) for field in fields)
