"""Programs without progress bars: what is computed a second time is not shown again."""

from __future__ import annotations

import dataclasses
from typing import Any

from ._bounded import BoundedLoop
from ._derive import cached
from ._program import Program, open_jaxpr


@cached
def silent(program: Program) -> Program:
    """The program, its loops without their meters; itself if there are none."""
    changed = _silent(program.jaxpr)
    return program if changed is program.jaxpr else Program(changed)


def _silent(value: Any) -> Any:
    """A parameter of an equation without meters; the same object if it has none."""
    if isinstance(value, Program):
        return silent(value)
    if isinstance(value, BoundedLoop):
        body = silent(value.body)
        if value.meter is None and body is value.body:
            return value
        return dataclasses.replace(value, body=body, meter=None)
    if isinstance(value, tuple | list):
        items = [_silent(item) for item in value]
        same = all(a is b for a, b in zip(items, value, strict=True))
        # A named tuple of options holds no programs.
        return value if same else type(value)(items)
    if not hasattr(open_jaxpr(value), "eqns"):
        return value
    inner = open_jaxpr(value)
    equations = [_silent_equation(equation) for equation in inner.eqns]
    if all(a is b for a, b in zip(equations, inner.eqns, strict=True)):
        return value
    changed = inner.replace(eqns=equations)
    return changed if inner is value else value.replace(jaxpr=changed)


def _silent_equation(equation: Any) -> Any:
    params = {name: _silent(value) for name, value in equation.params.items()}
    if all(params[name] is value for name, value in equation.params.items()):
        return equation
    return equation.replace(params=params)
