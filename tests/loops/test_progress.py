"""One bar a loop, exact whatever the loop is wrapped in."""

import contextlib
import io
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import pytest

import jscan
from jscan._execution.bar_plan import plan_bar
from jscan._frontend.spec import Options
from jscan._loops import bars as on_screen
from jscan._optimizer import make_options, rewrite
from jscan._programs.program import Program

X = jnp.linspace(0.0, 1.0, 250)


@pytest.fixture
def bars(monkeypatch):
    """Every bar made, as the list of numbers it showed and whether it is closed."""
    made = []
    real = on_screen.tqdm_class()

    class Recorded(real):
        def __init__(self, **settings):
            super().__init__(**settings, file=io.StringIO())
            self.shown = [0]
            self.closed = False
            made.append(self)

        def update(self, n=1):
            super().update(n)
            self.shown.append(self.n)

        def close(self):
            super().close()
            self.closed = True

    monkeypatch.setattr(on_screen, "tqdm_class", lambda: Recorded)
    yield made
    # Of an error that a test is about, some devices tell again.
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        jax.effects_barrier()


def loop(x, **options):
    options = {"progress": True, **options}
    return jscan.scan(lambda a, h: jnp.sin(h) + a, x, jnp.zeros(()), **options).outputs


def stopping(x, **options):
    return jscan.scan(
        lambda a, h: (jnp.sin(h) + a, jscan.until(a > 0.5)),
        x,
        jnp.zeros(()),
        progress=True,
        **options,
    ).outputs


def total(run):
    return lambda x, **options: run(x, **options).sum()


WRAPPED = {
    "eager": loop,
    "jit": jax.jit(loop),
    "grad": jax.grad(total(loop)),
    "jit grad": jax.jit(jax.grad(total(loop))),
    "jvp": lambda x: jax.jvp(loop, (x,), (x,)),
    "vmap": lambda x: jax.vmap(loop)(jnp.stack([x, x, x])),
    "jit vmap grad": lambda x: jax.jit(jax.vmap(jax.grad(total(loop))))(
        jnp.stack([x, x])
    ),
    "checkpoint": jax.jit(jax.grad(lambda x: loop(x, checkpoint="sqrt").sum())),
    "recursive": jax.jit(jax.grad(lambda x: loop(x, checkpoint="recursive").sum())),
    "jax.checkpoint": jax.jit(
        jax.value_and_grad(lambda x: jax.checkpoint(loop)(x).sum())
    ),
    "eager jax.checkpoint": jax.value_and_grad(lambda x: jax.checkpoint(loop)(x).sum()),
    "truncated": jax.jit(jax.grad(lambda x: loop(x, truncate_gradient=30).sum())),
    "debug": lambda x: loop(x[:20], mode="DEBUG"),
    "go_backwards": lambda x: loop(x, go_backwards=True),
}


@pytest.mark.parametrize("wrapped", WRAPPED)
def test_one_bar_that_ends_at_the_last_step(bars, wrapped):
    jax.block_until_ready(WRAPPED[wrapped](X))
    jax.effects_barrier()
    assert all(bar.closed for bar in bars)
    if "jax.checkpoint" in wrapped:  # the loop runs twice, perhaps both at once
        assert any(bar.n == bar.total == 250 for bar in bars)
        return
    (bar,) = bars
    steps = 20 if wrapped == "debug" else 250
    assert (bar.n, bar.total) == (steps, steps)
    assert bar.shown == sorted(bar.shown)
    # Compiled, a short loop makes five reports (recomputed chunks fit a few more in).
    assert len(bar.shown) <= (22 if wrapped == "debug" else 11)
    assert bar.desc.startswith("scan")


def test_reports_are_about_a_fifth_of_a_second_apart():
    def reports(size, steps):
        w = jnp.ones((size, size))
        step = Program(jax.make_jaxpr(lambda h, w: jnp.tanh(h @ w))(w[0], w))
        bar = plan_bar(steps, Options(progress=()), step)
        assert bar is not None
        return steps / bar.stride

    assert reports(4, 1000) == 5  # a short loop
    assert reports(4, 3) == 3
    assert 10 < reports(1024, 100_000) < 40  # a few seconds
    assert reports(1024, 10**6) == 100  # longer ones

    step = Program(jax.make_jaxpr(lambda h: jnp.sin(h) + 1)(jnp.zeros(())))
    bar = plan_bar(10**8, Options(progress=()), step)
    assert bar is not None
    assert 10**8 / bar.stride < 10  # about a second: steps of ten nanoseconds


STOPPED = {
    "eager": stopping,
    "jit": jax.jit(stopping),
    "jit grad": jax.jit(jax.grad(total(stopping))),
    "checkpoint": jax.jit(jax.grad(lambda x: stopping(x, checkpoint="sqrt").sum())),
    "truncated": jax.jit(jax.grad(lambda x: stopping(x, truncate_gradient=9).sum())),
    "debug": lambda x: stopping(x, mode="DEBUG"),
}


@pytest.mark.parametrize("wrapped", STOPPED)
def test_until_ends_the_bar_at_the_executed_step(bars, wrapped):
    jax.block_until_ready(STOPPED[wrapped](X))
    jax.effects_barrier()
    (bar,) = bars
    assert (bar.n, bar.total, bar.closed) == (126, 126, True)


def test_a_trace_shows_no_bar(bars):
    """Not even of a loop of which all is known while it is traced."""
    start = jnp.zeros(())
    jax.make_jaxpr(lambda: jscan.scan(jnp.add, X, start, progress=True).outputs)()
    assert not bars


def test_a_function_that_is_traced_again_for_what_it_reads_shows_one_bar(bars):
    total = jscan.shared(jnp.zeros(()), name="total")
    noise = jscan.RandomStreams(1).normal(dtype=X.dtype)

    def step(a):
        return {total: total + a * noise.value}

    @jscan.function
    def add():
        return jscan.scan(step, X, progress=True)

    add()
    jax.effects_barrier()
    (bar,) = bars
    assert (bar.n, bar.closed) == (250, True)


def test_lanes_that_stop_share_the_bar_of_the_furthest(bars):
    lanes = jnp.stack([X, X * 0.8])
    jax.block_until_ready(jax.jit(jax.vmap(stopping))(lanes))
    jax.effects_barrier()
    (bar,) = bars
    assert (bar.n, bar.closed) == (157, True)


def test_the_bar_opens_before_dispatch_and_closes_on_error(bars):
    def fails(a):
        raise RuntimeError("from the host")

    def step(a):
        assert not bars or bars[0].n == 0
        return jax.pure_callback(fails, a, a)

    with pytest.raises(Exception, match="from the host"):
        jax.block_until_ready(jscan.map(step, X).outputs)
    with pytest.raises(Exception, match="from the host"):
        jscan.scan(step, X, progress="fails")
    assert bars[0].closed
    assert bars[0].desc.startswith("fails")
    assert not on_screen._open


def _fails_at(limit):
    def check(n):
        if n >= limit:
            raise RuntimeError("from the host")
        return n

    def run(x, stop):
        def step(a, n, stop):
            n = jax.pure_callback(check, jax.ShapeDtypeStruct((), n.dtype), n)
            return a, n + stop

        return jscan.scan(step, x, [None, jnp.int32(0)], stop, progress=True).outputs[1]

    return run


def test_an_error_in_a_function_closes_its_bars(bars):
    run = _fails_at(120)
    f = jscan.function(lambda: run(X, 1))
    with pytest.raises(Exception, match="from the host"):
        f()
    assert all(bar.closed and bar.n < 121 for bar in bars)
    assert not on_screen._open


def test_a_bar_left_by_an_error_under_jit_starts_again(bars):
    """Nothing of ours is on the way of an error there, but the next run is right."""
    run = jax.jit(_fails_at(120))
    with pytest.raises(Exception, match="from the host"):
        jax.block_until_ready(run(X, 1))
    with contextlib.suppress(Exception):
        jax.effects_barrier()
    jax.block_until_ready(run(X, 0))
    with contextlib.suppress(Exception):  # some devices tell of the old error again
        jax.effects_barrier()
    left, bar = bars
    assert left.closed
    assert (bar.n, bar.closed, bar.shown[:2]) == (250, True, [0, 50])
    assert not on_screen._open


def test_a_loop_in_a_loop_shows_a_bar_for_each_run(bars):
    def outer(a):
        return loop(a + X[:10], name="inner").sum()

    jax.block_until_ready(jscan.scan(outer, X[:3], progress=True, name="outer").outputs)
    jax.effects_barrier()
    names = sorted(bar.desc.removesuffix(": ") for bar in bars)
    assert names == ["inner"] * 3 + ["outer"]
    assert all(bar.closed and bar.n == bar.total for bar in bars)


def test_loops_with_bars_are_not_batched(bars):
    """However much it would gain: it would be one run instead of three."""

    def outer(a):
        return loop(a + X[:10], name="inner")

    program = jax.make_jaxpr(lambda x: jscan.map(outer, x).outputs)(X[:3])
    for platform in ("cpu", "cuda"):
        new = rewrite(program, platform=platform, options=make_options())
        (outer_loop,) = (e for e in new.jaxpr.eqns if e.primitive.name == "scan")
        assert outer_loop.params["length"] == 3
    assert jscan.map(outer, X[:3]).outputs.shape == (3, 10)
    jax.effects_barrier()
    assert len(bars) == 3


@pytest.mark.parametrize("order", ["end first", "middle last", "as it should be"])
def test_reports_may_come_in_any_order(bars, order):
    """A device runs callbacks as it likes: one bar a run, all of it shown."""
    bar = on_screen.Bar(10, (("desc", "x"),), stride=5)
    told = {
        "as it should be": [(0, False), (5, False), (10, True)],
        "end first": [(10, True), (0, False), (5, False)],
        "middle last": [(0, False), (10, True), (5, False)],
    }[order]
    for run in (1, 2):
        for done, last in told:
            on_screen.move_bar(bar, done, last=last)
        assert len(bars) == run
        assert all(shown.closed and shown.n == 10 for shown in bars)


def test_several_loops_at_once(bars):
    threads = [
        threading.Thread(target=loop, args=(X,), kwargs={"name": f"loop {n}"})
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(bar.desc[:6] for bar in bars) == [f"loop {n}" for n in range(3)]
    assert all(bar.closed and bar.n == 250 for bar in bars)


def test_labels_and_options_of_tqdm(bars):
    loop(X, progress=dict(miniters=50, unit="step"), name="named")
    (bar,) = bars
    assert bar.shown == [0, 50, 100, 150, 200, 250]
    assert bar.unit == "step"
    assert bar.desc.startswith("named")


def test_the_rows_do_not_change(bars):
    assert (loop(X) == loop(X, progress=False)).all()
    assert stopping(X).shape == (126,)


def test_in_a_terminal():
    """What a terminal gets: the name, and all steps."""
    program = (
        "import jax.numpy as jnp, jscan\n"
        "jscan.scan(lambda x, s: s + x, jnp.ones(64), 0., name='sum', progress=True)"
    )
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        check=True,
    )
    last = run.stderr.replace("\r", "\n").strip().splitlines()[-1]
    assert last.startswith("sum: 100%")
    assert "64/64" in last


def test_without_tqdm_the_error_names_the_extra(monkeypatch):
    on_screen.tqdm_class.cache_clear()
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(
        ImportError, match=r"(?s)progress.*tqdm.*jscan\[progress\]"
    ) as seen:
        loop(X)
    assert isinstance(seen.value, jscan.ScanError)
    on_screen.tqdm_class.cache_clear()


def test_other_values_are_errors():
    with pytest.raises(TypeError, match=r"progress.*True, a label.*got 3"):
        loop(X, progress=3)
