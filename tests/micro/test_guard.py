"""The guard refuses what is no board, also as a video in bars, and accepts every recording of boards."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest

from act2see.micro.crop import BoardCrop
from act2see.micro.draws import draw_board
from act2see.micro.guard import MAX_LETTERS, MAX_WORDS, MESSAGE, BoardGuard
from act2see.micro.study.negatives import KINDS, draw_negative
from act2see.micro.study.refusals import Referee, judge_boards, judge_negatives, measure, write_negative
from act2see.micro.world import render

FOOTAGE = Path(os.environ.get("ACT2SEE_FOOTAGE", "no footage"))
"""A folder of real videos: ACT2SEE_FOOTAGE=FOLDER."""


@pytest.fixture(scope="module")
def referee(tmp_path_factory: pytest.TempPathFactory) -> Referee:
    return Referee(tmp_path_factory.mktemp("cache"))


def test_there_are_many_kinds_and_seeds_draw_different_pictures() -> None:
    assert len(KINDS) >= 70
    pictures = {draw_negative(kind, seed).tobytes() for kind in KINDS for seed in range(2)}
    # Plain colours, an empty grid and a checkerboard are the same with each seed.
    assert len(pictures) >= 2 * len(KINDS) - 8


THIN = {"a board with dice", "a board with outlines"}
"""Real boards with a few thin marks in free cells, which a blurred board could have: some are accepted."""


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in THIN])
def test_a_picture_that_is_not_a_board_is_refused(kind: str) -> None:
    picture = draw_negative(kind, seed=list(KINDS).index(kind) % 2)
    framing = BoardCrop().find([picture] * 2)
    assert not BoardGuard().accepts(framing.apply(picture) if framing else picture)


async def test_videos_of_such_pictures_are_refused(referee: Referee, tmp_path: Path) -> None:
    """With odd seeds, they are recorded as boards are: in bars, in other light, with other codecs."""
    kinds = [kind for kind in KINDS if kind not in THIN][::9]
    verdicts = await judge_negatives(referee, tmp_path, [1], kinds)
    assert [v.name for v in verdicts if not v.refused] == []


async def test_recordings_of_boards_are_accepted(referee: Referee, tmp_path: Path) -> None:
    verdicts = await judge_boards(referee, tmp_path, 8)
    assert [v.name for v in verdicts if v.refused] == []


@pytest.mark.parametrize("seed", range(20))
def test_boards_as_drawn_are_accepted(seed: int) -> None:
    board = draw_board(random.Random(seed))
    assert BoardGuard().accepts(render(board))
    assert BoardGuard().accepts(render(board.tip("right"), 96))


async def test_the_first_middle_and_last_frame_must_be_boards() -> None:
    board, other = render(draw_board(random.Random(0))), np.zeros((192, 192, 3), np.uint8)
    guard = BoardGuard()
    assert await guard.refuses([board] * 5) is None
    for place in (0, 2, 4):
        frames = [board] * 5
        frames[place] = other
        assert (await guard.refuses(frames) or "").startswith(MESSAGE)


def test_a_picture_that_is_not_square_is_refused() -> None:
    board = render(draw_board(random.Random(0)))
    assert not BoardGuard().accepts(np.repeat(board, 2, axis=1))


@pytest.mark.skipif(not FOOTAGE.is_dir(), reason="ACT2SEE_FOOTAGE names no folder of real footage")
async def test_real_footage_is_refused(referee: Referee) -> None:
    for name in sorted(os.listdir(FOOTAGE)):
        assert await referee.refuses(str(FOOTAGE / name)), name


async def test_the_rates_are_measured(tmp_path: Path) -> None:
    other = str(write_negative("pie chart", 0, tmp_path / "pie.mp4"))
    report, wrong = await measure(2, tmp_path, [other], ["noise"])
    assert [(rate.hits, rate.n) for rate in report.rates] == [(2, 2), (1, 1), (0, 2)]
    assert wrong == []


def test_a_text_that_is_too_long_is_no_question() -> None:
    guard = BoardGuard()
    assert guard.refuses_question("Which shape blinks?") is None
    assert guard.refuses_question(" ".join(["word"] * MAX_WORDS)) is None
    assert guard.refuses_question("x" * MAX_LETTERS) is None
    many = guard.refuses_question("where is the ring and " * 60)
    assert many
    assert "has 300 words" in many
    long = guard.refuses_question("\u4e2d" * 5000)
    assert long
    assert "5000 letters" in long
