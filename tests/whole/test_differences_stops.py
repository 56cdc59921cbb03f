"""Where jscan differs from Theano 0.9.0 on purpose: loops that stop or cut gradients.

Theano's behaviour is in the docstrings.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan

x = jnp.arange(1.0, 7.0)
ZEROS = [0.0, 0.0, 0.0]


def stopping_state(x, **options):
    """A state loop over a sequence that stops at the first element of 3 or more."""
    result = jscan.scan(
        lambda a, h: (0.5 * h + a, jscan.until(a >= 3)), x, 0.0, **options
    )
    return jnp.where(result.mask, result.outputs, 0.0).sum()


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_gradient_of_a_stopping_loop_falls_on_the_executed_steps(compiled):
    """Theano issue 5439: 0.9 puts it on the last rows of the sequence."""
    gradient = jax.grad(stopping_state)
    gradient = jax.jit(gradient) if compiled else gradient
    np.testing.assert_allclose(gradient(x), [1.75, 1.5, 1.0, *ZEROS], 1e-12)


def test_gradient_of_a_stopping_map():
    """Theano 0.9: [0, 0, 0, 16, 20, 24] and 77."""

    def total(x, w):
        result = jscan.scan(
            lambda a, w: (a**2 * w, jscan.until(a >= 3)), x, non_sequences=w
        )
        return jnp.where(result.mask, result.outputs, 0.0).sum()

    of_x, of_w = jax.grad(total, argnums=(0, 1))(x, 2.0)
    np.testing.assert_allclose(of_x, [4.0, 8.0, 12.0, *ZEROS], 1e-12)
    np.testing.assert_allclose(of_w, 14.0, 1e-12)


def test_gradient_of_a_stopping_loop_backwards():
    """Theano 0.9: mirrored, at the wrong end again."""

    def total(x):
        result = jscan.scan(
            lambda a, h: (0.5 * h + a, jscan.until(a <= 4)), x, 0.0, go_backwards=True
        )
        return jnp.where(result.mask, result.outputs, 0.0).sum()

    np.testing.assert_allclose(jax.grad(total)(x), [*ZEROS, 1.0, 1.5, 1.75], 1e-12)


def test_gradient_of_a_stopping_and_truncated_loop():
    """Theano 0.9: [0, 0, 0, 0, 1.5, 1]."""

    def total(x):
        result = jscan.scan(
            lambda a, h: (0.5 * h + a, jscan.until(a >= 4)),
            x,
            0.0,
            truncate_gradient=2,
        )
        return jnp.where(result.mask, result.outputs, 0.0).sum()

    np.testing.assert_allclose(jax.grad(total)(x), [0, 0, 1.5, 1.0, 0, 0], 1e-12)


def test_condition_at_the_end_of_flat_outputs():
    """Theano: ValueError, two outputs need a list of their own."""
    first, second = jscan.scan(lambda a: (a, a * 2, jscan.until(a >= 3)), x).outputs
    np.testing.assert_array_equal(first, [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(second, [2.0, 4.0, 6.0])


def test_outer_value_only_in_the_condition_is_found():
    """Theano: MissingInputError."""
    bound = jnp.asarray(2.5)
    outputs = jscan.scan(lambda a: (a * 10, jscan.until(a > bound)), x).outputs
    np.testing.assert_array_equal(outputs, [10.0, 20.0, 30.0])


def test_a_single_step_may_stop():
    """Theano ignores the condition of a literal `n_steps=1`, with a logged warning."""
    result = jscan.scan(lambda a: (a, jscan.until(a > 0)), x, n_steps=1)
    assert int(result.n_steps) == 1


def test_too_many_steps_are_refused_also_where_the_loop_would_stop_before():
    """As in Theano, but before anything runs."""
    with pytest.raises(ValueError, match="n_steps") as caught:
        jscan.scan(lambda a: (a, jscan.until(a > 1)), x, n_steps=7)
    assert isinstance(caught.value, jscan.ScanError)


@pytest.mark.parametrize(("k", "rows"), [(1, [0, 0, 0, 8]), (2, [0, 0, 6, 8])])
def test_truncated_elementwise_map(k, rows):
    """Theano's optimizer forgets the zeros: [8, 8, 8, 8], or an error."""

    def total(x):
        outputs, _ = jscan.scan(lambda a: a * a, x, truncate_gradient=k)
        return outputs.sum()

    np.testing.assert_allclose(jax.grad(total)(x[:4]), rows, 1e-12)


def test_truncation_does_not_change_the_values():
    plain = jscan.scan(lambda a, h: h * 0.5 + a, x, 0.0).outputs
    cut = jscan.scan(lambda a, h: h * 0.5 + a, x, 0.0, truncate_gradient=2).outputs
    np.testing.assert_array_equal(plain, cut)


@pytest.mark.parametrize("every", [1, 2, 3, 4, 6, 10])
def test_checkpoints_over_a_sequence(every):
    """Theano: TypeError, sequences do not work at all."""

    def plain(x):
        return jscan.scan(lambda a, h: jnp.sin(h) * a, x, 1.0).outputs

    def saved(x):
        return jscan.scan_checkpoints(
            lambda a, h: jnp.sin(h) * a, x, [1.0], save_every_N=every
        ).outputs

    ends = [*range(every - 1, 5, every), 5]
    np.testing.assert_allclose(saved(x), plain(x)[jnp.asarray(ends)], 1e-12)
    gradient = jax.grad(lambda x: saved(x)[-1])(x)
    np.testing.assert_allclose(gradient, jax.grad(lambda x: plain(x)[-1])(x), 1e-12)


def test_checkpoints_with_a_map_output_before_the_state():
    """Theano: wrong numbers, without an error."""
    outputs = jscan.scan_checkpoints(
        lambda a, h: [a * 2, h + a], x, [None, 0.0], save_every_N=3
    ).outputs
    np.testing.assert_array_equal(outputs[0], [6.0, 12.0])
    np.testing.assert_array_equal(outputs[1], [6.0, 21.0])
