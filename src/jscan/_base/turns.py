"""Whose turn it is to use shared variables.

Calls that use variables stand in one queue. A call goes on when none ahead of it is in
its way: if one of the two updates what the other uses, and both update something or one
overwrites old values in place. So a call that only reads does not wait for one that
stores new values beside the old ones (where Python has a global lock).

Nothing in here needs to be undone. An interrupt may end a call at any point; the place
in the queue that it leaves behind is known by the Python frame of that call, which is
over, and whoever stands behind it takes it away.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Hashable, Iterable
from threading import Lock, get_ident
from typing import Any, NamedTuple

_PATIENCE = 0.05  # seconds until a call ahead is asked whether it still runs

_queue: dict[Turn, None] = {}  # in the order of arrival

# Without a global lock, reads of several variables could see half of an update.
_FREE_THREADED = not getattr(sys, "_is_gil_enabled", lambda: True)()


class Claim(NamedTuple):
    """What a call wants to use.

    Attributes:
        reads: Variables that it reads or updates.
        updates: Those that it updates.
        in_place: Whether it overwrites the old values.
    """

    reads: frozenset[Hashable]
    updates: frozenset[Hashable] = frozenset()
    in_place: bool = False

    def is_in_the_way_of(self, later: Claim) -> bool:
        """Whether a later call has to wait for this one."""
        both_update = self.updates and later.updates
        if not (both_update or self.in_place or later.in_place or _FREE_THREADED):
            return False  # whoever only reads has the values of one moment
        return not (
            self.updates.isdisjoint(later.reads)
            and later.updates.isdisjoint(self.reads)
        )


NOTHING = Claim(frozenset())


def to_update(variables: Iterable[Hashable]) -> Claim:
    """The claim of one who reads variables and stores new values."""
    names = frozenset(variables)
    return Claim(names, names)


class Turn:
    """A place in the queue; entering waits until the calls in the way have ended.

    Use it as ``with Turn(claim):``, in a function that does not outlive the call. A
    call inside a call of the same thread does not wait for it. A call in a step or in
    another function claims `NOTHING`: the values there are those of the trace.
    """

    __slots__ = ("claim", "frame", "gone", "thread")

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.thread = get_ident()
        self.gone = Lock()  # held until the end, to wake those who wait
        self.frame: Any = None

    def __enter__(self) -> Turn:
        self.gone.acquire()
        self.frame = sys._getframe(1)
        _queue[self] = None
        if len(_queue) > 1:
            self._wait()
        return self

    def __exit__(self, *_: object) -> None:
        _queue.pop(self, None)
        self.frame = None  # it holds this object
        self.gone.release()

    def _wait(self) -> None:
        behind: list[Turn] = []  # this thread's own turns, and who waits for them
        for ahead in list(_queue):  # one call of C code: nobody comes in between
            if ahead is self:
                return
            if ahead.is_over():
                continue
            is_mine = ahead.thread == self.thread
            if is_mine or any(x.claim.is_in_the_way_of(ahead.claim) for x in behind):
                behind.append(ahead)
            elif ahead.claim.is_in_the_way_of(self.claim):
                while ahead in _queue and not ahead.is_over():
                    if ahead.gone.acquire(timeout=_PATIENCE):
                        ahead.gone.release()  # for the next one who waits

    def is_over(self) -> bool:
        """Whether the call is over; one that left its place here loses it."""
        over = is_over(self.frame)
        if over:
            _queue.pop(self, None)
        return over


def _forget_other_threads() -> None:
    """After a fork: only the thread that called it goes on."""
    for turn in list(_queue):
        if turn.thread != get_ident():
            _queue.pop(turn, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_other_threads)


def is_over(frame: Any) -> bool:
    """Whether a Python frame has ended, by a return or by an exception.

    In whatever thread it runs, a frame that does cannot be cleared; one that does not
    loses its variables, which nobody but a debugger could still want.
    """
    try:
        if frame is not None:
            frame.clear()
    except RuntimeError:
        over = False
    else:
        over = True
    return over
