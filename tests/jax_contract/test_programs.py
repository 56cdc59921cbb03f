"""Programs, their attributes, names and scopes, as JAX keeps them."""

import functools
import re

import jax
import jax.numpy as jnp
import pytest
from jax.core import ShapedArray, eval_jaxpr
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, find_top_trace, primitives
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jscan._jax.equations import with_body
from jscan._jax.jaxprs import open_jaxpr, run_jaxpr, variable_like

X = jnp.linspace(0.1, 0.9, 4, dtype=jnp.float32)


def named(x):
    return jnp.sum(jnp.sin(x) * jnp.tanh(x))


named.__name__ = named.__qualname__ = "marked_name"
REGION = jax.jit(named)


def opened(jaxpr):
    return jaxpr.jaxpr if hasattr(jaxpr, "jaxpr") else jaxpr


def equations_of(jaxpr):
    for equation in opened(jaxpr).eqns:
        yield equation
        for value in equation.params.values():
            if isinstance(value, Jaxpr | ClosedJaxpr):
                yield from equations_of(value)


TRANSFORMS = {
    "jit": jax.jit(REGION),
    "grad": jax.grad(REGION),
    "jvp": lambda x: jax.jvp(REGION, (x,), (x,)),
    "vmap": lambda x: jax.vmap(REGION)(jnp.stack([x, x])),
    "linearize": lambda x: jax.linearize(REGION, x)[1](x),
    "remat": jax.grad(jax.checkpoint(REGION)),
    "hessian": jax.hessian(REGION),
    "scan": lambda x: jax.lax.scan(lambda h, _: (REGION(h) * h, None), x, None, 2)[0],
}


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_jit_keeps_its_name_under(transform):
    jaxpr = jax.make_jaxpr(TRANSFORMS[transform])(X)
    calls = [e for e in equations_of(jaxpr) if e.primitive is primitives.jit_p]
    inner = [e for e in calls if e.params["name"] == "marked_name"]
    assert inner
    names = {e.primitive.name for e in equations_of(jaxpr)}
    within = {x.primitive.name for e in inner for x in equations_of(e.params["jaxpr"])}
    outside = [e.primitive.name for e in opened(jaxpr).eqns]
    assert "tanh" in names & within
    assert "tanh" not in outside


def test_make_jaxpr_takes_types_as_arguments():
    aval = jax.typeof(X)
    assert isinstance(aval, ShapedArray)
    assert jax.make_jaxpr(jnp.sin)(aval).in_avals == [aval]


def test_make_jaxpr_keeps_manual_axes_of_types():
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
    seen = []

    def own(x):
        aval = jax.typeof(x)
        assert aval.manual_axis_type.varying == {"d"}
        (again,) = jax.make_jaxpr(jnp.sin)(aval).out_avals
        seen.append(again.manual_axis_type.varying)
        return x

    jax.shard_map(own, mesh=mesh, in_specs=P("d"), out_specs=P("d"))(X)
    assert seen[0] == {"d"}


def test_types_of_other_shapes_keep_manual_axes():
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
    seen = []

    def own(x):
        atom = jax.make_jaxpr(jnp.sin)(jax.typeof(x)).jaxpr.invars[0]
        for shape in ((3, 4), ()):
            seen.append((variable_like(atom, shape).aval, jax.typeof(jnp.sum(x))))
        return x

    jax.shard_map(own, mesh=mesh, in_specs=P("d"), out_specs=P("d"))(X)
    (matrix, _), (number, expected) = seen
    assert matrix.shape == (3, 4)
    assert matrix.manual_axis_type.varying == {"d"}
    assert number == expected


def test_make_jaxpr_keeps_shardings_of_types():
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        x = jax.reshard(X, P("d"))
        (out,) = jax.make_jaxpr(jnp.sin)(jax.typeof(x)).out_avals
    assert out.sharding.spec == P("d")


def test_a_type_can_be_updated_in_shape_and_sharding():
    aval = jax.typeof(jnp.zeros((3, 4)))
    row = aval.update(shape=(4,), sharding=aval.sharding.update(spec=P(None)))
    assert (row.shape, row.dtype, row.weak_type) == ((4,), aval.dtype, aval.weak_type)
    assert row.to_tangent_aval().shape == (4,)


def test_a_program_has_equations_constants_and_names_of_its_arguments():
    table = jnp.arange(4, dtype=jnp.float32)
    closed = jax.make_jaxpr(lambda first, second: first + second * table)(table, table)
    body = opened(closed)
    assert [c.shape for c in closed.consts] == [table.shape]
    assert len(body.constvars) == 1
    assert len(body.invars) == 2
    assert tuple(body.debug_info.arg_names) == ("first", "second")
    assert body.debug_info._replace(arg_names=("a", "b")).arg_names == ("a", "b")
    (total,) = eval_jaxpr(body, closed.consts, table, table)
    assert jnp.allclose(total, table + table * table)


def test_constants_of_a_program_can_become_its_inputs():
    table = jnp.arange(4, dtype=jnp.float32)
    closed = jax.make_jaxpr(lambda x: x + table)(table)
    body = opened(closed)
    names = ("", *body.debug_info.arg_names)
    explicit = body.replace(
        constvars=(),
        invars=[*body.constvars, *body.invars],
        debug_info=body.debug_info._replace(arg_names=names),
    )
    program = ClosedJaxpr(explicit, ())
    assert len(program.in_avals) == 2
    assert jnp.allclose(eval_jaxpr(opened(program), (), table, X)[0], table + X)


def test_a_literal_has_a_value_and_a_variable_has_none():
    body = opened(jax.make_jaxpr(lambda x: x * 2.0)(X))
    variable, literal = body.eqns[0].invars
    assert isinstance(literal, Literal)
    assert float(literal.val) == 2.0
    assert not hasattr(variable, "val")


def test_an_equation_knows_its_context_and_effects():
    equation = opened(jax.make_jaxpr(jnp.sin)(X)).eqns[0]
    assert hasattr(equation, "ctx")
    assert not equation.effects
    assert equation.replace(params={}).params == {}


def step(h, x):
    h = jnp.tanh(h + x)
    return h, h


def loss(x):
    with jax.named_scope("cell"):
        return jnp.sum(jax.lax.scan(step, jnp.float32(0), x)[1])


def scopes(function):
    jaxpr = jax.make_jaxpr(function)(X)
    return [
        str(e.source_info.name_stack)
        for e in equations_of(jaxpr)
        if e.primitive is primitives.scan_p
    ]


def test_a_scope_is_written_by_its_name():
    assert scopes(loss) == ["cell"]


def test_a_forward_loop_of_a_derivative_is_named_by_jvp():
    assert scopes(jax.grad(loss))[0] == "jvp(cell)"


def test_a_backward_loop_is_named_by_transpose():
    assert re.fullmatch(r"transpose\(.*cell.*\)+", scopes(jax.grad(loss))[1])


def test_what_a_checkpoint_runs_again_says_rematted_computation():
    found = scopes(jax.grad(jax.checkpoint(loss)))
    assert any("rematted_computation" in scope for scope in found)


def test_a_batched_loop_is_named_by_vmap():
    (found,) = scopes(lambda x: jax.vmap(loss)(jnp.stack([x, x])))
    assert found == "vmap(cell)"


def policy(primitive, *_, **__):
    return primitive.name != "sin"


def test_a_policy_is_still_the_same_object_after_derivatives():
    wrapped = jax.checkpoint(named, policy=policy)
    jaxpr = jax.make_jaxpr(jax.grad(wrapped))(X)
    found = [e for e in equations_of(jaxpr) if e.primitive is primitives.remat_p]
    assert found
    assert all(e.params["policy"] is policy for e in found)
    assert any(e.params["differentiated"] for e in found)


def test_traces_are_told_apart_by_name():
    seen = []

    def note(x):
        trace = find_top_trace(())
        seen.append(type(trace).__name__)
        seen.append(type(trace.parent_trace).__name__)
        return jnp.sin(x)

    jax.jvp(note, (1.0,), (1.0,))
    jax.vmap(note)(X)
    jax.linearize(note, 1.0)
    assert seen[::2] == ["JVPTrace", "BatchTrace", "LinearizeTrace"]
    assert {*seen[1::2]} == {"EvalTrace"}
    found = []
    jax.make_jaxpr(lambda x: found.append(find_top_trace(())) or x)(1.0)
    assert hasattr(found[0], "parent_trace")
    assert not hasattr(find_top_trace(()), "parent_trace")


def test_an_array_a_ref_and_their_tracers_are_told_by_isinstance():
    ref = jax.new_ref(X)
    assert isinstance(ref, jax.Ref)
    found = []
    jax.make_jaxpr(lambda r: found.append(isinstance(r, jax.Ref)) or r[...])(ref)
    assert found == [True]
    assert not isinstance(X, jax.Ref)


def test_pcast_of_what_varies_is_refused():
    """So programs traced for one type cannot be run at the other."""
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=P("d"), out_specs=P("d"))
    def own(x):
        return jax.lax.pcast(x, ("d",), to="varying")

    with pytest.raises(ValueError, match="varying"):
        own(X)


def test_a_checkpoint_is_written_around_another_program():
    """With its variables and its program in the place of others, it runs that."""
    step = jax.checkpoint(jnp.tanh, prevent_cse=False)
    (written,) = open_jaxpr(jax.make_jaxpr(step)(0.0))[0].eqns
    other = jax.make_jaxpr(lambda x, y: (x * y, 3.0 + x))(2.0, 5.0)
    opened, _ = open_jaxpr(other)
    new = written.replace(
        invars=list(map(variable_like, opened.invars)),
        outvars=list(map(variable_like, opened.outvars)),
        params={**written.params, "jaxpr": opened},
    )
    both = with_body(other, [new], new.outvars, new.invars)
    assert [float(x) for x in run_jaxpr(both, 2.0, 5.0)] == [10.0, 5.0]
    slope = jax.grad(lambda x: run_jaxpr(both, x, 5.0)[0])
    assert float(slope(2.0)) == 5.0
