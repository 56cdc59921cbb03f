"""Progress bars: one bar a loop, moved by one host callback a stretch of steps.

A loop with a bar has a `Meter`: between reports it is as tight as without one, and
derivatives and `vmap` keep or drop the meter where they make new loops. Reports may
come late and in any order; a bar only moves forwards.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jscan._base.types import Leaf, PyTree
from jscan._loops.bars import Bar, move_bar
from jscan._loops.lanes import last_lane


@dataclass(frozen=True)
class Meter:
    """What a loop tells its bar."""

    bar: Bar
    start: int = 0  # steps of the bar before the loop's first one
    every: int = 1  # steps of the loop from one report to the next
    closes: bool = True  # the bar ends with the loop
    # Which carried value counts the bar's steps, if the loop's steps are none.
    counter: int | None = None

    def report(
        self, count: Leaf, carry: Sequence[Leaf] = (), *, last: bool = False
    ) -> None:
        """Tell the bar, when the program gets here, how many steps the loop has done.

        `jax.debug.callback` is the one effect that `jax.checkpoint` takes, and what
        it runs a second time does not call back again.
        """
        if self.counter is not None:
            count = last_lane(carry[self.counter])
        move = functools.partial(_move, self.bar, last=last)
        jax.debug.callback(move, jnp.asarray(self.start + count, jnp.int32))


def _move(bar: Bar, done: Leaf, *, last: bool) -> None:
    move_bar(bar, int(done), last=last)


def after(count: Leaf, results: PyTree) -> Leaf:
    """`count`, but known no sooner than `results`.

    The compiler may know how many steps a loop will have done, and would report it
    before the loop has run. It does not know that the number added here is zero.
    """
    known = [leaf for leaf in jax.tree.leaves(results) if leaf.size]
    known = [x for x in known if not jnp.issubdtype(x.dtype, jax.dtypes.extended)]
    if not known:
        return count
    number = jnp.real(known[0])
    is_whole = not any(jax.typeof(number).sharding.spec)  # on an Explicit mesh
    number = number.reshape(-1)[0] if is_whole else jnp.max(number)
    number = number.astype(jnp.int32)
    return count + last_lane((number & 1) >> 1)
