"""How far work that leaves a loop should go on, for the loop to read the fewest rows.

What is done for all steps at once is stored, and read again by the steps. Of two terms
of a sum that are taken out, two rows a step are stored; of the sum that they are part
of, one. Which equations leave is a cut through the program of a step: those on one side
of it leave, and each row that crosses it costs its bytes. The least cut is found as the
most that can flow through it.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Hashable, Iterator, Sequence
from typing import Any

from jscan._jax.jaxprs import is_variable, number_of_bytes
from jscan._optimizer.analysis.dependence import Dependence, Level

_LEAVES, _STAYS = "leaves", "stays"
_ENDLESS = 1 << 62


def with_fewest_rows(
    dependence: Dependence, chosen: Sequence[Any], allowed: Collection[Any]
) -> list[Any]:
    """The chosen equations and, of those allowed, the fewest that save most rows.

    Whatever is chosen has all that it needs with it; so has the result, which is in
    order. A row that is new counts twice, because it is written as well as read.
    """
    free = _within_reach(dependence, chosen, allowed)
    if not free:
        return list(chosen)
    leaves = _least_cut(_network(dependence, chosen, free))
    gone = {*map(id, chosen), *(id(e) for e in free if id(e) in leaves)}
    return [e for e in dependence.loop.equations if id(e) in gone]


def _within_reach(
    dependence: Dependence, chosen: Sequence[Any], allowed: Collection[Any]
) -> list[Any]:
    """The allowed equations that read the chosen ones, and those that they need."""
    loop, out, found = dependence.loop, set(map(id, chosen)), []
    may = {id(e) for e in allowed} - out
    for equation in loop.equations:
        made = map(dependence.producer, equation.invars)
        inside = all(
            e is None or id(e) in out or dependence.level_of(e) is Level.CONSTANT
            for e in made
        )
        if id(equation) in may and inside:
            found.append(equation)
            out.add(id(equation))
    behind = dependence.downstream([*chosen], [*chosen, *found])
    return [e for e in dependence.upstream(behind, found) if id(e) in may]


def _network(
    dependence: Dependence, chosen: Sequence[Any], free: Sequence[Any]
) -> dict[Hashable, dict[Hashable, int]]:
    """What flows from what leaves to what stays: for each pair of nodes, how much."""
    loop = dependence.loop
    names = {id(e): _LEAVES for e in chosen} | {id(e): id(e) for e in free}
    inside = set(map(id, loop.equations))
    carried = {carry.update for carry in loop.carries if is_variable(carry.update)}
    elsewhere = dependence.read_elsewhere() - carried
    flow: dict[Hashable, dict[Hashable, int]] = defaultdict(dict)
    for row, cost in _rows(dependence, chosen, free):
        maker = dependence.producer(row)
        start = _LEAVES if maker is None else names[id(maker)]
        users = [e for e in dependence.users.get(row, []) if id(e) in inside]
        # A row that is wanted of the loop anyway is written on either side.
        written = 0 if maker is None or row in elsewhere else cost
        flow[start][row] = cost + written
        for user in users:
            reader = names.get(id(user), _STAYS)
            flow[row][reader] = _ENDLESS
            if reader != _STAYS and start != _LEAVES:
                flow[reader][start] = _ENDLESS  # what leaves takes along what it reads
        if row in carried:
            flow[row][_STAYS] = _ENDLESS
    return flow


def _rows(
    dependence: Dependence, chosen: Sequence[Any], free: Sequence[Any]
) -> Iterator[tuple[Any, int]]:
    """The rows that may cross, and the bytes of each."""
    loop = dependence.loop
    made = (v for e in (*chosen, *free) for v in e.outvars)
    read = (v for e in free for v in e.invars if is_variable(v) and v in loop.sequences)
    for row in dict.fromkeys((*made, *read)):
        if dependence.level(row) is Level.SEQUENCE:
            yield row, 0 if row in loop.counters else number_of_bytes(row)


def _least_cut(flow: dict[Hashable, dict[Hashable, int]]) -> set[Hashable]:
    """The nodes on the side of what leaves, as few as there can be."""
    while True:
        came_from = _reached(flow)
        if _STAYS not in came_from:
            return set(came_from)
        path: list[tuple[Hashable, Hashable]] = []
        node: Hashable = _STAYS
        while node != _LEAVES:
            path.append((came_from[node], node))
            node = came_from[node]
        most = min(flow[a][b] for a, b in path)
        for a, b in path:
            flow[a][b] -= most
            flow[b][a] = flow[b].get(a, 0) + most


def _reached(flow: dict[Hashable, dict[Hashable, int]]) -> dict[Hashable, Hashable]:
    """The nodes to which more can flow, and whence."""
    came_from: dict[Hashable, Hashable] = {_LEAVES: None}
    pending: deque[Hashable] = deque([_LEAVES])
    while pending and _STAYS not in came_from:
        node = pending.popleft()
        for other, left in flow.get(node, {}).items():
            if left and other not in came_from:
                came_from[other] = node
                pending.append(other)
    return came_from
