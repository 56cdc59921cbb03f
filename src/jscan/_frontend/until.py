"""The stop marker that a step returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from jscan._base.errors import ScanTypeError


@dataclass(frozen=True, eq=False)
class until:
    """Stop the loop after this step when `condition` is true (do-while).

    Args:
        condition: A scalar; non-zero means stop. The stopping step is part of the
            result.

    Example:
        >>> import jscan
        >>> jscan.until(True)
        until(condition=True)
    """

    condition: Any

    def __bool__(self) -> NoReturn:
        raise ScanTypeError(
            "a truth value",
            owner="until",
            needed="an until that the step returns",
            came="one in an if, a while, and, or, not",
            fix="return it last, as in return h, jscan.until(condition)",
        )
