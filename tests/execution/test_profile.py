"""Profiles count what ran: as data, as text, as a table."""

import asyncio
import threading

import jax
import jax.numpy as jnp
import pytest

import jscan


def loop(x, **options):
    return jscan.scan(lambda a, h, w: h @ w + a, x, jnp.zeros(8), jnp.eye(8), **options)


X = jnp.ones((40, 8))


def test_calls_steps_and_costs():
    with jscan.profile() as report:
        for _ in range(3):
            loop(X, name="linear")
        jscan.scan(lambda a: (a, jscan.until(a >= 3)), jnp.arange(9.0), name="stops")
        jax.jit(lambda x: loop(x, name="linear").outputs)(X)
    linear, stops = report.loops["linear"], report.loops["stops"]
    assert (linear.calls, linear.steps, linear.traced) == (3, 120, 1)
    assert (stops.calls, stops.steps, stops.traced) == (1, 4, 0)
    assert 2 * 8 * 8 <= linear.flops <= 4 * 8 * 8  # a product and a sum
    assert linear.bytes >= 8 * (8 * 8 + 2 * 8)
    assert linear.compile_time > 0
    assert 0 < linear.wall_time / 120 == linear.time_per_step
    before = linear.calls
    loop(X, name="linear")  # after the block: not counted
    assert linear.calls == before


def test_a_trace_is_no_call():
    """Not even of a loop of which all is known while it is traced."""
    start = jnp.zeros(8)
    with jscan.profile() as report:
        jax.make_jaxpr(lambda: jscan.scan(jnp.add, X, start, name="sum").outputs)()
    assert (report.loops["sum"].calls, report.loops["sum"].traced) == (0, 1)


def test_text_and_table():
    with jscan.profile() as report:
        loop(X, name="<b>")
    head, line = str(report).splitlines()
    assert head.split()[:4] == ["loop", "calls", "traced", "steps"]
    assert line.split()[:4] == ["<b>", "1", "0", "40"]
    table = report._repr_html_()
    assert table.count("<tr>") == 2
    assert "&lt;b&gt;" in table
    (numbers,) = report.as_dicts()
    assert numbers["steps"] == 40
    assert numbers["time_per_step"] > 0


def test_loops_of_other_threads_are_not_counted():
    thread = threading.Thread(target=loop, args=(X,), kwargs=dict(name="theirs"))
    with jscan.profile() as mine:
        thread.start()
        thread.join()
        loop(X, name="mine")
        with jscan.profile() as inner:
            loop(X, name="both")
    assert list(mine.loops) == ["mine", "both"]
    assert list(inner.loops) == ["both"]


def test_loops_of_other_tasks_are_not_counted():
    async def work(name):
        with jscan.profile() as report:
            for _ in range(3):
                await asyncio.sleep(0)
                loop(X, name=name)
            await asyncio.to_thread(loop, X, name=f"{name} in a thread")
        return list(report.loops)

    async def main():
        return await asyncio.gather(work("a"), work("b"))

    assert asyncio.run(main()) == [[n, f"{n} in a thread"] for n in "ab"]


def test_profile_true_collects_in_always():
    before = jscan.profile.always.loops.pop("mine", None)
    assert before is None
    loop(X, profile="mine")
    loop(X, profile="mine", name="other")
    loop(X, name="unasked")
    assert jscan.profile.always.loops["mine"].calls == 2
    assert "unasked" not in jscan.profile.always.loops


def test_a_second_call_compiles_nothing():
    with jscan.profile() as report:
        loop(X * 2, name="twice")
        first = report.loops["twice"].compile_time
        loop(X * 2, name="twice")
    assert report.loops["twice"].compile_time < 1.5 * first + 0.01


def test_the_rows_do_not_change():
    plain = loop(X).outputs
    assert (loop(X, profile=True).outputs == plain).all()


def test_other_values_are_errors():
    with pytest.raises(TypeError, match=r"profile.*label.*got 3"):
        loop(X, profile=3)
