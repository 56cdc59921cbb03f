"""Loops that cannot be run alone: the estimate decides, and the report says why."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jscan
from jscan._optimizer.planning import alone
from support.comparing import assert_close
from support.optimizer.planning import kept_in, times, timing_of

X = jnp.linspace(-1.0, 1.0, 24).reshape(8, 3)


@pytest.fixture(autouse=True)
def wisdom(tmp_path: Path):
    with kept_in(tmp_path) as folder:
        yield folder


def scan(step):
    return lambda x: jax.lax.scan(step, jnp.zeros(3, x.dtype), x)[1]


def sums(x):
    return scan(lambda h, x: (h + jnp.sin(x), h * x))(x)


def calls_back(h, x):
    kind = jax.ShapeDtypeStruct(h.shape, h.dtype)
    h = jnp.tanh(x) + jax.pure_callback(np.sin, kind, h, vmap_method="sequential")
    return h, h


def prints(h, x):
    jax.debug.print("{x}", x=x[0])
    return h + x, h


def loops(h, x):
    h = jax.lax.while_loop(lambda h: h.sum() < 3, lambda h: h + 1, x)
    return h, h


def branches(h, x):
    h = jax.lax.cond(x[0] > 0, lambda: h + jnp.sin(x), lambda: h)
    return h, h


REFUSED = {
    "calls what is outside": calls_back,
    "how many steps": loops,
    "which branch": branches,
}


def refused(fun, *args):
    """Why no loop is measured; the results are as they should be."""
    with times({}) as races:
        report = jscan.explain(fun, plan="measure")(*args)
        measured = jax.jit(jscan.optimize(fun, plan="measure"))
        assert_close(measured(*args), jax.jit(fun)(*args))
    assert not races
    (loop, *_) = report.loops
    assert "estimated, not measured" in str(loop)
    assert timing_of(loop).form == "estimated"
    return timing_of(loop).why


@pytest.mark.parametrize("why", REFUSED)
def test_what_a_step_does(why):
    assert why in refused(scan(REFUSED[why]), X)


def test_effects(capfd):
    assert "an effect would happen again" in refused(scan(prints), X)
    jax.effects_barrier()
    assert len(capfd.readouterr().out.split()) == 2 * len(X)


def test_references():
    def counts(x):
        def step(h, x_t):
            ref[...] += 1.0
            return h + x_t, h

        ref = jax.new_ref(jnp.zeros((), x.dtype))
        return jax.lax.scan(step, jnp.zeros(3, x.dtype), x)[1] + ref[...]

    (loop,) = jscan.explain(counts, plan="measure")(X).loops
    assert "it reads or writes what is no array" in str(timing_of(loop))


def test_loops_inside_what_cannot_run_alone_are_measured():
    def inner(h, x):
        h, _ = calls_back(h, x)
        return scan(lambda c, x: (c + jnp.sin(x), c))(X + h[None])[-1] + h, h

    with times({"as written": 0.1}) as races:
        outer, inside = jscan.explain(scan(inner), plan="measure")(X).loops
    assert "calls what is outside" in timing_of(outer).why
    assert timing_of(inside).times
    assert len(races) == 1


def test_large_arrays(monkeypatch):
    monkeypatch.setattr(alone, "LARGEST", 100)
    assert "bytes, measured are up to 100" in refused(scan(lambda h, x: (x, h)), X)


def test_several_processes(monkeypatch):
    """Each would decide for itself, and they would wait for each other."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert "have to run the same" in refused(sums, X)


def test_arrays_split_over_devices():
    mesh = Mesh(np.array(jax.devices()[:2]), ("i",))
    x = jax.device_put(jnp.ones((8, 4)), NamedSharding(mesh, P(None, "i")))
    with jax.set_mesh(mesh):
        fun = lambda x: jax.lax.scan(lambda h, x: (h + jnp.sin(x), h), x[0], x)[1]
        assert "several devices" in refused(fun, x)


@pytest.mark.parametrize("check_vma", [True, False])
def test_shard_map(check_vma):
    mesh = Mesh(np.array(jax.devices()[:2]), ("i",))

    def fun(x):
        step = lambda h, x: (h + jax.lax.psum(jnp.sin(x), "i"), h)
        run = lambda x: jax.lax.scan(step, jnp.zeros(3, x.dtype), x)[0][None]
        return jax.shard_map(
            run, mesh=mesh, in_specs=P("i"), out_specs=P(), check_vma=check_vma
        )(x)

    with jax.set_mesh(mesh):
        assert "several devices" in refused(fun, X)


def test_another_platform():
    """What is exported for a device that is not here has nowhere to run."""
    with times({}) as races:
        fun = jax.jit(jscan.optimize(sums, plan="measure"))
        jax.export.export(fun, platforms=["tpu"])(X)
    assert not races
