"""`jscan.function`: compiled functions that read and update shared variables."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan
from jscan._functions.trace import _has_callbacks

NO_FUNCTION: Any = 3


@pytest.fixture
def c() -> jscan.SharedVariable:
    return jscan.shared(0, name="c")


def test_set_value_is_seen_without_retracing(c, standard_promotion):
    traces = []

    @jscan.function
    def read(x):
        traces.append(1)
        return c + x

    assert read(1) == 1
    count = len(traces)
    for value in (5, 7):
        c.set_value(value)
        assert read(1) == value + 1
    assert len(traces) == count
    read(1.5)
    assert len(traces) > count  # another type of argument


def test_variable_of_another_shape_is_traced_again():
    W = jscan.shared(jnp.ones(2), name="W")
    total = jscan.function(lambda: W.value.sum())
    assert total() == 2
    W.set_value(jnp.ones(5))
    assert total() == 5


def test_outputs_and_updates_use_the_old_values(c):
    d = jscan.shared(10, name="d")
    swap = jscan.function(lambda: ([c.value, d.value], {c: d.value, d: c + 1}))
    assert [int(x) for x in swap()] == [0, 10]
    assert (c.value, d.value) == (10, 1)
    assert [int(x) for x in swap()] == [10, 1]


@pytest.mark.parametrize("mode", [None, "DEBUG"])
def test_stored_values_have_strong_types(c, mode):
    jscan.function(lambda: {c: 5}, mode=mode)()
    assert (c.value, c.value.weak_type) == (5, False)


def test_two_functions_share_a_variable(c):
    up = jscan.function(lambda n: {c: c + n})
    down = jscan.function(lambda n: {c: c - n})
    assert up(5) is None
    down(2)
    assert c.value == 3


def test_loop_updates_returned_or_not(c):
    def loop():
        return jscan.scan(lambda: (c.value, {c: c + 1}), n_steps=3)

    assert jscan.function(loop)().tolist() == [0, 1, 2]
    assert c.value == 3
    assert jscan.function(lambda: loop().outputs)().tolist() == [3, 4, 5]
    assert c.value == 3


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        (lambda: 1.0, 1.0),
        (lambda: [1.0, 2.0], [1.0, 2.0]),
        (lambda: (1.0, 2.0), (1.0, 2.0)),
        (lambda: [1.0], [1.0]),
        (lambda: {"a": 1.0, "b": (2.0, 3.0)}, {"a": 1.0, "b": (2.0, 3.0)}),
        (lambda: ({"a": 1.0}, {}), {"a": 1.0}),
        (lambda: ([(1.0, 2.0)], {}), [(1.0, 2.0)]),
        (lambda: None, None),
        (dict, None),
    ],
    ids=["number", "list", "tuple", "one", "dict", "pair", "tree", "none", "empty"],
)
def test_outputs_keep_their_structure(returned, expected):
    actual = jscan.function(returned)()
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    assert jax.tree.leaves(actual) == jax.tree.leaves(expected)


def test_keywords_defaults_and_decorator(c):
    @jscan.function(name="affine")
    def affine(x, scale=2.0, *rest, shift=0.0, **more):
        return x * scale + shift + sum(rest) + sum(more.values())

    assert affine(1.0) == 2.0
    assert affine(1.0, 3.0) == 3.0
    assert affine(scale=3.0, x=2.0, shift=1.0) == 7.0
    assert affine(1.0, 2.0, 3.0, 4.0, a=5.0) == 14.0
    assert affine.__name__ == "affine"
    with pytest.raises(TypeError, match=r"missing a required argument"):
        affine()  # type: ignore


def test_method(c):
    class Model:
        def __init__(self, scale):
            self.scale = scale

        @jscan.function
        def step(self, x):
            return {c: c + self.scale * x}

    Model(2).step(3)
    Model(1).step(1)
    assert c.value == 7


def test_python_ints_stay_traced_until_their_value_is_needed():
    traces = []

    @jscan.function
    def power(x, n, offset):
        traces.append(1)
        rows, _ = jscan.scan(lambda p: p * x, outputs_info=1.0, n_steps=n)
        return rows[-1] + offset

    assert power(2.0, 3, 1) == 9
    count = len(traces)
    assert power(2.0, 3, 7) == 15  # `offset` is traced
    assert len(traces) == count
    assert power(2.0, 4, 1) == 17
    assert power(2.0, 3, 1) == 9
    assert len(traces) > count
    shapes = jscan.function(lambda n, k: jnp.zeros(n + 1) + jnp.asarray(k, float))
    assert shapes(3, 1).shape == (4,)
    assert shapes(4, 2).tolist() == [2.0] * 5


def test_number_of_steps_given_as_an_int_is_exact():
    """Not a bound at run time: as many rows, and too many are an error."""
    x = jnp.arange(5.0)
    first = jscan.function(lambda n: jscan.scan(lambda a: a * 2, x, n_steps=n))
    assert first(3).tolist() == [0.0, 2.0, 4.0]
    with pytest.raises(ValueError, match="at least 6 steps"):
        first(6)
    derived = jscan.function(lambda n, k: jscan.scan(lambda a: a * k, x, n_steps=n + 1))
    assert derived(1, 3.0).tolist() == [0.0, 3.0]

    bounded = jscan.function(
        lambda n: jscan.scan(lambda a: a * 2, x, n_steps=n, max_steps=5).n_steps
    )
    assert [int(bounded(n)) for n in (2, 4)] == [2, 4]
    assert (
        bounded._traced(2)[0] is bounded._traced(4)[0]
    )  # one program for every number

    @jscan.function
    def outer(n):
        inner = jscan.function(
            lambda unused: jscan.scan(lambda a: a * 2, x, n_steps=n)[0]
        )
        return inner(7)

    assert outer(2).tolist() == [0.0, 2.0]
    assert outer(4).tolist() == [0.0, 2.0, 4.0, 6.0]


def test_static_arguments_and_constants():
    f = jscan.function(
        lambda x, kind, sizes: x * len(kind) * sum(sizes), static_argnames="sizes"
    )
    assert f(2, "abc", (1, 2)) == 18
    assert f(2, "ab", (1, 2)) == 12
    assert f(2, "ab", (3, 2)) == 20
    kind = jscan.function(lambda n: jnp.ones(2, type(n)) * n, static_argnames=["n"])
    assert [kind(n).dtype for n in (1, True, 1.0)] == [int, bool, float]


def test_static_arguments_among_others_by_name():
    """What `jax.jit` does with such names."""

    def f(x, *sizes, **options):
        return x * len(options["kind"]) * sum(sizes) * options["scale"]

    for compiled in (
        jscan.function(f, static_argnames=("kind", "sizes")),
        jscan.function(f, static_argnames=["options", "sizes"]),
        jax.jit(f, static_argnames=["kind"]),
    ):
        assert compiled(2, 1, 2, kind="abc", scale=0.5) == 9.0
    scaled = jscan.function(lambda x, **k: x * [k["n"]][0], static_argnames="n")
    assert [scaled(1.0, n=n).dtype for n in (1, 1.0)] == [float, float]
    sized = jscan.function(lambda **k: jnp.ones(k["n"]), static_argnames="n")
    assert [sized(n=n).shape for n in (1, 3)] == [(1,), (3,)]


def test_gradient_inside_and_transformations_outside(c):
    W = jscan.shared(jnp.array([1.0, 2.0]), name="W")

    @jscan.function
    def slope(x):
        return jax.grad(lambda w: (w * w * x).sum())(W.value)

    assert slope(3.0).tolist() == [6.0, 12.0]
    energy = jscan.function(lambda x: (W * x).sum())
    assert jax.grad(energy)(2.0) == 3.0
    assert jax.vmap(energy)(jnp.arange(3.0)).tolist() == [0.0, 3.0, 6.0]
    add = jscan.function(lambda x: (x, {W: W + x}))
    with pytest.raises(
        TypeError, match=r"(?s)'<lambda>'.*<SharedVariable W: .*>.*jax\.grad"
    ):
        jax.grad(add)(2.0)
    assert W.get_value().tolist() == [1.0, 2.0]


def test_functions_called_from_a_function(c):
    add = jscan.function(lambda n: (c.value, {c: c + n}))

    @jscan.function
    def twice(n):
        before = add(n)
        return [before, add(n), c.value], {c: c * 10}

    assert [int(x) for x in twice(3)] == [0, 3, 6]
    assert c.value == 60
    reader = jscan.function(lambda: c + 1)
    assert jscan.scan(lambda: reader(), n_steps=2)[0].tolist() == [61, 61]
    with pytest.raises(TypeError, match=r"<SharedVariable c: .*call from a step"):
        jscan.scan(lambda: add(1), n_steps=2)


# ------------------------------------------------------------------------------- errors


def in_tracing(c):
    return c.undefined


def in_running(c):
    def fail(x):
        raise ArithmeticError("no")

    kind = jax.ShapeDtypeStruct((), jnp.int64)
    return jax.pure_callback(fail, kind, c.value)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("fail", [in_tracing, in_running])
@pytest.mark.parametrize("mode", [None, "DEBUG"])
def test_exception_changes_nothing(fail, mode, c):
    rng = jscan.RandomStreams(1)

    def f():
        noise = rng.uniform().value
        return fail(c) + noise.astype(int), {c: c + 1}

    with pytest.raises(Exception):  # noqa: B017 (JAX wraps it)
        jscan.function(f, mode=mode)()
    assert c.value == 0
    assert rng.state.value.counter == 0


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progress": True},
        {"checkpoint": "sqrt"},
        {"truncate_gradient": 3},
        {"until": True},
    ],
    ids=str,
)
def test_a_callback_is_seen_in_every_kind_of_loop(options, c):
    """A device may raise its error late: the new values wait for it."""
    options = dict(options)
    stops = options.pop("until", False)

    def step(x):
        y = jax.pure_callback(lambda v: v, jax.ShapeDtypeStruct((), x.dtype), x)
        return (y, {c: c + 1}, jscan.until(y > 90)) if stops else (y, {c: c + 1})

    def f(x):
        result = jscan.scan(step, x, **options)
        return result.outputs, result.updates

    call = jscan.function(f)
    call(jnp.arange(9.0))
    assert c.value == 9
    assert _has_callbacks(call._traced(jnp.arange(9.0))[0].jaxpr)
    assert not _has_callbacks(jscan.function(lambda x: x + c)._traced(1)[0].jaxpr)


def test_debug_finds_a_nan_and_changes_nothing(c):
    x = jscan.shared(jnp.array([1.0, 0.0]), name="x")

    @jscan.function(mode="DEBUG")
    def f():
        rows, updates = jscan.scan(lambda a: (a / a, {c: c + 1}), x)
        return rows, updates

    with pytest.raises(jscan.NonFiniteError) as caught:
        f()
    assert caught.value.step == 1
    assert c.value == 0
    x.set_value(jnp.array([1.0, 2.0]))
    assert f().tolist() == [1.0, 1.0]
    assert c.value == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda c: jscan.function(lambda: {c: 1.5})(),
            "'<lambda>'.*Variable c: .*>.*int64",
        ),
        (lambda c: jscan.function(lambda: {c: jnp.ones(2, int)})(), r"got int64\[2\]"),
        (lambda c: jscan.function(lambda: {c: 1, 3: 2})(), "target 3"),
        (lambda c: jscan.function(lambda x: x)(c), r"(?s)Variable c: .*pass c\.value"),
        (lambda c: jscan.function(NO_FUNCTION), "needed a Python function"),
        (lambda c: jscan.function(lambda x: x)(jnp.ones), None),
        (lambda c: jscan.function(lambda x: 0)(np.array(["a"])), "hashable"),
    ],
    ids=["dtype", "rank", "target", "argument", "no function", "static", "text"],
)
def test_bad_use(call, message, c):
    with pytest.raises((TypeError, ValueError), match=message):
        call(c)
    assert c.value == 0


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((1.0, 2.0, 3.0), {}, "too many positional arguments"),
        ((), {}, "missing a required argument: 'x'"),
        ((1.0,), {"z": 2.0}, "unexpected keyword argument 'z'"),
        ((1.0,), {"x": 2.0}, "multiple values for argument 'x'"),
    ],
    ids=["many", "few", "unknown name", "twice"],
)
def test_wrong_number_of_arguments(args, kwargs, message):
    """Short: ours alone, with the signature; the same for every call."""
    f = jscan.function(lambda x, y=2.0: x + y, name="add")
    for _ in range(2):
        with pytest.raises(jscan.ScanTypeError) as caught:
            f(*args, **kwargs)
        text = str(caught.value)
        assert text.startswith("function 'add': a call: needed the arguments (x, y=2.0")
        assert message in text
        assert caught.value.__suppress_context__
    assert f(1.0) == 3.0


AS_IN_THEANO: Any = jscan.function  # called as its types forbid


@pytest.mark.parametrize(
    "call",
    [
        lambda c: AS_IN_THEANO([1.0], 2.0, updates={c: 1}),
        lambda c: AS_IN_THEANO([1.0], 2.0),
        lambda c: AS_IN_THEANO([], updates=[(c, 1)]),
        lambda c: AS_IN_THEANO(inputs=[], outputs=c, givens={}),
        lambda c: AS_IN_THEANO([1.0]),
    ],
    ids=["updates=", "two arguments", "updates alone", "givens=", "a list"],
)
def test_calls_in_the_style_of_theano_get_a_hint(call, c):
    with pytest.raises(jscan.ScanTypeError, match=r"write jscan\.function\(lambda x"):
        call(c)


def test_until_and_modes_are_refused(c):
    with pytest.raises(ValueError, match=r"until"):
        jscan.function(lambda: (c.value, jscan.until(c > 3)))()
    with pytest.raises(ValueError, match=r"mode"):
        jscan.function(lambda: 1, mode="FAST")  # type: ignore


def test_local_variable_cannot_be_updated():
    def f(x):
        local = jscan.shared(x, name="local")
        return {local: local + 1.0}

    with pytest.raises(TypeError, match=r"<SharedVariable local: .*function itself"):
        jscan.function(f)(1.0)


@pytest.mark.parametrize("mode", [None, "FAST_RUN", "FAST_COMPILE", "DEBUG"])
def test_modes_agree(mode, c):
    rng = jscan.RandomStreams(5)
    draw = rng.normal()
    f = jscan.function(
        lambda x: jscan.scan(lambda a: (a * c + draw, {c: c + 1}), x), mode=mode
    )
    x = jnp.arange(4, dtype=jnp.int64)
    with jax.numpy_dtype_promotion("standard"):
        first, second = f(x), f(x)
    keys = [jax.random.fold_in(jax.random.key(5), i) for i in range(8)]
    noise = np.array([jax.random.normal(key) for key in keys])
    np.testing.assert_allclose(first, noise[:4] + np.array([0, 1, 4, 9]))
    np.testing.assert_allclose(second, noise[4:] + np.array([0, 5, 12, 21]))


# ----------------------------------------------------------------------------- donation


def test_donation_aliases_the_buffer_and_names_stale_references():
    W = jscan.shared(jnp.zeros(1000), name="W")
    add = jscan.function(lambda x: (x + 1.0, {W: W + x}), donate=True, name="add")
    assert add.lower(1.0).compile().memory_analysis().alias_size_in_bytes == 8000
    old = W.value
    where = old.unsafe_buffer_pointer()
    assert add(2.0) == 3.0
    assert W.value.unsafe_buffer_pointer() == where
    assert old.is_deleted()
    message = r"reused in place by function 'add', which updates W with donate=True"
    with pytest.raises(ValueError, match=message):
        W.set_value(old)
    with pytest.raises(ValueError, match=message):
        add(old)
    with pytest.raises(ValueError, match=message):
        jscan.scan(lambda x: x, old)
    assert W.get_value()[0] == 2.0


def test_a_call_does_not_look_at_the_value_that_it_stores(monkeypatch):
    """To look at it is to wait for it; the text for a stale reference does not."""
    total = jscan.shared(0.0, name="total")
    add = jscan.function(lambda x: {total: total + x}, donate=True)
    add(1.0)
    looks = []
    monkeypatch.setattr(jscan.SharedVariable, "__repr__", looks.append)
    add(2.0)
    assert not looks
    assert total.get_value() == 3.0


def test_donated_variable_does_not_take_the_users_arrays():
    mine = jnp.arange(3.0)
    W = jscan.shared(mine, name="W")
    peek = jscan.function(lambda: W.value)
    add = jscan.function(lambda: {W: W + 1.0}, donate=True)
    seen = peek()
    add()
    assert mine.tolist() == seen.tolist() == [0.0, 1.0, 2.0]


def test_donating_a_buffer_that_is_wanted_twice():
    array = jnp.zeros(3)
    W = jscan.shared(array, name="W", borrow=True)
    V = jscan.shared(array, name="V", borrow=True)
    both = jscan.function(lambda: {W: W + 1.0, V: V + 1.0}, donate=True, name="both")
    with pytest.raises(
        ValueError, match=r"'both': <SharedVariable W: .*> with donate=True"
    ):
        both()
    add = jscan.function(lambda x: {W: W + x}, donate=True)
    with pytest.raises(ValueError, match=r"<SharedVariable W: .*> with donate=True"):
        add(W.value)
    assert W.get_value().tolist() == [0.0] * 3


def test_outputs_and_values_never_share_a_buffer():
    """Not with each other, nor with an argument, nor inside jit or from one output."""
    W = jscan.shared(jnp.zeros(3), name="W")
    x = jnp.ones(3)
    for f in (
        jscan.function(lambda x: ([x, x], {W: x})),
        jscan.function(lambda x: (lambda y: ([y, y], {W: y}))(x + W)),
        jscan.function(lambda x: ([W.value, W.value], {W: jax.jit(lambda v: v)(x)})),
        jscan.function(lambda x: ([W.value, x], {W: W.value})),
        jscan.function(lambda x: ([W.value, x], {W: W.value}), donate=True),
    ):
        outputs = f(x)
        arrays = [*outputs, W.value, x]
        assert len({array.unsafe_buffer_pointer() for array in arrays}) == 4


def test_variables_never_share_a_buffer_after_an_update():
    W, V = jscan.shared(jnp.zeros(3), name="W"), jscan.shared(jnp.ones(3), name="V")
    jscan.function(lambda: {V: W.value})()
    jscan.function(lambda: {W: W + 1.0, V: V + 2.0}, donate=True)()
    assert W.get_value().tolist() == [1.0] * 3
    assert V.get_value().tolist() == [2.0] * 3


def test_variable_deleted_by_other_code():
    W = jscan.shared(jnp.zeros(3), name="W")
    W.value.delete()
    with pytest.raises(ValueError, match=r"(?s)shared variable 'W'.*still exists"):
        W.value  # noqa: B018
    with pytest.raises(ValueError, match=r"(?s)shared variable 'W'.*still exists"):
        jscan.function(lambda: W + 1.0)()


@pytest.mark.parametrize("mode", [None, "DEBUG"])
def test_what_a_function_returned_outlives_a_later_donation(mode):
    w = jscan.shared(jnp.arange(3.0), name="w")
    read = jscan.function(lambda: (w.value, {w: w + 1.0}), mode=mode)
    both = jscan.function(lambda: ((new := w + 1.0), {w: new}), mode=mode)
    in_place = jscan.function(lambda: {w: w + 1.0}, donate=True)
    old, new = read(), both()
    in_place()
    assert old.tolist() == [0.0, 1.0, 2.0]
    assert new.tolist() == [2.0, 3.0, 4.0]
