"""One of two processes that read and store variables which neither has whole.

Usage: python processes_global.py NUMBER COUNT PORT OUT
"""

import copy
import faulthandler
import pickle
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jscan


def main(number, count, port, out):
    """Use variables in every way; each process makes the same calls."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", count, number)
    mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("a", "b"))
    at = lambda *spec: NamedSharding(mesh, P(*spec))
    start = np.arange(32.0, dtype=np.float32).reshape(4, 8)
    w = jscan.shared(start, "w", sharding=at("a", "b"))
    assert not w.value.is_fully_addressable

    def holds(expected):
        assert w.sharding == at("a", "b"), w.sharding
        np.testing.assert_array_equal(w.get_value(gather=True), expected)

    holds(start)
    assert repr(w) == "<SharedVariable w: float32[4,8]>"
    way = r"(?s)shared variable 'w': .* 2 processes.* w.get_value\(gather=True\)"
    reads = (jscan.SharedVariable.get_value, np.asarray, list, pickle.dumps)
    reads += (copy.deepcopy, lambda w: w.tolist(), lambda w: w.item(0))
    for read in (*reads, lambda w: 3.0 in w):
        with pytest.raises(jscan.ScanValueError, match=way):
            read(w)
    total = jscan.shared(w.sum(), "total")
    assert float(total) == float(w.sum()) == start.sum()
    tree = jscan.shared({"w": w.value}, "w")
    with pytest.raises(jscan.ScanValueError, match=way):
        tree.get_value()
    w.set_value(start + 1)
    holds(start + 1)
    w.set_value(w.get_value(gather=True))
    holds(start + 1)
    w.set_value(jnp.asarray(start))
    holds(start)
    w.set_value(w.value * 1)
    holds(start)
    jscan.Updates({w: w * 2}).apply()
    holds(2 * start)
    jscan.scan(lambda: {w: w * 2}, n_steps=2).updates.apply()
    holds(8 * start)
    _functions(w, at, start)
    _loops(at)
    _costs(start)
    w.set_value(w.value, sharding=at())
    np.testing.assert_array_equal(w.get_value(), 16 * start + 2)
    assert pickle.loads(pickle.dumps(w)).sharding == at()
    if number == 0:
        Path(out).write_text('["done", true]')


def _functions(w, at, start):
    count, rng = jscan.shared(0, "count"), jscan.RandomStreams(3)
    noise = rng.normal(size=(4, 8))
    step = jscan.function(
        lambda x: (noise.value, {count: count + 1, w: w + x}), donate=True, name="step"
    )
    x = jax.device_put(8 * start / 2 + 1, at(None, "a"))
    draws = [step(x), step(x)]
    alone = jscan.RandomStreams(3).normal(size=(4, 8))
    by_one = jscan.function(lambda: alone.value)
    for draw in draws:
        whole = jax.device_put(draw, at())
        np.testing.assert_array_equal(np.asarray(whole), np.asarray(by_one()))
    assert (int(count.value), count.sharding, w.sharding) == (2, at(), at("a", "b"))
    np.testing.assert_array_equal(w.get_value(gather=True), 16 * start + 2)
    assert pickle.loads(pickle.dumps(count)).sharding == at()
    message = "(?s)function 'step': argument 'x': needed .* devices of <SharedVariable"
    with pytest.raises(jscan.ScanValueError, match=message):
        step(jax.device_put(start, jax.local_devices()[0]))


def _loops(at):
    """Loops outside of functions that stop leave their rows where they lie."""
    zero = jax.device_put(np.zeros((4, 8), np.float32), at("a", "b"))
    grow = lambda h: (h + 1, jscan.until(h.sum() > 100))
    for mode in (None, "DEBUG"):
        rows = jscan.scan(grow, outputs_info=zero, n_steps=9, mode=mode)
        assert rows.n_steps == len(rows.outputs) == 5
        assert rows.outputs.sharding.is_equivalent_to(at(None, "a", "b"), 3)


def _costs(x):
    """A table of one machine would have its process wait for what others never send."""
    mapped = lambda x: jscan.map(jnp.tanh, x).outputs
    costs = jscan.explain(mapped, machine=__file__)(x).costs
    assert costs.endswith("; the processes that run a program have to run the same")


if __name__ == "__main__":
    faulthandler.dump_traceback_later(300, exit=True)  # says where it waits, if it does
    number, count, port = map(int, sys.argv[1:4])
    main(number, count, port, sys.argv[4])
