"""Recordings of clips: they show the clip, and are files of the codec and the rate that they name."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from act2see.micro.questions import make_item
from act2see.micro.recordings import Codec, Recording, draw_recording, recorded_frames, write_recording
from act2see.micro.world import render, write_clip
from act2see.tools.video.reader import open_video

ITEM = make_item("blink", 3, "validation")


@pytest.mark.parametrize("codec", ["h264", "mpeg4", "vp8", "vp9", "av1", "mjpeg"])
def test_every_codec_is_read_as_it_was_written(tmp_path: Path, codec: Codec) -> None:
    """Each frame is read alone, so also one that no other frame refers to, far from a keyframe."""
    recording = Recording(180, 144, 120, 50, 20, codec=codec, fps=Fraction(10), keyframes=10.0)
    video = open_video(write_recording(ITEM.clip, tmp_path / "clip", recording))
    assert (video.width, video.height, video.frames) == (180, 144, round(10 * ITEM.clip.seconds))
    for wanted in ([5, 15, 25], [video.frames - 1]):
        for number, seconds, pixels in video.read(wanted):
            board = np.asarray(pixels[20:140, 50:170], np.int16)
            assert seconds == pytest.approx(number / 10, abs=2e-3)
            assert np.abs(board - render(ITEM.clip.at(number / 10), 120)).mean() < 8


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="this system has no scheduling policies")
def test_encoding_av1_leaves_no_thread_with_real_time_priority(tmp_path: Path) -> None:
    recording = Recording(codec="av1")
    write_recording(ITEM.clip, tmp_path / "clip.mp4", recording)
    policies = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            policies.add(os.sched_getscheduler(int(task.name)))
        except ProcessLookupError:
            continue
    assert not policies & {os.SCHED_FIFO, os.SCHED_RR}


@pytest.mark.parametrize("fps", [Fraction(10), Fraction(30_000, 1001), Fraction(60)])
def test_another_rate_shows_the_board_of_each_time(fps: Fraction) -> None:
    frames = list(recorded_frames(ITEM.clip, Recording(fps=fps)))
    assert len(frames) == round(ITEM.clip.seconds * fps)
    blink = ITEM.clip.short[0]
    shown = [n for n in range(len(frames)) if blink.start / 12 <= n / fps < blink.stop / 12]
    assert shown
    for n in shown:
        assert np.array_equal(frames[n], render(ITEM.clip.board(int(n * 12 / fps))))


def test_a_plain_recording_is_the_clip(tmp_path: Path) -> None:
    mine = open_video(write_recording(ITEM.clip, tmp_path / "mine.mp4", Recording()))
    known = open_video(write_clip(ITEM.clip, tmp_path / "known.mp4"))
    assert mine.timestamps.tolist() == known.timestamps.tolist()
    for (_, _, one), (_, _, other) in zip(mine.read([0, 30]), known.read([0, 30]), strict=True):
        assert np.abs(one.astype(int) - other).mean() < 3


def test_light_blur_and_noise_change_the_picture_as_named() -> None:
    plain = next(recorded_frames(ITEM.clip, Recording())).astype(float)
    light = next(recorded_frames(ITEM.clip, Recording(contrast=0.8, brightness=10)))
    assert np.abs(light - (plain * 0.8 + 10)).max() <= 0.51
    noisy = next(recorded_frames(ITEM.clip, Recording(noise=4.0, brightness=30, contrast=0.5)))
    assert (noisy - (plain * 0.5 + 30)).std() == pytest.approx(4, abs=0.3)
    blurred = next(recorded_frames(ITEM.clip, Recording(blur=1.0))).astype(float)
    assert np.abs(np.diff(blurred, axis=0)).max() < np.abs(np.diff(plain, axis=0)).max()


def test_drawn_recordings_vary_and_hold_their_board() -> None:
    drawn = [draw_recording(random.Random(n)) for n in range(300)]
    for r in drawn:
        assert 0 <= r.left <= r.width - r.side
        assert 0 <= r.top <= r.height - r.side
        assert r.side >= 96
        assert 10 <= r.fps <= 60
    assert {r.codec for r in drawn} == {"h264", "mpeg4", "vp8", "vp9", "av1", "mjpeg"}
    assert any(r.width > r.side and r.height == r.side for r in drawn)
    assert any(r.height > r.side and r.width == r.side for r in drawn)
    assert any(r.width == r.height == r.side for r in drawn)
    assert draw_recording(random.Random(5)) == drawn[5]


def test_noise_does_not_depend_on_earlier_recordings() -> None:
    recording = replace(Recording(), noise=3.0)
    one, two = (next(recorded_frames(ITEM.clip, recording)) for _ in range(2))
    assert np.array_equal(one, two)
