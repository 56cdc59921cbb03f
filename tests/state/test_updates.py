"""`Updates`: merging, refusing, storing."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
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


@pytest.mark.parametrize("mode", [None, "DEBUG"])
def test_a_clash_says_where_it_is_and_what_to_do(mode, variables):
    c, _ = variables
    pairs = lambda: [(c, c + 1), (c, c + 2)]
    with pytest.raises(KeyError, match=r"(?s)scan 'count': .*<SharedVariable c>.*Fix:"):
        jscan.scan(pairs, n_steps=2, name="count", mode=mode)
    with pytest.raises(
        KeyError, match=r"(?s)function 'twice': .*<SharedVariable c>.*Fix:"
    ):
        jscan.function(pairs, name="twice", mode=mode)()
    first, second = jscan.Updates({c: 1}), jscan.Updates({c: 2})
    with pytest.raises(KeyError, match=r"\{\*\*first, \*\*second\}") as caught:
        _ = first + second
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert jscan.Updates({**first, **second})[c] == 2  # the fix works


WAYS = {
    "first + second": lambda first, second: first + second,
    "second + first": lambda first, second: second + first,
    "update": lambda first, second: first.update(second) or first,
    "update backwards": lambda first, second: second.update(first) or second,
    "pairs": lambda first, second: [*first.items(), *second.items()],
    "pairs backwards": lambda first, second: [*second.items(), *first.items()],
    "dict": lambda first, second: jscan.Updates(dict(first)) + dict(second),
}


@pytest.mark.parametrize("merge", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("mode", [None, "DEBUG"])
@pytest.mark.parametrize("default", [True, False])
def test_two_loops_of_one_stream_merge_to_the_later_position(merge, mode, default):
    """DeepLearningTutorials, rnnrbm.py: no number twice, none left out."""
    rng = jscan.RandomStreams(5)

    def sample():
        first, updates = jscan.scan(lambda: rng.uniform(), n_steps=3)
        second, more = jscan.scan(lambda: [rng.uniform(), rng.uniform()], n_steps=2)
        return [first, *second], merge(updates, more)

    run = jscan.function(sample, mode=mode, no_default_updates=not default)
    drawn = [float(x) for _ in range(2) for rows in run() for x in rows]
    apart = jscan.RandomStreams(5)
    expected = {float(apart.uniform().value) for _ in range(14)}
    assert len(drawn) == 14
    assert set(drawn) == expected
    assert int(rng.state.value.counter) == 14


@pytest.mark.parametrize("merge", WAYS.values(), ids=WAYS)
def test_an_outer_step_returns_the_merged_updates_of_its_loops(merge):
    rng, total = jscan.RandomStreams(5), jscan.shared(0.0, name="total")

    def outer():
        first, updates = jscan.scan(lambda: rng.uniform(), n_steps=3)
        add = lambda: (rng.uniform(), {total: total + 1.0})
        second, more = jscan.scan(add, n_steps=2)
        return [first, second], merge(updates, more)

    run = jscan.function(lambda: jscan.scan(outer, n_steps=2))
    drawn = [x for _ in range(2) for rows in run() for x in rows.ravel().tolist()]
    assert len(set(drawn)) == 20
    assert int(rng.state.value.counter) == 20
    assert float(total.value) == 8.0


def test_merged_positions_can_be_applied_and_differentiated_past():
    rng = jscan.RandomStreams(5)
    a = jscan.scan(lambda x: rng.normal() * x, jnp.ones(3))
    b = jscan.scan(lambda x: rng.normal() * x, jnp.ones(4))
    (b.updates + a.updates).apply()
    assert int(rng.state.value.counter) == 7

    @jax.jit
    @jax.grad
    def slope(x):
        mine = jscan.RandomStreams(5)
        rows, updates = jscan.scan(lambda x: mine.normal() * x, x)
        again, more = jscan.scan(lambda x: mine.normal() * x, x)
        position = (more + updates)[mine.state]
        return (rows + again).sum() + 0.0 * position.counter.astype(float)

    numbers = jnp.concatenate([a.outputs, b.outputs])
    np.testing.assert_allclose(slope(jnp.ones(3)), numbers[:3] + numbers[3:6])


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
    with pytest.raises(TypeError, match=r"(?s)Updates.apply.*outside"):
        jscan.function(lambda: jscan.Updates({c: c + 1}).apply())()
    with pytest.raises(TypeError, match=r"(?s)Updates.apply.*outside"):
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
