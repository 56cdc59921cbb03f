"""The loop primitive under JAX's transformations, beside plain `lax.scan`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jscan
from support.comparing import assert_close

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(5, 3)))
XS = jnp.stack([X, 2 * X])
W = jnp.asarray(RNG.normal(size=(3, 3)) * 0.5)
START = jnp.zeros(3)


def ours(w, x):
    return jscan.scan(lambda a, h: jnp.tanh(h @ w + a), x, START)[0]


def by_hand(w, x):
    def step(h, a):
        h = jnp.tanh(h @ w + a)
        return h, h

    return jax.lax.scan(step, START, x)[1]


def cost(loop, w, x=X):
    return (loop(w, x) ** 2).sum()


def rerun(loop, w):
    return loop(w, X)[:3]


def policy(name):
    return getattr(jax.checkpoint_policies, name)


TRANSFORMS = {
    "third derivative, forward": lambda f: jax.jacfwd(
        jax.hessian(lambda a: cost(f, a * W))
    )(1.0),
    "third derivative, reverse": lambda f: jax.grad(
        jax.grad(jax.grad(lambda a: cost(f, a * W)))
    )(1.0),
    "forward over forward": lambda f: jax.jacfwd(jax.jacfwd(lambda w: cost(f, w)))(W),
    "reverse over forward": lambda f: jax.jacrev(jax.jacfwd(lambda w: cost(f, w)))(W),
    "vmap of hessian": lambda f: jax.vmap(
        lambda x: jax.hessian(lambda w: cost(f, w, x))(W)
    )(XS),
    "vmap along other axes": lambda f: jax.vmap(f, (None, 1), 1)(
        W, jnp.moveaxis(XS, 0, 1)
    ),
    "vmap of vmap": lambda f: jax.vmap(jax.vmap(f, (None, 0)), (0, None))(
        jnp.stack([W, 0.3 * W]), XS
    ),
    "linearize": lambda f: jax.linearize(lambda w: f(w, X), W)[1](W),
    "checkpoint, saving nothing": lambda f: jax.jit(
        jax.grad(
            jax.checkpoint(lambda w: cost(f, w), policy=policy("nothing_saveable"))
        )
    )(W),
    "checkpoint, saving everything": lambda f: jax.jit(
        jax.grad(
            jax.checkpoint(lambda w: cost(f, w), policy=policy("everything_saveable"))
        )
    )(W),
    "hessian of a checkpoint": lambda f: jax.hessian(
        jax.checkpoint(lambda w: jnp.sin(cost(f, jnp.sin(w))))
    )(W),
    "in lax.scan": lambda f: jax.grad(
        lambda w: jax.lax.scan(lambda c, _: (rerun(f, c), None), w, None, length=3)[
            0
        ].sum()
    )(W),
    "in a checkpointed lax.scan": lambda f: jax.grad(
        lambda w: jax.lax.scan(
            jax.checkpoint(lambda c, _: (rerun(f, c), None)), w, None, length=3
        )[0].sum()
    )(W),
    "in lax.cond": lambda f: jax.grad(
        lambda w: jax.lax.cond(
            w.sum() > -100, lambda w: f(w, X).sum(), lambda w: w.sum(), w
        )
    )(W),
    "in lax.while_loop, forward": lambda f: jax.jvp(
        lambda w: jax.lax.while_loop(
            lambda c: c[1] < 3, lambda c: (rerun(f, c[0]), c[1] + 1), (w, 0)
        )[0],
        (W,),
        (W,),
    ),
    "in lax.map": lambda f: jax.lax.map(lambda x: f(W, x), XS),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transform_agrees_with_lax_scan(name):
    found, expected = (TRANSFORMS[name](loop) for loop in (ours, by_hand))
    assert_close(found, expected)


def test_a_linear_loop_can_be_transposed():
    def push(x):
        return jscan.scan(lambda a, h: 0.5 * h + a, x, START)[0]

    cotangent = jnp.asarray(RNG.normal(size=X.shape))
    (pulled,) = jax.linear_transpose(push, X)(cotangent)
    np.testing.assert_allclose((pulled * X).sum(), (cotangent * push(X)).sum())


def test_custom_derivatives_in_the_step_are_used():
    @jax.custom_vjp
    def sin(x):
        return jnp.sin(x)

    sin.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (3 * g * jnp.cos(x),))

    def ours_with(w):
        return jscan.scan(lambda a, h: sin(h @ w + a), X, START)[0].sum()

    def by_hand_with(w):
        def step(h, a):
            h = sin(h @ w + a)
            return h, h

        return jax.lax.scan(step, START, X)[1].sum()

    expected = jax.grad(by_hand_with)(W)
    np.testing.assert_allclose(jax.grad(ours_with)(W), expected)
    np.testing.assert_allclose(jax.jit(jax.grad(ours_with))(W), expected)


def test_forward_mode_stores_nothing_per_step():
    """The memory of a forward derivative does not grow with the loop."""

    def temporary_bytes(steps):
        def last(h):
            return jscan.scan(
                lambda h: jnp.sin(h), outputs_info=h, n_steps=steps, mode="FAST_COMPILE"
            )[0][-1]

        def rate(h):
            return jax.jvp(last, (h,), (h,))[1]

        compiled = jax.jit(rate).lower(jnp.ones(1000)).compile()
        analysis = compiled.memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    rows = 8 * 1000 * 400  # what one more stack of 400 rows would take
    assert temporary_bytes(500) - temporary_bytes(100) < 2.5 * rows


def test_collectives_in_the_step():
    summed = jax.vmap(
        lambda x: jscan.scan(lambda a, h: h + jax.lax.psum(a, "lane"), x, 0.0)[0],
        axis_name="lane",
    )(jnp.ones((2, 3)))
    np.testing.assert_array_equal(summed, [[2, 4, 6], [2, 4, 6]])


def test_sharded_arguments():
    mesh = Mesh(np.array(jax.devices()[:2]), ("lanes",))
    x = jnp.asarray(RNG.normal(size=(5, 4, 3)))
    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec(None, "lanes")))

    def batched(w, x):
        start = jnp.zeros((4, 3))
        return jscan.scan(lambda a, h: jnp.tanh(h @ w + a), x, start)[0]

    expected = np.stack([by_hand(W, x[:, lane]) for lane in range(4)], axis=1)
    np.testing.assert_allclose(batched(W, sharded), expected)
    np.testing.assert_allclose(jax.jit(batched)(W, sharded), expected)


def test_effects_keep_order_and_count_under_grad(capfd):
    def run(x):
        def step(a, h):
            jax.debug.print("{a}", a=a, ordered=False)
            return h * a

        return jscan.scan(step, x, 1.0)[0].sum()

    jax.grad(run)(jnp.arange(1.0, 4.0))
    jax.effects_barrier()
    assert capfd.readouterr().out.split() == ["1.0", "2.0", "3.0"]
