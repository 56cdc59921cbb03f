"""The pytest plugin of `scripts/peers`: forces `jscan.optimize` upon a suite.

With PEERS_FORCE=optimize, `jax.jit(f, ...)` is `jax.jit(jscan.optimize(f), ...)`, and
`jax.lax.scan` runs in `optimize`, in the suite and in the libraries it tests. No suite
is to notice: what `jax.jit` returns is JAX's own, its static arguments are bound before
`optimize` sees the function, and jscan's own calls are left alone. With PEERS_FORCE=jit
`jax.lax.scan` runs in a `jax.jit` instead, without jscan.

PEERS_RESULTS names a file that gets a line for each outcome as it comes, so that a run
that is killed leaves what it did; PEERS_ONLY one with the tests to run, one a line.
"""

import functools
import json
import os
import sys
import weakref
from pathlib import Path

import jax


def force():
    """Put `optimize` into `jax.jit` and `jax.lax.scan`, for the rest of the process."""
    import jscan

    jit, scan = jax.jit, jax.lax.scan
    known = weakref.WeakValueDictionary()

    def optimized(fun):
        @functools.wraps(fun)
        def outer(*args, **kwargs):
            values = [*args, *kwargs.values()]
            places = [i for i, value in enumerate(values) if _is_traced(value)]
            if len(places) == len(values):  # under its own name, for JAX's errors
                return jscan.optimize(fun)(*args, **kwargs)

            def inner(*given):
                here = list(values)
                for place, value in zip(places, given, strict=True):
                    here[place] = value
                named = dict(zip(kwargs, here[len(args) :], strict=True))
                return fun(*here[: len(args)], **named)

            return jscan.optimize(inner)(*(values[i] for i in places))

        try:  # The same function again, as long as it lives: `jit` caches by identity.
            return known.setdefault(fun, outer)
        except TypeError:  # not hashable
            return outer

    @functools.wraps(jit)
    def forced_jit(*args, **kwargs):
        if not args:  # a decorator: the function comes later
            return functools.partial(forced_jit, **kwargs)
        fun, *rest = args
        if _jscan_calls() or not callable(fun):
            return jit(*args, **kwargs)
        jitted = jit(optimized(fun), *rest, **kwargs)
        jitted.__wrapped__ = fun
        return jitted

    @functools.wraps(scan)
    def forced_scan(f, init, xs=None, *args, **kwargs):
        def run(init, xs):
            return scan(f, init, xs, *args, **kwargs)

        return (run if _jscan_calls() else jscan.optimize(run))(init, xs)

    jax.jit, jax.lax.scan = forced_jit, forced_scan


def force_jit():
    """Put `jax.jit` into `jax.lax.scan`: what fails now as well, fails of a `jit`."""
    jit, scan = jax.jit, jax.lax.scan

    @functools.wraps(scan)
    def forced_scan(f, init, xs=None, *args, **kwargs):
        return jit(lambda init, xs: scan(f, init, xs, *args, **kwargs))(init, xs)

    jax.lax.scan = forced_scan


def _is_traced(value):
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))


def _jscan_calls():
    """Whether the patched function that asks was called by jscan itself."""
    return sys._getframe(2).f_globals.get("__name__", "").partition(".")[0] == "jscan"


def pytest_collection_modifyitems(items):
    """Keep the tests that were asked for."""
    if "PEERS_ONLY" in os.environ:
        only = set(Path(os.environ["PEERS_ONLY"]).read_text().splitlines())
        items[:] = [item for item in items if item.nodeid in only]


def pytest_runtest_logreport(report):
    """Write an outcome down, where the reports of all workers arrive."""
    said = "PEERS_RESULTS" in os.environ and "PYTEST_XDIST_WORKER" not in os.environ
    if said and (report.failed or (report.when == "call" and report.passed)):
        crash = getattr(report.longrepr, "reprcrash", None)
        why = crash.message if crash else str(report.longrepr or "")
        line = [report.nodeid, report.outcome, why.strip().partition("\n")[0][:200]]
        with open(os.environ["PEERS_RESULTS"], "a") as file:
            print(json.dumps(line), file=file)


def pytest_collectreport(report):
    """Write down what could not be collected."""
    if report.failed:
        report.when = "collect"
        pytest_runtest_logreport(report)


# Now: before pytest imports what it tests.
{"optimize": force, "jit": force_jit}.get(os.environ.get("PEERS_FORCE"), lambda: None)()
