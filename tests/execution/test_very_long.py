"""Very long loops: right, or an error that says what counts in 32 bits."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan
from jscan._jax.jaxprs import every_equation
from jscan._loops import chunks

LONG = 2**31 + 5  # more than an int32 holds
START = jnp.zeros((), "float32")
X = jax.ShapeDtypeStruct((LONG,), "float32")  # which nobody allocates


def add(x, total):
    return jnp.sin(total + x)


def folded(x, **options):
    return jscan.reduce(add, x, START, **options).outputs


PROGRAMS = {
    "rows": lambda x: jscan.scan(add, x, START).outputs,
    "backwards": lambda x: jscan.scan(add, x, START, go_backwards=True).outputs,
    "without sequences": lambda x: (
        jscan.scan(jnp.cos, outputs_info=x[0], n_steps=LONG).outputs
    ),
    "taps": lambda x: (
        jscan.scan(
            lambda now, before, near, far: now * near + before * far,
            dict(input=x, taps=[0, -1]),
            dict(initial=x[:100], taps=[-1, -100]),
        ).outputs
    ),
    "fold": folded,
    "gradient": jax.grad(folded),
    "gradient of its last steps": jax.grad(
        lambda x: jscan.scan(add, x, START, truncate_gradient=9).outputs[-1]
    ),
    "mask": lambda x: jscan.scan(add, x, START).mask,
    **{
        f"checkpoint={way}": jax.grad(lambda x, way=way: folded(x, checkpoint=way))
        for way in (1, "sqrt")
    },
}


@pytest.fixture
def narrow():
    """JAX counts in an int32, as it does unless 64 bits are asked for."""
    with jax.enable_x64(False):
        yield


@pytest.mark.usefixtures("narrow")
def test_jax_refuses_such_a_loop():
    plain = lambda x: jax.lax.scan(lambda c, x: (add(x, c), None), START, x)[0]
    with pytest.raises(OverflowError):
        jax.jit(plain).lower(X)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("name", PROGRAMS)
def test_more_steps_than_an_int32_counts(name):
    """Lowering is where JAX counts."""
    jax.jit(PROGRAMS[name]).lower(X)


def drawing(steps, inner):
    def run():
        noise = jscan.RandomStreams(1).normal()
        walk = lambda h: jscan.scan(
            lambda h: h + noise, outputs_info=h, n_steps=inner
        ).outputs[-1]
        return jscan.scan(walk, outputs_info=START, n_steps=steps).outputs[-1]

    return lambda x: run()


def stopping(x, total):
    return add(x, total), jscan.until(total > 1)


COUNTED = {
    "until": lambda x: jscan.scan(stopping, x, START),
    "a traced n_steps": lambda x: jscan.scan(
        jnp.sin, outputs_info=START, n_steps=x[0].astype(int), max_steps=LONG
    ),
    "progress": lambda x: jscan.scan(add, x, START, progress=True),
    "checkpoints every N": lambda x: jscan.scan_checkpoints(add, x, START),
    "RandomStreams": drawing(2**20, 2**12),
}


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("name", COUNTED)
def test_what_counts_in_32_bits_says_so(name):
    with pytest.raises(
        jscan.ScanError, match=rf"(?s){name}.*at most.*Fix: run"
    ) as caught:
        jax.eval_shape(COUNTED[name], X)
    assert "2147483653" in str(caught.value) or name == "RandomStreams"


@pytest.mark.usefixtures("narrow")
def test_all_draws_of_a_stream_are_allowed():
    jax.eval_shape(drawing(2**16 - 1, 2**16 + 1), X)


@pytest.mark.parametrize("checkpoint", [None, 1, 3, "recursive"])
def test_loops_of_loops_give_the_rows_of_one(monkeypatch, checkpoint):
    """With counters that hold ten: four levels, none of which is longer."""
    monkeypatch.setattr(chunks, "LONGEST", 10)
    monkeypatch.setattr(chunks, "HALFWAY", 7)
    x = jnp.linspace(-1.0, 1.0, 1000)

    def rows(x):
        return jscan.scan(add, x, 0.5, checkpoint=checkpoint).outputs

    levels = chunks.plan_levels(1000, checkpoint)
    sizes = [1000, *(level.length for level in levels), 1]
    assert all(a // b <= 10 for a, b in itertools.pairwise(sizes))
    plain = lambda x: jax.lax.scan(lambda c, x: 2 * (add(x, c),), 0.5, x)[1]  # pyright: ignore
    for f in (lambda loop: loop(x), lambda loop: jax.grad(lambda x: loop(x).sum())(x)):
        np.testing.assert_allclose(f(rows), f(plain), rtol=1e-5)


def test_recursive_checkpoints_write_few_programs_of_the_step():
    """One for each level, however long the loop is and whatever its length."""
    for steps in (8**3 - 1, 8**5 - 1):
        x = jax.ShapeDtypeStruct((steps,), "float32")
        loop = lambda x: folded(x, checkpoint="recursive")
        levels = chunks.plan_levels(steps, "recursive")
        equations = jax.make_jaxpr(loop)(x).jaxpr.eqns
        steps = [e for outer in equations for e in every_equation(outer)]
        written = sum(e.primitive.name == "sin" for e in steps)
        assert written == len(levels) + 1
    assert written == 5


def test_ten_million_steps():
    """A congruential generator, of which Python's integers know every state."""
    factor, offset, steps = 1664525, 1013904223, 10**7
    step = lambda _, state: state * jnp.uint32(factor) + jnp.uint32(offset)
    last = jscan.reduce(step, jnp.zeros(steps, "uint8"), jnp.uint32(7))[0]
    power = pow(factor, steps, (factor - 1) << 32)
    expected = 7 * power + (power - 1) // (factor - 1) * offset
    assert int(last) == expected % 2**32


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint32", "int64"])
def test_narrow_numbers_of_steps_meet_wide_bounds(dtype):
    run = jax.jit(
        lambda n: jscan.scan(lambda c: c + 1, None, 0, n_steps=n, max_steps=70000)
    )
    assert int(run(jnp.asarray(100, dtype)).n_steps) == 100
    most = min(jnp.iinfo(dtype).max, 2**31 - 1)
    assert int(run(jnp.asarray(most, dtype)).n_steps) == min(most, 70000)
