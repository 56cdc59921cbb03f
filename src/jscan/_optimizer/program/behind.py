"""What is done to a program behind the walk, when its loops are as they will run."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import jax

from jscan._jax.equations import with_body, without_dead_code
from jscan._jax.jaxprs import holds_wide, open_jaxpr
from jscan._jax.scans import is_scan
from jscan._optimizer.analysis.index import Flat, flattened
from jscan._optimizer.pipeline import run_rules
from jscan._optimizer.program.session import Session
from jscan._optimizer.record.rule import Rule
from jscan._optimizer.rules import FINAL_RULES, RECOMPUTED_ROWS


def settled(session: Session, jaxpr: Any) -> Any:
    """The program with rows made where they are read, of loops as they are now.

    Loops that were merged may share rows that neither of them had alone.
    """
    flat = flattened(open_jaxpr(jaxpr)[0])
    if sum(map(is_scan, flat.equations)) < 2:
        return jaxpr
    return _by((RECOMPUTED_ROWS,), flat, session, jaxpr)


def finished(session: Session, jaxpr: Any) -> Any:
    """A whole program, with what depends on all its loops as they are now."""
    opened, _ = open_jaxpr(jaxpr)
    # A program may compute with 64 bits where the setting of now says 32.
    with jax.enable_x64(True) if holds_wide(opened) else nullcontext():
        return _by(FINAL_RULES, flattened(opened), session, jaxpr)


def _by(rules: Sequence[Rule], flat: Flat, session: Session, jaxpr: Any) -> Any:
    """The program by some rules, whose notes go to the report."""
    again = run_rules(rules, flat, session.context)
    if again.equations == flat.equations:
        return jaxpr
    for equation in filter(is_scan, again.equations):
        for note in again.notes_of(equation):
            session.noted(equation, note)
    return without_dead_code(with_body(jaxpr, again.equations, again.outputs))
