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

_OPTIMIZED = bool(os.environ.get("JSCAN_TESTS_OPTIMIZED"))
_CHOSEN = AS_USERS_DO if _OPTIMIZED else QUICKLY
FLAGS = [f"--{option}={str(value).lower()}" for option, value in _CHOSEN.items()]
if not _OPTIMIZED and "xla_cpu_use_fusion_emitters" in QUICKLY:
    # Code is written in one piece, not in up to 32 for as many threads: the workers of
    # pytest leave no core idle. On 0.12 that saves nothing, nor do its other options
    # (LLVM's expensive passes left out, no fusions for libraries).
    FLAGS.append("--xla_cpu_parallel_codegen_split_count=1")

if __name__ == "__main__":
    print(*FLAGS)
