"""One of several processes that read a page of the documentation together.

Usage: python processes_page.py NUMBER COUNT PORT OUT PAGE
"""

import doctest
import faulthandler
import os
import sys
from pathlib import Path

import jax

from support.processes import note

AS_SHOWN = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def main(number, count, port, out, page):
    """Run what the page shows; all of it has to be as it is shown, in each process."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", count, number)
    os.chdir(Path(out).parent)
    text = Path(page).read_text().replace("\n```\n", "\n\n")  # ends what is expected
    test = doctest.DocTestParser().get_doctest(text, {}, page, page, 0)
    failed, shown = doctest.DocTestRunner(optionflags=AS_SHOWN).run(test)
    if number == 0:
        note(out, "results", [failed, shown])
    sys.exit(failed)


if __name__ == "__main__":
    faulthandler.dump_traceback_later(300, exit=True)  # says where it waits, if it does
    number, count, port = map(int, sys.argv[1:4])
    main(number, count, port, *sys.argv[4:])
