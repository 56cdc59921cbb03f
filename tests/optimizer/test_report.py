"""The report: text, tables, plot, and names."""

import builtins
import copy
import inspect
import pickle
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan
from jscan import explain
from jscan._optimizer import entry as _api
from jscan._optimizer.reports import report as _report

pytestmark = pytest.mark.any_jax

X = jnp.ones((7, 3, 16))
W = jnp.ones((16, 16)) / 16


def loss(w, x):
    step = lambda h, x_t: ((h := jnp.tanh(x_t @ w + h)), h)
    with jax.named_scope("cell <1>"):
        return (jax.lax.scan(step, jnp.zeros((3, 16)), x)[1] ** 2).sum()


def test_names_figures_and_reasons():
    """Loops are found by scope, with what fired and what did not."""
    report = explain(jax.grad(loss))(W, X)
    assert [loop.name for loop in report.loops] == ["cell <1>", "cell <1> (backward)"]
    forward = report["cell <1>"]
    assert "hoist" in forward.fired
    assert "7 steps are too few" in forward.refused["unroll"]
    assert forward.before.steps == forward.after.steps == forward.steps == 7
    # One product of 3 x 16 by 16 x 16 a step, moved before the loop.
    assert forward.before.flops >= 7 * 2 * 3 * 16 * 16
    assert (forward.before.batched, forward.after.batched) == (0, 1)
    # The derivative of tanh follows from a row that is stored anyway.
    backward = report["cell <1> (backward)"]
    assert any("computed again" in note.text for note in backward.notes)
    with pytest.raises(KeyError, match="Report: the loop 'decoder'"):
        report["decoder"]


def test_text_and_html():
    """Both hold the reasons; names are escaped."""
    report = explain(loss)(W, X)
    assert "+ hoist.sequences: dot_general on sequences alone" in str(report)
    assert "temporary memory of the program" in repr(report)
    page = report._repr_html_()
    assert "cell &lt;1&gt;" in page
    assert "<td>operations a step</td>" in page


def line_of(function, text):
    """Where `text` stands first in a function of this file: ``test_report.py:12``."""
    lines, first = inspect.getsourcelines(function)
    return f"{Path(__file__).name}:{first + [text in x for x in lines].index(True)}"


def rows_of_sums(x):
    def row(v):
        sums, _ = jscan.scan(lambda a, s: s + a, v, 0.0)  # the inner loop
        return sums[-1]

    def step(v, h):
        return h * row(v)

    return jscan.scan(step, x, 0.5, name="outer").outputs  # the outer loop


def the_same_sums(x):
    def step(v, h):
        return h * jscan.scan(lambda a, s: s + a, v, 0.0).outputs[-1]  # the inner loop

    return jscan.scan(step, x, 0.5, name="outer").outputs  # the outer loop


def sums_by_lax(x):
    def step(h, v):
        h = h * jax.lax.scan(lambda s, a: (s + a, None), 0.0, v)[0]  # the inner loop
        return h, h

    with jax.named_scope("outer"):
        return jax.lax.scan(step, 0.5, x)[1]  # the outer loop


@pytest.mark.parametrize("written", [rows_of_sums, the_same_sums, sums_by_lax])
@pytest.mark.parametrize(
    "wrap",
    [lambda f: f, jax.jit, jscan.optimize, lambda f: jscan.function(f)],
    ids=["plain", "jit", "optimize", "function"],
)
def test_loops_are_a_tree_with_files_and_lines(written, wrap):
    """Also where the same was traced before, from other lines."""
    found = explain(wrap(written))(X[..., 0]).loops
    outer = line_of(written, "# the outer loop")
    inner = line_of(written, "# the inner loop")
    seen = [(loop.name, loop.place, loop.depth) for loop in found]
    assert seen == [("outer", outer, 0), ("loop 2", inner, 1)]


def test_a_backward_loop_has_the_line_of_its_forward_loop():
    slope = jax.grad(lambda x: rows_of_sums(x).sum())
    found = explain(slope)(X[..., 0]).loops
    names = ["outer", "loop 2", "outer (backward)", "loop 4 (backward)"]
    assert [loop.name for loop in found] == names
    assert [loop.depth for loop in found] == [0, 1, 0, 1]
    assert [loop.place for loop in found[:2]] == [loop.place for loop in found[2:]]


@pytest.mark.oracles
def test_the_line_is_the_users_and_not_a_librarys():
    nn = pytest.importorskip("flax.linen", reason="a layer of flax: extra oracles")
    layer = nn.RNN(nn.SimpleCell(4))
    rows = X.astype(jnp.float32)
    weights = layer.init(jax.random.key(0), rows)
    run = lambda w, x: layer.apply(w, x)  # the call of the library
    (loop,) = explain(run)(weights, rows).loops
    here = test_the_line_is_the_users_and_not_a_librarys
    assert loop.place == line_of(here, "# the call of the library")


def tree(text):
    """The lines of a report that draw its tree: names, steps, and what leads there."""
    return re.findall(r"^([│├└─ ]*\S.*: \d+ steps?), .*$", text, re.MULTILINE)


def test_the_tree_as_text():
    """Two loops in one, one of them with another inside, and a loop behind."""

    def cube(x):
        def plane(p, h):
            one = jscan.scan(lambda a, s: s * a, p[0], h, name="one").outputs[-1]
            row = lambda r, s: jscan.scan(lambda a, s: a + s / 3, r, s).outputs[-1]
            return one + jscan.scan(row, p, h, name="two").outputs[-1]

        rows = jscan.scan(plane, x, 0.5, name="planes").outputs
        return jscan.scan(lambda r, s: jnp.tanh(r + s), rows, 0.5, name="last").outputs

    report = explain(cube, passes=["hoist"])(X)
    assert tree(str(report)) == [
        "planes: 7 steps",
        "├─ planes/one: 16 steps",
        "└─ planes/two: 3 steps",
        "   └─ loop 4: 16 steps",
        "last: 7 steps",
    ]
    lines = str(report).splitlines()
    start = lines.index(next(x for x in lines if "planes/one" in x))
    end = lines.index(next(x for x in lines if "planes/two" in x))
    assert all(line.startswith("│  ") for line in lines[start + 1 : end])
    page = ElementTree.fromstring(report._repr_html_())
    planes, last = page.findall("details")
    one, two = planes.findall("details")
    assert (one.findall("details"), len(two.findall("details"))) == ([], 1)
    names = [d.findtext("summary/b") for d in (planes, one, two, last)]
    assert names == ["planes", "planes/one", "planes/two", "last"]


def test_colours_tell_what_was_done_refused_and_left():
    page = explain(loss)(W, X)._repr_html_()
    notes = re.findall(r"background:(#\w+);[^>]*>(\w+)</span> <b>([\w.]*)", page)
    kinds = {kind: colour for colour, kind, _ in notes}
    assert ("done", "hoist.sequences") in [note[1:] for note in notes]
    assert ("refused", "unroll") in [note[1:] for note in notes]
    left = explain(loss, passes=["merge"])(W, X)._repr_html_()
    colour, kind, _ = re.findall(
        r"background:(#\w+);[^>]*>(\w+)</span> (nothing)?", left
    )[0]
    assert len({*kinds.values(), colour}) == 3
    assert (kind, "nothing to do" in left) == ("left", True)


def test_verdict():
    """What was done stands first, in one line; a time only if it was measured."""
    report = explain(loss)(W, X)
    first = str(report).splitlines()[0]
    assert first == report.verdict
    assert first.startswith("1 of 1 loop rewritten; time not measured, see measure(); ")
    measured = report.measure()
    assert measured.times is not None
    before, after = measured.times
    assert 0 < before < 60
    assert 0 < after < 60
    assert f"{before / after:.2f}x as fast" in measured.verdict.splitlines()[0]
    assert report.times is None
    assert "not measured" in report.verdict
    none = explain(loss, passes=["merge"])(W, X)
    assert none.verdict.startswith("0 of 1 loop rewritten; ")


def idle(x):
    return jscan.scan(lambda v: v, x).outputs


def stopping(x):
    step = lambda v, s: (s + v, jscan.until(s > 3))
    return jscan.scan(step, x, 0.0).outputs


def stopping_twice(x):
    return stopping(x) + stopping(x + 1)


def plain(x):
    return jscan.scan(lambda v, s: s + v, x, 0.0, mode="FAST_COMPILE").outputs


@pytest.mark.parametrize(
    ("function", "verdict"),
    [
        (jnp.sin, "no loops; "),
        (idle, "no loops (no step computes anything for the results, so none is run)"),
        (stopping, "no loops (1 loop of unknown length as written)"),
        (plain, "no loops (loops with mode='FAST_COMPILE' as written)"),
        (stopping_twice, "no loops (2 loops of unknown length as written)"),
    ],
    ids=["none", "idle", "stopping", "plain", "stopping and cumsum"],
)
def test_a_report_without_loops_says_why(function, verdict):
    report = explain(function)(X[:, 0, 0])
    assert report.verdict.startswith(verdict)
    assert str(report).startswith("no loops")
    assert verdict.split("=")[0] in report._repr_html_().replace("No loops", "no loops")


def test_measured_is_what_the_program_takes():
    """Medians of runs of both forms, in which nothing is stored."""
    total = jscan.shared(np.zeros((), X.dtype), name="total")
    shift = jnp.ones((7, 3, 16))

    def train(w, x):
        return loss(w, x + shift + total.value), {total: total + 1}

    report = explain(jscan.function(train))(W, X).measure()
    assert total.get_value() == 0
    runs: Any = report._runs
    for program in runs.programs:
        value, new = program(*runs.operands)
        np.testing.assert_allclose(value, loss(W, X + 1), rtol=1e-5)
        assert new == 1
    assert report.times is not None


def printing(x):
    jax.debug.print("once")
    return idle_sum(x)


def idle_sum(x):
    return jscan.scan(lambda v, s: s + v, x, 0.0).outputs


def test_what_cannot_be_measured_says_why(capfd):
    x = X[:, 0, 0]
    report = explain(printing)(x).measure()
    jax.effects_barrier()
    assert report.times is None
    assert "time cannot be measured: the program has effects" in report.verdict
    assert "once" not in capfd.readouterr().out
    copied = pickle.loads(pickle.dumps(explain(idle_sum)(x)))
    assert "time cannot be measured: the report is a copy" in copied.measure().verdict
    gone = jnp.array(x)
    report = explain(idle_sum)(gone)
    gone.delete()
    assert "given away" in report.measure().verdict
    seen = []
    jax.jit(lambda x: seen.append(explain(idle_sum)(x).measure()) or x)(x)
    assert "the arguments were not values" in seen[0].verdict


def test_a_measured_report_stays_one_in_a_copy():
    report = explain(idle_sum)(X[:, 0, 0]).measure()
    for again in (pickle.loads(pickle.dumps(report)), copy.deepcopy(report)):
        assert (again.times, str(again)) == (report.times, str(report))
        assert again.measure().times == report.times


def texts(figure):
    """Where every text of a figure is that is seen."""
    figure.draw_without_rendering()
    found = figure.findobj(match=lambda artist: hasattr(artist, "get_window_extent"))
    named = [t for t in found if hasattr(t, "get_text") and t.get_text()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in named]
    return [(name, box) for name, box in boxes if box.width > 1]


def test_plot():
    """Time and memory, each before and after, with their numbers and no legend."""
    report = explain(jax.grad(loss))(W, X).measure()
    figure = report.plot()
    time, memory = figure.axes
    assert [t.get_text() for t in time.get_yticklabels()] == ["before", "after"]
    shown = [[bar.get_width() for bar in axes.patches] for axes in figure.axes]
    assert shown == [list(report.times or ()), list(report.temporary_bytes or ())]
    assert not any(axes.get_legend() for axes in figure.axes)
    assert "as fast" in time.get_title()
    assert memory.get_title() == "temporary memory"
    frame = figure.bbox
    boxes = texts(figure)
    assert len(boxes) >= 9
    for name, box in boxes:
        assert frame.x0 <= box.x0, name
        assert box.x1 <= frame.x1, name
    for at, (name, box) in enumerate(boxes):
        for other, second in boxes[at + 1 :]:
            assert not box.overlaps(second), (name, other)


def test_plot_of_a_report_without_loops_is_a_sentence():
    figure = explain(idle)(X[:, 0, 0]).plot()
    assert figure.axes == []
    assert "no step computes anything" in " ".join(t.get_text() for t in figure.texts)


def test_plot_without_a_time_says_why():
    figure = explain(printing)(X[:, 0, 0]).plot()
    time, memory = figure.axes
    assert "has effects" in time.texts[0].get_text()
    assert len(memory.patches) == 2


def test_plot_without_matplotlib(monkeypatch):
    """The error names the extra to install."""
    original = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    report = explain(loss)(W, X)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"jscan\[plot\]"):
        report.plot()


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "0.977 KiB"), (1024000, "0.977 MiB")],
)
def test_bytes_are_written_with_three_digits(value, text):
    """Never as 1e+03."""
    assert _report._bytes(value) == text


def test_a_jax_that_lowers_in_another_way_is_named(monkeypatch):
    """Loops run as they are written there, and the report says so."""
    monkeypatch.setattr(_api, "lowering_rule", lambda: None)
    report = explain(loss)(W, X)
    assert "lowers programs in another way" in str(report)
    assert report.loops == ()
