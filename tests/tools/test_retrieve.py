"""The `retrieve` tool on a real clip: the frames it shows, those it skips, and its notes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from act2see.tools.base import Resources, ToolContext
from act2see.tools.frames import FrameRef, Generated, Retrieved
from act2see.tools.retrieve import Retrieve

Make = Callable[..., Resources]
QUERY = "the circle blinks"


def tool(resources: Resources, **options: object) -> Retrieve:
    # Scores of random weights mean nothing: every frame matches unless a test sets a threshold.
    return Retrieve("retrieve", Retrieve.Options(**{"no_match": -1.0, **options}), resources)  # type: ignore[arg-type]


async def test_the_best_frame_comes_with_its_query_and_score(resources: Make, clip: str) -> None:
    shared = resources()
    result = await tool(shared).call(QUERY, ToolContext(clip))
    [best] = shared.finder.find(clip, QUERY).hits
    [frame] = result.frames
    assert frame.seconds == pytest.approx(best.seconds, abs=1e-4)
    assert frame.provenance == Retrieved(
        query=QUERY, score=round(best.score, 4), index_id=shared.finder.index_id(clip)
    )
    assert shared.store.get(frame.digest).shape == (96, 96, 3)
    assert result.note == ""
    assert result.curve is not None
    assert len(result.curve.values) == 18


async def test_several_frames_are_in_order_of_time(resources: Make, clip: str) -> None:
    shared = resources()
    result = await tool(shared, top_k=5).call(QUERY, ToolContext(clip))
    times = [f.seconds for f in result.frames]
    assert times == sorted(times)
    assert times == sorted(round(h.seconds, 4) for h in shared.finder.find(clip, QUERY, k=5).hits)


async def test_frames_that_were_shown_are_skipped(resources: Make, clip: str) -> None:
    shared = resources()
    asked = tool(shared)
    shown: list[FrameRef] = []
    for _ in range(3):
        shown += (await asked.call(QUERY, ToolContext(clip, shown))).frames
    assert len({f.seconds for f in shown}) == 3
    again = await tool(shared, skip_shown=False).call(QUERY, ToolContext(clip, shown))
    assert again.frames == (shown[0],)


async def test_an_imagined_frame_hides_nothing(resources: Make, clip: str) -> None:
    shared = resources()
    [real] = (await tool(shared).call(QUERY, ToolContext(clip))).frames
    imagined = real.model_copy(
        update={"provenance": Generated(prompt="x", anchor=real, seed=0, strength=0.5, model="m")}
    )
    assert (await tool(shared).call(QUERY, ToolContext(clip, [imagined]))).frames == (real,)


async def test_no_match_reports_the_best_score(resources: Make, clip: str) -> None:
    shared = resources()
    best = shared.finder.find(clip, QUERY).best
    result = await tool(shared, no_match=0.999).call(QUERY, ToolContext(clip))
    assert result.frames == ()
    assert (
        result.note
        == f"No match: nothing in this video looks like that (the closest scores {best:.2f}, 1.00 is needed)."
    )
    assert result.curve is not None


async def test_a_clip_whose_frames_were_all_shown_says_so(resources: Make, clip: str) -> None:
    shared = resources()
    shown = shared.finder.library.pictures(clip, shared.finder.index(clip).frames.tolist())
    for rank in ("frames", "segments"):
        result = await tool(shared, rank=rank, no_match=-0.5).call(QUERY, ToolContext(clip, shown))
        assert result.frames == ()
        assert result.note.startswith("Every frame that can be fetched from this video has been shown")
    some = await tool(shared, no_match=0.999).call(QUERY, ToolContext(clip, shown[1:]))
    assert some.note.startswith("No match: nothing else in this video")


@pytest.mark.parametrize(("above", "set_to", "shown"), [(0.01, None, 0), (-0.01, None, 1), (0.01, -1.0, 1)])
async def test_the_threshold_is_the_weights_own_unless_set(
    resources: Make,
    clip: str,
    monkeypatch: pytest.MonkeyPatch,
    above: float,
    set_to: float | None,
    shown: int,
) -> None:
    shared = resources()
    best = shared.finder.find(clip, QUERY).best
    monkeypatch.setattr(shared.finder.encoder, "no_match", best + above)
    made = Retrieve("look", Retrieve.Options(no_match=set_to), shared)
    assert len((await made.call(QUERY, ToolContext(clip))).frames) == shown


async def test_segments_show_their_best_frames(resources: Make, clip: str) -> None:
    shared = resources()
    result = await tool(shared, rank="segments", top_k=2, no_match=-0.5).call(QUERY, ToolContext(clip))
    hits = shared.finder.find(clip, QUERY, 2, segments=True, threshold=-0.5).hits
    assert hits
    assert [f.seconds for f in result.frames] == sorted(round(h.seconds, 4) for h in hits)


def test_tag_usage_and_version(resources: Make) -> None:
    made = Retrieve("look", Retrieve.Options(), resources())
    assert (made.tag, made.usage) == ("look", Retrieve.Options().usage)
    assert made.version == f"retrieve {made.resources.finder.encoder.id}"
    with pytest.raises(ValidationError):
        Retrieve.Options(topk=1)  # type: ignore[call-arg]
