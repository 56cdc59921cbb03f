"""The names of JAX beyond its documented API that the optimizer uses."""

from jax.core import ShapedArray, eval_jaxpr
from jax.extend.core import ClosedJaxpr, primitives
from jax.interpreters import mlir

__all__ = ["ClosedJaxpr", "ShapedArray", "eval_jaxpr", "mlir", "primitives"]
