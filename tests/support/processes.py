"""One of several processes that train one model together; `test_processes` starts it.

Usage: python processes.py NUMBER COUNT PORT OUT FOLDER DIES_AT. There are four devices
in all. The state is saved at every second step, and taken up from the last one saved.
"""

import faulthandler
import importlib
import json
import os
import signal
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jscan

STEPS, DEVICES = 8, 4
SHAPES = {1: (2, 2), 2: (4, 1), 4: (2, 2)}  # of the mesh, by the count of processes


def made(shape):
    """The variables of a run, its mesh, and the function that trains them."""
    mesh = Mesh(np.array(jax.devices()).reshape(shape), ("data", "model"))
    at = lambda *spec: NamedSharding(mesh, P(*spec))
    start = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32) * 0.3
    w = jscan.shared(start, "w", sharding=at("data", "model"))
    momentum = jscan.shared(0 * start, "momentum", sharding=at("data", "model"))
    rng = jscan.RandomStreams(7, sharding=at())
    noise = rng.normal(size=(16, 8))
    step = jscan.shared(0, "step", sharding=at())

    @jscan.function(donate=True)
    def train(xs):
        def cost():
            rows = jscan.scan(
                lambda x, h: jnp.tanh(x + h @ w.value + 0.01 * noise),
                sequences=xs,
                outputs_info=jnp.zeros((16, 8)),
            ).outputs
            return ((rows[-1] - 0.3) ** 2).mean()

        value, slope = jscan.value_and_grad(cost, w)
        new = 0.9 * momentum + slope
        return value, {w: w - 0.3 * new, momentum: new, step: step + 1}

    run = {"params": w, "momentum": momentum, "rng": rng.state, "step": step}
    xs = np.random.default_rng(1).normal(size=(4, 16, 8)).astype(np.float32)
    return run, train, jax.device_put(xs, at(None, "data"))


def note(out, name, value):
    """Add a line to what the test reads; what JAX prints is not in its way."""
    with Path(out).open("a") as file:
        file.write(json.dumps([name, value]) + "\n")


def main(number, count, port, out, folder, dies_at):
    """Train from the last checkpoint to the end, or to the step at which it dies."""
    ocp = importlib.import_module("orbax.checkpoint")  # not in every environment

    if count > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"127.0.0.1:{port}", count, number)
    run, train, xs = made(SHAPES[count])
    values = lambda: jax.tree.map(lambda variable: variable.value, run)
    places = jax.tree.map(lambda value: value.sharding, values())
    saver = ocp.CheckpointManager(Path(folder))
    if saver.latest_step() is not None:
        like = jax.tree.map(ocp.utils.to_shape_dtype_struct, values())
        found = saver.restore(saver.latest_step(), args=ocp.args.StandardRestore(like))
        jax.tree.map(lambda variable, value: variable.set_value(value), run, found)
    for index in range(int(run["step"].value), STEPS):
        cost = float(train(xs))
        if number == 0:
            note(out, index, cost)
        if index == dies_at and number == count - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if index % 2:  # alike in all: not where one still saves and another does not
            saver.wait_until_finished()
            saver.save(index, args=ocp.args.StandardSave(values()))
            if index == 1:
                saver.wait_until_finished()
    saver.wait_until_finished()
    assert jax.tree.map(lambda value: value.sharding, values()) == places
    w = run["params"].get_value(gather=True)
    if number == 0:
        note(out, "w", w.tolist())


if __name__ == "__main__":
    faulthandler.dump_traceback_later(300, exit=True)  # says where it waits, if it does
    number, count, port = map(int, sys.argv[1:4])
    main(number, count, port, sys.argv[4], sys.argv[5], int(sys.argv[6]))
