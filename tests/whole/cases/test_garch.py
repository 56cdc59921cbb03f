"""GARCH(1,1) by maximum likelihood: the answers of the `arch` package."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import jscan

arch = pytest.importorskip("arch", reason="compares with arch: extra oracles")
pytestmark = [pytest.mark.oracles, pytest.mark.any_jax]


@pytest.fixture(scope="module")
def returns() -> np.ndarray:
    """Daily returns of the S&P 500 in percent, three years of the package's data."""
    sp500 = pytest.importorskip("arch.data.sp500")
    prices = sp500.load()["Adj Close"]
    return (100 * prices.pct_change().dropna()).to_numpy()[:750]


def log_likelihood(parameters, returns, first_variance):
    """Of ``r[t] = mu + e[t]``, ``v[t] = omega + alpha e[t-1]^2 + beta v[t-1]``."""
    mu, omega, alpha, beta = parameters
    errors = returns - mu
    squares = jnp.concatenate([first_variance[None], errors[:-1] ** 2])
    variance, _ = jscan.scan(
        lambda e2, v, omega, alpha, beta: omega + alpha * e2 + beta * v,
        sequences=squares,
        outputs_info=first_variance,
        non_sequences=[omega, alpha, beta],
    )
    terms = jnp.log(2 * jnp.pi) + jnp.log(variance) + errors**2 / variance
    return -0.5 * terms.sum()


def test_estimates_and_likelihood(returns):
    theirs = arch.arch_model(returns).fit(disp="off")
    # The package starts from an exponentially weighted variance of the first 75 days.
    weights = 0.94 ** np.arange(75)
    weights /= weights.sum()

    def first_variance(mu):
        return (weights * (returns[:75] - mu) ** 2).sum()

    params = jscan.shared(jnp.array([0.0, 0.05, 0.1, 0.8]), name="params")
    start = jscan.shared(first_variance(returns.mean()), name="first variance")

    @jscan.function
    def cost_and_slope():
        return jscan.value_and_grad(
            lambda: -log_likelihood(params.value, returns, start.value), params
        )

    def objective(values):
        params.set_value(values)
        cost, slope = cost_and_slope()
        return float(cost), np.asarray(slope)

    mine = scipy.optimize.minimize(
        objective,
        params.get_value(),
        jac=True,
        method="L-BFGS-B",
        bounds=[(None, None), (1e-6, None), (0.0, 1.0), (0.0, 1.0)],
        options=dict(ftol=1e-14, gtol=1e-8),
    )
    names = ["mu", "omega", "alpha[1]", "beta[1]"]
    expected = theirs.params[names].to_numpy()
    np.testing.assert_allclose(mine.x, expected, rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(-mine.fun, theirs.loglikelihood, rtol=1e-5)
    # At the package's own estimates the likelihood is the same number.
    at_theirs = log_likelihood(jnp.asarray(expected), returns, start.value)
    np.testing.assert_allclose(at_theirs, theirs.loglikelihood, rtol=1e-6)
    # And so are the standard errors, from the Hessian through the loop.
    hessian = jax.hessian(lambda p: -log_likelihood(p, returns, start.value))
    covariance = np.linalg.inv(hessian(jnp.asarray(expected)))
    classic = arch.arch_model(returns).fit(disp="off", cov_type="classic")
    np.testing.assert_allclose(
        np.sqrt(np.diag(covariance)), classic.std_err[names], rtol=2e-2
    )
