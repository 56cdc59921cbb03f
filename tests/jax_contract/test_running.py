"""Programs can be compiled and run where another one is traced or lowered."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import primitives
from jax.interpreters import mlir

from jscan._jax.here import backend_of, here


def run(log):
    """Compile and run a program, whatever is going on around it."""
    with jax.ensure_compile_time_eval():
        x = jnp.arange(3.0)
        program = jax.jit(lambda x: jnp.tanh(x) * 2).lower(x).compile()
        log.append(np.asarray(program(x)))


EXPECTED = np.tanh(np.arange(3.0)) * 2


def test_in_a_trace():
    log = []
    traced = jax.make_jaxpr(lambda x: (run(log), x + 1)[1])(1.0)
    assert [e.primitive.name for e in traced.jaxpr.eqns] == ["add"]
    np.testing.assert_allclose(log, [EXPECTED])


def test_in_a_lowering():
    log = []
    known = mlir._lowerings[primitives.sin_p]  # pyright: ignore
    rule = getattr(known, "rule", known)

    def lowered(ctx, x, **params):
        run(log)
        return rule(ctx, x, **params)

    mlir.register_lowering(primitives.sin_p, lowered)
    try:
        jax.jit(lambda x: jnp.sin(x) + 3)(0.5)
    finally:
        mlir.register_lowering(primitives.sin_p, rule)
    np.testing.assert_allclose(log, [EXPECTED])


def test_a_type_of_keys_tells_their_generator():
    for name in ("threefry2x32", "rbg"):
        key = jax.random.key(0, impl=name)
        aval = jax.make_jaxpr(lambda key: key)(key).in_avals[0]
        kinds = []
        jax.eval_shape(
            lambda k, kinds=kinds: kinds.append(jax.random.key_impl(k)), aval
        )
        made = jax.random.key(1, impl=kinds[0])
        assert made.dtype == key.dtype


def test_what_times_depend_on_is_known():
    found = here()
    assert found["jax"] == jax.__version__
    assert found["cores"] >= 1
    assert all(found[name] for name in ("jscan", "jaxlib", "device"))
    assert backend_of("cuda") == "gpu"
    assert backend_of() == jax.default_backend()
