"""The threshold of "no match": its arithmetic by hand and by trying every threshold, its rate on new queries,
its measurement in real clips, and its file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from act2see.errors import CalibrationError, StoreError
from act2see.micro.questions import make_item
from act2see.micro.world import write_clip
from act2see.tools.base import Resources, ToolContext
from act2see.tools.retrieve import Retrieve
from act2see.tools.search.calibration import (
    Query,
    calibrate,
    check_count,
    choose_threshold,
    merge_queries,
    needed_queries,
    score_queries,
)
from act2see.tools.search.librarian import search_folder
from act2see.tools.search.thresholds import (
    Calibration,
    calibration_file,
    calibrations_of,
    load_calibration,
    save_calibration,
)
from act2see.tools.video.folders import Folders

Make = Callable[..., Resources]
MADE = Calibration(
    encoder="abc",
    weights="owner/name",
    threshold=0.3124,
    rate=0.05,
    false_alarms=0.02,
    interval=(0.01, 0.1),
    queries=40,
    videos=5,
    fps=3.0,
    seconds=60.0,
    created="2026-11-27T06:00:00+00:00",
)


def rows(*scores: float) -> list[list[float]]:
    """One score for each query."""
    return [[score] for score in scores]


def test_thresholds_by_hand() -> None:
    # Of 9 queries at a rate of 0.2, (alarms + 1) / 10 <= 0.2: one may be a false alarm.
    nine = rows(*(n / 10 for n in range(1, 10)))
    assert choose_threshold(nine, 0.2) == pytest.approx(0.8001)
    assert choose_threshold(nine, 0.1) == pytest.approx(0.9001)  # none may
    assert choose_threshold(nine, 0.25) == pytest.approx(0.8001)  # still one: 1.5 is rounded down
    assert choose_threshold(nine, 0.3) == pytest.approx(0.7001)
    # Equal scores are false alarms together: two do not fit, so the threshold is above both.
    assert choose_threshold(rows(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.9, 0.9), 0.2) == pytest.approx(0.9001)
    # Each score of a query with two counts a half; (2 + 1) / 10 <= 0.3 allows three halves, but not 0.6 too.
    halves = [[0.9, 0.1], [0.8, 0.1], [0.7, 0.1], *rows(0.6, 0.1, 0.1, 0.1, 0.1, 0.1)]
    assert choose_threshold(halves, 0.3) == pytest.approx(0.6001)
    assert choose_threshold(rows(-0.5), 0.5) == pytest.approx(-0.4999)


def test_a_rate_needs_enough_queries() -> None:
    assert [needed_queries(rate) for rate in (0.5, 0.25, 0.1, 0.05, 0.02, 0.01, 0.001)] == [
        1,
        3,
        9,
        19,
        49,
        99,
        999,
    ]
    check_count(19, 0.05)
    with pytest.raises(
        CalibrationError, match=r"5% needs 19 queries .* there are 18: .* --false-alarms 0.053"
    ):
        check_count(18, 0.05)
    check_count(18, 0.053)
    with pytest.raises(CalibrationError, match=r"there are 0: add queries$"):
        check_count(0, 0.05)


SCORES = st.lists(
    st.lists(st.integers(-9, 9).map(lambda n: n / 10) | st.floats(-1, 1, width=32), min_size=1, max_size=4),
    min_size=1,
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(SCORES, st.sampled_from([0.05, 0.1, 0.2, 0.3, 0.5]))
def test_the_threshold_is_the_lowest_that_controls_the_rate(alarms: list[list[float]], rate: float) -> None:
    if len(alarms) < needed_queries(rate):
        return
    threshold = choose_threshold(alarms, rate)

    def controlled(t: float) -> bool:
        shares = [sum(score >= t for score in row) / len(row) for row in alarms]
        return (sum(shares) + 1) / (len(alarms) + 1) <= rate + 1e-9

    assert controlled(threshold)
    assert threshold == round(threshold, 4)
    assert not controlled(threshold - 2e-4)


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_new_queries_have_at_most_the_stated_rate_on_average(rate: float) -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(400):
        # The scores of a query in four videos depend on the query.
        queries = rng.normal(0.2, 0.1, (41, 1)) + rng.normal(0, 0.05, (41, 4))
        threshold = choose_threshold(queries[:40].tolist(), rate)
        shares.append(float((queries[40] >= threshold).mean()))
    # One standard error of 400 shares is at most 0.02.
    assert 0.4 * rate < fmean(shares) < rate + 0.02


def test_equal_texts_are_one_query_about_all_their_videos() -> None:
    one, two = Query("The  ring blinks", frozenset("a")), Query("the ring blinks ", frozenset("b"))
    assert merge_queries([one, two, Query("a cross", frozenset("a"))]) == [
        Query("The  ring blinks", frozenset("ab")),
        Query("a cross", frozenset("a")),
    ]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("clips")
    return [str(write_clip(make_item("blink", n, seconds=6).clip, folder / f"{n}.mp4", 96)) for n in range(3)]


def test_scores_are_those_of_searches(resources: Make, clips: list[str]) -> None:
    finder = resources().finder
    videos = {finder.library.probe(clip).info.digest: clip for clip in clips}
    first, second, _ = videos
    queries = [Query("the ring blinks", frozenset((first, second))), Query("a dog", frozenset(("x",)))]
    done: list[tuple[int, int]] = []
    ring, dog = score_queries(finder, videos, queries, lambda *counts: done.append(counts))
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert [frame.video for frame in ring.own] == clips[:2]
    assert [frame.video for frame in ring.others] == clips[2:]
    assert (dog.own, [frame.video for frame in dog.others]) == ((), clips)
    for frame in (*ring.own, *ring.others, *dog.others):
        [hit] = finder.find(frame.video, frame.query).hits
        assert (frame.score, frame.seconds) == (hit.score, hit.seconds)


def test_a_calibration_states_its_evidence(resources: Make, clips: list[str]) -> None:
    finder = resources().finder
    videos = {finder.library.probe(clip).info.digest: clip for clip in clips}
    digests = list(videos)
    texts = ("the ring blinks", "a red cross", "the triangle moves", "a circle at north")
    queries = [Query(text, frozenset((digests[n % 3],))) for n, text in enumerate(texts)]
    scored = score_queries(finder, videos, queries)
    with pytest.raises(CalibrationError, match="needs 9 queries about other videos, and there are 4"):
        calibrate(finder, "weights", scored, 0.1)
    made = calibrate(finder, "weights", scored, 0.4)
    scores = [[frame.score for frame in query.others] for query in scored]
    assert made.threshold == choose_threshold(scores, 0.4)
    assert (made.encoder, made.weights, made.rate) == (finder.encoder.id, "weights", 0.4)
    assert (made.queries, made.own_queries, made.videos, made.fps, made.seconds) == (4, 4, 3, 3.0, 6.0)
    shares = [fmean(score >= made.threshold for score in row) for row in scores]
    assert made.false_alarms == round(fmean(shares), 4)
    assert made.interval[0] <= made.false_alarms <= made.interval[1]
    assert made.found == round(fmean(q.own[0].score >= made.threshold for q in scored), 4)


async def test_a_stored_threshold_applies_unless_the_config_sets_one(
    resources: Make, clips: list[str]
) -> None:
    shared = resources()
    finder = shared.finder
    query, context = "the ring blinks", ToolContext(clips[0])
    best = finder.find(clips[0], query).best
    tool = Retrieve("retrieve", Retrieve.Options(), shared)
    assert finder.no_match == finder.encoder.no_match == 0.2
    high = MADE.model_copy(update={"encoder": finder.encoder.id, "threshold": best + 0.01})
    file = save_calibration(finder.cache, high)
    assert finder.no_match == high.threshold
    note = (await tool.call(query, context)).note
    assert note.startswith("No match: nothing in this video looks like that")
    assert f"{high.threshold:.2f} is needed" in note
    assert tool.version == (
        f"retrieve {finder.encoder.id}, no match below {high.threshold:g} "
        "(calibrated: 5% false alarms, 40 queries, 5 videos)"
    )
    own = Retrieve("retrieve", Retrieve.Options(no_match=-1.0), shared)
    assert len((await own.call(query, context)).frames) == 1
    assert own.version == f"retrieve {finder.encoder.id}"
    save_calibration(finder.cache, high.model_copy(update={"threshold": best - 0.01}))
    assert len((await tool.call(query, context)).frames) == 1  # without loading anything again
    assert finder.find(clips[0], query, segments=True).hits
    file.unlink()
    assert finder.no_match == 0.2


def test_a_search_in_a_folder_uses_the_stored_threshold(resources: Make, clips: list[str]) -> None:
    finder = resources().finder
    folders = Folders([Path(clips[0]).parent])
    for threshold, match in ((1.0, False), (-1.0, True)):
        made = MADE.model_copy(update={"encoder": finder.encoder.id, "threshold": threshold})
        save_calibration(finder.cache, made)
        found = search_folder(finder, folders, "the ring blinks")
        assert [video.match for video in found.ranked] == [match] * 3


def test_an_encoder_has_a_file_of_its_own(tmp_path: Path) -> None:
    assert load_calibration(tmp_path, "abc") is None
    file = save_calibration(tmp_path, MADE)
    assert file == calibration_file(tmp_path, "abc") == tmp_path / "calibrations" / "abc.json"
    assert load_calibration(tmp_path, "abc") == MADE
    assert load_calibration(tmp_path, "other") is None
    save_calibration(tmp_path, MADE.model_copy(update={"encoder": "abd", "weights": "other/name"}))
    assert list(calibrations_of(tmp_path, "owner/name")) == [MADE]
    assert list(calibrations_of(tmp_path / "nowhere", "owner/name")) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Invalid JSON"),
        ("rubbish", "Invalid JSON"),
        ("{}", "encoder: Field required"),
        (json.dumps({**MADE.model_dump(), "schema_version": 2}), "schema_version: Input should be 1"),
    ],
)
def test_a_damaged_file_is_an_error(tmp_path: Path, text: str, why: str) -> None:
    file = calibration_file(tmp_path, "abc")
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(StoreError, match=f"cannot be read .*{why}.*: delete it, or run `act2see calibrate`"):
        load_calibration(tmp_path, "abc")


@pytest.mark.parametrize("number", ["NaN", "Infinity"])
def test_a_stored_number_that_is_not_finite_is_an_error(tmp_path: Path, number: str) -> None:
    file = save_calibration(tmp_path, MADE)
    file.write_text(file.read_text().replace("0.3124", number))
    with pytest.raises(StoreError, match=r"threshold: .*finite.*delete it, or run"):
        load_calibration(tmp_path, "abc")


@pytest.mark.parametrize(("found", "separates"), [(0.0, False), (0.05, False), (0.06, True), (None, True)])
def test_a_threshold_separates_if_more_own_queries_find_a_frame(found: float | None, separates: bool) -> None:
    assert MADE.model_copy(update={"found": found}).separates is separates


def test_an_encoder_without_valid_scores_is_an_error(resources: Make, clips: list[str]) -> None:
    finder = resources().finder
    finder.index(clips[0])
    real = finder.encoder

    class Broken:
        id, size, no_match = real.id, real.size, 0.2
        frames = real.frames

        def phrases(self, texts: list[str]) -> np.ndarray:
            return np.full_like(real.phrases(texts), np.nan)

    finder.encoder = Broken()
    with pytest.raises(StoreError, match=r"gives no valid scores.*encoder\.dtype: float32"):
        score_queries(finder, {"a": clips[0]}, [Query("x", frozenset())])
