"""Theano's loop tutorial as a user writes it with jscan, with its numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan
from theano_answers.recorded import assert_equal, outputs, part

# The tutorial mixes integers and floats.
pytestmark = [pytest.mark.any_jax, pytest.mark.usefixtures("standard_promotion")]


def test_tanh_of_each_row():
    X, W, b = jnp.eye(2), jnp.ones((2, 2)), jnp.asarray([1.0, 2.0])
    results, updates = jscan.scan(lambda v: jnp.tanh(jnp.dot(v, W) + b), sequences=X)
    assert_equal(results, outputs("tut_tanh")[0], "rows")
    assert len(updates) == 0


def test_recurrence_over_two_sequences():
    X, W = jnp.asarray([0.0, 1.0]), jnp.ones((2, 2))
    Y = jnp.ones((5, 2)).at[0].set(-3)
    P = jnp.ones((5, 2)).at[0].set(3)
    U = V = jnp.ones((2, 2))

    def step(y, p, x_tm1):
        return jnp.tanh(jnp.dot(x_tm1, W) + jnp.dot(y, U) + jnp.dot(p, V))

    results, _ = jscan.scan(step, sequences=[Y, P[::-1]], outputs_info=[X])
    assert_equal(results, outputs("tut_sequence")[0], "rows")


@pytest.mark.parametrize("by", ["row", "column"])
def test_norms_of_lines(by):
    X = jnp.diag(jnp.arange(1.0, 6.0), 1)
    lines, name = (X, "tut_row_norms") if by == "row" else (X.T, "tut_col_norms")
    results, _ = jscan.scan(lambda x: jnp.sqrt((x**2).sum()), sequences=[lines])
    assert_equal(results, outputs(name)[0], "norms")


def test_trace_of_a_matrix():
    X = jnp.eye(5).at[0].set(jnp.arange(5.0))
    results, _ = jscan.scan(
        lambda i, j, total: X[i, j] + total,
        sequences=[jnp.arange(X.shape[0]), jnp.arange(X.shape[1])],
        outputs_info=jnp.asarray(0.0),
    )
    assert_equal(results[-1], outputs("tut_trace")[0], "trace")


def test_recurrence_on_the_last_two_values():
    X = jnp.asarray([[0.0, 0.0], [0.0, 1.0]])
    half = jnp.ones((2, 2)) / 2
    U, V, W, b = half - jnp.eye(2) / 2, half, half, jnp.ones(2)

    def step(x_tm2, x_tm1):
        return jnp.dot(x_tm2, U) + jnp.dot(x_tm1, V) + jnp.tanh(jnp.dot(x_tm1, W) + b)

    results, _ = jscan.scan(
        step, n_steps=10, outputs_info=[dict(initial=X, taps=[-2, -1])]
    )
    assert_equal(results, outputs("tut_two_taps")[0], "rows")


def test_jacobian_by_a_gradient_inside_the_step():
    v, A = jnp.eye(5)[0], jnp.eye(5, 3).at[2].set(1)

    def y(v):
        return jnp.tanh(jnp.dot(v, A))

    results, _ = jscan.scan(
        lambda i: jax.grad(lambda v: y(v)[i])(v), sequences=[jnp.arange(3)]
    )
    assert_equal(results, outputs("tut_jacobian")[0], "Jacobian")
    np.testing.assert_allclose(results, jax.jacrev(y)(v), 1e-12)


def test_jacobian_and_hessian_of_a_scan():
    """The other way round: derivatives of a loop, against those of a Python loop."""

    def by_scan(x):
        results, _ = jscan.scan(
            lambda power, x: power * x,
            outputs_info=jnp.ones_like(x),
            non_sequences=x,
            n_steps=3,
        )
        return results[-1].sum()

    x = jnp.asarray([1.0, 2.0, -3.0])
    np.testing.assert_allclose(jax.jacrev(by_scan)(x), 3 * x**2, 1e-12)
    np.testing.assert_allclose(jax.hessian(by_scan)(x), jnp.diag(6 * x), 1e-12)


def test_power_of_a_vector():
    def power(A, k):
        result, updates = jscan.scan(
            fn=lambda prior_result, A: prior_result * A,
            outputs_info=jnp.ones_like(A),
            non_sequences=A,
            n_steps=k,
        )
        assert len(updates) == 0
        return result[-1]

    assert_equal(power(jnp.arange(10.0), 2), outputs("tut_power")[0], "squares")
    np.testing.assert_allclose(power(jnp.arange(10.0), 4), np.arange(10.0) ** 4)
    gradient = jax.grad(lambda A: jnp.dot(power(A, 2), weights(10)))(jnp.arange(10.0))
    assert_equal(gradient, part("tut_power", "grad")["A"], "gradient")


def test_polynomial_over_unequal_lengths():
    coefficients, x = jnp.asarray([1.0, 0.0, 2.0]), 3
    components, _ = jscan.scan(
        fn=lambda coefficient, power, free: coefficient * free**power,
        outputs_info=None,
        sequences=[coefficients, jnp.arange(10000)],
        non_sequences=x,
    )
    assert components.shape == (3,)
    assert float(components.sum()) == 19.0 == outputs("tut_polynomial")[0]


def test_polynomial_with_the_sum_as_state():
    coefficients, x = jnp.asarray([1.0, 0.0, 2.0]), 3.0
    results, _ = jscan.scan(
        fn=lambda coefficient, power, prior, free: prior + coefficient * free**power,
        outputs_info=jnp.asarray(0.0),
        sequences=[coefficients, jnp.arange(10000)],
        non_sequences=x,
    )
    assert_equal(results[-1], outputs("tut_polynomial_reduction")[0], "sum")


def test_triangular_numbers_from_an_index_vector():
    """`arange` as the sequence and a typed zero as the start: integers throughout."""
    results, _ = jscan.scan(
        lambda value, prior: prior + value,
        sequences=jnp.arange(15),
        outputs_info=jnp.asarray(0),
    )
    assert results.dtype == jnp.int64
    np.testing.assert_array_equal(results, [n * (n + 1) // 2 for n in range(15)])


def test_one_array_from_a_list_of_positions():
    """One matrix for each position: the value written there, zeros elsewhere."""
    positions = jnp.asarray([[1, 1], [2, 3]])
    values = jnp.asarray([42.0, 50.0])
    model = jnp.zeros((5, 5))

    results, _ = jscan.scan(
        lambda position, value, model: model.at[position[0], position[1]].set(value),
        sequences=[positions, values],
        non_sequences=model,
    )
    expected = np.zeros((2, 5, 5))
    expected[0, 1, 1], expected[1, 2, 3] = 42.0, 50.0
    np.testing.assert_array_equal(results, expected)


def weights(size: int) -> jax.Array:
    """Those of the recorded cost."""
    return jnp.cos(jnp.arange(size))
