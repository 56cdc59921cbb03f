"""Theano's loop tutorial: the counter and the binomial noise, as written there."""

import jax.numpy as T
import numpy as np
import pytest

import jscan

# Theano mixes integers and floats freely.
pytestmark = pytest.mark.usefixtures("standard_promotion")


def test_counter():
    k = jscan.shared(0)
    n_sym = 5
    results, updates = jscan.scan(lambda: {k: k + 1}, n_steps=n_sym)
    assert results is None
    accumulator = jscan.function(
        lambda n_sym: jscan.scan(lambda: {k: k + 1}, n_steps=n_sym).updates
    )
    assert k.get_value() == 0
    accumulator(5)
    assert k.get_value() == 5
    accumulator(3)
    assert k.get_value() == 8
    updates.apply()
    assert k.get_value() == 5


def test_value_after_the_loop_beside_the_value_before():
    """``a`` from 1, ten increments: 2 and 12, then 12 and 22."""
    a = jscan.shared(1)

    def program():
        _, updates = jscan.scan(lambda: {a: a + 1}, n_steps=10)
        b = a + 1
        c = updates[a] + 1
        return [b, c], updates

    f = jscan.function(program)
    assert [[int(x) for x in f()], int(a.value)] == [[2, 12], 11]
    assert [[int(x) for x in f()], int(a.value)] == [[12, 22], 21]


def test_binomial_noise():
    W = np.ones((10, 2)) * np.array([0.2, -0.1])
    b_sym = np.array([0.1, 0.3])
    X = np.linspace(-1, 1, 200).reshape(20, 10)
    trng = jscan.RandomStreams(1234)
    d = trng.binomial(size=W[1].shape)

    compute_with_bnoise = jscan.function(
        lambda X: jscan.scan(lambda v: T.tanh(T.dot(v, W) + b_sym) * d, sequences=X)
    )
    first, second = compute_with_bnoise(X), compute_with_bnoise(X)
    clean = np.tanh(X @ W + b_sym)
    kept = [np.asarray(rows) != 0 for rows in (first, second)]
    for rows, mask in zip((first, second), kept, strict=True):
        np.testing.assert_allclose(rows, clean * mask, 1e-12)
        assert 10 < mask.sum() < 30  # of 40, half are expected
    assert (kept[0] != kept[1]).any()
