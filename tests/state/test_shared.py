"""Shared variables by themselves and in loops."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan


def test_values_are_copies_with_strong_types():
    source = np.ones(3)
    variable = jscan.shared(source, name="W")
    source[0] = 5.0
    variable.get_value()[1] = 7.0
    assert variable.get_value().tolist() == [1.0, 1.0, 1.0]
    number = jscan.shared(2)
    assert (number.value.dtype, number.value.weak_type) == (jnp.int64, False)


def test_borrow_keeps_the_array():
    array = jnp.arange(3.0)
    assert jscan.shared(array, borrow=True).value is array
    assert jscan.shared(array).value is not array
    variable = jscan.shared(jnp.zeros(3))
    variable.set_value(array, borrow=True)
    assert variable.value is array


def test_trees_and_keys():
    tree = {"W": jnp.eye(2), "steps": (1, 2.0)}
    variable = jscan.shared(tree)
    assert variable.get_value()["steps"][1] == 2.0
    key = jscan.shared(jax.random.key(3))
    again = pickle.loads(pickle.dumps(key))
    same = jax.random.key_data(key.value) == jax.random.key_data(again.value)
    assert bool(same.all())


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (lambda v, a: v + 1.0, [2.0, 3.0]),
        (lambda v, a: 1.0 - v, [0.0, -1.0]),
        (lambda v, a: a * v, [3.0, 8.0]),
        (lambda v, a: v * a, [3.0, 8.0]),
        (lambda v, a: np.asarray(a) * v, [3.0, 8.0]),
        (lambda v, a: v @ a, 11.0),
        (lambda v, a: a @ v, 11.0),
        (lambda v, a: v / a, [1 / 3, 0.5]),
        (lambda v, a: a // v, [3.0, 2.0]),
        (lambda v, a: v**2, [1.0, 4.0]),
        (lambda v, a: 2.0**v, [2.0, 4.0]),
        (lambda v, a: a % v, [0.0, 0.0]),
        (lambda v, a: -v, [-1.0, -2.0]),
        (lambda v, a: abs(-v), [1.0, 2.0]),
        (lambda v, a: v < a, [True, True]),
        (lambda v, a: v >= 2.0, [False, True]),
        (lambda v, a: v[1], 2.0),
        (lambda v, a: v + v, [2.0, 4.0]),
        (lambda v, a: jnp.stack([v, a]).sum(0), [4.0, 6.0]),
        (lambda v, a: v.T.shape + v.shape, (2, 2)),
    ],
    ids=[
        *("v + 1", "1 - v", "a * v", "v * a", "np a * v", "v @ a", "a @ v", "v / a"),
        *("a // v", "v**2", "2**v", "a % v", "-v", "abs", "v < a", "v >= 2", "v[1]"),
        *("v + v", "stack", "shapes"),
    ],
)
def test_operators_give_arrays(expression, expected):
    variable, array = jscan.shared(jnp.array([1.0, 2.0])), jnp.array([3.0, 4.0])
    np.testing.assert_allclose(expression(variable, array), expected)


def test_equality_and_hash_are_identity():
    one, two = jscan.shared(1.0), jscan.shared(1.0)
    assert one == one
    assert one != two
    assert len({one, two, one}) == 2
    assert {one: "a", two: "b"}[two] == "b"
    assert two in [one, two]
    assert jscan.RandomStreams(1).normal() != one


@pytest.mark.parametrize(
    "value", [0, 0.0, False, np.float64(0), np.zeros(()), jnp.zeros(())], ids=repr
)
def test_comparison_with_numbers_and_arrays_is_one_rule(value):
    """That of ``<``: by the value, from either side."""
    zero, ones = jscan.shared(0.0), jscan.shared(jnp.ones(2))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert bool(zero == value) is bool(value == zero) is True
        assert bool(zero != value) is bool(value != zero) is False
        assert (ones == value).tolist() == (value == ones).tolist() == [False, False]
        assert (ones != value).tolist() == (value != ones).tolist() == [True, True]
        assert bool(zero <= value)
    assert zero != "0"
    assert zero is not None
    assert (zero == None) is False  # noqa: E711


def test_comparison_is_traced_where_the_variable_is():
    n = jscan.shared(jnp.array([1, 2, 2]), name="n")
    count = jscan.function(lambda: (jnp.sum(n == 2), {n: n + 1}))
    assert [int(count()), int(count())] == [2, 1]
    n.set_value(jnp.array([1, 2, 2]))
    rows, _ = jscan.scan(lambda n: (n == 2, {n: n + 1}), None, None, n, n_steps=2)
    assert rows.tolist() == [[False, True, True], [True, False, False]]


METHODS = {
    "sum": (),
    "mean": (),
    "max": (),
    "min": (),
    "prod": (),
    "std": (),
    "var": (),
    "argmax": (),
    "argmin": (),
    "any": (),
    "all": (),
    "reshape": (4,),
    "transpose": (),
    "swapaxes": (0, 1),
    "flatten": (),
    "ravel": (),
    "squeeze": (),
    "repeat": (2,),
    "astype": ("float32",),
    "clip": (0.5, 1.5),
    "dot": (np.ones(2),),
    "cumsum": (),
    "cumprod": (),
    "round": (),
    "take": (0,),
    "trace": (),
    "diagonal": (),
    "sort": (),
    "argsort": (),
    "conj": (),
    "copy": (),
    "tolist": (),
    "item": (0,),
}


@pytest.mark.parametrize("name", METHODS)
def test_methods_of_arrays(name):
    """Of a variable and of a draw, as of an array, where the caller stands."""
    variable = jscan.shared(jnp.array([[1.0, 2.0], [0.5, 4.0]]), name="W")
    draw = jscan.RandomStreams(1).normal(size=(2, 2))
    for thing in (variable, draw):
        expected = getattr(thing.value, name)(*METHODS[name])
        np.testing.assert_array_equal(getattr(thing, name)(*METHODS[name]), expected)
    if name not in ("tolist", "item"):
        double = jscan.function(
            lambda: (getattr(variable, name)(*METHODS[name]), {variable: 2 * variable})
        )
        before = getattr(variable.value, name)(*METHODS[name])
        np.testing.assert_array_equal(double(), before)
        after = getattr(variable.value, name)(*METHODS[name])
        np.testing.assert_array_equal(double(), after)


def test_properties_of_arrays():
    variable = jscan.shared(jnp.ones((2, 3)), name="W")
    assert (variable.size, variable.nbytes, variable.itemsize) == (6, 48, 8)
    assert variable.mT.shape == (3, 2)
    assert variable.real.shape == (2, 3)
    assert variable.at[0, 0].set(5.0)[0, 0] == 5.0
    assert variable.T.shape == (3, 2)


def test_a_draw_as_a_mask_is_fresh_at_every_step():
    """``T.cast(rng.binomial(...), floatX)``, made in the step or on a draw outside."""
    draw = jscan.RandomStreams(1).binomial(size=(50,))
    rows, _ = jscan.scan(lambda: draw.astype("float32"), n_steps=2)
    assert rows.dtype == jnp.float32
    assert (rows[0] != rows[1]).any()
    total, _ = jscan.scan(lambda: [draw.sum(), draw == 1], n_steps=3)
    np.testing.assert_array_equal(total[0], total[1].sum(1))


@pytest.mark.parametrize("thing", ["variable", "draw"])
def test_what_is_not_there_says_what_to_write(thing):
    it = jscan.shared(1.0, name="W")
    label = "W"
    if thing == "draw":
        it, label = jscan.RandomStreams(1).normal(), "draw"
    with pytest.raises(
        AttributeError, match=rf"(?s)'dimshuffle'.*{label}\.value"
    ) as caught:
        it.dimshuffle(0, 1)
    assert isinstance(caught.value, jscan.ScanError)
    with pytest.raises(AttributeError, match=rf"(?s){label}\.value = .*set_value"):
        it.value = 3.0
    assert not hasattr(it, "dimshuffle")
    assert not hasattr(it, "__array_interface__")


def test_variables_copy_and_pickle_as_before():
    variable = jscan.shared(jnp.ones(2), name="W")
    for again in (
        copy.copy(variable),
        copy.deepcopy(variable),
        pickle.loads(pickle.dumps(variable)),
    ):
        assert (again.name, again.sum()) == ("W", 2.0)


@pytest.mark.parametrize(
    "use",
    [
        lambda W: jnp.tanh(W),
        lambda W: jnp.dot(jnp.ones(2), W),
        lambda W: jnp.where(True, W, W),
        lambda W: jax.jit(lambda x: x)(W),
        lambda W: jax.jit(lambda: jnp.tanh(W))(),
        lambda W: jax.grad(lambda x: x.sum())(W),
    ],
    ids=[
        "tanh",
        "dot",
        "where",
        "jit argument",
        "in jit",
        "grad argument",
    ],
)
def test_handing_the_variable_to_jax_says_what_to_write(use):
    with pytest.raises(ValueError, match=r"(?s)<SharedVariable W>.*W\.value"):
        use(jscan.shared(jnp.ones(2), name="W"))


@pytest.mark.parametrize("use", [jax.lax.tanh, jax.nn.relu], ids=["lax", "relu"])
def test_functions_that_do_not_let_us_word_the_error_refuse_it_in_jax_words(use):
    with pytest.raises(ValueError, match=r"explicitly convert your object"):
        use(jscan.shared(jnp.ones(2), name="W"))


@pytest.mark.parametrize(
    "read",
    [
        lambda W: jax.jit(lambda: W.value * 2.0)(),
        lambda W: jax.jit(lambda: W * 2.0)(),
        lambda W: jax.lax.scan(lambda c, x: (c + W, x), 0.0, jnp.ones(2)),
        lambda W: jax.jit(lambda x: jscan.scan(lambda y: y * W, x))(jnp.ones(2)),
        lambda W: jax.jit(lambda x: jscan.scan(lambda y: y * W, x, mode="DEBUG"))(
            jnp.ones(2)
        ),
        lambda W: jscan.function(lambda: jax.jit(lambda: W + 1.0)())(),
        lambda W: jscan.function(lambda: jax.lax.cond(True, lambda: W + 1.0, float))(),
        lambda W: jscan.scan(lambda y: jax.checkpoint(lambda: y * W)(), jnp.ones(2)),
        lambda W: jax.jit(jax.grad(lambda x: x * W))(1.0),
    ],
    ids=[
        "value",
        "operator",
        "lax.scan",
        "scan in jit",
        "DEBUG scan in jit",
        "jit in function",
        "cond in function",
        "checkpoint in step",
        "grad in jit",
    ],
)
def test_reading_in_a_trace_that_would_freeze_the_value_is_refused(read):
    with pytest.raises(ValueError, match=r"<SharedVariable W> is read inside jax\.jit"):
        read(jscan.shared(2.0, name="W"))


def test_transformations_that_keep_no_program_read_the_current_value():
    W = jscan.shared(2.0, name="W")
    square = jax.grad(lambda x: x * x * W)
    lanes = jax.vmap(lambda x: x * W)
    assert [square(3.0), *lanes(jnp.ones(2))] == [12.0, 2.0, 2.0]
    W.set_value(3.0)
    assert [square(3.0), *lanes(jnp.ones(2))] == [18.0, 3.0, 3.0]


def test_variable_made_inside_jit_lives_there():
    @jax.jit
    def total(x):
        c = jscan.shared(x[0])
        rows, updates = jscan.scan(lambda a: (a * c, {c: c + a}), x)
        return rows, updates[c] + c.value

    rows, end = total(jnp.array([1.0, 2.0, 3.0]))
    assert rows.tolist() == [1.0, 4.0, 12.0]
    assert end == 8.0


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (jnp.ones(3, jnp.float32), r"'W'.*set_value: needed float64\[2\]; got float32"),
        (jnp.ones((2, 2)), r"needed float64\[2\]; got float64\[2,2\]"),
        (jnp.ones(2, int), "got int64"),
        ({"a": jnp.ones(2)}, "tree"),
        ("text", "got str"),
    ],
    ids=["dtype", "rank", "integers", "tree", "text"],
)
def test_set_value_of_another_type(value, message):
    W = jscan.shared(jnp.zeros(2), name="W")
    with pytest.raises(TypeError, match=message):
        W.set_value(value)
    assert W.get_value().tolist() == [0.0, 0.0]


def test_set_value_may_change_the_length():
    W = jscan.shared(jnp.zeros(2))
    W.set_value(np.ones(5))
    assert W.get_value().shape == (5,)


@pytest.mark.parametrize(
    "value",
    [None, "text", [None], object(), []],
    ids=["none", "text", "list", "object", "empty"],
)
def test_values_that_cannot_be_stored(value):
    with pytest.raises(TypeError, match=r"needed an array, a number"):
        jscan.shared(value)


def test_methods_that_need_a_stored_value_are_refused_in_a_trace():
    W = jscan.shared(1.0, name="W")
    with pytest.raises(TypeError, match=r"(?s)'W': set_value.*outside"):
        jscan.function(lambda: W.set_value(2.0))()
    with pytest.raises(TypeError, match=r"(?s)'W': get_value.*outside"):
        jscan.scan(lambda: W.get_value(), n_steps=2)


def test_pickling_keeps_name_value_and_identity():
    W = jscan.shared({"a": jnp.arange(3)}, name="W")
    first, second = pickle.loads(pickle.dumps([W, W]))
    assert first is second
    assert first.name == "W"
    first.set_value({"a": np.zeros(3, int)})
    assert W.get_value()["a"].tolist() == [0, 1, 2]
    assert copy.deepcopy(W).get_value()["a"].tolist() == [0, 1, 2]


# ----------------------------------------------------------------------------- in loops


def test_step_sees_the_value_before_its_update():
    c = jscan.shared(0, name="c")
    rows, updates = jscan.scan(lambda: (c.value, {c: c + 1}), n_steps=4)
    assert rows.tolist() == [0, 1, 2, 3]
    assert updates[c] == 4
    assert c.value == 0


@pytest.mark.parametrize("mode", [None, "DEBUG"])
def test_updates_with_taps_backwards_and_pytrees(mode):
    tree = jscan.shared({"n": 0.0, "last": jnp.zeros(2)}, name="tree")

    def step(now, before, past):
        n = tree.value["n"]
        new = past + now - before + n
        return new, {tree: {"n": n + 1.0, "last": jnp.stack([new, now])}}

    x = jnp.array([1.0, 2.0, 4.0, 8.0, 16.0])
    rows, updates = jscan.scan(
        step,
        sequences=dict(input=x, taps=[0, -1]),
        outputs_info=dict(initial=jnp.array([10.0, 20.0]), taps=[-2]),
        go_backwards=True,
        mode=mode,
    )
    expected, past, n = [], [10.0, 20.0], 0
    for index in (4, 3, 2, 1):
        new = past[-2] + float(x[index] - x[index - 1]) + n
        past, n = [*past, new], n + 1
        expected.append(new)
    assert rows.tolist() == expected
    assert updates[tree]["n"] == 4
    assert updates[tree]["last"].tolist() == [expected[-1], 2.0]


def test_updates_of_views_and_of_no_steps():
    c = jscan.shared(0, name="c")
    _, updates = jscan.map(lambda x: (x, {c: c + x}), jnp.arange(4))
    assert updates[c] == 6
    last, updates = jscan.reduce(lambda x, acc: (acc + x, {c: c + 1}), jnp.arange(4), 0)
    assert (last, updates[c]) == (6, 4)
    rows, updates = jscan.scan(lambda: (c.value, {c: c + 1}), n_steps=0)
    assert rows.shape == (0,)
    assert updates[c] == 0


def test_nested_loops_need_the_inner_updates_returned():
    c = jscan.shared(0, name="c")

    def inner():
        return jscan.scan(lambda: (c.value, {c: c + 1}), n_steps=3)

    rows, updates = jscan.scan(lambda: inner(), n_steps=2)
    assert rows.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert updates[c] == 6
    rows, updates = jscan.scan(lambda: inner().outputs, n_steps=2)
    assert rows.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert not updates


def test_gradient_through_the_updated_variable():
    # THEANO: d/da of sum(a * c), c <- c + a, is [11, 10, 9, 8] for a = 1..4, c0 = 2.
    c = jscan.shared(2.0, name="c")

    def loop(a):
        return jscan.scan(lambda x: (x * c, {c: c + x}), a)

    a = jnp.arange(1.0, 5.0)
    assert jax.grad(lambda a: loop(a)[0].sum())(a).tolist() == [11, 10, 9, 8]
    assert jax.grad(lambda a: loop(a)[1][c])(a).tolist() == [1, 1, 1, 1]
    assert jscan.grad(lambda: loop(a)[0].sum(), c) == 10.0
    assert jscan.grad(lambda: loop(a)[1][c], c) == 1.0


def test_variable_that_is_only_read_is_an_input_and_not_carried():
    W = jscan.shared(3.0, name="W")
    c = jscan.shared(jnp.zeros((), jnp.float32), name="c")
    f = jscan.function(lambda x: jscan.scan(lambda a: (a * W, {c: c + 1.0}), x))
    text = f.lower(jnp.ones(5)).as_text()
    loop = next(line for line in text.splitlines() if "stablehlo.while" in line)
    assert "3.0" not in text  # not a constant
    # In the loop: the step count, c, the input, the rows; W is an operand, unchanged.
    assert loop.count("tensor<f32>") == 1
    assert f(jnp.ones(5)).tolist() == [3.0] * 5
    W.set_value(4.0)
    assert f(jnp.ones(5)).tolist() == [4.0] * 5


@pytest.mark.parametrize(
    ("update", "message"),
    [
        (lambda W: {W: W + jnp.ones(3)}, "update of <SharedVariable W>"),
        (lambda W: {W: W.value[0]}, r"needed float64\[3\]; got float64\[\]"),
        (lambda W: {W: jnp.ones(3, jnp.float32)}, r"got float32\[3\]"),
        (lambda W: {W: (W.value, W.value)}, "tree"),
        (lambda W: {W: None}, "needed a new value; got None"),
        (lambda W: {W: jnp.ones(4)}, r"got float64\[4\]"),
        (lambda W: ([1.0, 2.0], {"W": 1.0}, {W: W.value}), "beside"),
        (lambda W: {W: W.value, 3: 1.0}, "target 3"),
    ],
    ids=["fine", "rank", "dtype", "tree", "none", "shape", "place", "target"],
)
@pytest.mark.parametrize("mode", [None, "DEBUG"])
def test_bad_updates_in_a_step(update, message, mode):
    W = jscan.shared(jnp.zeros(3), name="W")
    if message == "update of <SharedVariable W>":
        assert jscan.scan(lambda: update(W), n_steps=2).updates[W].tolist() == [2.0] * 3
        return
    with pytest.raises(TypeError, match=message):
        jscan.scan(lambda: update(W), n_steps=2, mode=mode)


def test_update_of_a_variable_that_the_step_makes():
    def step():
        local = jscan.shared(0.0, name="local")
        return {local: local + 1.0}

    with pytest.raises(
        ValueError, match=r"(?s)<SharedVariable local>.*the step itself"
    ):
        jscan.scan(step, n_steps=2)


def test_variables_as_arguments_of_scan_arrive_as_values():
    x, h, w = (jscan.shared(v) for v in (jnp.arange(3.0), 1.0, 2.0))
    rows, _ = jscan.scan(lambda a, s, k: s * k + a, x, h, w)
    assert rows.tolist() == [2.0, 5.0, 12.0]


@pytest.mark.parametrize("over", [jax.vmap, jax.grad, jax.jit])
def test_a_traced_value_is_not_stored(over):
    W = jscan.shared(1.0, name="W")
    x = jnp.arange(3.0) if over is jax.vmap else 2.0

    def store(x):
        W.set_value(x)
        return x

    with pytest.raises(TypeError, match=r"(?s)'W': set_value.*outside"):
        over(store)(x)
    assert W.value == 1.0
