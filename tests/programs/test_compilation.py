"""What reaches XLA: one loop as by hand, long lags without copies, few compilations."""

import functools
import gc
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan
from support import checking as helpers
from support import compiled_text
from support.objects import every_object
from support.programs import PROGRAMS, numbers

TAP_FREE = ["one_tap", "integer_state", "complex_state", "pytrees"]
STATE, LAG = 64, 128


@pytest.mark.parametrize("name", TAP_FREE)
def test_tap_free_call_lowers_to_one_loop_as_by_hand(name, monkeypatch):
    """Before the optimizer, which counts an integer state in a carry of its own."""
    monkeypatch.setenv("JSCAN_OPTIMIZE", "0")
    program = PROGRAMS[name]
    args = {key: jnp.asarray(value) for key, value in program.args.items()}
    ours = compiled_text.lowered_text(lambda args: program.ours(**args), args)
    by_hand = compiled_text.lowered_text(lambda args: program.by_hand(**args), args)
    body = compiled_text.kinds(compiled_text.loop_body(ours))
    assert body - compiled_text.kinds(compiled_text.loop_body(by_hand)) == {}
    assert body["stablehlo.dynamic_slice"] >= 1  # the count sees what it should


@pytest.mark.parametrize("of", ["value", "gradient"])
@pytest.mark.parametrize("name", ["one_tap", "integer_state"])
def test_tap_free_call_compiles_to_no_more_than_by_hand(name, of, monkeypatch):
    """Before the optimizer: it may put an operation in front of the loop."""
    monkeypatch.setenv("JSCAN_OPTIMIZE", "0")
    program = PROGRAMS[name]
    args = {key: jnp.asarray(value) for key, value in program.args.items()}

    def operations(f: Callable[..., Any]) -> Any:
        if of == "value":
            return compiled_text.compiled_operations(lambda args: f(**args), args)

        def gradient(x):
            cost = lambda x: helpers.weighted_sum(jnp, f(**(args | {"x": x})))
            return jax.grad(cost)(x)

        return compiled_text.compiled_operations(gradient, args["x"])

    ours, by_hand = operations(program.ours), operations(program.by_hand)
    assert ours["while"] == by_hand["while"]
    assert ours - by_hand == {}


def test_sequences_are_not_copied():
    """Outside the loop nothing of a sequence's size is made but the output rows."""
    x, h = jnp.ones((100, 7)), jnp.ones(7)
    text = compiled_text.lowered_text(
        lambda x, h: jscan.scan(lambda x, h: jnp.tanh(x + h), x, h).outputs, x, h
    )
    outside = compiled_text.operations_outside_loop(text)
    large = [line for line in outside if compiled_text.result_size(line) >= x.size]
    assert [compiled_text.kind(line) for line in large if "while" not in line] == [
        "stablehlo.broadcast_in_dim"
    ]


@pytest.mark.parametrize("steps", [20, 300], ids=["short loop", "long loop"])
@pytest.mark.parametrize("of", ["value", "gradient"])
def test_long_lag_does_not_copy_its_window_at_each_step(of, steps):
    """Taps [-1, -128] on 64 numbers: so large a value is at most updated in place."""
    z = jnp.ones((LAG, STATE))

    def value(z):
        return jscan.scan(
            lambda last, old: jnp.sin(last) + 0.5 * old,
            outputs_info=dict(initial=z, taps=[-1, -LAG]),
            n_steps=steps,
        ).outputs

    def gradient(z):
        return jax.grad(lambda z: (value(z) ** 2).sum())(z)

    text = compiled_text.lowered_text(value if of == "value" else gradient, z)
    in_place = {"stablehlo.dynamic_update_slice", "stablehlo.scatter"}
    bodies = compiled_text.loop_bodies(text)
    # A loop in a loop works on blocks of steps: the innermost bodies are the steps.
    steps_alone = [body for body in bodies if not any("while" in line for line in body)]
    assert steps_alone
    for line in [line for body in steps_alone for line in body]:
        small = compiled_text.result_size(line) < LAG * STATE
        assert small or compiled_text.kind(line) in in_place, line


class Compilations:
    """Counts the programs XLA compiles while the test runs."""

    EVENT = "/jax/core/compile/backend_compile_duration"

    def __init__(self) -> None:
        self.count = 0

    def listen(self, event: str, duration_secs: float, **_: Any) -> None:
        self.count += event == self.EVENT


# Listeners cannot be taken back one by one: one for the whole file.
COMPILATIONS = Compilations()
jax.monitoring.register_event_duration_secs_listener(COMPILATIONS.listen)


@pytest.fixture
def compilations() -> Compilations:
    COMPILATIONS.count = 0
    return COMPILATIONS


def plain(scale: Any) -> Any:
    return jscan.scan(lambda a, h: jnp.tanh(a + h), jnp.ones(5), jnp.zeros(())).outputs


def with_captured_array(scale: Any) -> Any:
    return jscan.scan(
        lambda a, h: jnp.tanh(a * scale + h), jnp.ones(5), jnp.zeros(())
    ).outputs


def with_jitted_function(scale: Any) -> Any:
    return jscan.scan(
        lambda a, h: jax.nn.relu(a - h * scale), jnp.ones(5), jnp.zeros(())
    ).outputs


def with_custom_derivative(scale: Any) -> Any:
    return jscan.scan(
        lambda a, h: jax.nn.softplus(a - h * scale), jnp.ones(5), jnp.zeros(())
    ).outputs


def with_taps(scale: Any) -> Any:
    return jscan.scan(
        lambda a, before, last: a * scale + before - last,
        dict(input=jnp.ones(5), taps=[-1]),
        dict(initial=jnp.ones(3), taps=[-3, -1]),
    ).outputs


def nested(scale: Any) -> Any:
    def outer(row, h):
        return jscan.scan(lambda a, h: a * scale + h, row, h).outputs[-1]

    return jscan.scan(outer, jnp.ones((3, 4)), jnp.zeros(())).outputs


def under_eager_grad(scale: Any) -> Any:
    return jax.grad(lambda scale: with_jitted_function(scale).sum())(scale)


def under_eager_vmap(scale: Any) -> Any:
    return jax.vmap(with_captured_array)(jnp.stack([scale, 2 * scale]))


def under_eager_jvp(scale: Any) -> Any:
    return jax.jvp(with_captured_array, (scale,), (jnp.ones(()),))[1]


def one_step_at_a_time_in_reduce(scale: Any) -> Any:
    return jscan.reduce(lambda a, h: a * scale + h, jnp.ones(5), jnp.zeros(())).outputs


@pytest.mark.parametrize(
    "program",
    [
        plain,
        with_captured_array,
        with_jitted_function,
        with_custom_derivative,
        with_taps,
        nested,
        under_eager_grad,
        under_eager_vmap,
        under_eager_jvp,
        one_step_at_a_time_in_reduce,
    ],
    ids=lambda program: program.__name__,
)
def test_twenty_fresh_lambdas_compile_once(program, compilations):
    """Each call makes a new lambda, and captures another array, yet none recompiles."""
    scales = [jnp.asarray(0.04 * n) for n in range(20)]
    answers = [np.asarray(program(scales[0]))]
    first = compilations.count
    answers += [np.asarray(program(scale)) for scale in scales[1:]]
    assert compilations.count == first
    if program is not plain:  # captured values are inputs, not constants
        assert len({answer.tobytes() for answer in answers}) == 20


def test_counter_sees_a_compilation(compilations):
    jax.jit(lambda x: x * 3 + 1)(jnp.ones(11)).block_until_ready()
    assert compilations.count >= 1


def test_programs_that_differ_are_told_apart():
    """The cache tells apart what differs: the step, a type, a number of steps."""

    def run(scale, dtype, n_steps):
        x = np.ones(5, dtype)
        return np.asarray(jscan.scan(lambda a: a * scale, x, n_steps=n_steps).outputs)

    np.testing.assert_array_equal(run(2.0, "float64", 5), np.full(5, 2.0))
    np.testing.assert_array_equal(run(3.0, "float64", 5), np.full(5, 3.0))
    np.testing.assert_array_equal(run(3.0, "float64", 4), np.full(4, 3.0))
    assert run(3.0, "float32", 4).dtype == np.float32


def test_caches_are_bounded():
    """Every cache in the package, also one inside a function, has a largest size."""
    jscan.scan(lambda a: a, jnp.ones(3))
    with warnings.catch_warnings():  # to look at an object of torch is deprecated
        warnings.simplefilter("ignore")
        sizes = [
            cache.cache_parameters()["maxsize"]
            for cache in every_object()
            if isinstance(cache, functools._lru_cache_wrapper)
            and (cache.__module__ or "").startswith("jscan")
        ]
    assert sizes
    assert all(isinstance(size, int) for size in sizes)


def test_captured_arrays_are_not_kept_alive():
    """The cache holds programs, not the arrays of past calls."""

    def run() -> weakref.ref[Any]:
        captured = jnp.asarray(numbers(50, 50))
        jscan.scan(
            lambda a: a * captured.sum(), jnp.ones(3)
        ).outputs.block_until_ready()
        return weakref.ref(captured)

    alive = run()
    gc.collect()
    assert alive() is None
