"""`python -m jscan`: what can be asked for in a shell."""

import argparse
from collections.abc import Sequence

from jscan._tour.info import describe
from jscan._tour.tour import take_tour


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says; without a word the tour."""
    parser = argparse.ArgumentParser(
        prog="python -m jscan",
        description="Theano's scan on JAX, and an optimizer for every lax.scan.",
        epilog="In Python, help(jscan) lists what there is.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="{tour,info}")
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
    if parser.parse_args(arguments).verb == "info":
        print(describe())
    else:
        take_tour()


if __name__ == "__main__":
    main()
