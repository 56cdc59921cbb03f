"""`python -m jscan`: what can be asked for in a shell."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from jscan._tour.calibrate import calibrate
from jscan._tour.info import describe
from jscan._tour.tour import take_tour
from jscan._tour.wisdom import move_wisdom


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says; without a word the tour."""
    parser = argparse.ArgumentParser(
        prog="python -m jscan",
        description="Theano's scan on JAX, and an optimizer for every lax.scan.",
        epilog="In Python, help(jscan) lists what there is.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="{tour,info,calibrate,wisdom}")
    verbs.add_parser(
        "tour",
        help="examples on real data, with times (what is done without a word, too); "
        "writes forecast.png where matplotlib is installed",
    )
    verbs.add_parser(
        "info",
        help="versions, devices, environment, cost tables and caches: "
        "what a report of a bug should say",
    )
    verbs.add_parser(
        "calibrate",
        help="measure this machine (a minute at most), so that what pays in a loop is "
        "estimated by its own costs: JSCAN_MACHINE=calibrated then goes by them",
    )
    wisdom = verbs.add_parser(
        "wisdom",
        help="what plan='measure' found out: to a file, from one, or forgotten",
    )
    wisdom.add_argument("what", choices=["export", "import", "forget"])
    wisdom.add_argument("file", nargs="?", type=Path, default=Path("wisdom.json"))
    chosen = parser.parse_args(arguments)
    if chosen.verb == "info":
        print(describe())
    elif chosen.verb == "calibrate":
        calibrate()
    elif chosen.verb == "wisdom":
        print(move_wisdom(chosen.what, chosen.file))
    else:
        take_tour()


if __name__ == "__main__":
    main()
