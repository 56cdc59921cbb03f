"""`optimize` wraps any function: static arguments, numbers, modules, decorators."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.core import Tracer

import jscan
from jscan import explain, optimize

X = jnp.linspace(0.5, 1.5, 3)


def powers(x, n):
    return jax.lax.scan(lambda c, _: (c * 0.9, c), x, length=n)[1]


def by_hand(x, n):
    return np.stack([np.asarray(x) * 0.9**step for step in range(n)])


CALLS = {
    "jit static_argnums": lambda: jax.jit(optimize(powers), static_argnums=1)(X, 4),
    "jit static_argnames": lambda: jax.jit(optimize(powers), static_argnames="n")(
        X, n=4
    ),
    "optimize(jit)": lambda: optimize(jax.jit(powers, static_argnums=1))(X, 4),
    "eager": lambda: optimize(powers)(X, 4),
    "keyword": lambda: optimize(powers)(X, n=4),
    "partial": lambda: optimize(functools.partial(powers, n=4))(X),
    "decorator with options": lambda: optimize(passes=["merge"])(powers)(X, 4),
    "closure in jit": lambda: jax.jit(lambda x: optimize(powers)(x, 4))(X),
}


@pytest.mark.parametrize("how", CALLS)
def test_a_number_that_must_be_known_stays_one(how):
    np.testing.assert_allclose(CALLS[how](), by_hand(X, 4), rtol=1e-6)


@pytest.mark.parametrize("number", [0.5, -2.0, np.float64(0.25)])
def test_a_number_may_steer_python(number):
    def scaled(x, rate):
        return x * (rate if rate > 0 else 1.0)

    np.testing.assert_allclose(optimize(scaled)(X, number), scaled(X, number))
    jitted = jax.jit(optimize(scaled), static_argnums=1)
    np.testing.assert_allclose(jitted(X, number), scaled(X, number))
    assert "no loops" in str(explain(scaled)(X, number))


def test_a_number_that_need_not_be_known_does_not_compile_anew():
    """One executable for all numbers; the function is called once for each call."""
    traced = []

    def scaled(x, rate):
        traced.append(rate)
        return jax.lax.scan(lambda c, v: (c * rate + v, c), 0.0, x)[1]

    run = optimize(scaled)
    for rate in (0.5, 0.25, 0.125):
        want = [0.0]
        for v in X[:-1]:
            want.append(want[-1] * rate + float(v))
        np.testing.assert_allclose(run(X, rate), want, rtol=1e-6)
    assert len(traced) == 3
    assert all(isinstance(rate, Tracer) for rate in traced)


def test_an_error_of_the_function_is_its_own():
    calls = []

    def wrong(x, n):
        calls.append(n)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        optimize(wrong)(X, 3)
    assert calls[-1] == 3


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["weight"],
    meta_fields=["activation"],
)
@dataclasses.dataclass
class Module:
    """A tree with a static field, as equinox and flax have them."""

    weight: jax.Array
    activation: Any

    def __call__(self, x):
        return self.activation(x * self.weight)


@jax.tree_util.register_pytree_node_class
class Bare:
    """A tree whose leaf is a function."""

    def __init__(self, weight, activation):
        self.leaves = (weight, activation)

    def tree_flatten(self):
        return self.leaves, None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        return cls(*leaves)


@pytest.mark.parametrize("kind", [Module, Bare])
def test_modules_come_and_go(kind):
    def halved(module):
        first, second = jax.tree.leaves(module)[0], module
        del second
        return jax.tree.map(lambda leaf: leaf / 2 if leaf is first else leaf, module)

    got = optimize(halved)(kind(X, jnp.tanh))
    leaves = jax.tree.leaves(got)
    np.testing.assert_allclose(leaves[0], X / 2)
    assert isinstance(got, kind)
    activation = got.activation if kind is Module else got.leaves[1]
    assert activation is jnp.tanh


def test_what_is_no_array_is_handed_back():
    def many(x):
        return x + 1, "text", None, {"flag": "yes"}

    total, text, nothing, tree = optimize(many)(X)
    np.testing.assert_allclose(total, X + 1)
    assert (text, nothing, tree) == ("text", None, {"flag": "yes"})


def test_a_method():
    class Model:
        @optimize
        def run(self, x):
            return powers(x, 3)

    np.testing.assert_allclose(Model().run(X), by_hand(X, 3), rtol=1e-6)


def by_tree(x, tree, *, rates):
    return x if tree["a"] > 0 else powers(x, 4)


def by_rates(x, tree, *, rates):
    return x if rates[1] > 0 else powers(x, 4)


WRAPS = pytest.mark.parametrize(
    "wrap", [optimize, lambda f: jax.jit(optimize(f))], ids=["eager", "jit"]
)


@WRAPS
@pytest.mark.parametrize("fun", [by_tree, by_rates])
def test_errors_of_jax_name_the_function_and_its_argument(wrap, fun):
    """They say what they say of `jax.jit`."""

    def message(fun):
        with pytest.raises(jax.errors.TracerBoolConversionError) as caught:
            fun(X, {"b": X, "a": X[0]}, rates=[X, X[0]])
        return str(caught.value)

    assert message(wrap(fun)) == message(jax.jit(fun))
    assert fun.__name__ in message(wrap(fun))


def test_what_passes_through_stays_what_it_is():
    """So `vmap` sees that a result does not depend on the lane."""

    def passed(y):
        return jax.lax.scan(lambda y, _: (y, y.sum()), y, length=3)[0]

    def either(x, y):
        return jax.lax.cond(x < 1.0, optimize(passed), passed, y)

    assert optimize(passed)(X) is X
    together = jax.vmap(either, in_axes=(0, None), out_axes=None)
    np.testing.assert_array_equal(together(X, X), X)


@pytest.mark.parametrize("fun", [jax.new_ref, lambda ref: ref], ids=["new", "given"])
@WRAPS
def test_a_ref_is_no_result(wrap, fun):
    x = X if fun is jax.new_ref else jax.new_ref(X)
    with pytest.raises(ValueError, match="references cannot be returned"):
        wrap(fun)(x)


@pytest.mark.parametrize("wrong", [42, "powers", X], ids=["number", "text", "array"])
@pytest.mark.parametrize("verb", [optimize, explain])
def test_only_functions_are_taken(verb, wrong):
    with pytest.raises(jscan.ScanTypeError, match="needed a function"):
        verb(wrong)


@pytest.mark.parametrize(
    ("passes", "fires"),
    [
        (None, False),
        ("default", False),
        ("default+associate", True),
        (["default", "associate"], True),
        (["associate"], True),
    ],
    ids=str,
)
def test_passes_add_to_the_default(passes, fires):
    def decay(x, w):
        return jax.lax.scan(lambda c, v: (0.9 * c + v @ w, None), jnp.zeros(4), x)[0]

    arguments = jnp.ones((64, 3)), jnp.ones((3, 4))
    (loop,) = explain(decay, passes=passes)(*arguments).loops
    assert ("associate" in loop.fired) is fires
    got = optimize(decay, passes=passes)(*arguments)
    np.testing.assert_allclose(got, decay(*arguments), rtol=1e-5)


def test_every_pass_is_documented():
    from jscan._optimizer import PASS_NAMES

    assert all(f'"{name}"' in (optimize.__doc__ or "") for name in PASS_NAMES)


def test_a_program_of_64_bits_inside_one_of_32():
    """Rewritten as what it is, whatever the setting is where it is lowered."""

    def both(x):
        def count(dtype):
            step = lambda c, v: (c, jnp.asarray(5, dtype))
            return jax.lax.scan(step, 0, x)[1]

        with jax.enable_x64(True):
            wide = count("int64")
        return count("int32"), wide

    with jax.enable_x64(False):
        narrow, wide = jax.jit(optimize(both))(jnp.ones(4, jnp.float32))
    assert (narrow.dtype, wide.dtype) == (np.int32, np.int64)
    assert narrow.tolist() == wide.tolist() == [5, 5, 5, 5]
