"""The places where JAX keeps rules of primitives: lowering, derivatives, batching."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.custom_batching import custom_vmap
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive, primitives
from jax.interpreters import ad, batching, mlir

X = jnp.linspace(0.1, 0.9, 4, dtype=jnp.float32)


def test_the_lowering_rule_of_jit_is_found():
    known = mlir._lowerings[primitives.jit_p]
    assert callable(getattr(known, "rule", known))


def test_a_lowering_rule_can_stand_around_that_of_jit():
    known = mlir._lowerings[primitives.jit_p]
    default, seen = getattr(known, "rule", known), []

    def rule(ctx, *values, **params):
        seen.append((params["name"], tuple(ctx.module_context.platforms)))
        return default(ctx, *values, **params)

    def contract_callee(x):
        return jnp.sin(x)

    mlir.register_lowering(primitives.jit_p, rule, cacheable=False)
    try:
        inner = jax.jit(contract_callee)
        result = jax.jit(lambda x: 2 * inner(x))(X)
    finally:
        mlir.register_lowering(primitives.jit_p, default, cacheable=False)
    assert ("contract_callee", ("cpu",)) in seen
    np.testing.assert_allclose(result, 2 * np.sin(X), 1e-6)


def primitive():
    """Multiplies its second operand by its first; linear in the second."""
    made = Primitive("contract_multiply")
    made.multiple_results = True
    run = lambda x, y: [x * y]
    made.def_impl(run)
    made.def_abstract_eval(lambda x, y: [y])
    mlir.register_lowering(made, mlir.lower_fun(run, multiple_results=True))
    return made


def test_a_function_lowers_a_primitive():
    made = primitive()
    np.testing.assert_allclose(jax.jit(lambda x: made.bind(x, x)[0])(X), X * X, 1e-6)


def test_tangents_that_are_zero_are_objects_of_their_own():
    made, seen = primitive(), []

    def rule(primals, tangents):
        seen.extend(type(t) is ad.Zero for t in tangents)
        rate = ad.instantiate_zeros(tangents[0])
        return made.bind(*primals), [rate + tangents[1]]

    ad.primitive_jvps[made] = rule
    _, rate = jax.jvp(lambda y: made.bind(X, y)[0], (X,), (X,))
    assert seen == [True, False]
    np.testing.assert_allclose(rate, X)


def test_a_transpose_marks_what_is_linear():
    made, seen = primitive(), []

    def rule(cotangents, known, linear):
        seen.append((ad.is_undefined_primal(known), ad.is_undefined_primal(linear)))
        assert linear.aval.shape == X.shape
        return [None, cotangents[0] * known]

    ad.primitive_transposes[made] = rule
    (pulled,) = jax.linear_transpose(lambda y: made.bind(2 * X, y)[0], X)(X)
    assert seen == [(False, True)]
    np.testing.assert_allclose(pulled, 2 * X * X, 1e-6)


def test_a_batching_rule_is_told_the_axis():
    made, seen = primitive(), []

    def rule(lanes, inputs, axes):
        seen.append((lanes.size, lanes.name, lanes.spmd_name, tuple(axes)))
        front = batching.bdim_at_front(inputs[0], axes[0], lanes.size)
        return [front * inputs[1]], [0]

    batching.fancy_primitive_batchers[made] = rule
    loop = jax.vmap(lambda x, y: made.bind(x, y)[0], (None, 0), axis_name="lane")
    np.testing.assert_allclose(
        loop(X, jnp.ones((3, 4), jnp.float32)), np.tile(X, (3, 1))
    )
    assert seen == [(3, "lane", None, (None, 0))]


def test_rates_that_are_zero_reach_a_custom_rule_as_such():
    seen = []

    @jax.custom_jvp
    def function(x, y):
        return x * y

    def rule(primals, tangents):
        seen.extend(type(rate) is SymbolicZero for rate in tangents)
        value = function(*primals)
        return value, SymbolicZero(jax.typeof(value).to_tangent_aval())

    function.defjvp(rule, symbolic_zeros=True)
    _, rate = jax.jvp(lambda y: function(X, y), (X,), (X,))
    assert seen == [True, False]
    np.testing.assert_allclose(rate, 0 * X)


@pytest.mark.parametrize("batched", [False, True])
def test_custom_vmap_says_which_operands_have_lanes(batched):
    seen = []

    @custom_vmap
    def function(x, y):
        return x + y

    @function.def_vmap
    def rule(size, lanes, x, y):
        seen.append((size, list(lanes)))
        return x + y, True

    jax.vmap(function, (0, 0 if batched else None))(X, X if batched else X[0])
    assert seen == [(4, [True, batched])]
