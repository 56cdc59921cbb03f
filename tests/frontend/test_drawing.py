"""`draw`: what is in the picture of a loop, as text and as SVG."""

from __future__ import annotations

import inspect
import re
import runpy
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscan

pytestmark = pytest.mark.any_jax

F32 = jnp.float32
SVG = "{http://www.w3.org/2000/svg}"


def zeros(*shape):
    return jnp.zeros(shape, F32)


def words(drawing):
    """The texts of the SVG, whole ones where they are cut."""
    root = ElementTree.fromstring(drawing.svg)
    nodes = [*root.iter(f"{SVG}text"), *root.iter(f"{SVG}title")]
    return [node.text for node in nodes]


def test_taps_states_constants_draws_updates_and_a_stop():
    """All that can be in a picture, under the names of whoever calls."""
    rng = jscan.RandomStreams(1)
    noise = rng.normal(size=(3,), dtype="float32")
    count = jscan.shared(np.int32(0), name="count")
    u, h, W, U = zeros(20, 4), zeros(3, 3), zeros(4, 3), zeros(3, 3)

    def cell(before, now, third, last, W):
        new = jnp.tanh((before + now) @ W + last @ U + third) + noise
        return [new, new.sum()], {count: count + 1}, jscan.until(new.sum() > 3)

    drawing = jscan.draw(
        cell,
        sequences=dict(input=u, taps=[-1, 0]),
        outputs_info=[dict(initial=h, taps=[-3, -1]), None],
        non_sequences=W,
        name="rnn",
    )
    assert str(drawing).splitlines() == [
        "scan 'rnn': at most 19 steps",
        "cell(u[t-1], u[t], h[t-3], h[t-1], W)",
        "",
        "  sequence  u              float32[20,4]        u[t-1], u[t]    ─┐",
        "  state     h              float32[3]           h[t-3], h[t-1]  ─┤◀─╮",
        "  constant  W              float32[4,3]         W               ─┤  │",
        "  captured  U              float32[3,3]         U               ─┤  │",
        "  variable  count          int32[]              count           ─┤◀─┤",
        "  random    RandomStreams  fresh at every step  1 draw          ─┤  │",
        "                                                                 ▼  │",
        "  cell                                                              │",
        "                                                                 │  │",
        "  output    h              float32[19,3]        h[t]           ◀─┤──┤",
        "  output    output 1       float32[19]          one row        ◀─┤  │",
        "  update    count          int32[]              new count      ◀─┤──╯",
        "  stop      until          bool[]               stop here?     ◀─┘",
    ]
    seen = words(drawing)
    for port in (*drawing.flow.reads, *drawing.flow.writes):
        for text in (port.name, port.kind, port.type, port.slices):
            assert text in seen
    assert drawing.flow.title in seen
    assert drawing.flow.call in seen
    assert count.get_value() == 0  # nothing was run, no number taken
    fresh = jscan.RandomStreams(1).normal(size=(3,), dtype="float32").value
    np.testing.assert_array_equal(noise.value, fresh)


def test_a_cumulative_sum():
    """Names are the step's own where the caller has none."""
    drawing = jscan.draw(lambda x, total: total + x, jnp.arange(5, dtype="int32"), 0)
    assert str(drawing).splitlines() == [
        "scan: 5 steps",
        "step(x[t], total[t-1])",
        "",
        "  sequence  x      int32[5]  x[t]        ─┐",
        "  state     total  int32[]   total[t-1]  ─┤◀─╮",
        "                                          ▼  │",
        "  step                                       │",
        "                                          │  │",
        "  output    total  int32[5]  total[t]   ◀─┘──╯",
    ]


def test_a_step_that_reads_nothing():
    drawing = jscan.draw(lambda: zeros(2), n_steps=3)
    assert str(drawing).splitlines() == [
        "scan: 3 steps",
        "step()",
        "",
        "  step",
        "                                            │",
        "  output  output 0  float32[3,2]  one row ◀─┘",
    ]


@pytest.mark.parametrize("mode", [None, "FAST_COMPILE", "DEBUG"])
def test_a_step_that_only_updates(mode):
    k = jscan.shared(np.int32(0), name="k")
    drawing = jscan.draw(lambda: {k: k + 1}, n_steps=4, mode=mode)
    assert str(drawing).splitlines() == [
        "scan: 4 steps",
        "step()",
        "",
        "  variable  k  int32[]  k      ─┐◀─╮",
        "                                ▼  │",
        "  step                             │",
        "                                │  │",
        "  update    k  int32[]  new k ◀─┘──╯",
    ]
    assert k.get_value() == 0


def test_the_call_is_the_one_that_scan_makes():
    """Each slice in the picture, in order, is worth what the step is called with."""
    x, y = jnp.arange(9.0), dict(a=jnp.arange(8.0) + 20, b=jnp.arange(8.0) + 40)
    h, c = jnp.array([-3.0, -2.0, -1.0]), 7.0
    seen = {}

    def step(*given):
        seen.setdefault("first", given)
        return given[3] + 1

    arguments: dict[str, Any] = dict(
        sequences=[dict(input=x, taps=[1, -2]), dict(input=y)],
        outputs_info=dict(initial=h, taps=[-1, -3]),
        non_sequences=c,
    )
    call = jscan.draw(step, **arguments).flow.call
    assert call == "step(x[t+1], x[t-2], y[t], h[t-1], h[t-3], non_sequences[0])"
    seen.clear()
    jscan.scan(step, **arguments, mode="DEBUG")
    got = seen["first"]  # t = 0 of x is its third row
    assert [float(v) for v in got[:2]] == [3.0, 0.0]
    assert {k: float(v) for k, v in got[2].items()} == {"a": 20.0, "b": 40.0}
    assert [float(v) for v in got[3:]] == [-1.0, -3.0, 7.0]


def test_types_are_those_of_the_results():
    """The rows that scan returns, and states after promotion."""

    def step(x, h, k):
        return {"h": h["h"] + x}, jnp.sum(x), k + 1

    start = [dict(initial={"h": zeros(3)}), None, np.int8(0)]
    drawing = jscan.draw(step, zeros(5, 3), start)
    outputs, _ = jscan.scan(step, zeros(5, 3), start)
    types = [p.type for p in drawing.flow.writes]
    assert types == ["{'h': float32[5,3]}", "float32[5]", f"{outputs[2].dtype}[5]"]
    assert outputs[0]["h"].shape == (5, 3)


def test_steps_are_counted_as_scan_counts_them():
    x = zeros(6)
    total = lambda x, s: s + x
    title = lambda *args, **given: jscan.draw(total, *args, **given).flow.title
    assert title(x, 0.0, go_backwards=True) == "scan: 6 steps, from the last row on"
    assert title(x, 0.0, n_steps=1) == "scan: 1 step"
    found = []
    jax.jit(lambda n: found.append(title(x, 0.0, n_steps=n)) or n)(3)
    assert found == ["scan: at most 6 steps"]


def test_a_listed_variable_is_drawn_once():
    w = jscan.shared(np.float32(2), name="w")
    flow = jscan.draw(lambda x, w: (x * w, {w: w + 1}), zeros(3), None, w).flow
    assert [(p.kind, p.name) for p in flow.reads] == [
        ("sequence", "x"),
        ("variable", "w"),
    ]
    assert flow.call == "step(x[t], w)"
    assert flow.loops_back == [(1, 1)]


def test_mistakes_are_those_of_scan():
    with pytest.raises(jscan.ScanValueError, match="scan 'rnn': sequences"):
        jscan.draw(lambda x: x, zeros(3), n_steps=5, name="rnn")
    with pytest.raises(jscan.ScanTypeError, match="accepts 1 positional argument"):
        jscan.draw(lambda: 0, zeros(3))
    verbs: list[Any] = [jscan.scan, jscan.draw]
    for verb in verbs:
        with pytest.raises(jscan.ScanTypeError, match=r"write sequences= for xs="):
            verb(lambda x: x, xs=zeros(3))


def test_the_arguments_are_those_of_scan():
    of_scan, of_draw = map(inspect.signature, (jscan.scan, jscan.draw))
    assert of_draw.parameters == of_scan.parameters
    given: dict[str, Any] = dict(
        checkpoint=2, unroll=2, strict=True, progress=False, profile=True
    )
    drawing = jscan.draw(lambda x: x, zeros(3), return_list=True, **given)
    assert drawing.flow.title == "scan: 3 steps"


def test_under_transformations():
    """It only traces: in `jit`, `grad` and `vmap` it draws what there is."""
    x, drawn = zeros(4, 3), []

    def cost(w):
        drawn.append(jscan.draw(lambda x, h: jnp.tanh(h * w + x), x, zeros(3)))
        return w * 2

    jax.jit(cost)(F32(1))
    jax.grad(cost)(F32(1))
    jax.vmap(cost)(zeros(2))
    reads = [port for d in drawn for port in d.flow.reads if port.kind == "captured"]
    assert [(port.name, port.type) for port in reads] == [("w", "float32[]")] * 3


def test_in_a_step_and_of_a_step_that_holds_a_loop():
    """What is drawn in a step is the loop there; no draw of its stream is taken."""
    rng, drawn = jscan.RandomStreams(1), []
    rows = zeros(3, 4)

    def outer(row, start):
        noise = rng.normal(size=(), dtype="float32")
        inner = lambda x, h: h + x + noise
        drawn.append(jscan.draw(inner, row, start, name="inner"))
        return jscan.scan(inner, row, start).outputs[-1]

    drawing = jscan.draw(outer, rows, F32(0))
    assert [p.name for p in drawing.flow.reads] == ["rows", "start", "RandomStreams"]
    outputs, updates = jscan.scan(outer, rows, F32(0))
    (inner,) = {(p.name, p.type) for p in drawn[-1].flow.reads if p.kind == "sequence"}
    assert inner == ("row", "float32[4]")
    (position,) = updates.values()
    again = jscan.RandomStreams(1)

    def undrawn(row, start):
        noise = again.normal(size=(), dtype="float32")
        return jscan.scan(lambda x, h: h + x + noise, row, start).outputs[-1]

    expected, there = jscan.scan(undrawn, rows, F32(0))
    np.testing.assert_array_equal(outputs, expected)
    (same,) = there.values()
    assert int(position.counter) == int(same.counter)


def six(*given):
    return [jnp.tanh(a + b) for a, b in zip(given[:6], given[6:], strict=True)]


def small_boxes(svg):
    """The ground that every text may take: letters are 0.62 of their size wide."""
    root: Any = ElementTree.fromstring(svg)
    width, height = float(root.get("width")), float(root.get("height"))
    found = []
    for node in root.iter(f"{SVG}text"):
        size = float(node.get("font-size"))
        wide = 0.62 * size * len(node.text)
        x, y, style = float(node.get("x")), float(node.get("y")), node.get("style")
        x -= wide if "anchor:end" in style else wide / 2 if "middle" in style else 0
        found.append((node.text, (x, y - size, x + wide, y + 0.25 * size)))
    return (width, height), found


LONG = {"a_weight_with_a_long_name": zeros(64, 64), "another": zeros(64), "b": zeros(3)}
CASES = {
    "one": (lambda x, h: h + x, [zeros(3)], [0.0], None),
    "none": (lambda: 1.0, None, None, None),
    "six": (six, [zeros(7, 5)] * 6, [zeros(5)] * 6, None),
    "trees": (
        lambda x, h, p, *more: {k: v + x for k, v in h.items()},
        zeros(9),
        dict(initial=LONG),
        [LONG, 1.0, 2.0],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_no_text_of_the_picture_is_cut_or_lies_on_another(case):
    fn, sequences, states, constants = CASES[case]
    steps = 5 if case == "none" else None
    drawing = jscan.draw(
        fn, sequences, states, constants, steps, name="a <name> & 'quotes'"
    )
    assert "a <name> & 'quotes'" in drawing.flow.title
    (width, height), boxes = small_boxes(drawing.svg)
    for text, (left, top, right, low) in boxes:
        assert left >= 0, text
        assert right <= width, text
        assert top >= 0, text
        assert low <= height, text
    for (one, a), (two, b) in combinations(boxes, 2):
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert apart, (one, two)
    whole = words(drawing)
    for port in (*drawing.flow.reads, *drawing.flow.writes):
        assert port.name in whole
        assert port.type in whole


def test_a_notebook_shows_it_and_a_file_holds_it():
    drawing = jscan.draw(lambda x: x, zeros(3))
    assert drawing._repr_svg_() == drawing.svg
    assert re.match(r'<svg xmlns="http://www.w3.org/2000/svg" ', drawing.svg)
    assert "http" not in drawing.svg.replace("http://www.w3.org/2000/svg", "")


def test_the_figure_of_the_readme_is_drawn_by_it():
    """After a change of the drawing: run scripts/draw-figures."""
    checkout = Path(__file__).parents[2]
    script = runpy.run_path(str(checkout / "scripts" / "draw-figures"))
    stored = (checkout / "docs" / "figures" / "loop.svg").read_text()
    with jax.enable_x64(False):
        assert stored.startswith(script["draw_loop"]())
