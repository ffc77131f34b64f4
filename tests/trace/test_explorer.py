"""The trace explorer: the data for its front end, and the static page without anywidget."""

from __future__ import annotations

import json
import logging
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.trace.board_chain import Seen, seen_in

from act2see.tools.frames import Curve
from act2see.trace import explorer
from act2see.trace.explorer import StaticTrace, explore, explorer_data
from act2see.trace.page import trace_html
from act2see.trace.pictures import BUDGET
from act2see.trace.record import Frames, Turn

pytest.importorskip("anywidget", reason="the widget needs anywidget: pip install 'act2see[notebook]'")


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    return seen_in(tmp_path_factory.mktemp("asked"))


def test_widget_data_is_small_plain_json(seen: Seen) -> None:
    widget = explore(seen.trace, seen.resources.store, finder=seen.resources.finder)
    view = json.dumps(widget.data, allow_nan=False)
    assert len(view) < 20_000
    assert str(Path(seen.trace.video.path).parent) not in view
    assert (widget.at, widget.call, [s["kind"] for s in widget.data["steps"]]) == (
        4,
        1,
        ["text", "real", "imagined", "failed", "answer"],
    )
    assert all(url.startswith("data:image/") for url in widget.pictures.values())
    assert sum(map(len, widget.pictures.values())) <= BUDGET
    assert {f["picture"] for f in widget.data["initial"]} <= set(widget.pictures)
    widget.set_state({"at": 1, "call": 2})  # as the front end does
    assert (widget.at, widget.call) == (1, 2)
    assert "TraceExplorer(run, 5 steps)" in repr(widget)


def test_candidates_come_from_the_index_or_else_from_the_curve(seen: Seen, tmp_path: Path) -> None:
    ranked, pictures = explorer_data(seen.trace, seen.pixels, seen.resources.finder)
    step = ranked["steps"][1]
    best = seen.resources.finder.find(
        seen.trace.video.path, "the triangle blinks", k=explorer.CANDIDATES
    ).hits
    assert [c["score"] for c in step["candidates"]] == pytest.approx([h.score for h in best], abs=1e-3)
    [chosen] = [c for c in step["candidates"] if c["state"] == "chosen"]
    assert chosen["seconds"] == pytest.approx(seen.trace.shown[len(seen.trace.initial)].seconds, abs=1e-3)
    assert all(c["frame"]["picture"] in pictures for c in step["candidates"])
    shown = {f["seconds"] for f in ranked["initial"]}
    assert all(
        (c["seconds"] in shown) == (c["state"] == "seen")
        for c in step["candidates"]
        if c["state"] != "chosen"
    )
    assert [c["mark"] for c in ranked["steps"][2]["candidates"] if c["state"] == "chosen"] == ["the anchor"]
    gone = seen.trace.model_copy(
        update={"video": seen.trace.video.model_copy(update={"path": str(tmp_path / "gone.mp4")})}
    )
    for kept in (
        explorer_data(seen.trace, seen.pixels)[0],
        explorer_data(gone, seen.pixels, seen.resources.finder)[0],
    ):
        [peak, *others] = kept["steps"][1]["candidates"]
        assert (peak["state"], peak["seconds"]) == ("chosen", chosen["seconds"])
        assert all(c["frame"] is None and c["score"] <= peak["score"] for c in others)


def test_nan_values_become_null_and_pictures_stay_within_the_budget(
    seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, rng = seen.resources.store, np.random.default_rng(0)
    large = tuple(store.ref(rng.integers(0, 256, (120, 160, 3), np.uint8), n / 10) for n in range(20))
    monkeypatch.setattr(explorer, "BUDGET", 100_000)
    curve = Curve(start=0.0, step=0.5, values=(math.nan, 0.3, math.inf))
    frames = Frames(tag="retrieve", frames=large[:2], curve=curve)
    trace = seen.trace.model_copy(update={"initial": large, "segments": (seen.trace.segments[1], frames)})
    view, pictures = explorer_data(trace, seen.pixels)
    json.dumps(view, allow_nan=False)
    assert view["steps"][0]["curve"]["values"] == [None, 0.3, None]
    assert 50_000 < sum(map(len, pictures.values())) <= 100_000
    assert len(pictures) < len(large)  # the last ones have no room: no picture
    assert (
        explorer_data(trace.model_copy(update={"initial": (), "segments": ()}), seen.pixels)[0]["steps"] == []
    )


def test_without_anywidget_explore_returns_the_static_page(
    seen: Seen, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    page = trace_html(seen.trace, seen.pixels, fragment=True)
    data, _ = explore(seen.trace, seen.resources.store)._repr_mimebundle_()
    assert set(data) == {"text/plain", "text/html", "application/vnd.jupyter.widget-view+json"}
    assert data["text/html"] == page
    explorer._widget.cache_clear()
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with caplog.at_level(logging.WARNING):
        static = explore(seen.trace, seen.pixels)
    assert isinstance(static, StaticTrace)
    assert static._repr_html_() == page
    assert "pip install 'act2see[notebook]'" in caplog.text


def test_the_widget_shows_earlier_turns(seen: Seen) -> None:
    turn = Turn(question="What colour is the circle?", answer="red")
    asked = seen.trace.question.model_copy(update={"earlier": (turn,)})
    told, _ = explorer_data(seen.trace.model_copy(update={"question": asked}), seen.pixels)
    assert told["earlier"] == [["What colour is the circle?", "red"]]
    assert explorer_data(seen.trace, seen.pixels)[0]["earlier"] == []
