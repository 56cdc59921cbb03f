"""Values of types that JAX does not know itself (hijax) go through `optimize` whole."""

# pyright: reportIncompatibleMethodOverride=false
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.core import ShapedArray
from jax.experimental import hijax

import jscan

Primitive: Any = getattr(hijax, "HiPrim", None) or hijax.VJPHiPrimitive
XS = jnp.linspace(0.1, 0.4, 4, dtype=jnp.float32)


@dataclass
class Scaled:
    """An array of integers and its scale, which is no array and no pytree."""

    array: Any
    scale: Any


@dataclass(frozen=True)
class ScaledType(hijax.HiType):
    shape: tuple[int, ...]

    def lo_ty(self):
        return [ShapedArray(self.shape, jnp.int8), ShapedArray((), jnp.float32)]

    def lower_val(self, value):
        return [value.array, value.scale]

    def raise_val(self, array, scale):
        return Scaled(array, scale)

    def to_tangent_aval(self):
        return ShapedArray(self.shape, jnp.float32)


hijax.register_hitype(Scaled, lambda value: ScaledType(value.array.shape))


class Read(Primitive):
    def __init__(self, aval):
        self.in_avals = (aval,)
        self.out_aval = ShapedArray(aval.shape, jnp.float32)
        self.params = {}
        super().__init__()

    def expand(self, value):
        return value.array.astype(jnp.float32) * value.scale


def read(value):
    return Read(jax.typeof(value))(value)


def scaled(scale):
    return Scaled(jnp.array([1, 2, 3], jnp.int8), jnp.float32(scale))


def run(value, x):
    step = lambda c, x: (jnp.tanh(c * read(value)) + x, c)
    return jax.lax.scan(step, jnp.full(3, x), XS)


def by_hand(scale, x):
    rows, c = [], np.full(3, x)
    for number in np.asarray(XS):
        rows.append(c)
        c = np.tanh(c * scale * np.array([1, 2, 3])) + number
    return c, np.stack(rows)


CALLS = {
    "captured": lambda v, x: jscan.optimize(lambda x: run(v, x))(x),
    "an argument": lambda v, x: jscan.optimize(run)(v, x),
    "captured in jit": lambda v, x: jax.jit(jscan.optimize(lambda x: run(v, x)))(x),
    "an argument in jit": lambda v, x: jax.jit(jscan.optimize(run))(v, x),
    "an argument of an inner jit": lambda v, x: jscan.optimize(jax.jit(run))(v, x),
}


@pytest.mark.parametrize("how", CALLS)
def test_a_value_of_a_type_of_its_own(how):
    for scale in (0.5, 0.25):
        last, rows = CALLS[how](scaled(scale), jnp.float32(0.7))
        wanted, wanted_rows = by_hand(scale, 0.7)
        np.testing.assert_allclose(last, wanted, rtol=1e-5)
        np.testing.assert_allclose(rows, wanted_rows, rtol=1e-5)


def test_a_derivative_beside_a_value_of_a_type_of_its_own():
    value = scaled(0.5)
    total = jscan.optimize(lambda x: jnp.sum(run(value, x)[0]))
    wanted = (by_hand(0.5, 0.701)[0].sum() - by_hand(0.5, 0.699)[0].sum()) / 0.002
    np.testing.assert_allclose(jax.grad(total)(jnp.float32(0.7)), wanted, rtol=1e-3)


@dataclass(frozen=True)
class Handle:
    """A value that has nothing that arrays have, not even a shape."""

    array: Any


@dataclass(frozen=True)
class HandleType(hijax.HiType):
    def lo_ty(self):
        return [ShapedArray((3,), jnp.float32)]

    def lower_val(self, value):
        return [value.array]

    def raise_val(self, array):
        return Handle(array)


hijax.register_hitype(Handle, lambda value: HandleType())


@pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["alone", "in jit"])
def test_an_error_beside_a_value_without_a_shape_stays_the_user_s(jit):
    def refused(handle):
        raise KeyError("the user's error")

    with pytest.raises(KeyError, match="the user's error") as caught:
        jit(jscan.optimize(refused))(Handle(jnp.ones(3)))
    assert "Handle" in "".join(caught.value.__notes__)
