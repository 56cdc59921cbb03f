"""save_memory, across loops: cheap rows are computed again where they are read."""

import jax
import jax.numpy as jnp
import pytest

from jscan import explain, optimize
from jscan._jax.names import JAX_VERSION
from jscan._optimizer import rewrite
from support.comparing import assert_close
from support.optimizer.loops import check, lowered, operations, stacked_shapes

T, ROWS, WIDE = 40, 8, 16
W = jax.random.normal(jax.random.key(0), (WIDE, 4 * WIDE)) / 4
X = jax.random.normal(jax.random.key(1), (T, ROWS, 4 * WIDE))
V = jax.random.normal(jax.random.key(2), (T, 2))  # of one number: stored, by 0.12


def lstm(weight, xs):
    def step(carry, x):
        h, c = carry
        i, f, g, o = jnp.split(h @ weight + x, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    zeros = jnp.zeros((ROWS, WIDE))
    return jax.lax.scan(step, (zeros, zeros), xs)[1]


def loss(weight, xs):
    return (lstm(weight, xs) ** 2).sum()


def rows(fun, *args):
    """How many stacks the loops of a program hand out."""
    return sum(shape[:1] == (T,) for shape in stacked_shapes(fun, *args))


def again(fun, *args, **options):
    """What the report says about rows that are computed again."""
    loops = explain(fun, **options)(*args).loops
    texts = [note.text for loop in loops for note in loop.notes]
    return [text for text in texts if ": computed again, not stored" in text]


def test_the_derivative_of_a_gate_is_not_stored():
    """Four gates, the tanh of the cell, the state before and the rows: seven remain."""
    gradient = jax.grad(loss)
    only = optimize(gradient, passes=["save_memory"])
    assert rows(gradient, W, X) == 13
    assert rows(only, W, X) == 7
    assert len(again(gradient, W, X)) == 1
    check(lstm, W, X)


@pytest.mark.usefixtures("measured_costs")
@pytest.mark.parametrize(("size", "fewer"), [(1, JAX_VERSION < (0, 11)), (2, True)])
def test_numbers_are_computed_again_only_where_a_step_may_be_calls(size, fewer):
    """By JAX 0.12, where each is one function, a row of one number is stored."""

    def cell(w, xs):
        def step(h, x):
            gate = jax.nn.sigmoid(w * h + x)
            return gate * h + (1 - gate) * x, gate

        return jax.lax.scan(step, jnp.zeros(size), xs)[1]

    gradient = jax.grad(lambda w, xs: (cell(w, xs) ** 2).sum())
    assert bool(again(gradient, jnp.ones(size), jnp.ones((T, size)))) == fewer


def returns(rate, xs):
    """What both factors of `rate * on * total` move, a row is stored of each."""

    def step(total, row):
        total = row[0] + rate * row[1] * total
        return total, total

    on = (xs > -1).astype(xs.dtype)
    return jax.lax.scan(step, jnp.zeros(xs.shape[1:], xs.dtype), (xs, on))[1]


def slope(fun):
    return jax.grad(lambda *args: (fun(*args) ** 2).sum())


def slope_rows(fun, args, passes):
    """How many stacks the loops of its derivative hand out."""
    return rows(slope(optimize(fun, passes=passes)), *args)


def outer_sum(xs, rate):
    """A sum of products of what the step reads: nothing has to be stored."""
    step = lambda c, x: (c + jnp.outer(rate * x, x), None)
    return jax.lax.scan(step, jnp.zeros((4 * WIDE, 4 * WIDE), xs.dtype), xs)[0]


MOVED = {
    "a discounted sum": (returns, (jnp.asarray(0.9, X.dtype), X[:, 0]), 1),
    "a sum of products": (lambda r, xs: outer_sum(xs, r), (X[0, 0], X[:, 0]), 1),
}


@pytest.mark.parametrize(("fun", "args", "fewer"), MOVED.values(), ids=MOVED)
@pytest.mark.parametrize("reverse", [False, True])
def test_products_of_what_moves_are_not_stored(fun, args, fewer, reverse):
    """Where they can be made again of rows that there are; all derivatives agree."""
    if reverse:
        fun, args = (lambda f: lambda r, xs: f(r, xs[::-1]))(fun), args
    before, after = (slope_rows(fun, args, [p]) for p in ("unroll", "save_memory"))
    assert after == before - fewer
    for derive in (slope, lambda f: jax.hessian(lambda *a: (f(*a) ** 2).sum())):
        expected = jax.jit(derive(fun))(*args)
        assert_close(jax.jit(derive(optimize(fun)))(*args), expected)
    expected = jax.jit(lambda *a: jax.jvp(fun, a, a))(*args)
    assert_close(jax.jit(lambda *a: jax.jvp(optimize(fun), a, a))(*args), expected)
    twice = [jnp.stack([a, 0.5 * a]) for a in args]
    expected = jax.jit(jax.vmap(slope(fun)))(*twice)
    assert_close(jax.jit(jax.vmap(slope(optimize(fun))))(*twice), expected)


def _sorts(total, x):
    return jnp.linalg.cholesky(total @ total.T + x * jnp.eye(4, dtype=x.dtype))


KEPT = {
    "as many rows": lambda total, x: total * total * x,
    "a step that is not known": _sorts,
    "much to be done again": lambda total, x: jnp.roll(total, 1) * x * total + total,
}


@pytest.mark.parametrize("step", KEPT.values(), ids=KEPT)
def test_they_are_stored_where_that_is_less(step):
    """The backward loop reads as many rows as without the optimizer."""

    def fun(start, xs):
        return jax.lax.scan(lambda c, x: ((c := step(c, x)), c), start, xs)[1]

    args = jnp.ones((4, 4), X.dtype), X[:, 0, 0]
    before, after = (slope_rows(fun, args, [p]) for p in ("unroll", "save_memory"))
    assert after == before
    expected = jax.jit(slope(fun))(*args)
    assert_close(jax.jit(slope(optimize(fun)))(*args), expected)


@pytest.mark.parametrize(
    ("dtype", "digits", "stay"),
    [
        ("float32", (8, 23), 0),  # as JAX writes it beside what a step stores
        ("float64", (11, 52), 0),
        ("float32", (8, 10), 1),
        ("float16", (5, 10), 1),
        ("bfloat16", (8, 7), 1),  # the compiler may compute in 32 bits
    ],
)
def test_a_rounding_to_the_digits_there_are_is_dropped(dtype, digits, stay):
    def fun(xs):
        step = lambda c, x: ((c := jax.lax.reduce_precision(c + x, *digits)), c)
        return jax.lax.scan(step, jnp.zeros((), dtype), xs)[1]

    xs = X[:, 0, 0].astype(dtype)
    _, in_loops = operations(lowered(fun, xs), xs)
    assert in_loops.count("reduce_precision") == stay
    check(fun, xs)


@pytest.mark.parametrize("shape", ["t, 5", "40, b"])
def test_rows_of_sizes_that_are_not_known_yet(shape, monkeypatch):
    """In a program that is exported for any number of steps, or of rows."""
    monkeypatch.delenv("JSCAN_DEBUG", raising=False)  # rules that ask for one fail
    like = jax.ShapeDtypeStruct((40, 5), X.dtype)
    sizes = jax.export.symbolic_args_specs(like, shape)
    rate = jax.ShapeDtypeStruct((), X.dtype)
    exported = jax.export.export(jax.jit(slope(optimize(returns))))(rate, sizes)
    args = jnp.asarray(0.9, X.dtype), X[:, 0, :5]
    assert_close(exported.call(*args), slope(returns)(*args))


def test_it_takes_less_memory():
    """Of the compiled gradient: less than the plain one, by about a third."""

    def bytes_of(fun):
        compiled = jax.jit(fun).lower(W, X).compile()
        analysis = compiled.memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    gradient = jax.grad(loss)
    assert bytes_of(optimize(gradient, passes=["save_memory"])) < 0.8 * bytes_of(
        gradient
    )


@pytest.mark.parametrize("reverse", [False, True])
def test_second_order(reverse):
    """Hessian products and forward mode, the optimizer inside and outside."""

    def energy(a, xs):
        step = lambda c, x: ((c := jnp.tanh(a * c + x)), c * jax.nn.sigmoid(c))
        return jax.lax.scan(step, jnp.zeros(2), xs, reverse=reverse)[1].sum()

    a = jnp.asarray(0.7, V.dtype)
    for derive in (jax.hessian, jax.jacfwd, lambda f: jax.grad(jax.grad(f))):
        expected = derive(energy)(a, V)
        assert_close(jax.jit(optimize(derive(energy)))(a, V), expected)
        assert_close(jax.jit(derive(optimize(energy)))(a, V), expected)


def pair(make, use=lambda c, kept, made: c * kept + made, after=lambda made: 0.0):
    """Two loops: the second reads a row of the first and one made from it."""

    def program(xs):
        def first(c, x):
            kept = jnp.sin(c + x)
            return kept, (kept, make(kept, x))

        def second(c, rows):
            return (c := use(c, *rows)), c

        start = jnp.zeros(2, xs.dtype)
        kept, made = jax.lax.scan(first, start, xs)[1]
        return jax.lax.scan(second, start, (kept, made))[1] + after(made)

    return program


@pytest.mark.parametrize(
    "make",
    [
        lambda kept, x: 1 - kept,
        lambda kept, x: kept * (1 - kept) * (2 - kept),
        lambda kept, x: jnp.where(kept > 0, kept, 0.5 * kept),
        lambda kept, x: jnp.maximum(kept, -kept),
    ],
    ids=["sub", "polynomial", "where", "maximum"],
)
def test_cheap_rows_are_computed_again(make):
    """Differences, products, choices."""
    fun = pair(make)
    assert rows(fun, V) == 3
    assert len(again(fun, V)) == 1
    # What is left: the row that is kept, and the rows of the result.
    assert rows(optimize(fun, passes=["save_memory"]), V) == 2
    check(fun, V)


def _long(kept, x):
    for n in range(20):
        kept = kept * 0.9 + n
    return kept


def _prints(c, kept, made):
    jax.debug.print("{}", c)
    return c * kept + made


OTHERS = {
    "an exponential is not cheap": pair(lambda kept, x: jnp.exp(kept)),
    "nor is a division": pair(lambda kept, x: 1 / (kept + 3)),
    "nor are many operations": pair(_long),
    "one number is read instead": pair(lambda kept, x: 2 * x),
    "others read it": pair(lambda k, x: 1 - k, after=lambda made: made * 2),
    "a step prints": pair(lambda kept, x: 1 - kept, use=_prints),
}


@pytest.mark.parametrize("fun", OTHERS.values(), ids=OTHERS)
def test_other_rows_stay(fun):
    """Rows that are not cheap, or not for one loop alone, are stored as before."""
    assert again(fun, V) == []
    check(fun, V)


def test_loops_of_other_lengths_stay():
    """A row of one loop is no row of a loop with fewer steps."""

    def program(xs):
        def first(c, x):
            kept = jnp.sin(c + x)
            return kept, (kept, 1 - kept)

        start = jnp.zeros(2, xs.dtype)
        kept, made = jax.lax.scan(first, start, xs)[1]
        second = lambda c, rows: ((c := c * rows[0] + rows[1]), c)
        return jax.lax.scan(second, start, (kept[1:], made[1:]))[1]

    assert again(program, V) == []
    check(program, V)


def test_not_where_memory_was_asked_for():
    """Under `jax.checkpoint` a loop says itself what is computed again."""

    @jax.checkpoint
    def cell(c, x):
        return jnp.tanh(c * x) * jax.nn.sigmoid(c)

    def total(xs):
        step = lambda c, x: ((c := cell(c, x)), c)
        return jax.lax.scan(step, jnp.zeros(2, xs.dtype), xs)[1].sum()

    assert again(jax.grad(total), V) == []
    check(total, V)


def test_not_without_the_pass():
    """The derivative decides what is read; and the pass can be switched off."""
    fun = pair(lambda kept, x: 1 - kept)
    assert again(fun, V, passes=["hoist", "merge"]) == []
    assert rows(optimize(fun, passes=["hoist"]), V) == 3
    assert rows(optimize(fun, passes=["save_memory"]), V) == 2


def test_twice_changes_nothing():
    """A program that was rewritten has nothing to compute again."""
    once = optimize(jax.grad(loss))
    assert rows(optimize(once), W, X) == rows(once, W, X)


def test_a_failure_leaves_the_program_as_it_was(monkeypatch):
    """The loops run as they are, and the report says so."""
    from jscan._optimizer.passes.across_loops import recomputed_rows as _residuals

    def broken(*_):
        raise RuntimeError("injected")

    fun = pair(lambda kept, x: 1 - kept)
    monkeypatch.setattr(_residuals, "_written_again", broken)
    monkeypatch.delenv("JSCAN_DEBUG", raising=False)
    assert_close(jax.jit(optimize(fun))(V), jax.jit(fun)(V))
    assert "RuntimeError: injected" in str(explain(fun)(V))
    monkeypatch.setenv("JSCAN_DEBUG", "1")
    with pytest.raises(RuntimeError, match="injected"):
        rewrite(jax.make_jaxpr(fun)(V), platform="cpu")


def test_the_report_knows_rows_found_after_all_other_passes():
    """Such as those of a step that was recomputed, once its forward loop is written."""

    @jax.checkpoint
    def step(h, x):
        h = jnp.tanh(x @ W[:, :WIDE] + h @ W[:, WIDE : 2 * WIDE])
        return h, h

    def remembered(xs):
        return (jax.lax.scan(step, jnp.zeros((ROWS, WIDE)), xs)[1] ** 2).sum()

    report = explain(jax.grad(remembered))(X[..., :WIDE])
    _, backward = report.loops
    fired = [note.text for note in backward.notes if note.fired]
    assert any("made in the step that reads them" in text for text in fired)
