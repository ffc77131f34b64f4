"""The truth about a file, and whether act2see reads it: FFmpeg decodes the whole file, without seeking.

The truth is the list of pictures that come, each by its blocks, and their times by a player's clock. Where
FFmpeg's timestamps cannot be a film's times (missing, not in order, a jump of 10 s), the times at which the
pictures were made count, too: each picture may have either. A picture is right if its blocks are those of the
truth; a time if it is less than half a frame away.

Where references are lost, FFmpeg shows old memory: other pictures, depending on how many decoded ones its
caller still holds. Such a file has no truth of its own (`Truth.single`).
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from act2see.errors import Act2SeeError
from act2see.tools.video.library import ProbedVideo
from act2see.tools.video.reader import Decoder, VideoFile, frames_at, open_video
from benchmarks.files.making import BESIDE
from benchmarks.files.pictures import UPRIGHT, is_yellow, read, undo

_JUMP = 10.0
_ROUNDED = 2e-3  # seconds: containers round timestamps to milliseconds
_TIMES = 6  # times that are asked for one by one
_SIZE = (64, 48)
_NUMBER = 0xFFF
_LATE = 8  # places by which FFmpeg returns a picture too late, where packets are lost


@dataclass(frozen=True)
class Truth:
    """What FFmpeg decodes."""

    codes: list[int]
    """The blocks of each picture, upright."""
    times: NDArray[np.float64]
    """Their times: FFmpeg's, or those at which they were made."""
    stamps: NDArray[np.float64]
    """FFmpeg's times; not a number where it gives none."""
    half: float
    """Half the usual distance of two frames."""
    by_ffmpeg: bool
    """Whether the times are FFmpeg's own."""
    end: float
    """When the last one ends."""
    yellow: bool
    """Whether its colours come as they were drawn."""
    single: bool = True
    """Whether FFmpeg gives the same pictures to a caller that lets go of each and to one that keeps them."""
    late: Truth | None = None
    """The same with pictures that come too late put in their places; either is right."""


def find_truth(
    path: Path, turned: str, made: dict[int, float], delay: float, *, beside: bool = False, whole: bool = True
) -> Truth | None:
    """Decode a file as a whole; return None if no picture comes.

    Args:
        path: The file.
        turned: How the pictures are stored.
        made: The time at which each number was made.
        delay: The time of the first of them by a player's clock.
        beside: Whether there is another video stream, whose pictures have numbers of their own.
        whole: Whether all pictures are intact, so that their numbers tell when they were made.
    """
    codes, stamps, sound, yellow = _decode(path, 0, turned)
    if beside and codes and codes[0] & _NUMBER >= BESIDE:
        codes, stamps, sound, yellow = _decode(path, 1, turned)
    if not codes:
        return None
    truth = _place(codes, stamps, sound, yellow, made, delay, whole=whole)
    if not whole:
        truth = replace(truth, single=_decode(path, 0, turned, keep=True)[0] == codes)
    if whole or (moved := _sort(codes, stamps)) is None:
        return truth
    return replace(truth, late=_place(*moved, sound, yellow, made, delay, whole=whole))


def _place(
    codes: list[int],
    stamps: list[float | None],
    sound: list[float],
    yellow: bool,
    made: dict[int, float],
    delay: float,
    *,
    whole: bool,
) -> Truth:
    """Return the truth with the times of its pictures."""
    steps = np.diff(np.array(list(made.values())))
    step = float(np.median(steps)) if len(steps) else 0.04
    times = _by_ffmpeg(stamps, sound)
    by_ffmpeg = times is not None
    raw = np.array([np.nan if stamp is None else stamp for stamp in stamps])
    raw = raw - raw[0] if times is None else times
    if times is None and not whole and not np.isnan(raw).any():
        times = _between(raw)
    elif times is None:
        numbers = [code & _NUMBER for code in codes]
        begin = made.get(numbers[0], 0.0)
        own = [made.get(number, np.nan) - begin + delay for number in numbers]
        times = np.array(own)
        known = np.flatnonzero(~np.isnan(times))
        times = np.interp(np.arange(len(times)), known, times[known]) if len(known) else times
    return Truth(codes, times, raw, step / 2 + _ROUNDED, by_ffmpeg, float(times[-1]) + step, yellow)


def _decode(
    path: Path, number: int, turned: str, *, keep: bool = False
) -> tuple[list[int], list[float | None], list[float], bool]:
    """Return the blocks and timestamps of all pictures, the timestamps of sound, and whether there is
    colour.

    Args:
        path: The file.
        number: The number of the video stream.
        turned: How the pictures are stored.
        keep: Whether each picture stays in memory until the end.
    """
    import av

    codes: list[int] = []
    stamps: list[float | None] = []
    sound: list[float] = []
    yellow: list[bool] = []
    kept: list[Any] = []
    try:
        container = av.open(str(path), metadata_errors="ignore", options={"pattern_type": "none"})
    except av.error.FFmpegError:
        return [], [], [], False
    with container:
        if number >= len(container.streams.video):
            return [], [], [], False
        video = container.streams.video[number]
        video.codec_context.thread_count = 1
        tick = video.time_base or Fraction(1)

        def take(packet: Any) -> None:
            try:
                frames = video.codec_context.decode(packet)
            except av.error.FFmpegError:
                return
            kept.extend(frames if keep else ())
            for frame in frames:
                pixels = undo(np.asarray(frame.to_ndarray(format="rgb24")), turned)
                codes.append(read(pixels))
                yellow.append(is_yellow(pixels))
                stamps.append(None if frame.pts is None else float(frame.pts * tick))

        streams = [video, *container.streams.audio[:1]]
        try:
            for packet in container.demux(streams):
                if packet.stream is not video and packet.pts is not None and packet.time_base:
                    sound.append(float(packet.pts * packet.time_base))
                elif packet.stream is video and packet.size:
                    take(packet)
        except av.error.FFmpegError:
            pass
        take(None)
    return codes, stamps, sound, all(yellow)


def _sort(codes: list[int], stamps: list[float | None]) -> tuple[list[int], list[float | None]] | None:
    """Return pictures in the order of their times; None if none is late, or if they are odd."""
    known = [stamp for stamp in stamps if stamp is not None]
    if len(known) < len(stamps):
        return None
    order = np.argsort(np.array(known), kind="stable")
    if not 0 < np.abs(order - np.arange(len(order))).max() <= _LATE:
        return None
    return [codes[n] for n in order], [stamps[n] for n in order]


def _by_ffmpeg(stamps: list[float | None], sound: list[float]) -> NDArray[np.float64] | None:
    known = np.array([stamp for stamp in stamps if stamp is not None])
    steps = np.diff(known)
    if len(known) < len(stamps) or (steps <= 0).any() or (steps > _JUMP).any():
        return None
    zero = float(known[0])
    if sound and max(0.0, sound[0]) < zero:
        zero = max(0.0, sound[0])
    return known - zero


def _between(stamps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return times in order: the most stamps that are, and the others evenly between them."""
    best = np.ones(len(stamps), int)
    before = np.full(len(stamps), -1)
    for i in range(len(stamps)):
        fits = np.flatnonzero((stamps[:i] < stamps[i]) & (stamps[i] - stamps[:i] <= _JUMP))
        if len(fits):
            before[i] = fits[best[fits].argmax()]
            best[i] = best[before[i]] + 1
    kept = [int(best.argmax())]
    while before[kept[0]] >= 0:
        kept.insert(0, int(before[kept[0]]))
    times: NDArray[np.float64] = np.interp(np.arange(len(stamps)), kept, stamps[kept])
    out: NDArray[np.float64] = times - times[0]
    return out


def check(
    path: Path, truth: Truth | None, decoder: Decoder, *, upright: int, whole: bool = True
) -> list[str]:
    """Return what act2see gets wrong; an empty list if all is right.

    Args:
        path: The file.
        truth: The truth.
        decoder: The decoder.
        upright: The first row of an upright picture.
        whole: Whether all of its pictures can be decoded. Where one is damaged, the one before stays on
            screen, and act2see may count it.
    """
    try:
        video = open_video(path, decoder=decoder, threads=2)
    except Act2SeeError as e:
        return [] if truth is None else [f"an error: {e}"]
    if truth is None:
        return ["no error, though FFmpeg has no picture"]
    problems = _judge(video, truth, upright, whole)
    if problems and truth.late is not None and not _judge(video, truth.late, upright, whole):
        return []
    return problems


def _judge(video: VideoFile, truth: Truth, upright: int, whole: bool) -> list[str]:
    """Return what is wrong with a video."""
    if video.frames != len(truth.codes):
        if whole or video.frames < len(truth.codes):
            return [f"{video.frames} frames instead of {len(truth.codes)}"]
        truth = _fill(truth, video)
    if video.frames != len(truth.codes):
        return [f"{video.frames} frames instead of {len(truth.codes)}, at other times"]
    off, by_stamps = (np.abs(video.timestamps - times) for times in (truth.times, truth.stamps))
    truth = replace(truth, times=np.where(by_stamps < off, truth.stamps, truth.times))
    off = np.fmin(off, by_stamps)
    if off.max() > truth.half:
        worst = int(off.argmax())
        return [f"frame {worst} at {video.timestamps[worst]:.3f} s instead of {truth.times[worst]:.3f} s"]
    return [*_compare(video, truth, upright), *_sample(video, truth), *_ask(video, truth)]


def _fill(truth: Truth, video: VideoFile) -> Truth:
    """Return the truth with the pictures that stay on screen for frames that cannot be decoded."""
    times = np.fmin(truth.times, np.where(np.isnan(truth.stamps), np.inf, truth.stamps))
    if truth.by_ffmpeg:
        times = truth.times
    on_screen = np.searchsorted(times, video.timestamps + truth.half, side="right") - 1
    shown = np.maximum(on_screen, 0)
    if len(set(shown.tolist())) < len(truth.codes):
        return truth  # some picture is not in its place, which is noticed
    codes = [truth.codes[n] for n in shown]
    return replace(truth, codes=codes, times=video.timestamps, stamps=video.timestamps)


def _compare(video: VideoFile, truth: Truth, upright: int) -> Iterable[str]:
    """Compare every picture, at the video's own size."""
    wrong = []
    for i, _, pixels in video.read(range(video.frames)):
        code = read(pixels)
        expected = truth.codes[i]
        if expected >> 12 == UPRIGHT:
            expected = upright << 12 | expected & _NUMBER
        if code != expected:
            wrong.append(f"{i} shows {code:04x}, not {expected:04x}")
        elif truth.yellow and code >> 12 == upright and not is_yellow(pixels):
            wrong.append(f"{i} has wrong colours")
    if wrong:
        yield f"{len(wrong)} wrong pictures: {wrong[0]}"


def _sample(video: VideoFile, truth: Truth) -> Iterable[str]:
    """Read three frames a second."""
    chosen = ProbedVideo(video.info("0" * 32), video.timestamps).every(3)
    shown = {i: (seconds, read(pixels)) for i, seconds, pixels in video.read(chosen, _SIZE)}
    for tick in np.arange(0, truth.end - truth.half, 1 / 3):
        on_screen = _on_screen(truth, float(tick))
        if not any(i in shown for i in on_screen):
            yield f"three a second: nothing at {tick:.2f} s"
            return
    for i, (seconds, code) in shown.items():
        if code & _NUMBER != truth.codes[i] & _NUMBER or abs(seconds - truth.times[i]) > truth.half:
            yield f"three a second: {i} at {seconds:.3f} s shows {code:04x}"
            return


def _ask(video: VideoFile, truth: Truth) -> Iterable[str]:
    """Ask for single times, in random order."""
    rng = random.Random(video.frames)
    for _ in range(_TIMES):
        asked = rng.uniform(0, truth.end)
        wanted = frames_at(video.timestamps, [asked])
        [(i, _, pixels)] = video.read(wanted, _SIZE)
        number = read(pixels) & _NUMBER
        right = {truth.codes[j] for j in _on_screen(truth, asked)}
        if number not in {code & _NUMBER for code in right}:
            yield f"at {asked:.3f} s: {i} shows {number}"
            return


def _on_screen(truth: Truth, seconds: float) -> list[int]:
    """Return the places of the pictures on screen within half a frame of a time."""
    first = int(np.searchsorted(truth.times, seconds - truth.half, side="right")) - 1
    last = int(np.searchsorted(truth.times, seconds + truth.half, side="right")) - 1
    return list(range(max(0, first), max(0, last) + 1))
