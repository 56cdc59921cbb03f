"""The pipeline: order, switches, failures, and what must survive a rewrite."""

import functools
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jscan import explain, optimize
from jscan._optimizer import PASS_NAMES, RULE_NAMES, make_options, rewrite, rules
from jscan._optimizer import pipeline as pipeline
from jscan._optimizer.program import walk as programs
from jscan._optimizer.record.notes import Note
from support.comparing import assert_close
from support.optimizer.loops import check, loop_lengths, lowered, operations

X = jax.random.normal(jax.random.key(6), (6, 4, 32))
W = jax.random.normal(jax.random.key(7), (32, 32)) / 6


def cell(w, x):
    step = lambda h, x_t: ((h := jnp.tanh(x_t @ w + h @ w.T)), h)
    return jax.lax.scan(step, jnp.zeros((4, 32), x.dtype), x)[1]


def loss(w, x):
    return (cell(w, x)[-1] ** 2).sum() + cell(w, x).mean()


PROGRAMS = {
    "gradient": (jax.grad(loss), W, X),
    "chunks": (lambda x: jax.lax.map(lambda r: jnp.cumsum(r @ W, 0).sum(), x), X),
    "counter": (
        lambda x: jax.lax.fori_loop(0, 6, lambda i, a: a * 0.5 + x[i] @ W, X[0]),
        X,
    ),
    "nested": (lambda x: jax.vmap(lambda r: cell(W, r))(x[:, None, :1]), X),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_idempotent(name):
    """Rewriting what is rewritten changes nothing, nor does asking for it twice."""
    fun, *args = PROGRAMS[name]
    once = lowered(fun, *args, memory_budget=20_000)
    twice = lowered(once, *args, memory_budget=20_000)
    assert operations(twice, *args) == operations(once, *args)
    assert loop_lengths(twice, *args) == loop_lengths(once, *args)
    inner = optimize(fun, memory_budget=20_000)
    outer = optimize(inner, memory_budget=20_000)
    assert loop_lengths(outer, *args) == loop_lengths(inner, *args)
    for there, here in zip(
        operations(outer, *args), operations(inner, *args), strict=True
    ):
        assert sorted(there) == sorted(here)


def test_deterministic():
    """Two rewrites of one program read the same."""
    closed = jax.make_jaxpr(jax.grad(loss))(W, X)
    texts = {str(rewrite(closed, platform="cpu")) for _ in range(2)}
    assert len(texts) == 1


def test_every_rule_is_named_and_gives_a_reason():
    """The names of the registry are the public ones."""
    every = [*rules.PROGRAM_RULES, *rules.LOOP_RULES]
    every += [*rules.DERIVATIVE_RULES, *rules.FINAL_RULES]
    assert all(rule.reason for rule in every)
    assert {rule.family for rule in every} == set(PASS_NAMES)
    assert {rule.name for rule in every} == set(RULE_NAMES)
    files = Path(rules.__file__).parent / "passes"
    folders = {path.name for path in files.iterdir() if path.name[0] != "_"}
    assert {f.removesuffix(".py") for f in folders} - {"across_loops"} == {*PASS_NAMES}


@functools.cache
def gradient_as_written():
    return jax.grad(loss)(W, X)


@pytest.mark.parametrize("name", RULE_NAMES)
def test_a_single_rule_can_be_asked_for(name):
    """The notes are its own, and the numbers are right."""
    found = explain(jax.grad(loss), passes=[name])(W, X)
    assert {note.rule for loop in found.loops for note in loop.notes} <= {name}
    assert set(found.seconds or ()) <= {name, "associate", "regroup"}  # which suggest
    new = optimize(jax.grad(loss), passes=[name])(W, X)
    assert_close(new, gradient_as_written(), 1e-4)


def test_what_was_not_asked_for_is_not_reported():
    """Rules tidy up behind themselves; only `merge` says that it removed a state."""

    def last(x):
        step = lambda c, v: ((c[0] + v, c[1] * v), c[1])
        return jax.lax.scan(step, (x[0], x[0]), x)[1][-1]

    assert explain(last, passes=["save_memory"])(X).loops[0].fired == ("save_memory",)
    assert "merge" in explain(last)(X).loops[0].fired


def test_a_report_keeps_every_reason():
    notes = [Note(False, text, f"hoist.{text}") for text in ("one", "two")]
    (loop,) = explain(cell)(W, X).loops
    assert replace(loop, notes=tuple(notes)).refused == {"hoist": "one; two"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda loop: {"constants": {}}, "which nothing gives"),
        (lambda loop: {"equations": loop.equations[::-1]}, "which nothing gives"),
        (lambda loop: {"equations": loop.equations * 2}, "is computed twice"),
        (lambda loop: {"carries": ()}, "which nothing gives"),
        (lambda loop: {"carries": loop.carries * 2}, "is given twice"),
    ],
    ids=["constant", "order", "twice", "state", "states"],
)
def test_a_rule_that_breaks_a_record_is_caught(monkeypatch, change, says):
    """With `JSCAN_DEBUG=1`, under which these tests run."""
    broken = lambda loop, _: replace(loop, **change(loop))
    rule = rules.LOOP_RULES[0]
    wrong = (replace(rule, run=broken), *rules.LOOP_RULES[1:])
    monkeypatch.setattr(pipeline, "LOOP_RULES", wrong)
    monkeypatch.setenv("JSCAN_DEBUG", "1")
    with pytest.raises(AssertionError, match=rf"{rule.name}: .*{says}"):
        rewrite(jax.make_jaxpr(cell)(W, X), platform="cpu")


def test_options_are_checked():
    """Unknown names, no names at all, a negative budget."""
    with pytest.raises(ValueError, match=r"passes: needed names among .* fuse"):
        optimize(loss, passes=["fuse"])
    with pytest.raises(ValueError, match="unknown passes fuse"):
        optimize(loss, passes="default+fuse")
    with pytest.raises(TypeError, match="passes: needed names of passes"):
        optimize(loss, passes=3)  # pyright: ignore
    with pytest.raises(ValueError, match="memory_budget: needed 0 or more"):
        optimize(loss, memory_budget=-1)
    with pytest.raises(TypeError, match=r"memory_budget: .*inf"):
        optimize(loss, memory_budget=float("inf"))  # pyright: ignore
    assert make_options().memory_budget == 32 * 2**20


def test_switched_off_by_the_environment(monkeypatch):
    """`JSCAN_OPTIMIZE=0` returns the very program, and the report says so."""
    monkeypatch.setenv("JSCAN_OPTIMIZE", "0")
    closed = jax.make_jaxpr(cell)(W, X)
    assert rewrite(closed, platform="cpu") is closed
    assert "JSCAN_OPTIMIZE=0" in str(explain(cell)(W, X))


def broken(*_, **__):
    raise RuntimeError("a pass that cannot")


def test_a_failing_pass_is_skipped_and_reported(monkeypatch):
    """The other passes run, the numbers are right, the report has the error."""
    monkeypatch.delenv("JSCAN_DEBUG", raising=False)
    some = [
        replace(rule, run=broken) if rule.name == "hoist.sequences" else rule
        for rule in rules.LOOP_RULES
    ]
    monkeypatch.setattr(pipeline, "LOOP_RULES", tuple(some))
    failed = "failed and was skipped (RuntimeError: a pass that cannot)"
    assert f"hoist.sequences: {failed}" in str(explain(cell)(W, X))
    check(cell, W, X, tolerance=1e-4)


@pytest.mark.parametrize("place", ["emit", "loop_in"])
def test_a_failing_rewrite_runs_the_original(monkeypatch, place):
    """Whatever breaks inside, the program runs as it was written."""
    monkeypatch.delenv("JSCAN_DEBUG", raising=False)
    monkeypatch.setattr(programs, place, broken)
    doubled = lambda w, x: 2 * cell(w, x)  # not in any cache yet
    assert_close(optimize(doubled)(W, X), 2 * cell(W, X))
    assert "a pass that cannot" in str(explain(cell)(W, X)) or place == "emit"
    monkeypatch.setenv("JSCAN_DEBUG", "1")
    with pytest.raises((RuntimeError, TypeError)):
        rewrite(jax.make_jaxpr(cell)(W, X), platform="cpu")


def test_types_survive_with_their_weakness():
    """Inputs, outputs and their weak types are those of the program given."""

    def loop(start, x):
        (number, count), rows = jax.lax.scan(
            lambda c, v: ((c[0] * 2, c[1] + 1), c[0]), (start, 0), x
        )
        return number, count, rows

    closed = jax.make_jaxpr(loop)(1.0, X)
    new = rewrite(closed, platform="cpu")
    assert [str(a) for a in new.in_avals] == [str(a) for a in closed.in_avals]
    assert new.out_avals == closed.out_avals
    assert [getattr(a, "weak_type", None) for a in new.out_avals] == [
        getattr(a, "weak_type", None) for a in closed.out_avals
    ]


def test_named_scopes_and_source_lines_survive():
    """Work inside and outside the loop keeps its scope and the user's line."""

    def scoped(w, x):
        def step(h, x_t):
            with jax.named_scope("gate"):
                h = jnp.tanh(x_t @ w + h)
            return h, h

        with jax.named_scope("encoder"):
            return jax.lax.scan(step, jnp.zeros((4, 32)), x)[1]

    text = jax.jit(optimize(scoped)).lower(W, X).as_text(debug_info=True)
    assert "encoder/vmap(gate)/dot_general" in text  # hoisted before the loop
    assert "gate/tanh" in text
    assert "test_pipeline.py" in text


def test_inside_cond_while_remat_and_custom_rules():
    """Loops inside other control flow are rewritten, and agree."""

    def program(w, x):
        branch = jax.lax.cond(x[0, 0, 0] > 0, cell, lambda w, x: -cell(w, x), w, x)
        again = jax.checkpoint(cell)(w, x)
        return branch.sum() + again.sum() + jax.jit(cell)(w, x).max()

    def repeated(w, x):
        body = lambda s: (s[0] + 1, jnp.tanh(cell(w, s[1])))
        return jax.lax.while_loop(lambda s: s[0] < 3, body, (0, x))[1]

    check(program, W, X, tolerance=1e-4)
    assert_close(jax.jit(optimize(repeated))(W, X), repeated(W, X), 1e-4)
    for fun in (program, repeated):
        _, inside = operations(optimize(fun, passes=["hoist"]), W, X)
        _, plain = operations(fun, W, X)
        assert inside.count("dot_general") < plain.count("dot_general")


def test_empty_and_single_step_loops():
    """Zero and one step are left alone."""
    for length in (0, 1):
        assert_close(
            optimize(jax.grad(lambda w, x: cell(w, x).sum()))(W, X[:length]),
            jax.grad(lambda w, x: cell(w, x).sum())(W, X[:length]),
        )
