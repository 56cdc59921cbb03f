"""What a random call does, in either world: its arguments, its step, the numbers."""

from __future__ import annotations

from typing import Any

import jax

from fuzz.loops import FLOATS, Kind, Loop, Noise, Output, Sequence

NUMBERS = {"bool": False, "float": 0.25, "bfloat": 0.25, "complex": 0.25}


def call(world: Any, loop: Loop, arrays: Any, outside: list[Any] | None = None) -> Any:
    """Make the call.

    Args:
        world: `Jscan` or `Meaning`.
        loop: The call.
        arrays: What it starts from.
        outside: For a loop in a step, what the step around sees; else None.
    """
    seen = outside or []
    numbered = list(enumerate(loop.sequences))
    sequences = [
        _sequence(world, s, arrays["sequences"][n], seen, loop.salt + n)
        for n, s in numbered
    ]
    infos = [
        _info(world, o, arrays["initials"][n], seen, loop.salt + n)
        for n, o in enumerate(loop.outputs)
    ]
    listed = [
        *arrays["constants"][: loop.listed],
        *(world.variables[v] for v in loop.arguments),
        *(
            world.as_argument(world.draws[loop, n])
            for n, noise in enumerate(loop.noises)
            if noise.place == "listed"
        ),
    ]
    arguments = {
        "sequences": sequences[0]
        if len(sequences) == 1 and loop.form % 3
        else sequences,
        "outputs_info": infos[0] if len(infos) == 1 and loop.form % 5 else infos,
        "non_sequences": listed[0] if len(listed) == 1 and loop.form % 2 else listed,
        "n_steps": loop.n_steps,
        "max_steps": loop.max_steps,
    }
    if loop.view == "map" or loop.infos_left_out:
        arguments["outputs_info"] = None
    if loop.n_steps == "traced":
        arguments["n_steps"] = arrays["count"]
        if outside is not None:
            count = mixed(world, Kind("int64"), seen, loop.salt) % (loop.bound + 1)
            arguments["n_steps"] = count.astype("int32")
    return world.run(loop, _step(world, loop, arrays), arguments)


def _bare(items: list[Any], may: bool) -> Any:
    return items[0] if len(items) == 1 and may else items


def _sequence(world: Any, item: Sequence, value: Any, seen: Any, salt: int) -> Any:
    if item.mixes:
        value = _moved(world, item.kind, value, seen, salt)
    if item.taps is None and not item.kind.is_tree:
        return value
    taps = {} if item.taps is None else {"taps": list(item.taps)}
    return {"input": value, **taps}


def _info(world: Any, output: Output, value: Any, seen: Any, salt: int) -> Any:
    if not output.taps:
        return None
    if output.start == "number":
        kind = output.kind.dtype.rstrip("0123456789")
        value = NUMBERS.get(kind, 1)
    if output.start == "variable":
        value = world.shared(value)
    if output.mixes:
        value = _moved(world, output.kind, value, seen, salt)
    if output.taps == [-1] and not output.kind.is_tree and not output.in_dict:
        return value
    taps = {"taps": list(output.taps)}
    if output.taps == [-1] and output.extra == 0:
        taps = {}
    return {"initial": value, **taps}


def _moved(world: Any, kind: Kind, value: Any, seen: list[Any], salt: int) -> Any:
    """An array of an inner loop, which depends on the step around."""
    if not kind.is_smooth:
        return value
    moves = mixed(world, kind, seen, salt)
    spread = lambda x, by: x + world.xp.broadcast_to(by, x.shape)
    return jax.tree.map(spread, value, moves)


def make_draws(world: Any, loop: Loop | None, arrays: Any) -> None:
    """Make the draws that belong to no step, for a loop and those in it."""
    while loop is not None:
        for number, noise in enumerate(loop.noises):
            if noise.place != "inside":
                world.draws[loop, number] = _made(world, noise, arrays["scale"])
        loop, arrays = loop.inner, arrays["inner"]


def _made(world: Any, noise: Noise, scale: Any) -> Any:
    method = getattr(world.streams[noise.stream], noise.method)
    options = dict(noise.options)
    if noise.method == "uniform":
        options = {"low": -0.5, "high": 0.5}
        if noise.scaled:
            options = {"low": scale - 2.0, "high": scale}
    elif noise.method == "normal":
        options = {"avg": 0.0, "std": scale if noise.scaled else 1.0}
    return method(size=noise.size, dtype=noise.dtype, **options)


def _step(world: Any, loop: Loop, arrays: Any) -> Any:
    def step(*arguments: Any) -> Any:
        values = [getattr(argument, "value", argument) for argument in arguments]
        values += arrays["constants"][loop.listed :]
        values += [world.variables[v].value for v in loop.reads]
        for number, noise in enumerate(loop.noises):
            if noise.place == "outside":
                values.append(world.draws[loop, number].value)
            if noise.place == "inside":
                scale = mixed(world, Kind("float64"), leaves_of(world, values), number)
                values.append(_made(world, noise, scale).value)
        seen = leaves_of(world, values)
        more = None
        if loop.inner is not None:
            inner = arrays["inner"]
            result = call(world, loop.inner, inner, seen)
            seen = [*seen, *_summary(world, loop.inner, result)]
            more = result.updates if loop.hands_on else None
        outputs = [
            mixed(world, output.kind, seen, loop.salt + n)
            for n, output in enumerate(loop.outputs)
        ]
        own = {
            world.variables[v]: mixed(world, world.kinds[v], seen, loop.salt + 3 + v)
            for v in loop.updates
        }
        updates = world.updates(own, more, loop.form // 4 % 3)
        return _packed(world, loop, outputs, updates, _condition(world, loop, seen))

    return step


def _summary(world: Any, inner: Loop, result: Any) -> list[Any]:
    """What a step reads of the results of a loop in it: the same for padded rows."""
    leaves = []
    for leaf in jax.tree.leaves(world.rows_of(inner, result)):
        name = str(leaf.dtype)
        kind = "complex128" if "complex" in name else "float64"
        wide = leaf.astype(kind if name in FLOATS else "int64")
        leaves.append(wide if inner.gives_last else wide.sum(axis=0))
    return [*leaves, world.xp.asarray(result.n_steps).astype("int64")]


def _packed(world: Any, loop: Loop, outputs: Any, updates: Any, stop: Any) -> Any:
    """What the step returns, in one of the forms that there are."""
    form = loop.form
    parts: list[Any] = [updates] if len(updates) else []
    if outputs:
        container = tuple if form % 4 == 1 else list
        one = len(outputs) == 1 and form % 2 == 0
        whole = outputs[0] if one else container(outputs)
        if not parts and stop is not None and len(outputs) > 1 and form % 3 == 0:
            parts = list(outputs)
        elif form < 12:
            parts = [whole, *parts]
        else:
            parts = [*parts, whole]
    if stop is not None:
        parts.append(world.until(stop))
    return parts[0] if len(parts) == 1 else tuple(parts)


def _condition(world: Any, loop: Loop, seen: list[Any]) -> Any:
    if loop.stop is None:
        return None
    if loop.stop in ("always", "never"):
        truth = loop.stop == "always"
        return [truth, world.xp.asarray(truth), int(truth)][loop.salt % 3]
    if loop.stop == "count":
        return mixed(world, Kind("int64"), seen, loop.salt) % 4 == 3
    return world.holds(mixed(world, Kind("float64"), seen, loop.salt + 1))


# ------------------------------------------------------------------------------ numbers


def leaves_of(world: Any, values: Any) -> list[Any]:
    """All arrays in the values; the reference asks for types with Python numbers."""
    leaves = jax.tree.leaves(values)
    return [x if hasattr(x, "dtype") else world.xp.asarray(x) for x in leaves]


def mixed(world: Any, kind: Kind, seen: list[Any], salt: int) -> Any:
    """A bounded mixture, in which each number has its own weight.

    Of many numbers, every second one: what is compiled grows with all of them.
    """
    if len(seen) > 4:
        seen = seen[salt % 2 :: 2]
    if kind.is_tree:
        one = Kind(kind.dtype, kind.shape)
        names = enumerate(("double", "half"))
        return {name: mixed(world, one, seen, salt + n) for n, name in names}
    if kind.is_smooth:
        return _smooth(world, kind, seen, salt)
    return _whole(world, kind, seen, salt)


def _whole(world: Any, kind: Kind, seen: list[Any], salt: int) -> Any:
    """Integers come of integers alone."""
    total = world.xp.zeros(kind.shape, "int64")
    for n, leaf in enumerate(seen):
        if str(leaf.dtype) in FLOATS:
            continue
        leaf = leaf.astype("int64")
        if leaf.shape != kind.shape:
            leaf = leaf.sum() % 5
        total = total + leaf * (n + 1)
    total = (total + salt) % 7
    return total % 2 == 1 if kind.dtype == "bool" else total.astype(kind.dtype)


def _smooth(world: Any, kind: Kind, seen: list[Any], salt: int) -> Any:
    xp, dtype = world.xp, world.dtype(kind.dtype)
    total = xp.zeros(kind.shape, dtype)
    for n, leaf in enumerate(seen):
        name = str(leaf.dtype)
        if name not in FLOATS:
            leaf = leaf.astype("int64") % 5
        elif name.startswith("complex") and not dtype.startswith("complex"):
            leaf = leaf.real + leaf.imag
        leaf = _fitting(xp, leaf.astype(dtype), kind.shape)
        weight = round(0.9 * _wave(n, salt), 2)
        total = total + leaf * xp.asarray(weight, dtype)
    square = total.real * total.real
    if dtype.startswith("complex"):
        square = square + total.imag * total.imag
    return total / (1 + square).astype(dtype)


def _wave(n: int, salt: int) -> float:
    """Between -1 and 1, and not 0."""
    return ((n * 7 + salt * 3) % 11 - 5.5) / 5.5


def _fitting(xp: Any, leaf: Any, shape: tuple[int, ...]) -> Any:
    if leaf.shape == shape:
        return leaf
    if leaf.ndim < len(shape):
        return leaf.sum() if leaf.ndim else leaf
    return leaf.mean(axis=0) if shape and leaf.shape[1:] == shape else leaf.mean()
