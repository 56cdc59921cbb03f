"""The report: text, tables, plot, and names."""

import builtins

import jax
import jax.numpy as jnp
import pytest

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
    with pytest.raises(KeyError, match="no loop 'decoder'"):
        report["decoder"]


def test_text_and_html():
    """Both hold the reasons; names are escaped."""
    report = explain(loss)(W, X)
    assert "+ hoist.sequences: dot_general on sequences alone" in str(report)
    assert "temporary memory of the program" in repr(report)
    page = report._repr_html_()
    assert "cell &lt;1&gt;" in page
    assert "<td>operations a step</td>" in page


def test_no_loops():
    """A program without loops has an empty report."""
    assert str(explain(jnp.sin)(X)).startswith("no loops")


def test_plot():
    """Two bars a loop."""
    figure = explain(jax.grad(loss))(W, X).plot()
    (axes,) = figure.axes
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels[:2] == ["cell <1>, before", "cell <1>, after"]
    assert len(labels) == 4


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
