"""The names of JAX beyond its documented API that the optimizer uses."""

from jax.core import eval_jaxpr
from jax.extend.core import ClosedJaxpr, primitives
from jax.interpreters import mlir

__all__ = ["ClosedJaxpr", "eval_jaxpr", "mlir", "primitives"]
