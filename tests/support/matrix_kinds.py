"""The rows of the matrix: every kind of loop, ours and written by hand.

Each kind is a function of ``(cell, w, x, h)``: what one step computes, weights
``[3, 3]``, a sequence ``[T, B, 3]`` and a first state ``[B, 3]``. The hand-written ones
know nothing of jscan. A loop that stops early is, by hand, a scan whose dead steps do
nothing.
"""

import io
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jscan

Tree = Any
Cell = Callable[[Any, Any, Any], Any]  # w, x, h -> h
Loop = Callable[[Cell, Any, Any, Any], Tree]

LENGTH, BATCH, SIZE = 5, 2, 3
KEPT = 3  # steps of the truncated loop that are differentiated
SEED = 11


class Kind(NamedTuple):
    """One kind of loop: `ours` is under test, `plain` is what it means."""

    ours: Loop
    plain: Loop


def two(value: Any) -> tuple[Any, Any]:
    return value, value


def total_of(x: Any) -> Any:
    return 0.1 * jnp.sum(x)


# --------------------------------------------------------------- loops of known length


def plain_loop(cell: Cell, w: Any, x: Any, h: Any) -> Tree:
    return jax.lax.scan(lambda h, x: two(cell(w, x, h)), h, x)[1]


def ours_with(**options: Any) -> Loop:
    """A recurrence that `options` do not change."""

    def loop(cell: Cell, w: Any, x: Any, h: Any) -> Tree:
        return jscan.scan(lambda x, h, w: cell(w, x, h), x, h, w, **options).outputs

    return loop


def ours_with_bar(cell: Cell, w: Any, x: Any, h: Any) -> Tree:
    bar = dict(file=io.StringIO(), miniters=2)
    return ours_with(progress=bar)(cell, w, x, h)


def plain_with_callback(cell: Cell, w: Any, x: Any, h: Any) -> Tree:
    def step(state, x):
        h, count = state
        jax.debug.callback(lambda count: None, count)
        new = cell(w, x, h)
        return (new, count + 1), new

    return jax.lax.scan(step, (h, jnp.int32(0)), x)[1]


def ours_with_taps(cell: Cell, w: Any, x: Any, h: Any) -> Tree:
    first = dict(initial=jnp.stack([h, 2 * h]), taps=[-2, -1])

    def step(now, next, older, newer, w):
        return cell(w, now - next, newer + 0.5 * older)

    return jscan.scan(step, dict(input=x, taps=[0, 1]), first, w).outputs


def plain_with_taps(cell: Cell, w: Any, x: Any, h: Any) -> Tree:
    def step(past, both):
        older, newer = past
        new = cell(w, both[0] - both[1], newer + 0.5 * older)
        return (newer, new), new

    return jax.lax.scan(step, (h, 2 * h), (x[:-1], x[1:]))[1]


def plain_truncated(cell: Cell, w: Any, x: Any, h: Any) -> Tree:
    step = lambda w: lambda h, x: two(cell(w, x, h))
    still = jax.lax.stop_gradient
    cut = x.shape[0] - KEPT
    h, early = jax.lax.scan(step(still(w)), still(h), still(x[:cut]))
    _, late = jax.lax.scan(step(w), still(h), x[cut:])
    return jnp.concatenate([still(early), late])


def ours_with_updates(cell: Cell, w: Any, x: Any, h: Any) -> Tree:
    total = jscan.shared(jnp.float32(0), name="total")

    def step(x, h, w):
        new = cell(w, x + 0.1 * total.value, h)
        return new, {total: total.value + total_of(x)}

    rows, updates = jscan.scan(step, x, h, w)
    return rows, updates[total]


def plain_with_updates(cell: Cell, w: Any, x: Any, h: Any) -> Tree:
    def step(state, x):
        h, total = state
        new = cell(w, x + 0.1 * total, h)
        return (new, total + total_of(x)), new

    nothing = 0.0 * jnp.sum(h)  # of the type that the sum has inside shard_map
    (_, total), rows = jax.lax.scan(step, (h, nothing), x)
    return rows, total


def ours_with_draws(cell: Cell, w: Any, x: Any, h: Any) -> Tree:
    rng = jscan.RandomStreams(SEED)

    def step(x, h, w):
        noise = rng.uniform(size=(1, SIZE), dtype=x.dtype).value
        return cell(w, x, h * noise)

    return jscan.scan(step, x, h, w).outputs


def plain_with_draws(cell: Cell, w: Any, x: Any, h: Any) -> Tree:
    """Sample ``c`` of a stream is that of the seed's key with ``c`` folded in."""
    key = jax.random.key(SEED, impl="threefry2x32")

    def step(h, inputs):
        x, count = inputs
        sample = jax.random.fold_in(key, count)
        return two(cell(w, x, h * jax.random.uniform(sample, (1, SIZE), x.dtype)))

    return jax.lax.scan(step, h, (x, jnp.arange(x.shape[0], dtype=jnp.uint32)))[1]


def ours_nested(cell: Cell, w: Any, x: Any, h: Any) -> Tree:
    def step(x, h, w):
        rows = jscan.scan(
            lambda h, x, w: cell(w, x, h), None, h, [x, w], n_steps=2, name="inner"
        ).outputs
        return rows[-1]

    return jscan.scan(step, x, h, w, name="outer").outputs


def plain_nested(cell: Cell, w: Any, x: Any, h: Any) -> Tree:
    def step(h, x):
        inner = lambda h, _: two(cell(w, x, h))
        return two(jax.lax.scan(inner, h, None, length=2)[0])

    return jax.lax.scan(step, h, x)[1]


def optimized_scan(cell: Cell, w: Any, x: Any, h: Any) -> Tree:
    return jscan.optimize(lambda w, x, h: plain_loop(cell, w, x, h))(w, x, h)


# ---------------------------------------------------------------- loops that may stop


def is_last(h: Any) -> Any:
    return jnp.sum(h * h) > 1.6


def count_of(x: Any) -> Any:
    """A number of steps that is only known when the program runs: 4."""
    return 4 - (jnp.sum(x) > 1e6).astype(jnp.int32)


def whole(rows: Any) -> Any:
    """Where the number is known, the executed rows come; else the last is repeated."""
    if not isinstance(rows.shape[0], int):
        return rows  # of a symbolic length
    missing = LENGTH - len(rows)
    return jnp.concatenate([rows, jnp.repeat(rows[-1:], missing, axis=0)])


def ours_until(cell: Cell, w: Any, x: Any, h: Any) -> Tree:
    def step(x, h, w):
        new = cell(w, x, h)
        return new, jscan.until(is_last(new))

    result = jscan.scan(step, x, h, w)
    return whole(result.outputs), jnp.asarray(result.n_steps, jnp.int32)


def ours_traced_length(cell: Cell, w: Any, x: Any, h: Any) -> Tree:
    count = count_of(x)
    step = lambda x, h, w: cell(w, x, h)
    result = jscan.scan(step, x, h, w, n_steps=count)
    return whole(result.outputs), jnp.asarray(result.n_steps, jnp.int32)


def scan_while(cell: Cell, w: Any, x: Any, h: Any, stops: Callable[..., Any]) -> Tree:
    """A scan whose steps do nothing from the one on after which `stops` is true."""

    def step(state, x):
        h, count, going = state

        def run(h):
            new = cell(w, x, h)
            return new, count + 1, ~stops(new, count + 1)

        kept = lambda h: (h, count, going)
        state = jax.lax.cond(going, run, kept, h)
        return state, state[0]

    # Of the types that they have after a step, inside shard_map as well.
    like = jnp.sum(h) + jnp.sum(x)
    start = (h, jnp.zeros_like(like, jnp.int32), like < jnp.inf)
    (_, count, _), rows = jax.lax.scan(step, start, x)
    return rows, count


def plain_until(cell: Cell, w: Any, x: Any, h: Any) -> Tree:
    return scan_while(cell, w, x, h, lambda new, _: is_last(new))


def plain_traced_length(cell: Cell, w: Any, x: Any, h: Any) -> Tree:
    count = count_of(x)
    return scan_while(cell, w, x, h, lambda _, done: done >= count)


KINDS = {
    "plain": Kind(ours_with(), plain_loop),
    "taps": Kind(ours_with_taps, plain_with_taps),
    "chunked": Kind(ours_with(checkpoint=2), plain_loop),
    "truncated": Kind(ours_with(truncate_gradient=KEPT), plain_truncated),
    "until": Kind(ours_until, plain_until),
    "traced_length": Kind(ours_traced_length, plain_traced_length),
    "updates": Kind(ours_with_updates, plain_with_updates),
    "draws": Kind(ours_with_draws, plain_with_draws),
    "bars": Kind(ours_with_bar, plain_with_callback),
    "nested": Kind(ours_nested, plain_nested),
    "optimize": Kind(optimized_scan, plain_loop),
}
