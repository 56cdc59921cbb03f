"""The columns of the matrix: every transformation and tool of JAX, by name.

A tool gets `make`, which makes a loop ``(w, x, h) -> tree`` of what one step computes,
and the arguments. It returns numbers, which are the same for our loops and for those
written by hand. Derivatives are taken of one scalar made of all results, or of all
smooth results.
"""

import gc
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax.experimental import checkify, io_callback
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jscan
from support import checking as helpers
from support.matrix_kinds import BATCH, LENGTH, SIZE, Tree

Arguments = tuple[Any, Any, Any]
Make = Callable[..., Callable[..., Tree]]
Tool = Callable[[Make, Arguments], Tree]

TOOLS: dict[str, Tool] = {}
ALL = (0, 1, 2)


def tool(function: Tool) -> Tool:
    TOOLS[function.__name__] = function
    return function


def cell(w: Any, x: Any, h: Any) -> Any:
    return jnp.tanh(h @ w + x)


def arguments() -> Arguments:
    point = lambda *shape: np.sin(1.3 * np.arange(np.prod(shape)) + len(shape))
    shapes = [(SIZE, SIZE), (LENGTH, BATCH, SIZE), (BATCH, SIZE)]
    w, x, h = [jnp.asarray(0.8 * point(*s).reshape(s), jnp.float32) for s in shapes]
    return w, x, h


def direction(args: Arguments) -> Arguments:
    w, x, h = [jnp.cos(1.7 * leaf + 0.2) for leaf in args]
    return w, x, h


def soft(loop: Callable[..., Tree]) -> Callable[..., list[Any]]:
    """The results that have derivatives."""
    return lambda *args: [
        leaf for leaf in jax.tree.leaves(loop(*args)) if helpers.is_inexact(leaf)
    ]


def cost(loop: Callable[..., Tree]) -> Callable[..., Any]:
    def scalar(*args: Any) -> Any:
        parts = [jnp.sum(jnp.sin(leaf + n)) for n, leaf in enumerate(soft(loop)(*args))]
        return sum(parts[1:], parts[0])

    return scalar


def all_gradients(loop: Callable[..., Tree]) -> Any:
    return jax.jit(jax.value_and_grad(cost(loop), ALL))


# ------------------------------------------------------------------- transformations


@tool
def eager(make, args):
    return make()(*args)


@tool
def jit(make, args):
    return jax.jit(make())(*args)


@tool
def grad(make, args):
    return all_gradients(make())(*args)


@tool
def eager_grad(make, args):
    return jax.grad(cost(make()), ALL)(*args)


@tool
def jvp(make, args):
    push = lambda *args: jax.jvp(soft(make()), args, direction(args))
    return jax.jit(push)(*args)


@tool
def vmap(make, args):
    w, x, h = args
    lanes = jnp.stack([x, 0.5 * x, 0.1 * x])
    return jax.jit(jax.vmap(make(), (None, 0, None)))(w, lanes, h)


@tool
def vmap_of_grad(make, args):
    w, x, h = args
    lanes = jnp.stack([h, 0.5 * h, 0.1 * h])
    return jax.vmap(all_gradients(make()), (None, None, 0))(w, x, lanes)


@tool
def grad_of_vmap(make, args):
    w, x, h = args
    lanes = jnp.stack([x, 0.5 * x, 0.1 * x])
    return all_gradients(jax.vmap(make(), (None, 0, None)))(w, lanes, h)


@tool
def hessian(make, args):
    return jax.jit(jax.hessian(cost(make()), 2))(*args)


@tool
def reverse_over_reverse(make, args):
    slope = lambda *args: jnp.sum(jax.grad(cost(make()))(*args) ** 2)
    return jax.jit(jax.grad(slope, 1))(*args)


@tool
def linearize(make, args):
    values, push = jax.linearize(soft(make()), *args)
    return values, push(*direction(args))


@tool
def vmap_with_collective(make, args):
    def gathered(w, x, h):
        return cell(w, x, h - 0.1 * jax.lax.pmean(h, "lane"))

    w, x, h = args
    lanes = jnp.stack([x, 0.5 * x])
    loop = jax.vmap(make(gathered), (None, 0, None), axis_name="lane")
    return jax.jit(loop)(w, lanes, h)


def remat(policy: Any) -> Tool:
    def run(make, args):
        loop = jax.checkpoint(cost(make()), policy=policy)
        return jax.jit(jax.value_and_grad(loop, ALL))(*args)

    return run


POLICIES = jax.checkpoint_policies
TOOLS |= {
    "remat": remat(None),
    "remat_nothing": remat(POLICIES.nothing_saveable),
    "remat_everything": remat(POLICIES.everything_saveable),
    "remat_dots": remat(POLICIES.dots_saveable),
}


@tool
def remat_in_step(make, args):
    return all_gradients(make(jax.checkpoint(cell)))(*args)


# --------------------------------------------------------------------- derivative rules


def twice_jvp(function: Callable[..., Any]) -> Callable[..., Any]:
    """A rule whose derivative is twice the true one, so that it shows."""
    ruled = jax.custom_jvp(function)

    @ruled.defjvp
    def rule(primals, tangents):
        value, rate = jax.jvp(function, primals, tangents)
        return value, jax.tree.map(lambda leaf: 2 * leaf, rate)

    return ruled


def twice_vjp(function: Callable[..., Any]) -> Callable[..., Any]:
    ruled = jax.custom_vjp(function)
    forward = lambda *args: jax.vjp(function, *args)
    backward = lambda pull, ct: pull(jax.tree.map(lambda leaf: 2 * leaf, ct))
    ruled.defvjp(forward, backward)
    return ruled


@tool
def custom_jvp_in_step(make, args):
    return all_gradients(make(twice_jvp(cell)))(*args)


@tool
def custom_vjp_in_step(make, args):
    return all_gradients(make(twice_vjp(cell)))(*args)


@tool
def custom_jvp_around(make, args):
    return all_gradients(twice_jvp(soft(make())))(*args)


@tool
def custom_vjp_around(make, args):
    return all_gradients(twice_vjp(soft(make())))(*args)


@tool
def rule_that_holds_an_array(make, args):
    table = jnp.linspace(0.5, 1.5, SIZE, dtype=jnp.float32)[None]
    ruled = twice_jvp(lambda h: h * table)
    return all_gradients(make(lambda w, x, h: ruled(cell(w, x, h))))(*args)


@tool
def callee_that_holds_an_array(make, args):
    table = jnp.linspace(0.5, 1.5, SIZE, dtype=jnp.float32)[None]
    callee = jax.jit(lambda h: h * table)
    loop = make(lambda w, x, h: callee(cell(w, x, h)))
    return all_gradients(loop)(*args), jax.jit(loop)(*args)


# --------------------------------------------------------------------- tools that check


def logarithm(w: Any, x: Any, h: Any) -> Any:
    """A cell that is not a number where the sequence is below -2."""
    return jnp.tanh(h @ w + jnp.log(x + 2.0))


def spoilt(args: Arguments) -> Arguments:
    w, x, h = args
    return w, x.at[0, 0, 1].set(-3.0), h


@tool
def checkify_floats(make, args):
    checked = checkify.checkify(make(logarithm), errors=checkify.float_checks)
    fine, rows = jax.jit(checked)(*args)
    broken, _ = jax.jit(checked)(*spoilt(args))
    assert fine.get() is None
    assert "nan generated by primitive: log" in (broken.get() or "nothing")
    return rows


@tool
def checkify_in_step(make, args):
    def checking(w, x, h):
        checkify.check(jnp.all(x > -2.0), "x is too small")
        return cell(w, x, h)

    checked = jax.jit(checkify.checkify(make(checking)))
    (fine, rows), (broken, _) = checked(*args), checked(*spoilt(args))
    assert fine.get() is None
    assert "x is too small" in (broken.get() or "nothing")
    return rows


@tool
def debug_nans(make, args):
    loop = jax.jit(make(logarithm))
    with jax.debug_nans(True):
        rows = loop(*args)
        try:
            jax.block_until_ready(loop(*spoilt(args)))
        except FloatingPointError:
            return rows
    raise AssertionError("jax.debug_nans saw nothing")


@tool
def checking_leaks(make, args):
    # What was traced before is not traced again, and could not leak.
    jscan.clear_caches()
    jax.clear_caches()
    # Of a leak JAX tells who holds it, and asks all objects but the frozen ones.
    gc.collect()
    gc.freeze()
    try:
        with jax.checking_leaks():
            return all_gradients(make())(*args)
    finally:
        gc.unfreeze()


@tool
def compile_time_eval(make, args):
    def program(y):
        with jax.ensure_compile_time_eval():
            rows = make()(*args)
        return jax.tree.map(lambda leaf: leaf + y.astype(leaf.dtype), rows)

    return jax.jit(program)(jnp.float32(1))


# ------------------------------------------------------------------ ahead of the time


@tool
def ahead_of_time(make, args):
    return jax.jit(make()).lower(*args).compile()(*args)


@tool
def ahead_of_time_grad(make, args):
    types = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in args]
    return all_gradients(make()).lower(*types).compile()(*args)


@tool
def export_for_two_platforms(make, args):
    exported = export.export(all_gradients(make()), platforms=("cpu", "cuda"))(*args)
    return exported.call(*args)


@tool
def export_with_symbolic_batch(make, args):
    (batch,) = export.symbolic_shape("b")
    shapes = [(SIZE, SIZE), (LENGTH, batch, SIZE), (batch, SIZE)]
    types = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return export.export(jax.jit(make()))(*types).call(*args)


@tool
def export_with_symbolic_length(make, args):
    (length,) = export.symbolic_shape("t", constraints=["t >= 4"])
    shapes = [(SIZE, SIZE), (length, BATCH, SIZE), (BATCH, SIZE)]
    types = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return export.export(jax.jit(make()))(*types).call(*args)


# ------------------------------------------------------------------------------ devices


def mesh_of(kind: AxisType) -> Any:
    return jax.make_mesh((BATCH,), ("d",), axis_types=(kind,))


SPECS = (P(), P(None, "d", None), P("d", None))


def on_mesh(kind: AxisType) -> Tool:
    """Values and gradients; every device holds its part of the batch."""

    def run(make, args):
        mesh = mesh_of(kind)
        with jax.set_mesh(mesh):
            placed = [
                jax.device_put(leaf, NamedSharding(mesh, spec))
                for leaf, spec in zip(args, SPECS, strict=True)
            ]
            return jax.jit(make())(*placed), all_gradients(make())(*placed)

    return run


TOOLS |= {
    "explicit_mesh": on_mesh(AxisType.Explicit),
    "auto_mesh": on_mesh(AxisType.Auto),
}


@tool
def shard_map(make, args):
    """Weights are the same everywhere: their gradient is a sum over the devices."""

    def own(*args):
        return jax.tree.map(lambda leaf: leaf[None], make()(*args))

    whole = jax.shard_map(
        own, mesh=mesh_of(AxisType.Auto), in_specs=SPECS, out_specs=P("d")
    )
    return jax.jit(whole)(*args), all_gradients(whole)(*args)


@tool
def grad_in_shard_map(make, args):
    own = jax.grad(cost(make()), ALL)
    mesh = mesh_of(AxisType.Auto)
    return jax.jit(jax.shard_map(own, mesh=mesh, in_specs=SPECS, out_specs=SPECS))(
        *args
    )


@tool
def shard_map_of_own_weights(make, args):
    """What is the same on all devices is made to vary before the loop."""

    def own(w, x, h):
        w = jax.lax.pcast(w, "d", to="varying")
        return jax.tree.map(lambda leaf: leaf[None], make()(w, x, h))

    mesh = mesh_of(AxisType.Auto)
    whole = jax.shard_map(own, mesh=mesh, in_specs=SPECS, out_specs=P("d"))
    return jax.jit(whole)(*args), all_gradients(whole)(*args)


@tool
def pmap(make, args):
    w, x, h = args
    return jax.pmap(make(), in_axes=(None, 0, None))(w, jnp.stack([x, 0.5 * x]), h)


# ---------------------------------------------------------------------- effects, Refs


def told(make: Make, args: Arguments, call: Callable[[Any, Any], Any]) -> Tree:
    """The rows, and what the host was told, in order."""
    heard: list[float] = []

    def telling(w, x, h):
        call(lambda value: heard.append(round(float(value), 4)), jnp.sum(x))
        return cell(w, x, h)

    rows = jax.block_until_ready(jax.jit(make(telling))(*args))
    jax.effects_barrier()
    return rows, np.array(heard)


@tool
def debug_callback(make, args):
    return told(make, args, partial(jax.debug.callback, ordered=True))


@tool
def io_callback_in_step(make, args):
    return told(make, args, lambda tell, x: io_callback(tell, None, x, ordered=True))


@tool
def pure_callback(make, args):
    def on_host(w, x, h):
        shape = jax.ShapeDtypeStruct(h.shape, h.dtype)
        return jax.pure_callback(np.tanh, shape, h @ w + x)

    return jax.jit(make(on_host))(*args)


@tool
def ref_captured(make, args):
    def program(*args):
        seen = jax.new_ref(jnp.zeros((BATCH, SIZE), jnp.float32))

        def storing(w, x, h):
            new = cell(w, x, h)
            seen[...] += new
            return new

        rows = make(storing)(*args)
        return rows, seen[...]

    return jax.jit(program)(*args)
