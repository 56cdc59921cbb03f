"""`python -m jscan wisdom`: what was measured, to a file and from one."""

import sys
from pathlib import Path

from jscan._base.kinds import counted
from jscan._optimizer.planning import wisdom


def move_wisdom(what: str, file: Path) -> str:
    """Export, import or forget it, and say how much it was."""
    if what == "forget":
        count = len(wisdom.files())
        wisdom.forget()
        return f"{counted(count, 'loop')} forgotten, of {wisdom.folder()}"
    if what == "export":
        return f"{counted(wisdom.export(file), 'loop')} written to {file}"
    count, why = wisdom.bring(file)
    if why:
        sys.exit(f"{file} is not used: {why}")
    return f"{counted(count, 'loop')} taken from {file} into {wisdom.folder()}"
