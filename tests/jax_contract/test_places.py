"""Where equations come from, as JAX keeps it and `jax.extend` tells it."""

import inspect

import jax
import jax.numpy as jnp
import pytest
from jax.extend import source_info_util
from jax.extend.core import primitives

X = jnp.linspace(0.1, 0.9, 4, dtype=jnp.float32)


def called(x):
    return jax.lax.scan(lambda h, x: (h + jnp.tanh(x),) * 2, jnp.float32(0), x)[1]


def calls(x):
    return called(x).sum()


def line(function, text):
    lines, first = inspect.getsourcelines(function)
    return first + [text in x for x in lines].index(True)


def sources(function):
    eqns = jax.make_jaxpr(function)(X).jaxpr.eqns
    return [e.source_info for e in eqns if e.primitive is primitives.scan_p]


@pytest.mark.parametrize("function", [calls, jax.grad(calls)], ids=["plain", "grad"])
def test_a_summary_has_files_lines_and_functions_the_innermost_last(function):
    """Of a forward and of a backward loop; without the frames of JAX."""
    found = sources(function)
    assert found
    for source in found:
        inner, outer = source_info_util.summarize(source, num_frames=1000).splitlines()[
            -1:-3:-1
        ]
        for text, where, code in (
            (inner, called, "jax.lax.scan"),
            (outer, calls, "called(x)"),
        ):
            assert text.startswith(f"{__file__}:{line(where, code)}")
            assert text.endswith(f" ({where.__name__})")


def test_a_source_takes_the_lines_of_another():
    (source,) = sources(calls)
    bare = source_info_util.new_source_info()
    assert source_info_util.summarize(bare, num_frames=1000) == ""
    taken = bare.replace(traceback=source.traceback)
    texts = [source_info_util.summarize(s, num_frames=9) for s in (taken, source)]
    assert texts[0] == texts[1] != ""
    assert str(taken.name_stack) == ""
