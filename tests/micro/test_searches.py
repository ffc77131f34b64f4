"""Searches whose truth is known, and the rate of a threshold that was calibrated on them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from act2see.cli.app import app
from act2see.cli.queries import read_queries
from act2see.graphs.config import load_config
from act2see.graphs.parts import build_resources
from act2see.micro.questions import make_item
from act2see.micro.searches import NOWHERE, search_table, searches, shows, write_clips
from act2see.tools.search.calibration import Query, ScoredQuery, calibrate, merge_queries, score_queries
from act2see.tools.search.finder import Finder


def test_a_clip_shows_what_one_of_its_frames_shows() -> None:
    item = next(i for n in range(50) if not (i := make_item("blink", n)).in_view)
    [blink] = [event for event in item.clip.short if event.kind == "blink"]
    phrases = {text: (text, claims) for text, claims in searches()}
    assert shows(item.clip, phrases[f"the {blink.piece.shape} blinks"])
    assert shows(item.clip, phrases[f"the {blink.piece.colour} {blink.piece.shape}"])
    shown = {text for text, phrase in phrases.items() if shows(item.clip, phrase)}
    boards = [item.clip.board(frame) for frame in range(item.clip.frames)]
    present = {piece.shape for board in boards for piece in board.pieces}
    assert all(any(f" {shape}" in text for shape in present) for text in shown)


def test_the_table_names_every_clip_that_shows_a_text() -> None:
    clips = {f"{n}.mp4": make_item("observe", n).clip for n in range(3)}
    rows = search_table(clips)
    texts = [text for text, _ in searches()]
    assert sorted({text for _, text in rows}) == sorted(texts)
    assert max(Counter(rows).values()) == 1
    phrases = {text: (text, claims) for text, claims in searches()}
    for name, text in rows:
        if name == NOWHERE:
            assert not any(shows(clip, phrases[text]) for clip in clips.values())
        else:
            assert shows(clips[name], phrases[text])


def test_the_command_writes_clips_and_their_table(tmp_path: Path) -> None:
    folder = tmp_path / "boards"
    for skip, names in ((0, ["000.mp4", "001.mp4"]), (5, ["005.mp4", "006.mp4"])):
        result = CliRunner().invoke(
            app, ["micro", "clips", "--count", "2", "--skip", str(skip), "--out", str(folder / str(skip))]
        )
        assert result.exit_code == 0, result.output
        assert sorted(path.name for path in (folder / str(skip)).glob("*.mp4")) == names
        table = read_queries(folder / str(skip) / "queries.tsv")
        assert {query.video for query in table} <= {*names, NOWHERE}
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").touch()
    result = CliRunner().invoke(app, ["micro", "clips", "--out", str(tmp_path / "taken")])
    assert result.exit_code == 2
    assert "not empty" in result.stderr


def score(finder: Finder, table: Path) -> list[ScoredQuery]:
    """Score the queries of a table in the clips beside it."""
    clips = sorted(table.parent.glob("*.mp4"))
    videos = {finder.library.probe(str(clip)).info.digest: str(clip) for clip in clips}
    digests = {Path(path).name: digest for digest, path in videos.items()}
    rows = read_queries(table)
    queries = [Query(row.query, frozenset((digests.get(row.video, row.video),))) for row in rows]
    return score_queries(finder, videos, merge_queries(queries))


@pytest.mark.timeout(300)  # it indexes 24 clips, which takes long on a busy machine
def test_a_calibrated_threshold_keeps_its_rate_on_other_clips(tmp_path: Path) -> None:
    finder = build_resources(load_config("micro", cache=str(tmp_path / "cache"))).finder
    known = score(finder, write_clips(tmp_path / "known", 12))
    new = score(finder, write_clips(tmp_path / "new", 12, skip=12))
    made = calibrate(finder, "micro:encoder", known, 0.1)
    assert made.false_alarms <= 0.1
    assert made.found is not None
    assert made.found > 0.9
    alarms = [frame.score >= made.threshold for query in new for frame in query.others]
    matches = [frame.score >= made.threshold for query in new for frame in query.own]
    # The standard error of the rate with 80 queries of the same scores is 0.03.
    assert sum(alarms) / len(alarms) < 0.1 + 0.06
    assert sum(matches) / len(matches) > 0.85
