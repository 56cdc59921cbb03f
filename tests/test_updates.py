"""`Updates`: merging, refusing, storing."""

import jax
import jax.numpy as jnp
import pytest

import jscan


@pytest.fixture
def variables() -> tuple[jscan.SharedVariable, jscan.SharedVariable]:
    return jscan.shared(0, name="c"), jscan.shared(jnp.zeros(2), name="d")


def test_order_is_kept(variables):
    c, d = variables
    assert list(jscan.Updates([(d, 1), (c, 2)])) == [d, c]
    assert list(jscan.Updates({d: 1}) + {c: 2}) == [d, c]
    assert list({c: 2} + jscan.Updates({d: 1})) == [c, d]
    assert list(jscan.Updates({d: 1}) + None) == [d]
    assert isinstance(None + jscan.Updates({d: 1}), jscan.OrderedUpdates)


@pytest.mark.parametrize(
    "clash",
    [
        lambda c: jscan.Updates({c: 1}) + jscan.Updates({c: 2}),
        lambda c: {c: 1} + jscan.Updates({c: 2}),
        lambda c: jscan.Updates({c: 1}).update({c: 2}),
        lambda c: jscan.Updates([(c, 1), (c, 2)]),
        lambda c: jscan.scan(lambda: [(c, c + 1), (c, c + 2)], n_steps=2),
    ],
    ids=["sum", "dict on the left", "update", "pairs", "in a step"],
)
def test_clash(clash, variables):
    with pytest.raises(KeyError, match=r"Collision") as caught:
        clash(variables[0])
    assert caught.value.args == ("Collision", variables[0])


def test_failed_update_changes_nothing(variables):
    c, d = variables
    updates = jscan.Updates({c: 1})
    with pytest.raises(jscan.UpdateCollision):
        updates.update([(d, jnp.ones(2)), (c, 2)])
    assert list(updates) == [c]


def test_same_value_twice_is_no_clash(variables):
    c, _ = variables
    new = c + 1
    assert (jscan.Updates({c: new}) + {c: new})[c] is new


def test_target_must_be_a_shared_variable():
    with pytest.raises(TypeError, match=r"needed a SharedVariable; got 3 of type int"):
        jscan.Updates({3: 4})


def test_apply_stores_all_or_nothing(variables):
    c, d = variables
    jscan.Updates({c: 5, d: jnp.ones(2)}).apply()
    assert c.value == 5
    assert d.value.tolist() == [1, 1]
    with pytest.raises(TypeError, match=r"<SharedVariable d>: needed float64"):
        jscan.Updates({c: 6, d: jnp.ones((2, 2))}).apply()
    assert c.value == 5


def test_apply_inside_a_trace_is_refused(variables):
    c, _ = variables
    with pytest.raises(TypeError, match=r"Updates.apply.*outside"):
        jscan.function(lambda: jscan.Updates({c: c + 1}).apply())()
    with pytest.raises(TypeError, match=r"Updates.apply.*outside"):
        jax.jit(lambda x: jscan.Updates({c: x}).apply())(3)
    assert c.value == 0


def test_updates_are_a_tree_of_their_values(variables):
    c, d = variables
    doubled = jax.tree.map(lambda x: 2 * x, jscan.Updates({c: 1, d: jnp.ones(2)}))
    assert doubled[c] == 2
    assert doubled[d].tolist() == [2, 2]


def test_applying_the_updates_of_an_earlier_loop_does_not_rewind_the_stream():
    rng = jscan.RandomStreams(1)
    draw = rng.uniform()
    first = jscan.scan(lambda: draw, n_steps=3)
    second = jscan.scan(lambda: draw, n_steps=3)
    first.updates.apply()
    third = jscan.scan(lambda: draw, n_steps=3)
    numbers = jnp.concatenate([r.outputs for r in (first, second, third)])
    assert len(set(numbers.tolist())) == 9
