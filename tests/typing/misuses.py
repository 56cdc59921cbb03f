# pyright: strict
"""Calls that a checker must refuse; each says by which rule of pyright and mypy."""

import jax
import jax.numpy as jnp
import numpy as np

import jscan

XS = np.arange(4.0)
W = jscan.shared(1.0, name="w")


def add(x: jax.Array, total: jax.Array) -> jax.Array:
    return total + x


@jscan.function
def tick(by: int) -> tuple[jax.Array, dict[jscan.SharedVariable, jax.Array]]:
    return W.value, {W: W + by}


jscan.scan(add, XS, 0.0, mode="debug")  # reportArgumentType arg-type
jscan.scan(add, XS, 0.0, checkpoint="log")  # reportArgumentType arg-type
jscan.scan(add, XS, 0.0, n_steps="5")  # reportArgumentType arg-type
jscan.scan(XS, add)  # reportArgumentType arg-type
jscan.scan(add, XS, init=0.0)  # reportCallIssue call-arg
jscan.map(add, XS, progress=True)  # reportCallIssue call-arg
jscan.function(add, mode="DebugMode")  # reportArgumentType call-overload
tick("1")  # reportArgumentType call-overload
tick(1, 2)  # reportCallIssue call-overload
outputs, updates, steps = jscan.scan(add, XS, 0.0)  # reportAssignmentType misc
jscan.optimize(42)  # reportArgumentType call-overload
jscan.optimize(jnp.sin, plan="mesure")  # reportArgumentType call-overload
jscan.explain(add)(XS)  # reportCallIssue call-arg
jscan.grad(add, W)  # reportArgumentType arg-type
jscan.RandomStreams(1).normal(size="3")  # reportArgumentType arg-type
W.value = 3.0  # reportAttributeAccessIssue assignment
jscan.Updates({"w": 1.0})  # reportArgumentType type-var
loop = jscan.explain(jnp.sin)(1.0).loop  # reportAttributeAccessIssue attr-defined
