"""`jscan.function` under JAX's settings: as `jax.jit`, it follows every one of them."""

import asyncio
import contextlib
import gc
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan

HIGHEST = lambda: jax.default_matmul_precision("highest")


def uniform() -> jax.Array:
    return jax.random.uniform(jax.random.key(0), (3,))


@pytest.mark.parametrize("donate", [False, True])
@pytest.mark.parametrize(
    ("setting", "program", "x"),
    [
        (HIGHEST, lambda a: a @ a, jnp.ones((4, 4))),
        (lambda: jax.threefry_partitionable(False), lambda a: a + uniform(), 1.0),
        (lambda: jax.enable_x64(False), lambda a: a * 2, np.arange(3)),
        (lambda: jax.default_prng_impl("rbg"), lambda a: a + uniform(), 1.0),
        (lambda: jax.numpy_dtype_promotion("standard"), lambda a: a + 1.5, jnp.ones(2)),
        (lambda: jax.numpy_rank_promotion("warn"), lambda a: a.sum(), jnp.ones((2, 2))),
        (lambda: jax.enable_checks(True), jnp.sin, 1.0),
        (lambda: jax.checking_leaks(), lambda a: a * 2.0, 1.0),
        (lambda: jax.debug_nans(True), lambda a: a * 2.0, 1.0),
        (lambda: jax.debug_infs(True), lambda a: a * 2.0, 1.0),
    ],
    ids=[
        "precision",
        "threefry",
        "x64",
        "prng",
        "dtype promotion",
        "rank promotion",
        "checks",
        "leaks",
        "nans",
        "infs",
    ],
)
def test_program_is_that_of_jit(
    setting: Any, program: Callable[..., Any], x: Any, donate: bool
):
    """In the setting, out of it, and in it again: text and values."""
    c = jscan.shared(np.int32(0), name="c")
    f = jscan.function(lambda a: (program(a), {c: c + np.int32(1)}), donate=donate)
    plain = jax.jit(program)
    texts = []
    for index, here in enumerate(
        [contextlib.nullcontext, setting, contextlib.nullcontext, setting]
    ):
        with here():
            np.testing.assert_array_equal(f(x), plain(x))
            texts.append(f.lower(x).as_text())
            assert ("HIGHEST" in texts[-1]) == ("HIGHEST" in plain.lower(x).as_text())
        assert c.get_value() == index + 1
    assert texts[0] == texts[2]
    assert texts[1] == texts[3]


def test_errors_of_a_setting_come_and_go():
    c = jscan.shared(0.0, name="c")
    for donate in (False, True):
        mixed = jscan.function(
            lambda x: (x + jnp.float32(1), {c: c + 1.0}), donate=donate
        )
        with jax.numpy_dtype_promotion("standard"):
            mixed(np.arange(3))
        before = float(c.value)
        with pytest.raises(ValueError, match="promotion"):
            mixed(np.arange(3))
        assert c.value == before
        with jax.numpy_dtype_promotion("standard"):
            mixed(np.arange(3))
        assert c.value == before + 1.0

    logarithm = jscan.function(lambda x: (jnp.log(x), {c: c + 1.0}))
    assert jnp.isnan(logarithm(-1.0))
    before = float(c.value)
    with jax.debug_nans(True):
        with pytest.raises(FloatingPointError):
            logarithm(-1.0)
        assert c.value == before
        assert logarithm(1.0) == 0.0
    assert jnp.isnan(logarithm(-1.0))
    assert c.value == before + 2.0


@pytest.mark.parametrize("donate", [False, True])
def test_variables_that_a_setting_brings_in(donate: bool):
    """A later trace reads and updates more than the first one, or less."""
    c, d = jscan.shared(0.0, name="c"), jscan.shared(10.0, name="d")
    traces = []

    @jscan.function(donate=donate)
    def f(x):
        traces.append(1)
        if jax.config.jax_default_matmul_precision == "highest":  # type: ignore[attr-defined]
            return d.value, {d: d + x}
        return c.value, {c: c + x}

    for round in range(3):
        assert f(1.0) == round
        with HIGHEST():
            assert f(1.0) == 10.0 + round
        assert (c.value, d.value) == (round + 1, 11.0 + round)
        d.set_value(d.get_value())  # it has a buffer of its own
        if round == 1:
            traces.clear()
    assert not traces  # both programs are kept


def test_captured_arrays_are_inputs_under_every_setting():
    """Not constants in the program, which XLA would fold and keep a copy of."""
    for big in (jnp.arange(5000.0), np.arange(5000.0)):
        f = jscan.function(lambda x, big=big: (big * x).sum())
        assert f(2.0) == 2 * np.arange(5000.0).sum()
        for here in (contextlib.nullcontext, HIGHEST):
            with here():
                assert f(2.0) == 2 * np.arange(5000.0).sum()
                assert len(f.lower(2.0).as_text()) < 5000


def test_ints_are_constants_where_a_later_shape_needs_it():
    f = jscan.function(lambda x, n: x * n if x.ndim else jnp.zeros(n))
    assert f(jnp.ones(2), 3).tolist() == [3.0, 3.0]
    assert f(jnp.ones(()), 3).shape == (3,)
    assert f(jnp.ones(()), 4).shape == (4,)
    assert f(jnp.ones(2), 4).tolist() == [4.0, 4.0]
    with pytest.raises(TypeError, match=r"int|shape"):
        f(jnp.ones(()), "x")


def test_without_jit():
    """`jax.disable_jit` runs the function in Python, and leaves no trace of it."""
    c = jscan.shared(0.0, name="c")
    seen: list[Any] = []

    @jscan.function
    def f(x):
        seen.append(c.value)
        return jscan.scan(lambda a: (a * c, {c: c + a}), x)

    x = jnp.arange(3.0)
    first = f(x)
    with jax.disable_jit():
        second = f(x)
        assert isinstance(float(seen[-1]), float)
    third = f(x)
    rows, value = [], 0.0
    for _ in range(3):
        rows.append([])
        for a in range(3):
            rows[-1].append(a * value)
            value += a
    assert [first.tolist(), second.tolist(), third.tolist()] == rows
    assert c.value == value


def test_cleared_caches_in_the_middle():
    """Everything is traced and compiled again; nothing that was stored is lost."""
    c = jscan.shared(0.0, name="c")
    rng = jscan.RandomStreams(3)
    f = jscan.function(lambda: (rng.uniform().value, {c: c + 1.0}), donate=True)
    again = jscan.RandomStreams(3)
    g = jscan.function(lambda: again.uniform().value)
    for _ in range(3):
        assert f() == g()
        jax.clear_caches()
    assert c.value == 3.0


def test_types_change_between_calls(standard_promotion):
    c = jscan.shared(np.float32(0), name="c")
    f = jscan.function(lambda x: (x * 2, {c: c + 1.0}))
    for wide in (True, False, True, False):
        with jax.enable_x64(wide):
            plain = jax.jit(lambda x: x * 2)
            for x in (3, 0.5, np.arange(2), np.arange(2.0)):
                found, expected = f(x), plain(x)
                assert found.dtype == expected.dtype
                np.testing.assert_array_equal(found, expected)
    assert c.value == 16.0


def test_tasks_of_asyncio():
    """Calls of one thread do not interleave; those in worker threads take turns."""
    c = jscan.shared(0.0, name="c")
    add = jscan.function(lambda: {c: c + 1.0}, donate=True)
    debug = jscan.function(lambda: {c: c + 1.0}, mode="DEBUG")

    async def work(index: int) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
            add()
            await asyncio.to_thread(debug if index % 2 else add)

    async def main() -> None:
        await asyncio.gather(*map(work, range(4)))

    asyncio.run(main())
    assert c.get_value() == 40.0


def test_programs_are_freed():
    """No cycle and no cache keeps a function that nobody has."""
    W = jscan.shared(np.zeros(3), name="W")
    f = jscan.function(lambda: {W: W + 1.0})
    f()
    kept = weakref.ref(f)
    old = weakref.ref(W._stored)
    f()
    assert old() is None
    del f
    gc.collect()
    assert kept() is None


# ---------------------------------------------------------------------------- processes


MODEL = """
import jscan
W = jscan.shared(1.0, name="W")

@jscan.function
def add(x):
    return W + x, {W: W + x}
"""
MAIN = """
import multiprocessing, model
from concurrent.futures import ProcessPoolExecutor

def work(add, W, x):
    return float(add(x)), float(model.W.get_value()), float(W.get_value())

if __name__ == "__main__":
    model.add(1.0)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        print(*pool.submit(work, model.add, model.W, 5.0).result(), model.W.get_value())
"""


def test_spawn_after_use(tmp_path: Path):
    """A function goes by its module's name, a variable with its value."""
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "main.py").write_text(MAIN)
    done = subprocess.run(
        [sys.executable, "main.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.split() == ["6.0", "6.0", "2.0", "2.0"], done.stderr


FORK = """
import os, threading, warnings
warnings.simplefilter("ignore")  # JAX says that its threads do not come along
import numpy as np
import jscan
from jscan._base.turns import Turn, to_update

W = jscan.shared(np.zeros(2), name="W")
add = jscan.function(lambda: {W: W + 1.0}, donate=True)
add()
held, go = threading.Event(), threading.Event()

def hold():
    with Turn(to_update((W,))):
        held.set()
        go.wait(60)

threading.Thread(target=hold, daemon=True).start()
held.wait(60)
child = os.fork()
if not child:  # the thread that has its turn is not here
    W.set_value(np.full(2, 7.0), borrow=True)
    os._exit(int(W.get_value()[0]))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
go.set()
add()
print(W.get_value()[0])
"""


def test_fork_after_use():
    done = subprocess.run(
        [sys.executable, "-c", FORK],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout.split() == ["7", "2.0"], done.stderr
