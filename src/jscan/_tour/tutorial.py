"""The examples of Theano's loop tutorial, each with jscan and with NumPy.

The code of each jscan example is printed by the tour as it stands here, so it is
written to be read: no helper hides what a user would have to type.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jscan

_numbers = np.random.default_rng(0)


def _draw(*shape: int) -> np.ndarray:
    return _numbers.uniform(-1, 1, shape).round(2)


X = _draw(3, 2)  # three time steps of a vector
Y = _draw(3, 2)
A = _draw(2, 2)
W, U, V = _draw(2, 2), _draw(2, 2), _draw(2, 2)
b = _draw(2)
x0 = _draw(2)
coefficients = np.array([1.0, 0.0, 2.0])


def rows_jscan() -> jax.Array:
    """A map: tanh(x[t] W + b) for every row of X."""
    outputs, _ = jscan.scan(lambda x: jnp.tanh(x @ W + b), sequences=X)
    return outputs


def rows_numpy() -> np.ndarray:
    return np.stack([np.tanh(row @ W + b) for row in X])


def recurrence_jscan() -> jax.Array:
    """A state: h[t] = tanh(h[t-1] W + x[t] U + y[T-1-t] V)."""
    outputs, _ = jscan.scan(
        lambda x, y, h: jnp.tanh(h @ W + x @ U + y @ V),
        sequences=[X, Y[::-1]],
        outputs_info=x0,
    )
    return outputs


def recurrence_numpy() -> np.ndarray:
    h, history = x0, []
    for t in range(len(X)):
        h = np.tanh(h @ W + X[t] @ U + Y[len(Y) - 1 - t] @ V)
        history.append(h)
    return np.stack(history)


def row_norms_jscan() -> jax.Array:
    """The norm of every row of X."""
    norms, _ = jscan.scan(lambda row: jnp.sqrt((row**2).sum()), sequences=[X])
    return norms


def row_norms_numpy() -> np.ndarray:
    return np.linalg.norm(X, axis=1)


def column_norms_jscan() -> jax.Array:
    """The norm of every column of X: the loop runs over the first axis, so X.T."""
    norms, _ = jscan.scan(lambda column: jnp.sqrt((column**2).sum()), sequences=[X.T])
    return norms


def column_norms_numpy() -> np.ndarray:
    return np.linalg.norm(X, axis=0)


def trace_jscan() -> jax.Array:
    """The trace of A, summed in a state that starts as the Python number 0."""
    sums, _ = jscan.scan(
        lambda i, j, total, A: total + A[i, j],
        sequences=[jnp.arange(2), jnp.arange(2)],
        outputs_info=0.0,
        non_sequences=A,
    )
    return sums[-1]


def trace_numpy() -> np.ndarray:
    return np.trace(A)


def two_taps_jscan() -> jax.Array:
    """A state with two taps: x[t] = x[t-2] U + x[t-1] V + tanh(x[t-1] W + b)."""
    outputs, _ = jscan.scan(
        lambda x2, x1: x2 @ U + x1 @ V + jnp.tanh(x1 @ W + b),
        outputs_info=dict(initial=X[:2], taps=[-2, -1]),
        n_steps=5,
    )
    return outputs


def two_taps_numpy() -> np.ndarray:
    x = list(X[:2])
    for _ in range(5):
        x.append(x[-2] @ U + x[-1] @ V + np.tanh(x[-1] @ W + b))
    return np.stack(x[2:])


def jacobian_jscan() -> jax.Array:
    """A gradient in the step: row i of the Jacobian of y = tanh(x A)."""

    def y(x: jax.Array) -> jax.Array:
        return jnp.tanh(x @ A)

    rows, _ = jscan.scan(
        lambda i, x: jax.grad(lambda x: y(x)[i])(x),
        sequences=jnp.arange(2),
        non_sequences=x0,
    )
    return rows


def jacobian_numpy() -> np.ndarray:
    return (1 - np.tanh(x0 @ A) ** 2)[:, None] * A.T


def counter_jscan() -> np.ndarray:
    """A shared variable, counted up by a loop that has updates and no outputs."""
    k = jscan.shared(0, name="k")
    count = jscan.function(lambda: jscan.scan(lambda: {k: k + 1}, n_steps=5))
    count()
    count()
    return k.get_value()


def counter_numpy() -> np.ndarray:
    k = np.array(0)
    for _ in range(2 * 5):
        k += 1
    return k


def dropout_jscan() -> jax.Array:
    """Random draws: tanh(x[t] W + b) times zeros and ones, fresh at every step."""
    d = jscan.RandomStreams(seed=3).binomial(size=(2,))
    outputs, _ = jscan.scan(lambda x: jnp.tanh(x @ W + b) * d, sequences=X)
    return outputs


def dropout_numpy() -> np.ndarray:
    # The loop's draws are those that the same stream makes one by one.
    stream = jscan.RandomStreams(seed=3)
    draws = [np.asarray(stream.binomial(size=(2,))) for _ in X]
    return np.stack([np.tanh(x @ W + b) * d for x, d in zip(X, draws, strict=True)])


def power_jscan() -> jax.Array:
    """A to the power 5, element by element; only the last row is wanted."""
    powers, _ = jscan.scan(
        lambda power, A: power * A,
        outputs_info=jnp.ones_like(A),
        non_sequences=A,
        n_steps=5,
    )
    return powers[-1]


def power_numpy() -> np.ndarray:
    return A**5


def polynomial_jscan() -> jax.Array:
    """1 + 2 x^2 at x = 3; of two lengths, the shorter decides."""
    terms, _ = jscan.scan(
        lambda coefficient, power, x: coefficient * x**power,
        sequences=[coefficients, jnp.arange(10_000)],
        non_sequences=3.0,
    )
    return terms.sum()


def polynomial_numpy() -> np.floating:
    return np.polynomial.polynomial.polyval(3.0, coefficients)


def powers_jscan() -> jax.Array:
    """A stop: powers of two, up to the first one beyond 45."""

    def double(power: jax.Array) -> tuple[jax.Array, jscan.until]:
        return 2 * power, jscan.until(2 * power > 45)

    outputs, _ = jscan.scan(double, outputs_info=1, n_steps=1024)
    return outputs


def powers_numpy() -> np.ndarray:
    powers = [2]
    while powers[-1] <= 45:
        powers.append(2 * powers[-1])
    return np.array(powers)


class Example(NamedTuple):
    """One example: a function whose docstring says what it is, and NumPy's answer."""

    with_jscan: Callable[[], jax.Array | np.ndarray]
    with_numpy: Callable[[], np.ndarray | np.floating]


EXAMPLES = (
    Example(rows_jscan, rows_numpy),
    Example(recurrence_jscan, recurrence_numpy),
    Example(row_norms_jscan, row_norms_numpy),
    Example(column_norms_jscan, column_norms_numpy),
    Example(trace_jscan, trace_numpy),
    Example(two_taps_jscan, two_taps_numpy),
    Example(jacobian_jscan, jacobian_numpy),
    Example(counter_jscan, counter_numpy),
    Example(dropout_jscan, dropout_numpy),
    Example(power_jscan, power_numpy),
    Example(polynomial_jscan, polynomial_numpy),
    Example(powers_jscan, powers_numpy),
)
