"""Trees of additions in a step, seen as one sum of many terms."""

from typing import Any

import jax

from jscan._jax.jaxprs import Atom
from jscan._optimizer.analysis.dependence import Dependence

ADDITIONS = frozenset({"add", "add_any"})


class Sums:
    """The additions of one step: which are parts of others, and what each adds up."""

    def __init__(self, dependence: Dependence) -> None:
        """Find them: one walk over the equations."""
        self.dependence = dependence
        self.producer = dependence.producer
        self._outside = dependence.read_outside()
        additions = [
            e for e in dependence.loop.equations if e.primitive.name in ADDITIONS
        ]
        self._inner = {id(e) for e in additions if self._is_part(e)}
        self.whole = [e for e in additions if id(e) not in self._inner]

    def terms(self, addition: Any) -> list[Atom]:
        """What an addition adds up, from left to right, through its parts."""
        found: list[Atom] = []
        pending = [*reversed(addition.invars)]
        while pending:  # a step may add up more terms than Python nests calls
            atom = pending.pop()
            producer = self.producer(atom)
            if producer is not None and id(producer) in self._inner:
                pending += reversed(producer.invars)
            else:
                found.append(atom)
        return found

    def is_read_once(self, atom: Atom) -> bool:
        """Whether one equation of the step reads an operand, and nothing else does."""
        users = self.dependence.users.get(atom, [])
        return len(users) == 1 and atom not in self._outside

    def _is_part(self, addition: Any) -> bool:
        """An addition that only another one of its shape reads, once."""
        (output,) = addition.outvars
        if not self.is_read_once(output):
            return False
        (user,) = self.dependence.users[output]
        return (
            user.primitive.name in ADDITIONS
            and user.invars.count(output) == 1
            and user.outvars[0].aval.shape == output.aval.shape
        )


def add_up(first: jax.Array, *others: jax.Array) -> jax.Array:
    """The sum of arrays of one shape, from left to right."""
    for term in others:
        first = first + term
    return first
