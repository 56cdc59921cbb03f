"""Programs compare by what they compute, and never by less."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan
from jscan._programs.program import Program


def program(fun, *inputs):
    return Program.close(jax.make_jaxpr(fun)(*inputs))[0]


def scaled(constant):
    return program(lambda x: x * constant, 1.0)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (2.0, 3.0),
        (0.0, -0.0),
        (np.float32(2), np.float32(3)),
        (np.float32(2), np.float64(2)),
        (float("inf"), float("nan")),
    ],
    ids=repr,
)
def test_literals_tell_programs_apart(one, other, standard_promotion):
    assert scaled(one) == scaled(one)
    assert scaled(one) != scaled(other)
    assert scaled(one).run_key != scaled(other).run_key


def test_fresh_functions_of_one_structure_are_one_program():
    made = [program(lambda x: jnp.tanh(x) + 1.0, 1.0) for _ in range(3)]
    assert len(set(made)) == 1


def test_parameters_tell_programs_apart():
    array = jnp.ones((3, 3))
    assert program(lambda x: x.sum(0), array) != program(lambda x: x.sum(1), array)
    assert program(lambda x: x + 1.0, array) != program(lambda x: x + 1.0, array[0])
    assert program(jnp.sin, 1.0) != program(jnp.cos, 1.0)


def test_order_of_operands_tells_programs_apart():
    assert program(lambda a, b: a - b, 1.0, 2.0) != program(
        lambda a, b: b - a, 1.0, 2.0
    )


def test_inner_programs_are_compared_by_structure():
    def loop(step):
        return program(lambda x: jax.lax.scan(step, x, length=3)[0], 1.0)

    one, again = (loop(lambda c, _: (c * 2.0, None)) for _ in range(2))
    assert one == again
    assert one != loop(lambda c, _: (c * 3.0, None))


def test_captured_arrays_are_inputs():
    for value in (jnp.arange(3.0), np.arange(3.0), jnp.asarray(2.0)):
        made, captured = Program.close(jax.make_jaxpr(lambda x, v=value: x * v)(1.0))
        np.testing.assert_array_equal(captured[0], value)
        assert len(made.in_avals) == 2


def test_derivative_rules_count_only_for_derivatives():
    """Two functions of one value and different rules share an executable, no more."""

    def with_slope(slope):
        @jax.custom_jvp
        def double(x):
            return 2.0 * x

        double.defjvp(lambda primals, tangents: (2.0 * primals[0], slope * tangents[0]))
        return program(double, 1.0)

    one, other = with_slope(2.0), with_slope(5.0)
    assert one != other
    assert one.run_key == other.run_key


def test_rules_of_equal_functions_are_not_confused():
    def slope(factor):
        @jax.custom_jvp
        def double(x):
            return 2.0 * x

        double.defjvp(
            lambda primals, tangents: (2.0 * primals[0], factor * tangents[0])
        )

        def last(x):
            return jscan.scan(lambda h: double(h), outputs_info=x, n_steps=2)[0][-1]

        return float(jax.grad(last)(1.0))

    assert [slope(2.0), slope(3.0), slope(2.0)] == [4.0, 9.0, 4.0]


def test_callbacks_are_never_confused():
    """Equal callbacks of different closures are different programs."""
    heard = []

    def run(tag):
        def step(x):
            jax.debug.callback(lambda value: heard.append((tag, int(value))), x)
            return x

        jscan.scan(step, jnp.arange(2))
        jax.effects_barrier()

    run("first")
    run("second")
    assert heard == [("first", 0), ("first", 1), ("second", 0), ("second", 1)]


def test_a_program_has_no_hidden_inputs():
    captured = jnp.arange(3.0)
    with pytest.raises(AssertionError):
        Program(jax.make_jaxpr(lambda x: x * captured)(1.0))
