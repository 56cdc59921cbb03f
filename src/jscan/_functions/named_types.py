"""Arguments to trace with, under the names that JAX's errors give to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from jscan._base.types import Leaf


@jax.tree_util.register_pytree_with_keys_class
@dataclass(frozen=True)
class _Argument:
    """What is traced of one argument."""

    names: list[str]
    types: list[Any]

    def tree_flatten_with_keys(self) -> Any:
        return tuple(zip(self.names, self.types, strict=True)), tuple(self.names)

    @classmethod
    def tree_unflatten(cls, names: Any, types: Any) -> _Argument:
        return cls(list(names), list(types))


def typed(
    args: Any, kwargs: Any, paths: Sequence[Any], operands: Sequence[Leaf]
) -> tuple[list[_Argument], dict[str, _Argument]]:
    """The arguments of a call as what is traced of them."""
    given = [_Argument([], []) for _ in args]
    named = {name: _Argument([], []) for name in kwargs}
    for (_, key, *path), operand in zip(paths, operands, strict=True):
        argument = named[key.key] if hasattr(key, "key") else given[key.idx]
        argument.names.append(jax.tree_util.keystr(tuple(path)))
        argument.types.append(jax.typeof(operand))
    return given, named
