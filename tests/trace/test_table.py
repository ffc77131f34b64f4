"""Traces and their calls as DataFrames, with one row each."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from act2see.errors import ConfigError
from act2see.tools.frames import Curve, FrameRef, Generated, Retrieved
from act2see.trace.record import Answer, Call, Frames, Loop, Question, Text, Usage, Versions
from act2see.trace.table import calls_frame, traces_frame
from act2see.trace.trace import Trace

pytest.importorskip("pandas", reason="a DataFrame needs pandas: pip install 'act2see[notebook]'")


@pytest.fixture
def traces(trace: Callable[..., Trace], frame: Callable[..., FrameRef]) -> list[Trace]:
    found = frame(1, 2.5).model_copy(update={"provenance": Retrieved(query="a", score=0.4)})
    made = Generated(
        prompt="b", anchor=found, seed=1, strength=0.3, model="m", faithfulness=0.5, anchor_score=0.2
    )
    imagined = frame(2, 2.5).model_copy(update={"provenance": made})

    def called(tag: str, query: str, **more: Any) -> Call:
        return Call(text=f"<{tag}>{query}</{tag}>", tag=tag, query=query, **more)

    full = trace(
        question=Question(text="Which?", options=("ring", "square")),
        initial=(frame(0),),
        segments=(
            Text(text="Look."),
            called("retrieve", "a"),
            Frames(
                tag="retrieve", frames=(found,), curve=Curve(start=0, step=1, values=(0.1, 0.4)), seconds=0.5
            ),
            called("generate", "b"),
            Frames(tag="generate", frames=(imagined,), seconds=1.0),
            called("retrieve", "c"),
            Frames(tag="retrieve", note="No match."),
            called("zoom", "d", outcome="unknown"),
            Frames(tag="zoom", note="There is no tool zoom."),
            Answer(text="<answer>A</answer>", body="A", forced=True),
        ),
        usage=Usage(
            loops=(
                Loop(prefilled=9, cached=0, decoded=3, seconds=1, stop="x"),
                Loop(prefilled=2, cached=9, decoded=4, seconds=1, stop="x"),
            ),
            node_seconds={"view": 0.5, "reason": 2.0},
        ),
        versions=Versions(reasoner="micro", tools={"retrieve": "1", "generate": "1"}, config="abc", seed=7),
    )
    unfinished = trace(id="unfinished", question=Question(text="What?"), segments=(called("retrieve", "e"),))
    return [full, unfinished]


def test_a_row_for_each_trace(traces: list[Trace]) -> None:
    table = traces_frame(iter(traces))
    row = table.iloc[0].to_dict()
    expected = {
        "trace": "run",
        "video": "clip.mp4",
        "answer": "A",
        "choice": "ring",
        "forced": True,
        "tools": "retrieve, generate",
        "reasoner": "micro",
        "config": "abc",
        "seed": 7,
    }
    assert {key: row[key] for key in expected} == expected
    assert [row[k] for k in ("calls", "failed", "refused", "real", "imagined")] == [4, 1, 1, 1, 1]
    assert [row[k] for k in ("tokens", "prefilled", "cached", "loops")] == [7, 11, 9, 2]
    assert (row["seconds"], row["seconds_view"], row["seconds_reason"]) == (2.5, 0.5, 2.0)
    unfinished = table.iloc[1]
    assert (unfinished["forced"], unfinished["calls"], unfinished["refused"]) == (False, 1, 0)
    assert unfinished[["answer", "choice", "seconds_view"]].isna().all()


def test_a_row_for_each_call(traces: list[Trace]) -> None:
    table = calls_frame(traces)
    assert list(table["n"]) == [1, 2, 3, 4, 1]
    assert list(table["tag"]) == ["retrieve", "generate", "retrieve", "zoom", "retrieve"]
    assert list(table["outcome"]) == ["ok", "ok", "ok", "unknown", "ok"]
    assert list(table["frames"]) == [1, 1, 0, 0, 0]
    assert list(table["imagined"]) == [False, True, False, False, False]
    assert list(table["score"].dropna()) == [0.4, 0.2]
    assert list(table["faithfulness"].dropna()) == [0.5]
    assert table["best"][0] == 0.4
    assert list(table["at"][:2]) == [2.5, 2.5]
    assert table["note"][2] == "No match."


def test_tables_of_no_traces_and_without_pandas(traces: list[Trace], monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(traces_frame([]).columns) == list(traces_frame(traces).columns[:22])
    assert len(calls_frame([])) == 0
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match=r"act2see\[notebook\]"):
        traces_frame(traces)
