"""Trees as JAX has them: states without arrays, None in a tree, Modules, Refs."""

import contextlib
import dataclasses
import functools
import pickle
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan
from support.comparing import assert_close

X = np.array([0.5, -1.0, 2.0, 1.5, -0.25])


class Empty(NamedTuple):
    """A state without arrays, as `optax.EmptyState` is one."""


class Pair(NamedTuple):
    a: Any
    b: Any = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    """A module: an array, perhaps another, and a setting."""

    weight: Any
    bias: Any = None
    power: int = dataclasses.field(default=1, metadata={"static": True})


def pair(h, x):
    return Pair(h.a * 0.5 + jnp.sin(x), None)


def entries(h, x):
    return {"a": h["a"] * x, "none": None, "deep": (h["deep"][0] + x, None, Empty())}


def module(h, x):
    return Layer(h.weight * jnp.cos(x), None, h.power)


def listed(h, x):
    return ([h[0][0] + x * h[0][0], None], Empty(), ())


STATES = {  # an initial as a function of a number, and the step
    "named tuple": (lambda w: Pair(w), pair),
    "dict": (lambda w: {"a": w, "none": None, "deep": (w, None, Empty())}, entries),
    "module": (lambda w: Layer(w, None, 2), module),
    "nested": (lambda w: ([w, None], Empty(), ()), listed),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "debug": {"mode": "DEBUG"},
    "checkpoint": {"checkpoint": 2},
    "recursive": {"checkpoint": "recursive"},
    "as written": {"mode": "FAST_COMPILE"},
}


def rows_of(kind, w, x, **options):
    initial, step = STATES[kind]
    return jscan.scan(
        lambda x, h: [step(h, x)], x, [dict(initial=initial(w))], **options
    ).outputs


def rows_of_lax(kind, w, x):
    def step(h, x):
        return (new := STATES[kind][1](h, x)), new

    return jax.lax.scan(step, STATES[kind][0](w), x)[1]


def summed(tree):
    return sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(tree))


TRANSFORMS = (
    lambda f: f,
    jax.jit,
    lambda f: jax.grad(lambda w, x: summed(f(w, x)), (0, 1)),
    lambda f: jax.jit(jax.grad(lambda w, x: summed(f(w, x)))),
    lambda f: lambda w, x: jax.jvp(f, (w, x), (w, x)),
    lambda f: lambda w, x: jax.vmap(f, (0, None))(jnp.stack([w, 2 * w]), x),
    lambda f: jax.hessian(lambda w, x: summed(f(w, x))),
)


@functools.cache  # the same whatever the options are
def transformed_rows_of_lax(kind):
    rows = functools.partial(rows_of_lax, kind)
    return [transform(rows)(jnp.array(0.7), X) for transform in TRANSFORMS]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", STATES)
def test_a_tree_with_none_is_a_state_in_every_transform(kind, options):
    def rows(w, x):
        return rows_of(kind, w, x, **OPTIONS[options])

    for transform, expected in zip(
        TRANSFORMS, transformed_rows_of_lax(kind), strict=True
    ):
        assert_close(transform(rows)(jnp.array(0.7), X), expected, 1e-10)


@pytest.mark.parametrize("kind", STATES)
def test_a_loop_that_stops_keeps_its_trees(kind):
    initial, step = STATES[kind]

    def run(w):
        return jscan.scan(
            lambda x, h: ([step(h, x)], jscan.until(x > 1.0)),
            X,
            [dict(initial=initial(w))],
        )

    expected = rows_of_lax(kind, 0.7, X[:3])
    assert_close(run(0.7).outputs, expected, 1e-10)
    held = jax.tree.map(lambda rows: rows[jnp.array([0, 1, 2, 2, 2])], expected)
    assert_close(jax.jit(run)(0.7).outputs, held, 1e-10)
    filled = jax.tree.map(lambda rows: jnp.pad(rows, (0, 2)), expected)
    assert_close(jax.jit(lambda w: run(w).filled(0))(0.7), filled, 1e-10)
    slope = jax.grad(lambda w: summed(run(w).outputs))(0.7)
    expected = jax.grad(lambda w: summed(rows_of_lax(kind, w, X[:3])))(0.7)
    np.testing.assert_allclose(slope, expected, 1e-10)


@pytest.mark.parametrize("kind", STATES)
def test_only_the_last_steps_are_differentiated(kind):
    slope = jax.grad(lambda x: summed(rows_of(kind, 0.7, x, truncate_gradient=2)))(X)
    carried, _ = jax.lax.scan(
        lambda h, x: (STATES[kind][1](h, x), None), STATES[kind][0](0.7), X[:3]
    )

    def tail(x):
        def step(h, x):
            return (new := STATES[kind][1](h, x)), new

        return summed(jax.lax.scan(step, carried, x)[1])

    np.testing.assert_allclose(slope, [0, 0, 0, *jax.grad(tail)(X[3:])], 1e-10)


@pytest.mark.parametrize("fold", [jscan.foldl, jscan.foldr])
@pytest.mark.parametrize("kind", STATES)
@pytest.mark.parametrize("mode", [None, "DEBUG"])
def test_folds_return_the_last_tree(fold, kind, mode):
    initial, step = STATES[kind]
    x = X if fold is jscan.foldl else X[::-1]
    info = [dict(initial=initial(0.7))]
    got, _ = fold(lambda x, h: [step(h, x)], X, info, mode=mode)
    rows = rows_of_lax(kind, 0.7, x)
    assert_close(got, jax.tree.map(lambda leaf: leaf[-1], rows), 1e-10)
    nothing, _ = fold(lambda x, h: [step(h, x)], X[:0], info)
    assert_close(nothing, initial(0.7), 1e-10)


@pytest.mark.parametrize("taps", [[-2, -1], [-7, -1], [-3]])
def test_taps_of_trees_with_none(taps):
    past = jnp.linspace(0.1, 1.0, 7)

    def tree(x, *lags):
        return Pair({"h": x + sum(lag.a["h"] for lag in lags), "none": None})

    def number(x, *lags):
        return x + sum(lags)

    initial = Pair({"h": past, "none": None})
    got = jscan.scan(tree, X, dict(initial=initial, taps=taps)).outputs
    expected = jscan.scan(number, X, dict(initial=past, taps=taps)).outputs
    assert got.b is None
    assert got.a["none"] is None
    np.testing.assert_allclose(got.a["h"], expected, 1e-10)
    nothing = dict(initial=Empty(), taps=taps)
    assert jscan.scan(lambda x, *lags: lags[0], X, nothing).outputs == Empty()


def test_sequences_constants_and_map_outputs_with_none():
    for mode in (None, "DEBUG"):
        rows = jscan.scan(
            lambda x, n: Pair({"y": x.a * n[0], "none": x.b}),
            [Pair(X)],
            non_sequences=[(2.0, None)],
            mode=mode,
        ).outputs
        assert_close(rows, Pair({"y": 2.0 * X, "none": None}), 1e-10)
    nested = jscan.map(lambda x: jscan.map(lambda y: Pair(x * y), X).outputs, X).outputs
    assert nested.b is None
    np.testing.assert_allclose(nested.a, np.outer(X, X))


@pytest.mark.parametrize("mode", [None, "DEBUG"])
@pytest.mark.parametrize(
    "state", [Empty(), (Empty(), Empty()), (None,), (), {}, Pair(None)], ids=repr
)
def test_states_without_arrays(state, mode):
    """They go from step to step, beside numbers or alone, and have no rows."""
    info = dict(initial=state)

    def run(step, *infos, **options):
        return jscan.scan(step, X, list(infos), mode=mode, **options).outputs

    total = np.cumsum(X)
    for options in ({}, {"checkpoint": 2}, {"truncate_gradient": 2}):
        rows, same = run(lambda x, h, s: [h + x, s], 0.0, info, **options)
        np.testing.assert_allclose(rows, total)
        assert same == state
    same, rows = run(lambda x, s, h: [s, h + x], info, 0.0)
    assert same == state
    np.testing.assert_allclose(rows, total)
    same, rows, last = run(lambda x, s, h, c: [s, h + x, c], info, 0.0, 1.0)
    assert same == state
    np.testing.assert_allclose(rows, total)
    np.testing.assert_allclose(last, np.ones(len(X)))
    assert run(lambda x, s: [s], info) == state
    stopped = run(lambda x, h, s: (h + x, s, jscan.until(x > 1)), 0.0, info)
    np.testing.assert_allclose(stopped[0], total[:3])
    assert stopped[1] == state
    assert jscan.scan(lambda x, c: x, X, non_sequences=[state]).outputs.shape == (5,)


def test_no_updates_beside_a_state_without_arrays():
    count = jscan.shared(0, name="count")
    for updates in ({}, [], {count: count + 1}):
        (rows, same), _ = jscan.scan(
            lambda x, h, s, updates=updates: ([h + x, s], updates), X, [0.0, ()]
        )
        assert same == ()
        np.testing.assert_allclose(rows, np.cumsum(X))
    rows, updates = jscan.scan(lambda x, h: (h + x, ()), X, 0.0)
    np.testing.assert_allclose(rows, np.cumsum(X))
    assert updates == {}


VALUES = [(Empty(), Empty()), (), {}, {"a": None}, Pair(None)]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_shared_variables_without_arrays(value):
    variable = jscan.shared(value, name="state")
    total = jscan.shared(0.0, name="total")
    variable.set_value(value)
    again = pickle.loads(pickle.dumps(variable))
    assert variable.get_value() == again.get_value() == variable.value == value

    def step(x):
        return {total: total + x, variable: variable.value}

    for donate in (False, True):
        for mode in (None, "DEBUG"):
            run = jscan.function(
                lambda mode=mode: ([variable.value], jscan.scan(step, X, mode=mode)[1]),
                donate=donate,
            )
            assert run() == [value]
    np.testing.assert_allclose(total.get_value(), 4 * X.sum())
    assert variable.get_value() == value
    assert (
        jscan.grad(
            lambda: total * (2.0 + len(jax.tree.leaves(variable.value))),
            [variable, total],
        )[0]
        == value
    )
    with pytest.raises(TypeError, match=r"'state': set_value.*tree"):
        variable.set_value(1.0)


def test_modules_are_states_constants_and_sequences():
    layers = Layer(jnp.arange(1.0, 6.0), None, 2)
    rows = jscan.scan(lambda layer, x: layer.weight**layer.power * x, [layers, X])
    np.testing.assert_allclose(rows.outputs, np.arange(1.0, 6.0) ** 2 * X)
    rows = jscan.scan(
        lambda x, layer: layer.weight**layer.power * x,
        X,
        non_sequences=Layer(3.0, None, 2),
    )
    np.testing.assert_allclose(rows.outputs, 9 * X)


# ------------------------------------------------------------------- what is refused


def refused(call, error, *texts):
    with pytest.raises(error) as caught:
        call()
    assert isinstance(caught.value, jscan.ScanError)
    for text in (*texts, "Fix"):
        assert text in str(caught.value)


def test_an_output_that_is_none_is_refused_by_its_place():
    forgot = "did the step forget its return"
    for mode in (None, "DEBUG"):
        refused(
            lambda mode=mode: jscan.scan(lambda x: None, X, mode=mode),  # type: ignore
            ValueError,
            "output 0",
            forgot,
        )
    left = "leave None out"
    refused(lambda: jscan.scan(lambda x: [x, None], X), ValueError, "output 1", left)
    refused(
        lambda: jscan.scan(lambda x: ([x, x, None], {}), X),
        ValueError,
        "output 2",
        left,
    )


def test_what_is_no_array_is_named_by_its_place_in_the_tree():
    refused(
        lambda: jscan.scan(lambda x: [x, {"a": (x, "text")}], X),
        ValueError,
        "output 1['a'][1]",
        "'text'",
    )
    refused(
        lambda: jscan.scan(lambda x: Pair(x, jnp.tanh), X), ValueError, "output 0.b"
    )


@pytest.mark.parametrize("mode", [None, "DEBUG"])
def test_a_tree_that_changes_is_refused(mode):
    refused(
        lambda: jscan.scan(lambda x, h: Pair(x, x), X, Pair(0.0), mode=mode),
        TypeError,
        "outputs_info[0]",
        "b=None",
        "b=float64[]",
    )
    refused(
        lambda: jscan.scan(
            lambda x, h: Layer(h.weight, None, h.power + 1), X, Layer(0.0), mode=mode
        ),
        TypeError,
        "outputs_info[0]",
        "power=1",
        "power=2",
    )


class Quiet:
    """A node whose text does not tell what it holds besides its children."""

    def __init__(self, child, number):
        self.child, self.number = child, number

    def __repr__(self):
        return "Quiet"


jax.tree_util.register_pytree_node(
    Quiet, lambda q: ((q.child,), q.number), lambda n, c: Quiet(c[0], n)
)


def test_trees_of_the_same_text_are_told_apart():
    refused(
        lambda: jscan.scan(lambda x, q: Quiet(x, 20), X, Quiet(0.0, 10)),
        TypeError,
        "[10]",
        "[20]",
    )


def test_steps_run_one_by_one_return_the_same_trees():
    def unsteady(x):
        return Pair(x, None if x == X[0] else x)

    run = lambda step, *more: jscan.scan(step, X, *more, mode="DEBUG")
    refused(lambda: run(unsteady), ValueError, "output 0 at step 1", "b=None")
    refused(
        lambda: run(lambda x: [x] if x == X[0] else [x, x]), ValueError, "2", "outputs"
    )


def test_nothing_is_no_value():
    for nothing in (None, [], [None]):
        refused(lambda n=nothing: jscan.shared(n), TypeError, "value", str(nothing))
        refused(
            lambda n=nothing: jscan.scan(lambda x, n: x, X, non_sequences=[n]),
            TypeError,
            "non_sequences[0]",
            str(nothing),
        )
    refused(lambda: jscan.scan(lambda x, h: h, X, [[]]), TypeError, "outputs_info[0]")
    for empty in (Empty(), (None,)):
        refused(
            lambda e=empty: jscan.scan(lambda x, e: x, [X, e]),
            TypeError,
            "sequences[1]",
            "non_sequences",
        )
    # as it was: no outputs announced
    np.testing.assert_allclose(jscan.scan(lambda x: x, X, []).outputs, X)


# ------------------------------------------------------------------------------- Refs


def add(x, ref):
    ref[...] += x
    return ref[...] * x


def with_ref(loop):
    def run(x):
        ref = jax.new_ref(jnp.zeros(()))
        return loop(ref, x), ref[...]

    return run


REF_LOOPS = {
    "captured": lambda r, x: jscan.scan(lambda x: add(x, r), x).outputs,
    "constant": lambda r, x: jscan.scan(add, x, non_sequences=r, strict=True).outputs,
    "in a tree": lambda r, x: (
        jscan.scan(lambda x, t: add(x, t.a), x, non_sequences=Pair(r)).outputs
    ),
    "debug": lambda r, x: jscan.scan(add, x, non_sequences=r, mode="DEBUG").outputs,
    "map": lambda r, x: jscan.map(lambda x: add(x, r), x).outputs,
    "nested": lambda r, x: (
        jscan.map(lambda x: jscan.reduce(add, x[None], None, r).outputs, x).outputs
    ),
    "taps": lambda r, x: (
        jscan.scan(
            lambda x, h: add(x, r) + 0 * h, x, dict(initial=jnp.zeros(7), taps=[-7])
        ).outputs
    ),
}


@pytest.mark.parametrize("kind", REF_LOOPS)
def test_a_step_reads_and_writes_refs(kind):
    got = with_ref(REF_LOOPS[kind])
    expected = with_ref(
        lambda r, x: jax.lax.scan(lambda c, x: (c, add(x, r)), None, x)[1]
    )
    transforms = (
        lambda f: f,
        jax.jit,
        lambda f: jax.grad(lambda x: f(x)[0].sum() + f(x)[1]),
        lambda f: jax.jit(jax.grad(lambda x: f(x)[0].sum() + f(x)[1])),
        lambda f: lambda x: jax.vmap(f)(jnp.stack([x, 2 * x])),
    )
    for transform in transforms:
        assert_close(transform(got)(X), transform(expected)(X), 1e-10)


def test_a_loop_that_stops_writes_refs_of_the_steps_that_ran():
    def stopping(r, x):
        step = lambda x: (add(x, r), jscan.until(x > 1))
        return jscan.scan(step, x).outputs.sum()

    def by_hand(r, x):
        ran = int(np.argmax(np.asarray(X) > 1)) + 1
        return jax.lax.scan(lambda c, x: (c, add(x, r)), None, x[:ran])[1].sum()

    assert_close(with_ref(stopping)(X), with_ref(by_hand)(X), 1e-10)


@pytest.mark.parametrize("stage", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_what_no_ref_can_be(stage):
    for place, loop in {
        "checkpoint=2": lambda r, x: jscan.scan(lambda x: add(x, r), x, checkpoint=2),
        "truncate_gradient=2": lambda r, x: jscan.scan(
            lambda x: add(x, r), x, truncate_gradient=2
        ),
    }.items():
        run = stage(with_ref(lambda r, x, loop=loop: loop(r, x).outputs))
        refused(lambda run=run: run(X), NotImplementedError, "a Ref", place)
    for place, error, loop in (
        ("outputs_info[0]", TypeError, lambda r, x: jscan.scan(lambda x, h: h, x, r)),
        ("sequences[1]", TypeError, lambda r, x: jscan.scan(add, [x, r])),
        ("output 1", ValueError, lambda r, x: jscan.scan(lambda x: [x, r], x)),
        (
            "Ref{float64[]}",
            TypeError,
            lambda r, x: jscan.scan(lambda x: add(x, r), x, strict=True),
        ),
    ):
        run = stage(with_ref(lambda r, x, loop=loop: loop(r, x).outputs))
        refused(lambda run=run: run(X), error, place)
    refused(lambda: jscan.shared(jax.new_ref(X)), TypeError, "ref[...]")


# --------------------------------------------------------------------- other libraries


@pytest.mark.oracles
def test_every_optimizer_is_a_state():
    optax = pytest.importorskip("optax", reason="trains with optax: extra oracles")
    start = {"w": jnp.array([1.0, 2.0])}

    def slope(p, x):
        return jax.grad(lambda p: jnp.sum((p["w"] - x) ** 2))(p)

    for rule in (
        optax.sgd(0.1),
        optax.sgd(0.1, 0.9),
        optax.scale(-0.1),
        optax.identity(),
        optax.chain(optax.clip(1.0), optax.sgd(0.1)),
        optax.adamw(0.1, mask={"w": False}),
        optax.multi_transform({"a": optax.sgd(0.1), "b": optax.adam(0.1)}, {"w": "b"}),
    ):

        def train(p, s, x, rule=rule):
            change, s = rule.update(slope(p, x), s, p)
            return optax.apply_updates(p, change), s

        with standard():
            state = rule.init(start)
            expected = jax.lax.scan(
                lambda c, x, train=train: (train(*c, x), None), (start, state), X
            )[0]
            step = lambda x, p, s, train=train: train(p, s, x)
            info = [dict(initial=start), dict(initial=state)]
            assert_close(tuple(jscan.foldl(step, X, info)[0]), expected, 1e-10)
            params, kept = jscan.shared(start), jscan.shared(state)

            def update(x, train=train, params=params, kept=kept):
                return dict(
                    zip((params, kept), train(params.value, kept.value, x), strict=True)
                )

            jscan.function(lambda update=update: jscan.scan(update, X))()
            assert_close((params.value, kept.value), expected, 1e-10)


def standard() -> contextlib.AbstractContextManager[Any]:
    """The promotion that optax needs, which mixes weak and strong types."""
    return jax.numpy_dtype_promotion("standard")


@pytest.mark.oracles
def test_modules_of_equinox():
    eqx = pytest.importorskip("equinox", reason="modules of equinox: extra oracles")
    inputs = jnp.stack([jnp.sin(X), jnp.cos(X)], axis=1)
    mlp = eqx.nn.MLP(2, 2, 4, 1, key=jax.random.key(0))
    params, static = eqx.partition(mlp, eqx.is_array)

    def descend(p, x):
        slope = jax.grad(lambda p: jnp.sum((eqx.combine(p, static)(x) - 1) ** 2))(p)
        return jax.tree.map(lambda p, g: p - 0.1 * g, p, slope)

    with standard():
        expected = jax.lax.scan(lambda p, x: (descend(p, x), None), params, inputs)[0]
        step = lambda x, p: descend(p, x)
        rows = jscan.scan(step, inputs, params).outputs
        assert_close(jax.tree.map(lambda r: r[-1], rows), expected, 1e-6)
        assert_close(jscan.foldl(step, inputs, params)[0], expected, 1e-6)
        kept = jscan.shared(params, name="params")
        jscan.function(
            lambda: jscan.scan(lambda x: {kept: descend(kept.value, x)}, inputs)
        )()
        assert_close(kept.value, expected, 1e-6)
        rows = jscan.scan(
            lambda x, p: eqx.combine(p, static)(x), inputs, non_sequences=params
        ).outputs
        assert_close(rows, jax.vmap(mlp)(inputs), 1e-6)
    refused(
        lambda: jscan.scan(lambda x, m: m(x), inputs, non_sequences=mlp),
        TypeError,
        "non_sequences[0]",
        "custom_jvp",
    )
    refused(lambda: jscan.scan(lambda x: [x, mlp], inputs), ValueError, "1.activation")


@pytest.mark.oracles
def test_modules_of_flax():
    nnx = pytest.importorskip("flax.nnx", reason="modules of flax: extra oracles")
    inputs = jnp.stack([jnp.sin(X), jnp.cos(X)], axis=1).astype("float32")
    layer = nnx.Linear(2, 2, rngs=nnx.Rngs(0))

    def decay(layer, x):
        return jax.tree.map(lambda leaf: leaf - 0.1 * leaf * leaf, layer)

    with standard():
        expected = jax.lax.scan(lambda m, x: (decay(m, x), None), layer, inputs)[0]
        got = jscan.foldl(lambda x, m: decay(m, x), inputs, layer)[0]
        assert_close(
            nnx.to_pure_dict(nnx.state(got)),
            nnx.to_pure_dict(nnx.state(expected)),
            1e-6,
        )
        rows = jscan.scan(lambda x, m: m(x), inputs, non_sequences=layer).outputs
        np.testing.assert_allclose(rows, layer(inputs), 1e-5, 1e-6)
        layers = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), layer)
        rows = jscan.scan(lambda m: m(inputs[0]), layers).outputs
        first = layer(inputs[0])
        np.testing.assert_allclose(rows, [first, 2 * first], 1e-5, 1e-6)
