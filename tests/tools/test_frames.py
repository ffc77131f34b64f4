"""Records of videos, and descriptions of a frame's provenance."""

from __future__ import annotations

import pytest

from act2see.tools.frames import (
    Cropped,
    FrameRef,
    Generated,
    Initial,
    Provenance,
    Retrieved,
    Supplied,
    Taken,
    Video,
)

RETRIEVED = Retrieved(query="the ring", score=0.904)


def frame(provenance: Provenance, seconds: float = 3.72) -> FrameRef:
    return FrameRef(digest="0" * 32, width=48, height=32, seconds=seconds, provenance=provenance)


GENERATED = Generated(
    prompt="it in blue",
    anchor=frame(RETRIEVED, 2.0),
    seed=3,
    strength=0.6,
    model="sd",
    faithfulness=0.5,
    anchor_score=0.3,
)
VERDICT = "faithfulness 0.50, anchor 0.30: closer to the query than its anchor was"


@pytest.mark.parametrize(
    ("provenance", "described"),
    [
        (Initial(), "frame at 3.7 s"),
        (RETRIEVED, 'frame at 3.7 s, found for "the ring" (score 0.90)'),
        (Taken(query="at 3.7 s"), 'frame at 3.7 s, for "at 3.7 s"'),
        (
            Cropped(query="left half", source=frame(Initial()), box=(0, 0, 0.5, 1)),
            'frame at 3.7 s, from 0 to 50 % across, from 0 to 100 % down, for "left half"',
        ),
        (
            Cropped(query="left half", source=frame(GENERATED), box=(0, 0, 0.5, 1)),
            'picture that is not in the video, from 0 to 50 % across, from 0 to 100 % down, for "left half"',
        ),
        (GENERATED, 'imagined from the frame at 2.0 s: "it in blue"'),
        (Supplied(by="Ann", query="the ring"), 'frame at 3.7 s, supplied by Ann for "the ring"'),
        (
            Supplied(by="Ann", query="the ring", file="ring.png"),
            'picture that is not in the video, supplied by Ann for "the ring"',
        ),
    ],
)
def test_describe(provenance: Provenance, described: str) -> None:
    assert frame(provenance).describe() == described


@pytest.mark.parametrize(
    ("provenance", "query", "score", "origin", "facts"),
    [
        (Initial(), "", None, "given at the start", ()),
        (RETRIEVED, "the ring", 0.904, "retrieved", ("score 0.90",)),
        (Taken(query="EXIT"), "EXIT", None, "taken", ()),
        (GENERATED, "it in blue", 0.3, "imagined from the frame", (VERDICT, "sd · strength 0.6 · seed 3")),
        (Supplied(by="Ann", query="it"), "it", None, "supplied by Ann", ("supplied by Ann",)),
    ],
)
def test_query_score_origin_and_facts(
    provenance: Provenance, query: str, score: float | None, origin: str, facts: tuple[str, ...]
) -> None:
    shown = frame(provenance)
    assert (shown.query, shown.score, shown.origin, shown.facts) == (query, score, origin, facts)


def test_a_generated_frame_has_the_place_of_its_anchor() -> None:
    imagined = frame(GENERATED)
    assert imagined.anchor == GENERATED.anchor
    assert imagined.anchor_seconds == 2.0
    assert frame(RETRIEVED).anchor is None
    assert frame(RETRIEVED).anchor_seconds == 3.72


def test_properties_are_not_saved() -> None:
    assert set(frame(GENERATED).model_dump()) == {"digest", "width", "height", "seconds", "provenance"}


@pytest.mark.parametrize(
    ("max_side", "size"), [(131, (131, 97)), (1000, (131, 97)), (65, (65, 48)), (1, (2, 2))]
)
def test_fit_keeps_the_aspect_and_never_enlarges(max_side: int, size: tuple[int, int]) -> None:
    video = Video(path="x", digest="0", seconds=1.0, width=131, height=97, frames=1, fps=1.0)
    assert video.fit(max_side) == size


@pytest.mark.parametrize(
    ("provenance", "place", "similarity"),
    [
        (Initial(), "3.7 s", None),
        (RETRIEVED, "3.7 s", 0.904),
        (Cropped(query="left", source=frame(RETRIEVED), box=(0, 0, 0.5, 1)), "3.7 s", None),
        (Cropped(query="left", source=frame(GENERATED), box=(0, 0, 0.5, 1)), "not in the video", None),
        (GENERATED, "imagined from 2.0 s", 0.5),
        (Supplied(by="Ann", query="it"), "3.7 s", None),
        (Supplied(by="Ann", query="it", file="ring.png"), "not in the video", None),
    ],
)
def test_place_and_similarity(provenance: Provenance, place: str, similarity: float | None) -> None:
    shown = frame(provenance)
    assert (shown.place(), shown.similarity) == (place, similarity)
    assert shown.imagined == (place.endswith("video") or "imagined" in place)
    assert frame(Initial(), 61).place(lambda seconds: f"at {seconds:.0f}") == "at 61"
