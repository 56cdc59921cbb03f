"""How the compiler is told to take less time: compiling is most of what tests do.

What XLA itself does to a program stays the same; the code that it writes for the
processor does not. The nightly tests compile as users do.
"""

import importlib.metadata
import os
from typing import Any

QUICKLY: dict[str, Any] = {"xla_backend_optimization_level": 0}  # that of LLVM
AS_USERS_DO: dict[str, Any] = {"xla_backend_optimization_level": 3}
if importlib.metadata.version("jaxlib").startswith("0.10."):
    # A third of the time of these versions; afterwards there is no such option.
    QUICKLY["xla_cpu_use_fusion_emitters"] = False
    AS_USERS_DO["xla_cpu_use_fusion_emitters"] = True

_CHOSEN = AS_USERS_DO if os.environ.get("JSCAN_TESTS_OPTIMIZED") else QUICKLY
FLAGS = [f"--{option}={str(value).lower()}" for option, value in _CHOSEN.items()]

if __name__ == "__main__":
    print(*FLAGS)
