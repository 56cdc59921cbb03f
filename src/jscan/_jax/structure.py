"""What programs and equations compute, as keys: those of equal keys do the same."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import jax
import numpy as np

from jscan._jax.jaxprs import Literal, is_jaxpr, open_jaxpr
from jscan._jax.marks import is_marked
from jscan._jax.types import is_traced

# These carry Python functions that only matter for differentiation.
_CUSTOM_RULES = ("custom_jvp_call", "custom_vjp_call")
_ORDERS = 2  # of derivatives whose rules are compared, beyond the first
_SMALL = 4096  # bytes of an array parameter compared by value; larger: by identity


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
            if not _compares(value) or name == "symbolic_zeros"
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
            writer = KeyWriter()
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


class KeyWriter:
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
        self._written: dict[int, tuple[Any, ...]] = {}
        self._contexts: dict[int, tuple[Any, ...]] = {}

    def jaxpr_key(self, jaxpr: Any) -> tuple[Any, ...]:
        """The key of a program, open or closed."""
        known = self._written.get(id(jaxpr))
        if known is None:  # else it is called again: as many rules and names more
            rules, names = len(self.rules), len(self.names)
            key = self._jaxpr_key(jaxpr)
            known = jaxpr, key, self.rules[rules:], self.names[names:]
            self._written[id(jaxpr)] = known
        else:
            self.rules += known[2]
            self.names += known[3]
        return known[1]

    def _jaxpr_key(self, jaxpr: Any) -> tuple[Any, ...]:
        body, constants = open_jaxpr(jaxpr)
        numbers: dict[Any, int] = {}

        def number(variable: Any) -> int:
            return numbers.setdefault(variable, len(numbers))

        def operand(atom: Any) -> Any:
            if isinstance(atom, Literal):
                return (self.value_key(atom.val), atom.aval)
            return number(atom)

        inputs = tuple((number(v), v.aval) for v in (*body.constvars, *body.invars))
        equations = tuple(
            (self.equation_key(equation, operand), *map(number, equation.outvars))
            for equation in body.eqns
        )
        self.names += [
            str(equation.source_info.name_stack)
            for equation in body.eqns
            if any(map(is_jaxpr, equation.params.values()))
        ]
        outputs = tuple(map(operand, body.outvars))
        return (tuple(map(self.value_key, constants)), inputs, equations, outputs)

    def equation_key(
        self, equation: Any, operand: Callable[[Any], Hashable]
    ) -> tuple[Any, ...]:
        """The key of an equation; `operand` gives those of its operands."""
        return (
            equation.primitive,
            tuple(map(operand, equation.invars)),
            self._params_key(equation.primitive.name, equation.params),
            tuple(v.aval for v in equation.outvars),
            self._context_key(equation.ctx),
        )

    def _context_key(self, context: Any) -> tuple[str, ...]:
        if id(context) not in self._contexts:
            fields = ("compute_type", "threefry_partitionable", "xla_metadata")
            key = tuple(repr(getattr(context, field, None)) for field in fields)
            self._contexts[id(context)] = context, key
        return self._contexts[id(context)][1]

    def _params_key(self, primitive: str, params: dict[str, Any]) -> tuple[Any, ...]:
        entries = []
        has_rule = primitive in _CUSTOM_RULES
        if has_rule:
            self.rules.append(_Rule(params))
        for key, value in params.items():
            if has_rule and not _compares(value):
                continue
            # The name of a region says what is to be done with it.
            if key != "name" or not isinstance(value, str) or is_marked(value):
                entries.append((key, self.value_key(value)))
        return tuple(entries)

    def value_key(self, value: Any) -> Any:
        """A hashable stand-in; what cannot be compared safely stands for itself."""
        if is_jaxpr(value):
            return self.jaxpr_key(value)
        if isinstance(value, tuple | list):
            return (type(value), tuple(map(self.value_key, value)))
        if isinstance(value, dict):
            items = ((key, self.value_key(v)) for key, v in value.items())
            return (dict, tuple(items))
        if isinstance(value, float | complex):  # -0.0 == 0.0 and nan != nan
            return (type(value), repr(value))
        if hasattr(value, "__array__") and not isinstance(value, type):
            return _array_key(value)
        try:
            hash(value)
        except TypeError:
            return _Identity(value)
        return (type(value), value)


def equation_key(equation: Any, operand: Callable[[Any], Hashable]) -> Hashable:
    """Equations of equal keys compute the same; `operand` gives keys of operands."""
    return KeyWriter().equation_key(equation, operand)


def value_key(value: Any) -> Hashable:
    """Equal for one array, and for equal small ones; `value` may be an operand."""
    return KeyWriter().value_key(value.val if isinstance(value, Literal) else value)


def _array_key(value: Any) -> Any:
    """By value if that is small, known, here, and made of numbers (not random keys)."""
    if (
        is_traced(value)
        or getattr(value, "nbytes", _SMALL + 1) > _SMALL
        or jax.numpy.issubdtype(value.dtype, jax.dtypes.extended)
        or not getattr(value, "is_fully_addressable", True)
    ):
        return _Identity(value)
    array = np.asarray(value)
    return ("array", str(value.dtype), array.shape, array.tobytes())


def _compares(value: Any) -> bool:
    """Whether a parameter is compared by what it is; others are derivative rules."""
    return is_jaxpr(value) or isinstance(value, bool | int | str)
