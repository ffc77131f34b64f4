"""The framer of boards: it finds the square and the light, and leaves everything else as it is."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from act2see.graphs.config import load_config
from act2see.graphs.initial_frames import choose_frames
from act2see.graphs.parts import build_resources
from act2see.micro.crop import BoardCrop
from act2see.micro.draws import draw_board
from act2see.micro.likeness import Light, compare, estimate_light
from act2see.micro.questions import make_item
from act2see.micro.recordings import Recording, draw_recording, record_picture, write_recording
from act2see.micro.world import Board, Pixels, read_board, render, write_clip


def _pictures(recording: Recording, seed: int) -> tuple[list[Board], list[Pixels]]:
    rng = random.Random(seed)
    boards = [draw_board(rng) for _ in range(3)]
    boards[1] = boards[1].tip("left")
    noise = np.random.default_rng(seed)
    pictures = []
    for board in boards:
        picture = record_picture(render(board, 768), recording)
        grains = np.rint(noise.normal(0, recording.noise, (*picture.shape[:2], 1)))
        pictures.append(np.clip(picture + grains, 0, 255).astype(np.uint8))
    return boards, pictures


@pytest.mark.parametrize("seed", range(16))
def test_the_square_and_the_light_of_a_recording_are_found(seed: int) -> None:
    recording = draw_recording(random.Random(seed))
    boards, pictures = _pictures(recording, seed)
    framing = BoardCrop().find(pictures)
    assert framing is not None
    left, top, right, bottom = framing.box
    found = (left * recording.width, top * recording.height, (right - left) * recording.width)
    expected = (recording.left, recording.top, recording.side)
    assert np.abs(np.subtract(found, expected)).max() < 0.015 * recording.side + 0.5
    assert (bottom - top) * recording.height == pytest.approx(found[2], abs=0.02 * recording.side)
    assert framing.gain == pytest.approx(1 / recording.contrast, abs=0.12)
    for board, picture in zip(boards, pictures, strict=True):
        read = read_board(framing.apply(picture))
        assert set(read.pieces) == set(board.pieces)
        assert read.tipped == board.tipped


def test_a_board_as_drawn_has_no_framing() -> None:
    boards = [draw_board(random.Random(n)) for n in range(3)]
    assert BoardCrop().find([render(board) for board in boards]) is None


def test_a_part_of_a_larger_board_is_not_a_board() -> None:
    board = render(draw_board(random.Random(1)), 180)
    larger = np.hstack([board, board])
    assert BoardCrop().find([larger] * 3) is None


@pytest.mark.parametrize("bars", [(120, 120, 120), (255, 255, 255)])
def test_bars_are_dark(bars: tuple[int, int, int]) -> None:
    _, pictures = _pictures(Recording(320, 240, 200, 60, 20, bars=bars), 3)
    assert BoardCrop().find(pictures) is None


def test_other_pictures_have_no_framing() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (9, 16, 3), np.uint8)
    photo = np.asarray(Image.fromarray(noise).resize((320, 180), Image.Resampling.BICUBIC))
    assert BoardCrop().find([photo, photo[::-1], photo[:, ::-1]]) is None
    assert BoardCrop().find([np.zeros((180, 320, 3), np.uint8)] * 2) is None


def test_the_light_of_a_picture_is_estimated() -> None:
    plain = render(draw_board(random.Random(4)))
    changed = np.clip(plain * 0.8 + 20, 0, 255).astype(np.uint8)
    light = estimate_light(changed)
    assert light is not None
    assert light.gain == pytest.approx(1.25, abs=0.04)
    assert light.offset == pytest.approx(-25, abs=2)
    assert np.abs(light(changed) - plain).mean() < 2
    assert estimate_light(np.full((192, 192, 3), 38, np.uint8)) is None
    assert Light()(plain).tolist() == plain.tolist()


def test_a_drawn_board_is_compared_without_error() -> None:
    board = draw_board(random.Random(9))
    found = compare(render(board))
    assert found.board.pieces == board.ordered()
    assert found.error == 0
    assert found.contrast == pytest.approx(21.3, abs=1)


def test_all_frames_of_a_video_are_the_board_alone(tmp_path: Path) -> None:
    """Initial frames, indexed frames, and the generator's anchors."""
    item = make_item("blink", 2, "validation")
    recording = Recording(320, 240, 180, 100, 30, bars=(30, 0, 0), contrast=0.8, brightness=15)
    path = str(write_recording(item.clip, tmp_path / "clip.mp4", recording))
    config = load_config("micro", cache=str(tmp_path / "cache"))
    resources = build_resources(config)
    library = resources.finder.library
    numbers = choose_frames(library, config.view, path)
    assert len(numbers) == item.clip.seconds
    assert (library.probe(path).info.width, library.probe(path).info.height) == (192, 192)
    resources.finder.index(path)
    taken = library.probe(path).taken
    assert len(taken) >= 3 * item.clip.seconds - 1
    decoded = [pixels for _, _, pixels in library.decode(path, numbers, None)]
    for number, pixels in zip(numbers, decoded, strict=True):
        board = item.clip.at(float(library.probe(path).seconds[number]))
        for shown in (pixels, resources.store.get(taken[number])):
            assert shown.shape == (192, 192, 3)
            assert set(read_board(shown).pieces) == set(board.pieces)
            assert compare(shown).error < 8


def test_cached_facts_keep_the_framing_and_settings_are_not_mixed_up(tmp_path: Path) -> None:
    item = make_item("blink", 2, "validation")
    path = str(write_recording(item.clip, tmp_path / "clip.mp4", Recording(240, 192, 192, 10, 0)))
    config = load_config("micro", cache=str(tmp_path / "cache"))
    whole = config.model_copy(update={"view": config.view.model_copy(update={"crop": None})})
    first, second, other = build_resources(config), build_resources(config), build_resources(whole)
    framing = first.finder.library.probe(path).framing
    assert framing is not None
    assert second.finder.library.probe(path).framing == framing
    assert second.finder.library.opened == 0
    assert other.finder.library.probe(path).framing is None
    assert other.finder.library.probe(path).info.width == 240
    assert first.finder.index_id(path) == second.finder.index_id(path) != other.finder.index_id(path)
    moved = replace(framing, offset=framing.offset + 1)
    assert moved.id != framing.id


def test_a_clip_as_written_keeps_its_index_and_its_pixels(tmp_path: Path) -> None:
    item = make_item("blink", 2, "validation")
    path = str(write_clip(item.clip, tmp_path / "clip.mp4"))
    config = load_config("micro", cache=str(tmp_path / "cache"))
    whole = config.model_copy(update={"view": config.view.model_copy(update={"crop": None})})
    framed, plain = build_resources(config).finder, build_resources(whole).finder
    assert framed.index_id(path) == plain.index_id(path)
    numbers = list(range(0, item.clip.frames, 12))
    assert framed.library.pictures(path, numbers) == plain.library.pictures(path, numbers)
