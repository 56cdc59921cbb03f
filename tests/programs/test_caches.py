"""The caches: of a size that the user may choose, and cleared by one call."""

import functools
import gc
import os
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan
from jscan._jax.marks import is_marked
from jscan._optimizer import PASS_NAMES, PLAIN, Options
from jscan._optimizer.options import choices_of
from support.comparing import assert_close
from support.objects import every_object


class Tag:
    """Something that a program holds: a program with another one is another."""

    def __call__(self, x: Any) -> None:
        pass


def tagged(how: str) -> weakref.ref[Tag]:
    """Run a loop that holds a new tag, and let go of both."""
    tag = Tag()

    def step(x, s):
        jax.debug.callback(tag, x)
        row = s * 2.0 + x
        return (row, jscan.until(row > 100.0)) if "until" in how else row

    def total(x):
        return jscan.scan(step, x, 0.0, profile="profile" in how).outputs.sum()

    if "optimize" in how:
        total = jscan.optimize(total)
    if "grad" in how:
        total = jax.grad(total)
    total(jnp.arange(4.0))
    jax.effects_barrier()
    return weakref.ref(tag)


HOWS = ("eager", "grad", "until", "until grad", "profile", "optimize", "optimize grad")


def test_clearing_gives_the_memory_back():
    kept = {how: tagged(how) for how in HOWS}
    gc.collect()
    assert all(tag() is not None for tag in kept.values())  # that is what caches do
    jscan.clear_caches()
    gc.collect()
    assert [how for how, tag in kept.items() if tag() is not None] == []


@pytest.mark.parametrize("donate", [False, True])
def test_clearing_reaches_the_programs_of_functions(donate: bool):
    """Of one that lives on, for every type and constant it was called with."""
    total = jscan.shared(0.0, name="total")

    @jscan.function(donate=donate, static_argnames="tag")
    def add(x, n, tag):
        traced.append(n)
        rows = jscan.scan(lambda a, s: s + a, jnp.full(n, x), 0.0).outputs
        return {total: total + rows[-1]}

    traced: list[Any] = []
    arguments = [(1.0, 2), (1.0, 3), (2.0, 2), (jnp.ones(()), 2)]
    tags = [Tag() for _ in arguments]
    kept = [weakref.ref(tag) for tag in tags]

    def call_all() -> None:
        for (x, n), tag in zip(arguments, tags, strict=True):
            add(x, n, tag=tag)

    call_all()
    traced.clear()
    call_all()
    assert not traced
    assert total.value == 2 * (2.0 + 3.0 + 4.0 + 2.0)
    tags.clear()
    gc.collect()
    assert all(tag() is not None for tag in kept)
    jscan.clear_caches()
    gc.collect()
    assert not any(tag() is not None for tag in kept)
    add(1.0, 2, tag=Tag())
    assert traced
    assert total.value == 24.0


def lru_caches() -> list[Any]:
    """Every cache of the package, also one that an object holds."""
    with warnings.catch_warnings():  # to look at an object of torch is deprecated
        warnings.simplefilter("ignore")
        return [
            cache
            for cache in every_object()
            if isinstance(cache, functools._lru_cache_wrapper)
            and (cache.__module__ or "").startswith("jscan")
        ]


def test_every_cache_has_the_size_and_is_cleared():
    scale = jscan.shared(2.0, name="scale")
    used = jscan.function(lambda x: x * scale)
    used(1.0)
    for how in HOWS:
        tagged(how)
    caches = lru_caches()
    size = int(os.environ.get("JSCAN_CACHE_SIZE", "512"))
    assert {cache.cache_info().maxsize for cache in caches} == {size}
    assert sum(cache.cache_info().currsize > 0 for cache in caches) >= 8
    jscan.clear_caches()
    assert {cache.cache_info().currsize for cache in caches} == {0}
    assert used(1.0) == 2.0


BOUND = """
import gc, weakref
import jax
import jscan
from test_caches import HOWS, Tag, tagged
from support.comparing import assert_close

for how in HOWS:
    kept = [tagged(how) for _ in range(3)]
    gc.collect()
    print(how, sum(tag() is not None for tag in kept))

call = jscan.function(lambda tag, x: x * 2.0, static_argnames="tag")
tags = [Tag() for _ in range(3)]
kept = list(map(weakref.ref, tags))
while tags:
    assert call(tags.pop(), 1.0) == 2.0
gc.collect()
print("constants", sum(tag() is not None for tag in kept))

trees = [type(f"Tree{i}", (), {}) for i in range(3)]
for tree in trees:
    jax.tree_util.register_pytree_node(tree, lambda t: ((1.0,), t), lambda t, _: t)
nodes = [tree() for tree in trees]
kept = list(map(weakref.ref, nodes))
call = jscan.function(lambda tree: 1.0)
while nodes:
    assert call(nodes.pop()) == 1.0
gc.collect()
print("kinds", sum(node() is not None for node in kept))
"""


def python(code: str, size: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "JSCAN_CACHE_SIZE": size, "JAX_ENABLE_X64": "1"}
    here = os.path.dirname(__file__)
    paths = [here, os.path.dirname(here), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_size_is_what_the_environment_says():
    """Of three programs of a kind the last two are kept, whatever holds them."""
    done = python(BOUND, " 2 ")
    found = dict(line.rsplit(None, 1) for line in done.stdout.splitlines())
    assert found == dict.fromkeys([*HOWS, "constants", "kinds"], "2"), done.stderr


@pytest.mark.parametrize("text", ["0", "-3", "1.5", "many", ""])
def test_a_size_that_is_none_is_refused(text: str):
    done = python("import jscan; jscan.scan", text)
    assert done.returncode
    last = "".join(done.stderr.splitlines()[-2:])
    assert last.startswith("jscan._base.errors.ScanValueError: ")
    assert "JSCAN_CACHE_SIZE" in last
    assert f"got {text!r}" in last
    assert "Fix: " in last


CLEAR = {
    "jscan": jscan.clear_caches,
    "jax": jax.clear_caches,
    "both": lambda: (jscan.clear_caches(), jax.clear_caches()),
}


def everything() -> Callable[[], list[Any]]:
    """One call of every kind; its results depend on how often it was made."""
    rng = jscan.RandomStreams(3)
    draw = rng.uniform()
    count = jscan.shared(0.0, name="count")
    x = jnp.arange(5.0)
    more = jscan.function(lambda n: (jnp.ones(n) * count, {count: count + n}))
    in_place = jscan.function(lambda: {count: count + 1.0}, donate=True)
    drawn = jscan.function(lambda: draw.value)
    debug = jscan.function(lambda: {count: count + 1.0}, mode="DEBUG")
    fast = jscan.optimize(more)

    def loop(x, until: bool):
        def step(a, s):
            row = s * 0.5 + a
            return (row, jscan.until(row > 3.0)) if until else row

        return jscan.scan(step, x, 0.0)

    def call() -> list[Any]:
        in_place()
        debug()
        return [
            more(3),
            fast(2),
            drawn(),
            loop(x, False).outputs,
            loop(x, True).outputs,
            jax.grad(lambda x: loop(x, False).outputs.sum())(x),
            jax.grad(lambda x: loop(x, True).outputs.sum())(x),
            jax.vmap(lambda x: loop(x, True).outputs)(jnp.stack([x, -x])),
            jscan.scan(lambda: draw, n_steps=3).outputs,
            jscan.grad(lambda: (count * x).sum(), count),
            count.get_value(),
        ]

    return call


@pytest.mark.parametrize("name", CLEAR)
def test_results_are_the_same_afterwards(name: str):
    cleared, kept = everything(), everything()
    for _ in range(2):
        assert_close(cleared(), kept(), 0.0)
        CLEAR[name]()


@pytest.mark.parametrize("name", CLEAR)
def test_clearing_in_the_middle_of_a_call(name: str):
    """While it is traced, and while it runs."""
    count = jscan.shared(0.0, name="count")
    clear = CLEAR[name]

    @jscan.function
    def f(x):
        clear()

        def step(a, s):
            clear()
            jax.debug.callback(lambda _: clear(), a)
            return s + a, {count: count + 1.0}

        return jscan.scan(step, x, 0.0)

    x = jnp.arange(3.0)
    for call in range(3):
        np.testing.assert_array_equal(f(x), np.cumsum(x))
        jax.effects_barrier()
        assert count.value == 3.0 * (call + 1)
    loop = lambda x: jscan.scan(lambda a, s: (clear(), s + a)[1], x, 0.0).outputs
    np.testing.assert_array_equal(loop(x), np.cumsum(x))
    np.testing.assert_array_equal(jax.grad(lambda x: loop(x).sum())(x), [3, 2, 1])


@pytest.mark.parametrize("name", CLEAR)
def test_clearing_from_another_thread(name: str):
    done = threading.Event()

    def keep_clearing() -> int:
        times = 0
        while not done.wait(0.01):
            try:
                CLEAR[name]()
            except RuntimeError as error:  # JAX's own walk through its caches
                if "changed size during iteration" not in str(error):
                    raise
            else:
                times += 1
        return times

    kept = everything()
    expected = [kept() for _ in range(2)]
    with ThreadPoolExecutor(3) as pool:
        times = pool.submit(keep_clearing)
        try:
            calls = everything(), everything()
            work = lambda call: [call() for _ in expected]
            found = list(pool.map(work, calls, timeout=300))
        finally:
            done.set()
        assert times.result() > 20
    for part in found:
        assert_close(part, expected, 0.0)


def test_names_say_what_is_to_be_done():
    """No table has to be kept: each choice has its name, and the name says it."""
    some = [frozenset(PASS_NAMES[:i]) | {PASS_NAMES[-1]} for i in range(9)]
    choices = [
        Options(passes, budget, unasked)
        for passes in (Options().passes, frozenset(), *some)
        for budget in (0, 4096, Options().memory_budget)
        for unasked in (False, True)
    ]
    names = {options.name: options for options in choices}
    assert len(names) == len(set(choices)) == len(choices)
    for name, options in names.items():
        assert is_marked(name)
        assert choices_of(name) == options
    assert is_marked(PLAIN)
    assert choices_of(PLAIN) is None
    for name in ("", "f", "jscan", "jscan_loop_1", "jscan_optimized", "my_jscan_loop"):
        assert not is_marked(name)
