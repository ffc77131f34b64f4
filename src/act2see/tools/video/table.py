"""The table of a file's frames: which packet each frame comes from, and when it is on screen.

The packets give the timestamp of every frame without decoding. Where they do not tell the order of frames on
screen (timestamps that are missing, or repeated among B-frames; damaged packets), `scan` decodes the whole
file once. Odd timestamps are mended (`tools/video/stamps.py`), never replaced as a whole while most exist.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from act2see.errors import VideoError
from act2see.tools.video.keys import are_guessed, find_keys
from act2see.tools.video.packets import UNKNOWN, Mark, Seen, decode_all, demux, is_of_file
from act2see.tools.video.stamps import Line, straighten

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

    from act2see.tools.video.packets import OpenFile

log = logging.getLogger(__name__)
_RESETS = 0x200  # FFmpeg's AVFMT_TS_DISCONT
_BACK, _FORWARD = -1.0, 3600.0  # seconds: a step of the decoding time beyond them starts another recording
_SHORTEST = 16  # frames: a shorter recording between two jumps is more likely a few odd timestamps
_REORDERED = 32  # packets: no codec has a longer way from decoding order to presentation order
_LONE = 8  # usual steps: decoding times of neighbours, where one between them is odd, are closer
_FEW = 2  # this many odd timestamps, or a tenth of all, say nothing against the others


@dataclass(frozen=True, slots=True)
class Table:
    """The frames of a file in presentation order."""

    seconds: NDArray[np.float64]
    """Start of each frame, `(frames,)`, in seconds from the first frame."""
    last: float
    """Duration of the last frame, in seconds."""
    packets: NDArray[np.int64]
    """Number of each frame's packet, `(frames,)`, counted from the start of the file."""
    keys: NDArray[np.int64]
    """Numbers of the frames at which decoding can start, in order (`tools/video/keys.py`)."""
    starts: NDArray[np.int64]
    """PTS, DTS and position in the file of the packets of `keys`, `(keys, 3)`; `UNKNOWN` if there is none."""
    sizes: NDArray[np.int32]
    """Length of each packet of the file, `(packets,)`, in bytes."""
    bad: NDArray[np.int64]
    """Numbers of damaged packets, in order. The frames after them depend on where decoding started."""
    decord: bool = False
    """Whether decord's frame numbers mean the same frames."""

    def checked(self, packets: Sequence[int | None], kinds: Sequence[int]) -> Table | None:
        """Return the table for a file whose first frames came from these packets; None if it is wrong.

        Args:
            packets: Numbers of the packets of the first frames.
            kinds: The kinds of these frames.
        """
        if self.packets[: len(packets)].tolist() != packets:
            return None
        return self.from_start() if are_guessed(kinds, self.keys.tolist()) else self

    def from_start(self) -> Table:
        """Return the table for a file that can only be decoded from its first keyframe."""
        return replace(self, keys=self.keys[:1], starts=self.starts[:1], decord=False)


def read_table(container: InputContainer, stream: VideoStream) -> tuple[Table | None, bool]:
    """Return the table of frames from the packets alone; None if the file must be decoded for it.

    If the end of the file is missing, a warning says how much, and the second value is true.
    """
    import av

    marks: list[Mark] = []
    whole = True
    try:
        for packet in demux(container, stream):
            marks.append(Mark.of(packet))
    except av.error.FFmpegError as e:
        if not is_of_file(e):
            raise
        whole = False
    cut = _missing_end(stream, marks)
    if cut:
        log.warning("%s %s", container.name, cut)
    return (_ordered(container, stream, marks) if whole else None), bool(cut)


def _ordered(container: InputContainer, stream: VideoStream, marks: Sequence[Mark]) -> Table | None:
    """Return the table of these packets; None if they do not tell it."""
    if any(mark.corrupt or mark.pts is None for mark in marks):
        return None
    formats = set(container.format.name.split(","))
    if "avi" in formats and stream.codec_context.has_b_frames:
        return None  # AVI has no presentation times: those that FFmpeg gives are in decoding order
    order = _order(marks, stream, _may_reset(container))
    if not order:
        return None
    line = _times(container, stream, marks, order)
    bad = [n for n, mark in enumerate(marks) if mark.empty]
    # decord counts keyframes in decoding order, so each must have the same position in presentation order.
    in_place = len(order) == len(marks) and all(order[n] == n for n, mark in enumerate(marks) if mark.key)
    suits_decord = (
        in_place
        and not line.mended
        and not bad
        and bool(formats & {"mp4", "matroska"})
        and len(container.streams.video) == 1
    )
    return _make(stream, marks, order, line, bad, decord=suits_decord)


def scan(open_file: OpenFile, path: str, *, reported: bool = False) -> Table:
    """Decode all frames and return their table.

    Args:
        open_file: Opens the file.
        path: Its path, for messages.
        reported: Whether a warning has said already what is wrong with the file.

    Raises:
        VideoError: No frame can be decoded.
    """
    log.log(
        logging.INFO if reported else logging.WARNING,
        "%s is damaged or has no usable timestamps: decoding all of it to list its frames",
        path,
    )
    seen = Seen()
    order: dict[int, int] = {}
    bad: set[int] = set()
    with open_file() as (container, stream):
        stream.codec_context.thread_count = 1  # so that damage is concealed in the same way each time
        for frame in decode_all(container, stream, seen):
            if frame.pts is None:
                continue
            order[frame.pts] = frame.pict_type
            if frame.is_corrupt:
                bad.add(frame.pts)
        if not order:
            raise VideoError(
                f"{path} contains no frame that can be decoded: copy or download it again, "
                "or convert it to H.264"
            )
        bad.update(seen.failed)
        bad.update(n for n, mark in enumerate(seen.marks) if mark.corrupt or mark.empty)
        shown = list(order)
        table = _make(stream, seen.marks, shown, _times(container, stream, seen.marks, shown), bad)
        return table.from_start() if are_guessed(list(order.values()), table.keys.tolist()) else table


def _missing_end(stream: VideoStream, marks: Sequence[Mark]) -> str:
    """Return how much is missing at the end of a file; empty if nothing is, or if its header does not tell.

    Args:
        stream: The stream. MP4 and MOV have the number and the length of all frames at one place.
        marks: The packets that could be read.
    """
    if stream.frames <= len(marks) and not (marks and marks[-1].corrupt):
        return ""
    if stream.frames < len(marks) or any(mark.discard for mark in marks):
        return ""
    whole = [mark for mark in marks if not mark.corrupt and mark.pts is not None]
    tick = float(stream.time_base or 0)
    stamps = [_pts(mark) for mark in whole]
    end = tick * (max(stamps) + whole[-1].duration - min(stamps)) if whole else 0.0
    length = tick * (stream.duration or 0)
    if length - end < 0.05:
        missing = stream.frames - len(whole)
        return (
            f"is cut off: {missing} of its {stream.frames} frames are missing, so copy or download it again"
        )
    return (
        f"is cut off at {end:.1f} s of {length:.1f} s: the last {length - end:.1f} s are missing, so copy or "
        "download it again"
    )


def _may_reset(container: InputContainer) -> bool:
    """Return whether the clock may be set anew within a file of this format, as in MPEG-TS."""
    return bool(container.format.flags & _RESETS)


def _order(marks: Sequence[Mark], stream: VideoStream, resets: bool) -> list[int] | None:
    """Return the numbers of packets in the order of their frames on screen; None if they do not tell it.

    Args:
        marks: The packets, all of which have a PTS.
        stream: Their stream.
        resets: Whether the clock may be set anew within the file.
    """
    first = next((n for n, mark in enumerate(marks) if mark.key), len(marks))
    numbers = list(range(first, len(marks)))  # frames before the first keyframe cannot be decoded
    if not numbers:
        return None
    if len({_pts(marks[n]) - _dts(marks[n]) for n in numbers}) == 1:  # no B-frames
        return [n for n in numbers if not marks[n].discard]
    tick = float(stream.time_base or 1)
    order: list[int] = []
    if _has_lone_stamp(marks, numbers):
        return None
    for recording in _recordings(marks, numbers, tick) if resets else [numbers]:
        if len({marks[n].pts for n in recording}) < len(recording):
            return None
        order += sorted(recording, key=lambda n: _pts(marks[n]))
    # Further than any codec moves a frame: the timestamps lie, or those of two recordings overlap.
    if np.abs(np.array(order) - numbers).max() > _REORDERED:
        return None
    return [n for n in order[order.index(first) :] if not marks[n].discard]


def _has_lone_stamp(marks: Sequence[Mark], numbers: Sequence[int]) -> bool:
    """Return whether a packet's decoding time is odd among its neighbours, which are in order without it.

    Its presentation time is then odd, too, and does not tell its place.
    """
    times = np.array([_dts(marks[n]) for n in numbers])
    back = np.flatnonzero(np.diff(times) < 0) + 1  # packets before which time goes back
    usual = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    for n in back.tolist():
        # It is the one before, too late, or this one, too early.
        around = times[n] - times[n - 2] if n > 1 else 1, times[n + 1 : n + 2] - times[n - 1]
        if any(0 < step <= _LONE * usual for step in (around[0], *around[1].tolist())):
            return True
    return False


def _recordings(marks: Sequence[Mark], numbers: Sequence[int], tick: float) -> list[Sequence[int]]:
    """Split packets where the clock was set anew."""
    pieces: list[list[int]] = []
    for n in numbers:
        step = tick * (_dts(marks[n]) - _dts(marks[n - 1])) if pieces else 0.0
        if not pieces or not _BACK <= step <= _FORWARD:
            pieces.append([])
        pieces[-1].append(n)
    if any(len(piece) < _SHORTEST for piece in pieces):
        return [numbers]
    return list(pieces)


def _pts(mark: Mark) -> int:
    assert mark.pts is not None
    return mark.pts


def _dts(mark: Mark) -> int:
    return _pts(mark) if mark.dts is None else mark.dts


def _times(
    container: InputContainer, stream: VideoStream, marks: Sequence[Mark], order: Sequence[int]
) -> Line:
    """Return the times of frames, mended where the timestamps are odd.

    Args:
        container: The container.
        stream: Its video stream.
        marks: Its packets.
        order: Numbers of the packets in the order of their frames on screen.
    """
    tick = float(stream.time_base or 1)
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    resets = _may_reset(container)
    line = straighten(_seconds([marks[n].pts for n in order], tick), rate, resets=resets)
    if line.mended > max(_FEW, len(order) // 10):
        # Decoding times are in the order of the file, and those of the frames on screen, later by the delay
        # of the decoder.
        delay = min(stream.codec_context.reorder_depth, len(order) - 1)
        decoding = [*(marks[n].dts for n in sorted(order)[delay:]), *([None] * delay)]
        other = straighten(_seconds(decoding, tick), rate, resets=resets)
        if other.mended < line.mended:
            line = other
    if line.odd == len(order) and all(marks[n].dts is None for n in order):
        log.warning(
            "%s has no timestamps: its frames are assumed to be %.3f s apart", container.name, 1 / rate
        )
    elif line.mended:
        log.warning(
            "%s has odd timestamps: %d of %d are missing or impossible and were set aside; %d jumps of its "
            "clock were closed",
            container.name,
            line.odd,
            len(order),
            line.joins,
        )
    return line


def _seconds(stamps: Sequence[int | None], tick: float) -> list[float | None]:
    """Return ticks as seconds from the first known of them, so that no digits are lost."""
    first = next((stamp for stamp in stamps if stamp is not None), 0)
    return [None if stamp is None else (stamp - first) * tick for stamp in stamps]


def _make(
    stream: VideoStream,
    marks: Sequence[Mark],
    order: Sequence[int],
    line: Line,
    bad: Iterable[int] = (),
    *,
    decord: bool = False,
) -> Table:
    seconds = line.times - line.times[0]
    rate = float(stream.average_rate or 25)
    usual = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 1 / rate
    last = marks[order[-1]].duration * float(stream.time_base or 1)
    # A wrong length in a header can end up in the last frame: ignore one longer than all frames before it.
    if not 0 < last <= max(60.0, float(seconds[-1])):
        last = usual
    keys = find_keys(stream, marks, order)
    starts = [
        [UNKNOWN if x is None else x for x in (mark.pts, mark.dts, mark.place)]
        for mark in (marks[order[i]] for i in keys)
    ]
    return Table(
        seconds,
        last,
        packets=np.array(order, np.int64),
        keys=np.array(keys, np.int64),
        starts=np.array(starts, np.int64).reshape(-1, 3),
        sizes=np.array([mark.size for mark in marks], np.int32),
        bad=np.array(sorted(bad), np.int64),
        decord=decord and not any(mark.palette or mark.beside for mark in marks),
    )
