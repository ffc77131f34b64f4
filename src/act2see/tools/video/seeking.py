"""Reading frames of a file by their numbers.

Decoding starts at the keyframe before a wanted frame and ends with the frame. A frame can fail to come: after
a seek, H.264 with intra refresh returns nothing before the picture has recovered, and some containers seek to
a wrong place. It is then tried again from earlier keyframes, and at last from the start of the file, as a
player would reach it. Only a frame that does not come then is damaged.

Frames near damaged packets depend on what was decoded before them, so they are always read from the start.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from itertools import takewhile
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
            if not members:
                continue
            passes += group > _EARLIER[-1]
            if passes > _PASSES:
                members = list(left)
            # A frame that does not come although no packet is damaged may come at a second try.
            for is_last in (False, True) if clean else (True,):
                with open_file() as (container, stream):
                    source = _Source(container, stream, table, threads if clean else 1)
                    yield from _collect(source.decode(members, None), left, members[-1], gaps=is_last)
                members = [i for i in members if left and i >= left[0]]
                if not members:
                    break


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


def _collect(frames: Iterable[Read], left: deque[int], last: int, *, gaps: bool = False) -> Iterator[Read]:
    """Yield the wanted frames, and remove them from `left`.

    Args:
        frames: Frames with their numbers, in ascending order.
        left: The numbers of the wanted frames, in ascending order.
        last: The last number that `frames` is to yield.
        gaps: Whether to go on if a wanted frame did not come. It is then removed too.
    """
    for i, frame, coded in frames:
        if i < left[0]:
            continue
        while left[0] < i:
            if not gaps:
                return
            left.popleft()
        left.popleft()
        yield i, frame, coded
        if i == last:
            return
    while gaps and left and left[0] <= last:
        left.popleft()


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

    def decode(self, wanted: Sequence[int], key: int | None) -> Iterator[Read]:
        """Yield the wanted frames that come, with their numbers.

        Args:
            wanted: The numbers of the frames.
            key: The keyframe to seek, as its position in `Table.keys`; None to decode from the start of a
                file just opened.
        """
        import av

        codec = self._stream.codec_context
        numbers = {int(self._table.packets[i]): i for i in wanted}
        try:
            for packet in self._packets(numbers, key):
                for frame in decode(self._stream, packet):
                    if frame.pts in numbers:
                        yield numbers[frame.pts], frame, codec.sample_aspect_ratio
        except av.error.FFmpegError as e:
            if not is_of_file(e):
                raise
            log.debug("%s cannot be read further: %s", self._container.name, e)
        for frame in decode(self._stream, None):
            if frame.pts in numbers:
                yield numbers[frame.pts], frame, codec.sample_aspect_ratio

    def _packets(self, wanted: Collection[int], key: int | None) -> Iterator[Packet[VideoStream]]:
        """Yield numbered packets up to the last wanted one.

        Args:
            wanted: The numbers of the wanted packets.
            key: The keyframe to seek, as its position in `Table.keys`; None for the start of the file.
        """
        codec, table = self._stream.codec_context, self._table
        # libdav1d reads `skip_frame` only when it is opened, and would leave out wanted frames as well.
        skips = codec.name != "libdav1d"
        last = max(wanted)
        n = -1  # the packet before the next one
        start: list[int] | None = None
        if key is not None:
            n = int(table.packets[table.keys[key]]) - 1
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
                codec.skip_frame = "DEFAULT" if n in wanted else "NONREF"
            packet.pts = packet.dts = n
            yield packet
