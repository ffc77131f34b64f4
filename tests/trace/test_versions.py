"""Traces open again: with every number that a run can compute, and those of earlier versions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from act2see.errors import TraceError
from act2see.tools.frames import Cropped, Curve, FrameRef, Generated, Retrieved, Video
from act2see.tools.video.reader import video_digest
from act2see.trace.folder import find_video
from act2see.trace.page import trace_html
from act2see.trace.record import Answer, Call, Frames, Loop, Question, Usage, Versions
from act2see.trace.trace import Trace
from act2see.training.corpus.records import read_chains

NAN, INF = math.nan, math.inf
EARLIER = Path(__file__).parents[1] / "data"  # files that earlier versions wrote, by version


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_trace_whose_numbers_are_none_opens_again(
    bad: float, frame: Callable[..., FrameRef], tmp_path: Path
) -> None:
    """JSON has neither NaN nor infinity: they are saved as null."""
    whole = frame(1, bad)
    made = (
        Retrieved(query="a", score=bad),
        Generated(
            prompt="a", anchor=whole, seed=0, strength=bad, model="m", faithfulness=bad, scores=(bad, 1)
        ),
        Cropped(query="a", source=whole, box=(bad, 0, 1, 1)),
    )
    frames = tuple(frame(n, bad).model_copy(update={"provenance": one}) for n, one in enumerate(made))
    trace = Trace(
        id="a",
        video=Video(path="a.mp4", digest="0" * 32, seconds=bad, width=4, height=4, frames=1, fps=bad),
        question=Question(text="?"),
        initial=(whole,),
        segments=(
            Call(text="<retrieve>a</retrieve>", tag="retrieve", query="a"),
            Frames(
                tag="retrieve", frames=frames, curve=Curve(start=bad, step=bad, values=(bad,)), seconds=bad
            ),
            Answer(text="<answer>b</answer>", body="b"),
        ),
        usage=Usage(
            loops=(Loop(prefilled=1, cached=0, decoded=1, seconds=bad, stop="eos"),),
            node_seconds={"reason": bad},
        ),
        versions=Versions(sampling={"temperature": bad}),
    )
    again = Trace.load(trace.save(tmp_path / "trace.json"))
    assert again.to_json() == trace.to_json()
    assert again.answer == "b"
    assert math.isnan(again.returned[0].score or 0)
    assert "retrieve" in repr(again)
    assert "a.mp4" in trace_html(again, missing, fragment=True)


def missing(_: FrameRef) -> NDArray[np.uint8]:
    raise LookupError


def test_a_trace_of_0_1_0_opens(frame: Callable[..., FrameRef]) -> None:
    """It has a score that was NaN, which 0.1.0 saved and could not read."""
    trace = Trace.load(EARLIER / "0.1.0" / "trace.json")
    assert (trace.answer, trace.choice, len(trace.calls)) == ("A", "the ring", 2)
    assert math.isnan(trace.returned[0].score or 0)
    assert trace.returned[1].imagined
    assert Trace.from_json(trace.to_json()).to_json() == trace.to_json()


def test_chains_of_0_1_0_open() -> None:
    [chain] = read_chains(EARLIER / "0.1.0" / "chains.jsonl")
    assert (chain.sample.answer, chain.sample.trim, chain.dropped) == ("the ring", (0.5, 5.25), "")
    assert chain.trace
    assert chain.trace.answer == "A"


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_another_version_is_named(version: object) -> None:
    data = json.loads((EARLIER / "0.1.0" / "trace.json").read_text())
    with pytest.raises(TraceError, match=f"has schema version {version!r} and this act2see reads 1"):
        Trace.from_json(json.dumps({**data, "schema_version": version}))


@pytest.mark.parametrize(
    ("part", "digest"),
    [("", "7749aaa1f04a7c103c9d82133fa8e300"), ("#t=2,8", "081e58af18f1d377285523ef71062395")],
)
def test_a_trace_of_0_1_0_finds_its_large_video(
    part: str, digest: str, trace: Callable[..., Trace], tmp_path: Path
) -> None:
    """0.1.0 sampled files of more than 64 MiB; the digests are those that it computed."""
    path = tmp_path / "large.mp4"
    with path.open("wb") as file:  # sparse
        file.truncate(65 << 20)
        file.seek(33_500_000)
        file.write(b"x")
    old = trace(question=Question(text="?"))
    video = old.video.model_copy(update={"path": f"{path}{part}", "digest": digest})
    found = find_video(old.model_copy(update={"video": video}), tmp_path).video
    assert (found.path, found.digest) == (video.path, video_digest(video.path))
    assert found.digest != digest
    other = old.model_copy(update={"video": video.model_copy(update={"digest": "0" * 32})})
    assert find_video(other, tmp_path) == other
