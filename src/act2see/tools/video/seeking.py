"""Reading frames of a file by their numbers.

Decoding starts at the keyframe before a wanted frame and ends with the frame. A frame can fail to come: after
a seek, H.264 with intra refresh returns nothing before the picture has recovered, and some containers seek to
a wrong place. It is then tried again from earlier keyframes, and at last from the start of the file, as a
player would reach it. Only a frame that does not come then is damaged.

A frame can also come too early: FFmpeg returns some of the pictures of an intra refresh before they have
recovered, with old parts. So where the keyframe's own frame does not come, frames count from the next one.

Frames near damaged packets depend on what was decoded before them, so they are always read from the start,
by one thread: several conceal damage in other ways each time. A frame that cannot be decoded at all is
replaced by the one that stays on screen. Damage that the packets do not tell is noticed while decoding.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from itertools import takewhile
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np

from act2see.tools.video.packets import UNKNOWN, decode, demux, is_of_file
from act2see.tools.video.table import Table

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    from act2see.tools.video.packets import OpenFile

    Read = tuple[int, VideoFrame, Fraction | None]

log = logging.getLogger(__name__)
_EARLIER = (0, 1, 4)  # a frame is tried from its own keyframe, the one before, and the fourth before
_LATE = 4  # frames by which a decoder is late, where packets are lost
_PASSES = 2  # after so many passes from the start, the next one reads all that is left: time stays linear


def read_frames(open_file: OpenFile, table: Table, wanted: Sequence[int], threads: int) -> Iterator[Read]:
    """Yield frames by their numbers, with the pixels' aspect ratio in the stream. Damaged ones are left out.

    Args:
        open_file: Opens the file.
        table: The table of its frames.
        wanted: The numbers of the frames, in ascending order.
        threads: The number of decoding threads.
    """
    left = deque(wanted)
    usual = 0  # the position in `_EARLIER` that the last frames needed
    passes = 0
    with ExitStack() as opened:
        seekable: _Source | None = None
        while left:
            group = _groups(table, [left[0]])[0]
            members = _members(table, left, group)
            clean = _is_clean(table, group, members)
            for n in range(usual, len(_EARLIER)) if clean else ():
                if group - _EARLIER[n] <= 0:
                    break  # from the start
                seekable = seekable or _Source(*opened.enter_context(open_file()), table, threads)
                frames = seekable.decode(members, group - _EARLIER[n])
                yield from _collect(frames, left, members[-1])
                members = [i for i in members if left and i >= left[0]]
                if not members:
                    usual = n
                    break
                if seekable.damaged:
                    break
            if not members:
                continue
            passes += group > _EARLIER[-1]
            if passes > _PASSES:
                members = list(left)
            last = members[-1]
            if clean and not (seekable and seekable.damaged):
                with open_file() as (container, stream):
                    source = _Source(container, stream, table, threads)
                    yield from _collect(source.decode(members, None), left, last)
                members = [i for i in members if left and i >= left[0]]
            if members:
                # Threads conceal damage in other ways each time.
                with open_file() as (container, stream):
                    source = _Source(container, stream, table, 1)
                    yield from _fill(source.decode(members, None, every=True), left, last)


def enters_at_keys(open_file: OpenFile, table: Table) -> bool:
    """Return whether decoding can start at any keyframe: not so with an intra refresh.

    The second keyframe and the last are tried; a file is mostly encoded in one way.
    """
    for key in {1, len(table.keys) - 1} if len(table.keys) > 1 else ():
        with open_file() as (container, stream):
            source = _Source(container, stream, table, 1)
            if not any(True for _ in source.decode([int(table.keys[key])], key)):
                return False
    return True


def _groups(table: Table, frames: Sequence[int]) -> list[int]:
    """Return the last keyframe at or before each frame, as its position in `table.keys`; -1 for none."""
    found: list[int] = (np.searchsorted(table.keys, frames, side="right") - 1).tolist()
    return found


def _members(table: Table, left: Iterable[int], group: int) -> list[int]:
    """Return the first of the frames, as long as they belong to a group."""
    end = table.keys[group + 1] if group + 1 < len(table.keys) else len(table.packets)
    return list(takewhile(lambda i: i < end, left))


def _is_clean(table: Table, group: int, members: Sequence[int]) -> bool:
    """Return whether no packet is damaged from the keyframe of a group to the last that is decoded for it."""
    if not len(table.bad):
        return True
    first = table.packets[table.keys[group]] if group >= 0 else 0
    # Packets that show no frame are decoded with the frame before them, so up to the next that shows one.
    later = table.packets[table.packets > table.packets[members].max()]
    end = later.min() if len(later) else len(table.sizes) + 1
    return not ((table.bad >= first) & (table.bad < end)).any()


def _collect(frames: Iterable[Read], left: deque[int], last: int) -> Iterator[Read]:
    """Yield the wanted frames up to the first that does not come, and remove them from `left`.

    Args:
        frames: Frames with their numbers, in ascending order.
        left: The numbers of the wanted frames, in ascending order.
        last: The last number that `frames` is to yield.
    """
    for i, frame, coded in frames:
        if i < left[0]:
            continue
        if left[0] < i:
            return
        left.popleft()
        yield i, frame, coded
        if i == last:
            return


def _fill(frames: Iterable[Read], left: deque[int], last: int) -> Iterator[Read]:
    """Yield the wanted frames; for one that does not come, the frame that stays on screen, with its number.

    Args:
        frames: All frames from the start of the file, as `_collect`.
        left: The numbers of the wanted frames, in ascending order.
        last: The last of the wanted frames to be yielded.
    """
    before: Read | None = None
    for read in _in_order(frames):
        missing = False
        while left and left[0] < min(read[0], last + 1):
            left.popleft()
            missing = True
        if missing and before is not None:
            yield before
        before = read
        if left and left[0] == read[0]:
            left.popleft()
            yield read
            before = None  # has been yielded
        if not left or left[0] > last:
            return
    while left and left[0] <= last:
        left.popleft()
    if before is not None:
        yield before


def _in_order(frames: Iterable[Read]) -> Iterator[Read]:
    """Yield frames in ascending order: after a hole, a decoder can return some too late."""
    held: list[Read] = []
    for read in frames:
        held.append(read)
        held.sort(key=itemgetter(0))
        if len(held) > _LATE:
            yield held.pop(0)
    yield from held


def _is_start(packet: Packet[VideoStream], start: Sequence[int]) -> bool:
    """Return whether a packet is the one with these PTS, DTS and position in the file."""
    # The DTS is not compared: where a container has none, FFmpeg guesses it from the packets before.
    found = [UNKNOWN if x is None else x for x in (packet.pts, packet.pos)]
    return packet.is_keyframe and found == [start[0], start[2]]


class _Source:
    """An open file from which frames are decoded."""

    def __init__(self, container: InputContainer, stream: VideoStream, table: Table, threads: int) -> None:
        self._container = container
        self._stream = stream
        self._table = table
        self._stream.codec_context.thread_count = threads
        self._shown = np.isin(np.arange(len(table.sizes)), table.packets)
        """Whether each packet shows a frame, `(packets,)`."""
        self.damaged = False
        """Whether the last frames were found damaged."""

    def decode(self, wanted: Sequence[int], key: int | None, *, every: bool = False) -> Iterator[Read]:
        """Yield the wanted frames that come, with their numbers.

        Args:
            wanted: The numbers of the frames.
            key: The keyframe to seek, as its position in `Table.keys`; None to decode from the start of a
                file just opened.
            every: Whether to yield the other frames, too.
        """
        codec, table = self._stream.codec_context, self._table
        numbers = {int(table.packets[i]): i for i in wanted}
        skip = not every
        last = max(numbers)
        if every:
            numbers = {n: i for i, n in enumerate(table.packets[: wanted[-1] + 1].tolist())}
        entry = None if key is None else int(table.packets[table.keys[key]])
        start = 0 if key is None else int(table.keys[key])
        self.damaged = False
        for frame in self._decode(numbers, key, last, skip=skip):
            # What precedes the keyframe on screen lacks the frames that it refers to.
            self.damaged |= frame.is_corrupt and self._place(frame.pts) >= start
            if self.damaged and skip:
                return
            if frame.pts == entry:
                entry = None
            if frame.pts not in numbers:
                continue
            i = numbers[frame.pts]
            if entry is None or key is None or i >= self._next_key(key):
                yield i, frame, codec.sample_aspect_ratio

    def _place(self, packet: int | None) -> int:
        """Return the number of the frame of a packet; -1 if it shows none."""
        found = np.flatnonzero(self._table.packets == packet)
        return int(found[0]) if len(found) else -1

    def _next_key(self, key: int) -> int:
        """Return the number of the keyframe after one, or of the end."""
        keys = self._table.keys
        return int(keys[key + 1]) if key + 1 < len(keys) else len(self._table.packets)

    def _decode(
        self, wanted: Collection[int], key: int | None, last: int, *, skip: bool
    ) -> Iterator[VideoFrame]:
        """Yield the frames that come, as `_packets`."""
        import av

        try:
            for packet in self._packets(wanted, key, last, skip=skip):
                yield from self._frames(packet)
        except av.error.FFmpegError as e:
            if not is_of_file(e):
                raise
            log.debug("%s cannot be read further: %s", self._container.name, e)
        yield from self._frames(None)

    def _frames(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        """Decode a packet, or with None the last frames."""
        found: list[VideoFrame] = []
        self.damaged |= not decode(self._stream, packet, found)
        return found

    def _packets(
        self, wanted: Collection[int], key: int | None, last: int, *, skip: bool
    ) -> Iterator[Packet[VideoStream]]:
        """Yield numbered packets up to the last wanted one.

        Args:
            wanted: The numbers of the wanted packets.
            key: The keyframe to seek, as its position in `Table.keys`; None for the start of the file.
            last: The last of them.
            skip: Whether frames that are not wanted may be left out.
        """
        codec, table = self._stream.codec_context, self._table
        # libdav1d reads `skip_frame` only when it is opened, and would leave out wanted frames as well.
        skips = skip and codec.name != "libdav1d"
        n = entry = -1  # the packet before the next one, and that of the keyframe
        start: list[int] | None = None
        if key is not None:
            entry = int(table.packets[table.keys[key]])
            n = entry - 1
            pts, dts, _ = start = table.starts[key].tolist()
            # By DTS: some containers seek by DTS, and in the others it is not after the keyframe.
            if dts == pts == UNKNOWN:
                return
            self._container.seek(pts if dts == UNKNOWN else dts, stream=self._stream)
        for packet in demux(self._container, self._stream):
            if start and not _is_start(packet, start):
                continue
            start = None
            n += 1
            if n == len(table.sizes) or packet.size != table.sizes[n] or (n > last and self._shown[n]):
                return
            # Skip unwanted frames that no other frame refers to. A packet that shows no frame of its own can
            # be the second half of the one before.
            if skips and self._shown[n]:
                codec.skip_frame = "DEFAULT" if n in wanted or n == entry else "NONREF"
            packet.pts = packet.dts = n
            yield packet
