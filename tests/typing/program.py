# pyright: strict
"""A program that calls every public name, and says which types it gets.

pyright (strict) and mypy (strict) must find nothing in it; `test_types.py` runs them,
and runs the program.
"""

from typing import Any, assert_type

import jax
import jax.numpy as jnp
import numpy as np

import jscan


def loops() -> None:
    xs = np.arange(4.0)

    def add(x: jax.Array, total: jax.Array) -> jax.Array:
        return total + x

    result = jscan.scan(add, xs, 0.0, mode="FAST_COMPILE", checkpoint="sqrt", name="a")
    assert_type(result, jscan.ScanResult)
    outputs, updates = result
    assert_type(outputs, Any)
    assert_type(updates, jscan.Updates)
    assert_type(result[1], jscan.Updates)
    assert_type(result.mask, jax.Array)
    result.filled(0)
    _, updates = jscan.map(jnp.tanh, xs)
    assert_type(updates, jscan.Updates)
    jscan.reduce(add, xs, 0.0)
    jscan.foldl(add, xs, 0.0)
    jscan.foldr(add, xs, 0.0)
    jscan.scan_checkpoints(add, xs, 0.0, save_every_N=2)

    def double(h: jax.Array) -> tuple[jax.Array, jscan.until]:
        return 2 * h, jscan.until(h > 4)

    jscan.scan(double, outputs_info=1.0, n_steps=jnp.int32(9), max_steps=10)
    drawing = jscan.draw(add, xs, 0.0)
    assert_type(drawing, jscan.Drawing)
    assert_type(drawing.svg, str)


def state() -> None:
    count = jscan.shared(0, name="count")
    assert_type(count, jscan.SharedVariable)
    assert_type(count + 1, jax.Array)
    assert_type(2.0 * count, jax.Array)
    assert_type(-count, jax.Array)
    assert_type(float(count), float)
    assert_type(count.shape, tuple[int, ...])

    @jscan.function
    def tick(by: int, *, twice: bool = False) -> tuple[jax.Array, jscan.Updates]:
        """Count, and say what was counted before."""
        new = count + (2 * by if twice else by)
        return count.value, jscan.Updates({count: new})

    assert_type(tick(1, twice=True), jax.Array)
    assert_type(tick.name, str)
    tick.lower(1)

    @jscan.function(donate=True, mode="FAST_RUN", static_argnames="times")
    def grow(times: int) -> dict[jscan.SharedVariable, jax.Array]:
        return {count: count * times}

    assert_type(grow(3), None)
    plain = jscan.function(jnp.sin)
    assert_type(plain(1.0), jax.Array)

    class Model:
        @jscan.function
        def scaled(self, x: float) -> jax.Array:
            return jnp.sin(x)

    Model().scaled(2.0)
    w = jscan.shared(3.0, name="w")

    def cost() -> jax.Array:
        return w * w

    jscan.grad(cost, w)
    value, slopes = jscan.value_and_grad(cost, [w])
    w.set_value(value - slopes[0])
    (jscan.Updates({w: 1.0}) + {count: 3}).apply()
    jscan.OrderedUpdates([(w, 2.0)]).apply()


def named(function: jscan.Function[[float], jax.Array]) -> str:
    return function.name


def draws() -> None:
    rng = jscan.RandomStreams(1)
    noise = rng.normal(size=(2, 3), std=0.1, dtype="float32")
    assert_type(noise, jscan.Draw)
    assert_type(noise.value, jax.Array)
    assert_type(noise + 1.0, jax.Array)
    jscan.MRG_RandomStreams(2).choice(size=3, a=5, replace=False)


def speed() -> None:
    def last(x: jax.Array, power: int = 2) -> jax.Array:
        def times(_: jax.Array, h: jax.Array) -> jax.Array:
            return h * x

        rows, _ = jscan.reduce(times, np.zeros(9), x)
        assert isinstance(rows, jax.Array)
        return rows**power

    faster = jscan.optimize(last, passes="default+associate")
    assert_type(faster(jnp.float32(1), power=3), jax.Array)

    jscan.optimize(last, plan="measure", plan_seconds=2, machine="calibrated")

    @jscan.optimize(memory_budget=2**20)
    def kept(x: float) -> float:
        return x

    assert_type(kept(1.0), float)
    report = jscan.explain(last)(jnp.float32(1), power=3)
    assert_type(report, jscan.Report)
    assert_type(report.loops, tuple[jscan.LoopReport, ...])
    assert_type(report.loops[0].fired, tuple[str, ...])
    counted = jscan.explain(jscan.function(last))(jnp.float32(1))
    assert_type(counted, jscan.Report)
    with jscan.profile() as found:
        jscan.scan(jnp.tanh, np.ones(3), profile=True, progress=False)
    assert_type(found.loops, dict[str, jscan.LoopProfile])
    assert_type(jscan.profile.always.loops["scan"].time_per_step, float)
    jscan.clear_caches()


def errors() -> None:
    kinds: list[type[jscan.ScanError]] = [
        jscan.NonFiniteError,
        jscan.ScanAttributeError,
        jscan.ScanImportError,
        jscan.ScanKeyError,
        jscan.ScanNotImplementedError,
        jscan.ScanTypeError,
        jscan.ScanValueError,
        jscan.UpdateCollision,
    ]
    for kind in kinds:
        try:
            raise kind("a text")
        except (ValueError, TypeError, ImportError, KeyError) as error:
            assert_type(error, ValueError | TypeError | ImportError | KeyError)
        except jscan.ScanError as error:
            assert_type(error, jscan.ScanError)


def main() -> None:
    loops()
    state()
    draws()
    speed()
    errors()
    assert named(jscan.function(jnp.sin, name="sine")) == "sine"
