"""Names and parameters of JAX's primitives that the optimizer knows."""

import functools
import importlib
import pkgutil
import sys

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import Primitive, primitives

import jscan
from support.objects import every_object

# Names that only some of the supported versions of JAX have.
NOT_EVERYWHERE = {"closed_call", "one_minus_square", "log2", "polynomial"}


def tables():
    """Every table of names of primitives in the package, by module and name."""
    for module in pkgutil.walk_packages(jscan.__path__, "jscan."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found = {}
    for path, module in sys.modules.items():
        if not path.startswith("jscan._") or path.endswith((".choices", ".rules")):
            continue
        for name, table in vars(module).items():
            is_names = isinstance(table, frozenset) and table
            if is_names and all(isinstance(entry, str) for entry in table):
                found[f"{path.rsplit('.', 1)[-1]}.{name}"] = table
    return found


TABLES = tables()


@functools.cache  # half a second where the tests have made many objects
def live_names():
    return {p.name for p in every_object() if issubclass(type(p), Primitive)}


def equation(function, *args):
    """The first equation of a program."""
    return jax.make_jaxpr(function)(*args).eqns[0]


X = jnp.linspace(0.1, 0.9, 6, dtype=jnp.float32).reshape(2, 3)


def test_there_are_tables_to_compare():
    assert len(TABLES) > 10


@pytest.mark.parametrize("table", sorted(TABLES))
def test_every_name_in_a_table_is_that_of_a_primitive(table):
    assert TABLES[table] - live_names() <= NOT_EVERYWHERE


@pytest.mark.parametrize("name", ["jit_p", "scan_p", "while_p", "cond_p", "remat_p"])
def test_control_flow_is_found_in_jax_extend(name):
    assert isinstance(getattr(primitives, name), Primitive)


PARAMETERS = [
    ("jit", jax.jit(jnp.sin), {"name", "jaxpr", "in_shardings", "out_shardings"}),
    ("remat2", jax.checkpoint(jnp.sin), {"policy", "differentiated", "jaxpr"}),
    ("remat2", jax.checkpoint(jnp.sin), {"prevent_cse"}),
    ("dot_general", lambda x: x @ x.T, {"dimension_numbers"}),
    ("slice", lambda x: jax.lax.slice(x, (0, 1), (2, 2)), {"start_indices"}),
    ("slice", lambda x: jax.lax.slice(x, (0, 1), (2, 2)), {"limit_indices"}),
    ("slice", lambda x: jax.lax.slice(x, (0, 1), (2, 2)), {"strides"}),
    ("pad", lambda x: jax.lax.pad(x, x[0, 0], [(0, 1, 0)] * 2), {"padding_config"}),
    ("reduce_sum", lambda x: jax.lax.reduce_sum(x, (0,)), {"axes"}),
    ("concatenate", lambda x: jax.lax.concatenate([x, x], 0), {"dimension"}),
    ("split", lambda x: jax.lax.split(x, (1, 2), 1), {"axis", "sizes"}),
    (
        "broadcast_in_dim",
        lambda x: jax.lax.broadcast_in_dim(x, (4, 2, 3), (1, 2)),
        {"broadcast_dimensions"},
    ),
    (
        "convert_element_type",
        lambda x: jax.lax.convert_element_type(x, jnp.int32),
        {"new_dtype", "sharding"},
    ),
    ("gather", lambda x: x.at[jnp.array([0, 1])].get(), {"mode"}),
]


@pytest.mark.parametrize(
    ("name", "function", "parameters"),
    PARAMETERS,
    ids=["-".join([name, *sorted(read)]) for name, _, read in PARAMETERS],
)
def test_a_primitive_has_the_parameters_that_are_read(name, function, parameters):
    jaxpr = jax.make_jaxpr(function)(X)
    found = [e for e in jaxpr.eqns if e.primitive.name == name]
    assert found
    assert parameters <= set(found[0].params)


def test_a_scan_says_how_its_operands_are_split():
    def loop(w, h, x):
        return jax.lax.scan(lambda h, x: (w * h + x, h), h, x, reverse=True, unroll=2)

    (scan,) = jax.make_jaxpr(loop)(X[0], X[0], X).eqns
    params = scan.params
    assert scan.primitive is primitives.scan_p
    assert (params["length"], params["reverse"], params["unroll"]) == (2, True, 2)
    if "num_consts" in params:
        counts = params["num_consts"], params["num_carry"]
    else:
        constants, carry, _ = params["ft_in"].unpack()
        counts = len(constants), len(carry)
    assert counts == (1, 1)
    assert set(params) <= {
        *("jaxpr", "length", "reverse", "unroll"),
        *("num_consts", "num_carry", "ft_in", "ft_out"),
    }


def test_a_jit_without_placements_has_unspecified_ones():
    params = equation(jax.jit(jnp.sin), X).params
    placed = [*params["in_shardings"], *params["out_shardings"]]
    assert {type(item).__name__ for item in placed} == {"UnspecifiedValue"}
    assert not params["compiler_options_kvs"]


def custom(x):
    return jnp.sin(x)


def ruled():
    function = jax.custom_jvp(custom)
    function.defjvp(lambda p, t: (custom(*p), t[0] * jnp.cos(p[0])))
    return function


def test_a_custom_jvp_hands_out_the_program_of_its_rule():
    params = equation(ruled(), X).params
    assert params["num_consts"] == 0
    assert params["symbolic_zeros"] is False
    jaxpr, constants, zeros = params["jvp_jaxpr_fun"].call_wrapped(False)
    assert [e.primitive.name for e in jaxpr.eqns] == ["sin", "cos", "mul"]
    assert (list(constants), list(zeros)) == ([], [False])


@pytest.mark.parametrize("kind", ["custom_jvp_call", "custom_vjp_call"])
def test_a_function_with_a_rule_holds_its_program(kind):
    function = ruled()
    if kind == "custom_vjp_call":
        function = jax.custom_vjp(custom)
        function.defvjp(lambda x: (custom(x), x), lambda x, ct: (ct * jnp.cos(x),))
    call = equation(function, X)
    assert call.primitive.name == kind
    assert [a.shape for a in call.params["call_jaxpr"].in_avals] == [X.shape]
