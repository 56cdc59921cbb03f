"""JAX's errors, and our notes, speak of the user's function and of its arguments."""

import re
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan

x, h0 = jnp.arange(3.0), jnp.zeros(())
W: Any = jscan.shared(jnp.ones(2), name="W")
odd: Any = jscan.shared(1.0, name="not a name")
tree: Any = jscan.shared({"a": 1.0}, name="tree")


class Cell:
    def __init__(self) -> None:
        self.weights = np.ones(1000)

    def __call__(self, now, before):
        return before if now > 0 else now

    def method(self, now, before):
        return before if now > 0 else now

    def __repr__(self) -> str:
        raise AssertionError("a large module is printed")


def plain(now, before):
    return before if now > 0 else now


def with_default(now, before, scale=2.0):
    return before if now * scale > 0 else now


def on_state(now, before):
    return before if before > 0 else now


def of_many(*given):
    return given[1] if given[0] > 0 else given[0]


def of_tree(rows, before):
    return before if rows["a"] > 0 else -before


def weighted(scale, now, before):
    return before if now > 0 else now


def reads(now, before, weight):
    return before if W.value[0] > 0 else now


def reads_tree(now, before, tree):
    return before if tree.value["a"] > 0 else now


class Case(NamedTuple):
    step: Any
    name: str
    argument: str
    called: str
    sequences: Any = x
    constants: Any = None


SCALARS = r"now: float64\[\], before: float64\[\]"
CASES = {
    "a function": Case(plain, "plain", "now", rf"plain\({SCALARS}\)"),
    "a default": Case(with_default, "with_default", "now", rf"with_default\({SCALARS}"),
    "a state": Case(on_state, "on_state", "before", rf"on_state\({SCALARS}\)"),
    "*args": Case(of_many, "of_many", r"given\[0\]", r"of_many\(given\[0\]: float64"),
    "a tree": Case(
        of_tree,
        "of_tree",
        r"rows\['a'\]",
        r"of_tree\(rows: {'a': float64\[\], 'b': .*}, before: float64\[\]\)",
        dict(input={"a": x, "b": x}),
    ),
    "partial": Case(partial(weighted, 2.0), "weighted", "now", rf"step\({SCALARS}\)"),
    "a method": Case(Cell().method, "method", "now", rf"method\({SCALARS}\)"),
    "an object": Case(Cell(), "__call__", "now", rf"step\({SCALARS}\)"),
    "a variable": Case(
        reads,
        "reads",
        "W",
        rf"reads\({SCALARS}, weight: SharedVariable float64\[2\]",
        x,
        W,
    ),
    "a variable under the name of an argument": Case(
        reads_tree,
        "reads_tree",
        r"tree_value\['a'\]",
        rf"reads_tree\({SCALARS}, tree: SharedVariable {{'a': float64\[\]}}\)",
        x,
        tree,
    ),
    "jit": Case(jax.jit(plain), "plain", "now", rf"plain\({SCALARS}\)"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_step_and_its_arguments_are_named(case: Case):
    with pytest.raises(jax.errors.TracerBoolConversionError) as caught:
        jscan.scan(case.step, case.sequences, h0, case.constants, name="storm")
    text = str(caught.value)
    assert re.search(rf"tracing the function {case.name} at .*{__name__[-8:]}", text)
    assert re.search(rf"the arguments? {case.argument}\.", text), text
    notes = "\n".join(caught.value.__notes__)
    assert re.search(rf"in the step of scan 'storm', called as {case.called}", notes)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_in_python_the_note_says_which_step(case: Case):
    def fails(*given):
        raise RuntimeError(f"of {len(given)}")

    with pytest.raises(RuntimeError) as caught:
        jscan.scan(fails, case.sequences, h0, case.constants, mode="DEBUG")
    assert "in step 0 of scan, called as fails(given[0]: " in caught.value.__notes__[0]


def test_a_variable_whose_name_is_no_identifier():
    def step(a, shared):
        return a if odd.value > 0 else -a

    with pytest.raises(jax.errors.TracerBoolConversionError) as caught:
        jscan.scan(step, x, None, odd)
    assert "the argument shared_value." in str(caught.value)


def branch(a, options, *rest, flag=0.0, **more):
    if options["deep"][0] > 0 or flag > 0 or more["b"] > 0 or rest[0] > 0:
        return a
    return -a


def test_a_compiled_function_and_its_arguments_are_named():
    run: Any = jscan.function(branch, name="run")
    for deep in (x, jnp.ones(2)):
        with pytest.raises(jax.errors.TracerBoolConversionError) as caught:
            run(1.0, {"deep": deep, "text": "constant"}, 2.0, flag=x[0], b=x[1])
        text = str(caught.value)
        assert "tracing the function branch at" in text
        assert "the argument options['deep']." in text
        note = caught.value.__notes__[0]
        assert "function 'run', called as branch(a: float64[]" in note
        assert "in static_argnames" in note


def test_a_function_that_updates_variables():
    """Read first as it is outside, a variable is an input once that is known."""

    def by_weight(a, *, b=1.0):
        return (a if b > 0 else b), {W: W * a}

    run: Any = jscan.function(by_weight)
    with pytest.raises(jax.errors.TracerBoolConversionError) as caught:
        run(1.0, b=2.0)
    assert "the argument b." in str(caught.value)


def test_an_optimized_function_is_named():
    with pytest.raises(jax.errors.TracerBoolConversionError) as caught:
        jscan.optimize(plain)(x[1], x[2])
    assert "tracing the function plain at" in str(caught.value)
    assert "the argument now." in str(caught.value)


def test_an_error_in_two_loops_has_one_fix():
    with pytest.raises(jax.errors.TracerBoolConversionError) as caught:
        jscan.scan(
            lambda row: jscan.scan(plain, row, h0, name="in").outputs,
            jnp.ones((2, 3)),
            name="out",
        )
    notes = "\n".join(caught.value.__notes__)
    assert notes.index("scan 'in'") < notes.index("scan 'out'")
    assert notes.count("Fix: ") == 1


@jax.tree_util.register_pytree_node_class
class Checked:
    """A node that takes no text in place of an array, and cannot be printed."""

    def __init__(self, rows, kept):
        self.rows, self.kept = rows, kept

    def __repr__(self) -> str:
        raise AssertionError("a large module is printed")

    def tree_flatten(self):
        return (self.rows, self.kept), None

    @classmethod
    def tree_unflatten(cls, _, parts):
        if any(isinstance(part, str) for part in parts):
            raise TypeError("a row is no text")
        return cls(*parts)


NODE = Checked(jnp.ones((3, 2)), jnp.ones(2))
WITH_NODE = {
    "scan": lambda f: jscan.scan(lambda row, node: f(node), x, non_sequences=NODE),
    "optimize": lambda f: jscan.optimize(f)(NODE),
    "function": lambda f: jscan.function(f)(NODE),
}


@pytest.mark.parametrize("how", WITH_NODE)
def test_an_error_beside_a_tree_that_takes_no_text_stays_the_user_s(how: str):
    def refused(node):
        raise KeyError("the user's error")

    with pytest.raises(KeyError, match="the user's error") as caught:
        WITH_NODE[how](refused)
    notes = "".join(caught.value.__notes__)
    assert "Checked(float64[3,2], float64[2])" in notes


class Mute(Exception):
    def __str__(self) -> str:
        raise AssertionError("it has no text")


@pytest.mark.parametrize("how", WITH_NODE)
def test_an_error_that_has_no_text_stays_the_user_s(how: str):
    def refused(node):
        raise Mute

    with pytest.raises(Mute) as caught:
        WITH_NODE[how](refused)
    assert "called as" in "".join(caught.value.__notes__)
