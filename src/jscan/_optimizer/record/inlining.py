"""Open calls: put the equations of a program where it is called."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from jscan._jax.equations import reading, renamed
from jscan._jax.jaxprs import Atom, is_variable, open_jaxpr, sub_programs
from jscan._jax.marks import is_plain
from jscan._jax.names import primitives
from jscan._jax.operations import CHEAPER_THAN_A_ROW
from jscan._jax.places import placed
from jscan._jax.scans import is_scan

# What runs a program once, where it stands: it may be opened.
CALLS = frozenset(
    {
        *("jit", "closed_call", "eval_jaxpr", "custom_jvp_call", "custom_vjp_call"),
        primitives.remat_p.name,
    }
)


def inline_calls(
    equations: Sequence[Any], wanted: Callable[[Any], bool]
) -> tuple[list[Any], dict[Any, Atom]]:
    """Replace calls by their bodies where `wanted(equation)`, drop casts to self.

    Only `jit`, `remat`, functions with a rule and the like can be opened. Equations
    that read what they read before stay themselves.

    Returns the flat equations and a map from variables of the old list that are
    no longer defined to the operands that now hold their value.
    """
    names: dict[Any, Atom] = {}
    flat: list[Any] = []
    for equation in equations:
        equation = reading(equation, names)
        operands = equation.invars
        if _only_changes_weakness(equation) or _rounds_nothing(equation):
            names[equation.outvars[0]] = operands[0]
            continue
        if equation.primitive.name not in CALLS or not wanted(equation):
            # A loop is known by its identity: one in each place where it is called.
            flat.append(equation.replace() if is_scan(equation) else equation)
            continue
        body, _ = open_jaxpr(next(sub_programs(equation)))
        inner_names = dict(zip(body.invars, operands, strict=True))
        # The body's variables are shared between calls of one function: rename.
        copies = renamed(body.eqns, inner_names, {})
        here = [_within(equation.source_info, e) for e in copies]
        inlined, more = inline_calls(here, wanted)
        flat += inlined
        for old, new in zip(equation.outvars, body.outvars, strict=True):
            value = inner_names.get(new, new) if is_variable(new) else new
            names[old] = more.get(value, value) if is_variable(value) else value
    return flat, names


def _within(call: Any, equation: Any) -> Any:
    here = equation.source_info
    here = here.replace(name_stack=call.name_stack + here.name_stack)
    here = placed(here, call) if is_scan(equation) else here
    return equation.replace(source_info=here)


def _only_changes_weakness(equation: Any) -> bool:
    """A conversion between a type and its weak form: types are inferred again."""
    if equation.primitive is not primitives.convert_element_type_p:
        return False
    (operand,) = equation.invars
    return (
        is_variable(operand)
        and operand.aval.dtype == equation.params["new_dtype"]
        and equation.params.get("sharding") is None
    )


def _rounds_nothing(equation: Any) -> bool:
    """A rounding to the type's own digits, which JAX puts on what a `remat` stores.

    It keeps the compiler from computing in more digits, as it may for 16 bits: those
    stay.
    """
    if equation.primitive is not primitives.reduce_precision_p:
        return False
    (operand,) = equation.invars
    digits = jnp.finfo(operand.aval.dtype)
    kept = equation.params["exponent_bits"], equation.params["mantissa_bits"]
    is_own = kept == (digits.nexp, digits.nmant)
    return is_variable(operand) and digits.bits >= 32 and is_own


def stores_all_but_cheap(primitive: Any, *_: Any, **__: Any) -> bool:
    """A policy of `jax.checkpoint`, ours (`save_memory.residuals`).

    Comparisons are stored: a row of flags is small.
    """
    flags = ("eq", "ne", "ge", "gt", "le", "lt")
    return primitive.name not in CHEAPER_THAN_A_ROW or primitive.name in flags


def is_recomputation(equation: Any) -> bool:
    """A user's `remat` of which the derivative has been taken.

    In a loop's body it may be opened: the body runs the recomputation at every step
    in any case. Elsewhere it keeps XLA from reusing what was to be computed again.
    """
    return (
        equation.primitive is primitives.remat_p
        and bool(equation.params.get("differentiated"))
        and not is_our_recomputation(equation)
    )


def is_our_recomputation(equation: Any) -> bool:
    """A step that stores less for its derivative: nothing else depends on it."""
    policy = equation.params.get("policy")
    return equation.primitive is primitives.remat_p and policy is stores_all_but_cheap


def is_plain_call(equation: Any) -> bool:
    """A `jit` call that only groups equations: no constants, placement or options."""
    if equation.primitive is not primitives.jit_p or is_plain(equation):
        return False
    parameters = equation.params
    placed = (*parameters["in_shardings"], *parameters["out_shardings"])
    return (
        not open_jaxpr(parameters["jaxpr"])[1]
        and all(type(item).__name__ == "UnspecifiedValue" for item in placed)
        and not parameters.get("compiler_options_kvs")
    )


def is_first_run(equation: Any) -> bool:
    """What a derivative leaves of a `remat` where its values are first computed."""
    if equation.primitive.name not in ("closed_call", "eval_jaxpr"):
        return False
    return not open_jaxpr(equation.params["call_jaxpr"])[1]


def is_call_with_rule(equation: Any) -> bool:
    """A function with a derivative rule of its own: once that is of no use, a call."""
    if equation.primitive.name not in ("custom_jvp_call", "custom_vjp_call"):
        return False
    return not open_jaxpr(equation.params["call_jaxpr"])[1]
