"""The JAX that runs, and its names beyond the documented API that others use."""

import jax
from jax.core import ShapedArray, eval_jaxpr
from jax.extend.core import ClosedJaxpr, primitives
from jax.interpreters import mlir

__all__ = [
    "JAX_VERSION",
    "ClosedJaxpr",
    "ShapedArray",
    "eval_jaxpr",
    "mlir",
    "primitives",
]

JAX_VERSION = tuple(int(part) for part in jax.__version__.split(".")[:2])
