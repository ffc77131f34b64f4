"""The timeline of a page: axis, markers, curves, and the format of times."""

from __future__ import annotations

import re

import pytest
from tests.trace.page_parts import Page, Store, both, make

from act2see.tools.frames import Curve
from act2see.trace.page import trace_html
from act2see.trace.record import Frames
from act2see.trace.timeline import Scale, clock


@pytest.fixture
def store() -> Store:
    return Store()


def test_timeline_and_curves_mark_the_chosen_frames(store: Store) -> None:
    page = Page(trace_html(both(store), store))
    lines = [a for tag, a in page.tags if tag == "line" and a.get("class") == "given"]
    assert [a["x1"] for a in lines] == ["0.0%", "16.667%", "33.333%", "50.0%", "66.667%", "83.333%"]
    discs = [a for tag, a in page.tags if tag == "circle"]
    assert [(a["class"], a["cx"]) for a in discs[:2]] == [("real", "45.0%"), ("imagined", "45.0%")]
    dots = [a for a in discs if "dot" in a["class"]]
    assert [a["cx"] for a in dots] == ["45.0%", "45.0%"]
    assert sum(tag == "polyline" for tag, _ in page.tags) == 2
    labels = " ".join(a["aria-label"] for tag, a in page.tags if tag == "svg" and "aria-label" in a)
    assert "frame 1 retrieved at 2.7 s; frame 2 imagined from the frame at 2.7 s" in labels
    assert "chosen at 2.7 s" in labels


@pytest.mark.parametrize(
    "odd",
    [
        Curve(start=0.0, step=0.0, values=(0.3,)),
        Curve(start=0.0, step=1.0, values=()),
        Curve(start=float("nan"), step=float("inf"), values=(float("nan"), 0.1)),
        Curve(start=-5.0, step=1e12, values=(0.2, 0.2)),
    ],
)
def test_curves_with_nan_infinite_or_no_values_are_drawn(store: Store, odd: Curve) -> None:
    frames = (store.board(1, 1e9), store.board(2, float("nan")))
    trace = make(store, Frames(tag="retrieve", frames=frames, curve=odd))
    for _, attributes in Page(trace_html(trace, store)).tags:
        for name in ("x", "x1", "cx", "cy", "points", "style"):
            assert not re.search(r"\b(nan|inf)\b", attributes.get(name, ""))


@pytest.mark.parametrize(
    ("seconds", "total", "shown"),
    [
        (3.72, 8, "3.7 s"),
        (59.99, 60, "1:00.0"),
        (3.7, 90, "0:03.7"),
        (3723.4, 7200, "1:02:03"),
        (3.0, 7200, "0:00:03"),
        (75, 8, "1:15.0"),
    ],
)
def test_clock(seconds: float, total: float, shown: str) -> None:
    assert clock(seconds, total) == shown


@pytest.mark.parametrize("total", [0.04, 1.0, 7.5, 59.9, 60.0, 754.0, 10_800.0, 400_000.0])
def test_the_axis_has_at_most_seven_distinct_ticks(total: float) -> None:
    ticks = Scale(total).ticks(6)
    assert 1 <= len(ticks) <= 7
    assert ticks[0] == 0
    assert ticks[-1] <= total * 1.000001
    assert len({Scale(total).label(t) for t in ticks}) == len(ticks)
