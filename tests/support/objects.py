"""All objects of the process, of which `conftest` freezes those of the imports."""

import gc
from typing import Any


def every_object() -> list[Any]:
    """What `gc.get_objects` leaves out is what is frozen."""
    gc.unfreeze()
    found = gc.get_objects()
    gc.freeze()
    return found
