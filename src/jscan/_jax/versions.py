"""The JAX that runs."""

from __future__ import annotations

import jax

JAX_VERSION = tuple(int(part) for part in jax.__version__.split(".")[:2])
