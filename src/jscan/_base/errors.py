"""Every error jscan raises on its own account, and how its text is put together.

    ScanError
    ├── ScanTypeError            (TypeError)           wrong kind
    │   └── ScanAttributeError   (AttributeError)      no such attribute
    ├── ScanValueError           (ValueError)          right kind, wrong value
    ├── ScanImportError          (ImportError)         an extra is missing
    ├── ScanNotImplementedError  (NotImplementedError) a named limit
    ├── ScanKeyError             (KeyError)            no loop of that name
    ├── UpdateCollision          (KeyError)            two updates
    └── NonFiniteError           (FloatingPointError)  DEBUG met NaN or inf

Each class also derives from the built-in type a caller would catch. A text always
holds the place (with the loop's name), what was needed, what came, and the fix. Who
raises an error need not know the loop: the verb it leaves signs it, see `signed`.
"""

# What this file keeps in its errors is not for users.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any


class ScanError(Exception):
    """Base class of every error that jscan raises.

    Example:
        >>> import jscan
        >>> try:
        ...     jscan.scan(lambda x: x)
        ... except jscan.ScanError as error:
        ...     print(isinstance(error, ValueError))
        True
    """

    _owner: str | None = None  # who complains
    _unsigned = False  # True: the innermost verb that it leaves becomes its owner

    def __init__(
        self,
        *args: Any,
        needed: str = "",
        came: str = "",
        fix: str = "",
        owner: str | None = None,
    ) -> None:
        if needed:  # the one argument is the place
            args = (f"{args[0]}: needed {needed}; got {came}.\nFix: {fix}.",)
            self._owner, self._unsigned = owner, owner is None
        super().__init__(*args)

    def __str__(self) -> str:
        text = Exception.__str__(self)  # that of a KeyError would be a repr
        return f"{self._owner}: {text}" if self._owner else text


class ScanTypeError(ScanError, TypeError):
    """An argument, or something the step returned, is of the wrong kind.

    Example:
        >>> import jscan
        >>> issubclass(jscan.ScanTypeError, TypeError)
        True
    """


class ScanValueError(ScanError, ValueError):
    """An argument has the right kind but an impossible value, shape or dtype.

    Example:
        >>> import jscan
        >>> issubclass(jscan.ScanValueError, ValueError)
        True
    """


class ScanImportError(ScanError, ImportError):
    """An option needs a package that is not installed.

    Example:
        >>> import jscan
        >>> issubclass(jscan.ScanImportError, ImportError)
        True
    """


class ScanNotImplementedError(ScanError, NotImplementedError):
    """A combination that jscan refuses because it does not support it.

    Example:
        >>> import jscan
        >>> issubclass(jscan.ScanNotImplementedError, NotImplementedError)
        True
    """


class ScanAttributeError(ScanTypeError, AttributeError):
    """An attribute that an object of jscan does not have, or that cannot be set.

    Example:
        >>> import jscan
        >>> issubclass(jscan.ScanAttributeError, AttributeError)
        True
    """


class ScanKeyError(ScanError, KeyError):
    """A loop that a report or a profile does not have.

    Example:
        >>> import jscan
        >>> try:
        ...     jscan.profile().loops["rnn"]
        ... except KeyError as error:
        ...     print(isinstance(error, jscan.ScanKeyError))
        True
    """


def unknown_loop(name: object, known: Iterable[str], owner: str) -> ScanKeyError:
    """The error for a loop that is asked for by a name that none bears."""
    names = [*known]
    close = difflib.get_close_matches(str(name), names, 1)
    return ScanKeyError(
        f"the loop {name!r}",
        needed=f"one of {', '.join(map(repr, names[:8]))}{', ...' * (len(names) > 8)}"
        if names
        else "a loop that it has",
        came="none of these" if names else "none, since it has no loops",
        fix=f"write {close[0]!r}"
        if close
        else f"give the loop this name, as in scan(..., name={name!r})",
        owner=owner,
    )


class UpdateCollision(ScanError, KeyError):
    """Two different new values for one shared variable: ``('Collision', variable)``.

    Example:
        >>> import jscan
        >>> issubclass(jscan.UpdateCollision, KeyError)
        True
    """

    def __str__(self) -> str:
        return (
            f"{self._owner or 'Updates'}: Collision, the update of {self.args[-1]!r}: "
            "needed one new value; got two different ones.\nFix: leave one out; "
            "{**first, **second} keeps the second's values."
        )


class NonFiniteError(ScanError, FloatingPointError):
    """A step run with ``mode="DEBUG"`` produced a NaN or an infinity.

    Attributes:
        step: Index of the step, counted from 0 in the order of iteration.
        output: Place of the offending output, such as ``"output 1"``.
        inputs: The arguments the step was called with, by the name of the slice
            (``"sequences[0][t]"``).

    Example:
        >>> import jax.numpy as jnp, jscan
        >>> try:
        ...     _ = jscan.scan(jnp.log, sequences=jnp.array([1., -1.]), mode="DEBUG")
        ... except jscan.NonFiniteError as error:
        ...     print(error.step)
        1
    """

    def __init__(
        self,
        *place: str,
        step: int = -1,
        output: str = "",
        inputs: Mapping[str, Any] = MappingProxyType({}),
        **parts: str,
    ) -> None:
        super().__init__(*place, **parts)
        self.step = step
        self.output = output
        self.inputs = dict(inputs)


class signed:
    """The owner of errors that are raised in the block and have none: a loop, mostly.

    An error of a loop inside the step leaves the block of that loop first.
    """

    __slots__ = ("name",)

    def __init__(self, name: str | None) -> None:
        self.name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: object, traceback: Any) -> None:
        if isinstance(error, ScanError) and error._unsigned:
            known = self.name if isinstance(self.name, str) else None  # refused
            error._owner, error._unsigned = loop_label(known), False


def unsigned(error: ScanError) -> ScanError:
    """The error, whose owner will be the innermost verb that it leaves."""
    error._unsigned = True
    return error


class Subject(str):
    """Who complains, ready to print, where a loop would give its name."""

    __slots__ = ()


def loop_label(name: str | None) -> str:
    """How errors, bars and reports call a loop: ``scan 'rnn'`` or ``scan``."""
    if isinstance(name, Subject):
        return str(name)
    return f"scan {name!r}" if name else "scan"


def warn(text: str) -> None:
    """Warn at the line, outside of jscan and JAX, that is to blame."""
    frame, level = inspect.currentframe(), 1
    while frame and _is_skipped(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, stacklevel=level)


def is_ours(module: str) -> bool:
    """True for the name of a module of jscan."""
    return module.partition(".")[0] == __name__.partition(".")[0]


def is_jax(module: str) -> bool:
    """True for the name of a module of JAX."""
    return module.partition(".")[0] in ("jax", "jaxlib")


def _is_skipped(module: str) -> bool:
    return is_ours(module) or is_jax(module)
