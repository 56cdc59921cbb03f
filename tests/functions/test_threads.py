"""Threads: no lost updates, no frames of others, no deadlock."""

import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan
from jscan._functions import compiled as _compiled

THREADS, CALLS = 4, 60


def in_threads(work: Callable[[int], object], threads: int = THREADS) -> list:
    """Run `work(0), work(1), ...` at the same time; raises what they raise."""
    start = threading.Barrier(threads)

    def begin(index: int) -> object:
        start.wait()
        return work(index)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(begin, range(threads), timeout=120))


def test_no_update_is_lost():
    c, d = jscan.shared(0, name="c"), jscan.shared(0, name="d")
    one = jscan.function(lambda n: (c.value, {c: c + n}))
    # Takes the variables in the other order: locks must not wait for each other.
    two = jscan.function(lambda: {d: d + 1, c: c + 1})

    def work(index):
        seen = []
        for _ in range(CALLS):
            seen.append(int(one(1))) if index % 2 else two()
        return seen

    seen = in_threads(work)
    assert c.value == THREADS * CALLS
    assert d.value == THREADS // 2 * CALLS
    numbers = [value for part in seen for value in part]
    assert len(set(numbers)) == len(numbers)  # every call saw a value of its own


def test_readers_see_all_of_an_update_or_nothing():
    a, b = jscan.shared(jnp.zeros(3), name="a"), jscan.shared(jnp.zeros(3), name="b")
    write = jscan.function(lambda: {b: b - 1.0, a: a + 1.0}, donate=True)
    read = jscan.function(lambda: (a + b).sum())

    def work(index):
        for _ in range(CALLS):
            if index % 2:
                write()
            else:
                assert read() == 0.0

    in_threads(work)
    assert a.get_value().tolist() == [THREADS // 2 * CALLS] * 3


def test_traces_in_several_threads_keep_to_themselves():
    """Every thread traces its own loops over a shared variable, at the same time."""
    W = jscan.shared(2.0, name="W")

    def work(index):
        counter = jscan.shared(float(index), name=f"counter {index}")
        x = jnp.arange(float(index + 2))  # a shape of its own: a trace of its own
        f = jscan.function(
            lambda: jscan.scan(lambda a: (a * W + counter, {counter: counter + 1.0}), x)
        )
        rows, expected = f(), 2 * np.asarray(x) + index + np.arange(index + 2)
        np.testing.assert_array_equal(rows, expected)
        slope = jscan.grad(lambda: (W * x).sum(), W)
        assert slope == x.sum()
        return float(counter.value)

    assert in_threads(work) == [2.0 * index + 2 for index in range(THREADS)]


def test_set_value_waits_for_a_running_function():
    c = jscan.shared(jnp.zeros(()), name="c")
    add = jscan.function(lambda: {c: c + 1.0})

    def work(index):
        if index:
            for _ in range(CALLS):
                add()
        else:
            for _ in range(CALLS):
                c.set_value(1000.0)

    in_threads(work, 2)
    # The last set_value is followed by whatever additions came after it.
    assert 1000 <= c.value <= 1000 + CALLS


def test_draws_of_several_threads_are_different():
    rng = jscan.RandomStreams(7)
    draw = rng.uniform()
    f = jscan.function(lambda: draw.value)
    loop = jscan.function(lambda: jscan.scan(lambda: draw, n_steps=3))

    def work(index):
        if index % 2:
            return [float(f()) for _ in range(20)]
        parts = [jscan.scan(lambda: draw, n_steps=3).outputs for _ in range(10)]
        parts += [loop() for _ in range(10)]
        return [float(x) for x in jnp.concatenate(parts)]

    numbers = [x for part in in_threads(work) for x in part]
    assert len(numbers) == 2 * 20 + 2 * 60
    assert len(set(numbers)) == len(numbers)
    assert rng.state.value.counter == len(numbers)


def test_a_reader_on_its_way_keeps_what_it_reads(monkeypatch):
    """A function that updates in place waits for one that only reads."""
    a = jscan.shared(jnp.zeros(3), name="a")
    write = jscan.function(lambda: {a: a + 1.0}, donate=True)
    read = jscan.function(lambda: a.value.sum())
    read()
    reading, go = threading.Event(), threading.Event()
    run = _compiled.Compiled.run

    def slow(self, program, values, leaves):
        if not self.inputs.updated:
            reading.set()
            assert go.wait(30)
        return run(self, program, values, leaves)

    monkeypatch.setattr(_compiled.Compiled, "run", slow)
    with ThreadPoolExecutor(2) as pool:
        sum_read = pool.submit(read)
        assert reading.wait(30)  # it has let go of its lock, and not run yet
        written = pool.submit(write)
        with pytest.raises(TimeoutError):
            written.result(timeout=0.2)
        go.set()
        assert sum_read.result(30) == 0.0
        written.result(30)
    assert a.get_value().tolist() == [1.0] * 3


def test_readers_do_not_wait_for_each_other():
    """Two calls that only read are in their programs at the same time."""
    a = jscan.shared(jnp.ones(()), name="a")
    both = threading.Barrier(2, timeout=30)

    def meet(x):
        both.wait()
        return x

    def callback(x):
        return jax.pure_callback(meet, jax.ShapeDtypeStruct((), x.dtype), x)

    first = jscan.function(lambda: callback(a.value))
    second = jscan.function(lambda: callback(a.value + 1.0))
    assert in_threads(lambda index: (first, second)[index](), 2) == [1.0, 2.0]


def test_get_value_waits_for_an_update_in_place():
    a = jscan.shared(jnp.zeros(3), name="a")
    write = jscan.function(lambda: {a: a + 1.0}, donate=True)

    def work(index):
        for _ in range(CALLS):
            if index % 2:
                write()
            else:
                assert len(set(a.get_value().tolist())) == 1

    in_threads(work)
    assert a.get_value().tolist() == [THREADS // 2 * CALLS] * 3


@pytest.mark.parametrize(
    "kind",
    [
        "DEBUG",
        "DEBUG, reads",
        "read",
        "new function",
        "eager",
        "value",
        "get_value",
        "apply",
    ],
)
def test_beside_a_function_that_updates_in_place(kind):
    """Whatever uses the variable waits or tries again; nobody meets a deleted array."""
    a = jscan.shared(jnp.zeros(3), name="a")
    more = lambda: {a: a + 1.0}
    write = jscan.function(more, donate=True)
    x = jnp.ones(2)
    other = {
        "DEBUG": jscan.function(more, mode="DEBUG"),
        "DEBUG, reads": jscan.function(lambda: a.value.sum(), mode="DEBUG"),
        "read": jscan.function(lambda: a.value.sum()),
        "new function": lambda: jscan.function(lambda: a.value[0] * a.value.sum())(),
        "eager": lambda: jscan.scan(lambda x: x * a.value[0], x),
        "value": lambda: a.value,
        "get_value": a.get_value,
        "apply": lambda: jscan.Updates({a: jnp.ones(3)}).apply(),
    }[kind]

    def work(index):
        for _ in range(CALLS):
            (other if index % 2 else write)()

    in_threads(work)
    calls = THREADS * CALLS // (1 if kind == "DEBUG" else 2)
    if kind != "apply":
        assert a.get_value().tolist() == [calls] * 3


def test_draws_at_top_level_in_several_threads():
    """A draw takes its turn, and in it the stream's, while others wait for both."""
    rng = jscan.RandomStreams(7)
    work = lambda index: [float(rng.uniform().value) for _ in range(20)]
    numbers = [x for part in in_threads(work) for x in part]
    assert len(set(numbers)) == len(numbers) == THREADS * 20
    one = rng.uniform()
    assert len(set(in_threads(lambda index: float(one.value)))) == 1


def test_a_callback_may_use_variables():
    """Also the one that the call around it updates: it has its old value."""
    a, b = jscan.shared(0.0, name="a"), jscan.shared(0.0, name="b")
    note = jscan.function(lambda x: {b: b + x})

    def look(x):
        note(x)
        return a.get_value() + x

    def callback(x):
        return jax.pure_callback(look, jax.ShapeDtypeStruct((), float), x)

    f = jscan.function(lambda x: {a: callback(x)})
    in_threads(lambda index: [f(1.0) for _ in range(10)])
    assert (a.value, b.value) == (THREADS * 10, THREADS * 10)


@pytest.mark.parametrize("mode", [None, "DEBUG"])
def test_a_trace_sees_one_value_of_a_variable(mode):
    """Whoever stores another meanwhile; it would be taken for a captured array."""
    W = jscan.shared(jnp.zeros(3), name="W")
    values = [jnp.ones(3)]
    stored = weakref.ref(values[0])
    seen = []

    def body():
        before = W.value
        if values:
            store = threading.Thread(target=lambda: W.set_value(values.pop(), True))
            store.start()
            store.join()
        seen.append(W.value is before)
        return {W: W + before}

    double = jscan.function(body, donate=mode is None, mode=mode)
    double()
    assert all(seen)
    assert W.get_value().tolist() == [2.0] * 3
    double()  # which refuses a value that it also closes over
    assert W.get_value().tolist() == [4.0] * 3
    gc.collect()
    assert stored() is None
