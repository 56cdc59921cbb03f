"""`Function`: a compiled function, as type checkers see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    Self,
    TypeAlias,
    TypeVar,
    overload,
)

from jscan._functions.callable import Calls
from jscan._functions.inputs import Settings
from jscan._state.variables import SharedVariable

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R", covariant=True)
Outputs = TypeVar("Outputs")

# How a Python function returns new values of shared variables.
New: TypeAlias = Mapping[SharedVariable, Any]


class Function(Calls, Generic[P, R]):
    """A compiled function of arguments and shared variables; `function` makes it.

    It takes what the Python function takes, and returns what that returns but for the
    new values, which it stores.

    Attributes:
        fn: The Python function.
        name: Used in errors and reports.

    Example:
        >>> import jscan
        >>> total = jscan.shared(0.0, name="total")
        >>> add = jscan.function(lambda x: (total + x, {total: total + x}))
        >>> float(add(2.0)), float(add(3.0)), float(total.value)
        (2.0, 5.0, 5.0)
    """

    if TYPE_CHECKING:
        __name__: str

        def __init__(self, fn: Callable[P, R], settings: Settings) -> None: ...

        @overload
        def __call__(
            self: Function[P, tuple[Outputs, New]], *args: P.args, **kwargs: P.kwargs
        ) -> Outputs: ...

        @overload
        def __call__(
            self: Function[P, tuple[New, Outputs]], *args: P.args, **kwargs: P.kwargs
        ) -> Outputs: ...

        @overload
        def __call__(
            self: Function[P, New], *args: P.args, **kwargs: P.kwargs
        ) -> None: ...

        @overload
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

        @overload
        def __get__(self, instance: None, owner: type) -> Self: ...

        @overload
        def __get__(
            self: Function[Concatenate[Any, Q], Any], instance: object, owner: type
        ) -> Callable[Q, Any]: ...

        def __get__(self, instance: object, owner: type | None = None) -> Any: ...

        def lower(self, *args: P.args, **kwargs: P.kwargs) -> Any: ...
