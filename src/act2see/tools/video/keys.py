"""Which keyframes decoding can start at. A keyframe is one by its packet's flag, and that is not enough:

- A palette that comes beside a packet holds for all later pictures. AVI and MOV send it with the first one.
  AVI can send another one later, but not after a seek to its packet. The same holds for codecs whose palette
  is in the pictures before, except those with a palette in each keyframe.
- A codec's header can change in mid-stream, as in joined files. It comes beside one packet, and perhaps not
  after a seek; in MPEG-4, H.264 and HEVC it may be in the first keyframe of the second part alone.
- A packet without a position in the file is recognised by its timestamp alone. Where a clock was set back,
  another packet may have the same one.
- FFmpeg's parsers of H.261 and H.263 flag every packet. The kinds of the pictures, which only decoding tells,
  show that: `are_guessed`.

From other keyframes, the pictures would look right and be wrong. These are decoded from an earlier one, at
last from the start of the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from act2see.tools.video.headers import are_whole, headers_in

if TYPE_CHECKING:
    from av.video.stream import VideoStream

    from act2see.tools.video.packets import Mark

_INTRA_ONLY = 1  # FFmpeg's AV_CODEC_PROP_INTRA_ONLY
_OWN_PALETTE = frozenset({"gif", "zmbv"})  # codecs whose keyframes have their palette


def find_keys(stream: VideoStream, marks: Sequence[Mark], order: Sequence[int]) -> list[int]:
    """Return the numbers of the frames at which decoding can start. The first keyframe is always one.

    Args:
        stream: The video stream.
        marks: Its packets.
        order: Numbers of the packets in the order of their frames on screen.
    """
    keys = [i for i, n in enumerate(order) if marks[n].key]
    if any(mark.palette for mark in marks) or _keeps_palette(stream):
        return keys[:1]
    stamps = Counter(mark.pts for mark in marks if mark.key)
    change = find_change(stream, marks)
    usable = keys[:1]
    for i in keys[1:]:
        mark = marks[order[i]]
        changed = change is not None and order[i] >= change
        if changed and not are_whole(stream.codec_context.name, mark.within):
            continue
        if mark.place is not None or stamps[mark.pts] == 1:
            usable.append(i)
    return usable


def find_change(stream: VideoStream, marks: Sequence[Mark]) -> int | None:
    """Return the number of the first packet with another header of the codec than before; None for none."""
    context = stream.codec_context
    first = context.extradata or b""
    known = set(headers_in(context.name, first, first))
    for n, mark in enumerate(marks):
        if (mark.beside and mark.beside != first) or not known.issuperset(mark.within):
            return n
    return None


def are_guessed(kinds: Sequence[int], keys: Sequence[int]) -> bool:
    """Return whether the flags of keyframes are wrong: each frame has one, also those that refer to others.

    Args:
        kinds: The kinds of the first frames, or of all.
        keys: The numbers of the frames that are said to be keyframes, in order.
    """
    from av.video.frame import PictureType

    all_keys = list(keys[: len(kinds)]) == list(range(len(kinds)))
    return all_keys and any(kind in (PictureType.P, PictureType.B) for kind in kinds)


def _keeps_palette(stream: VideoStream) -> bool:
    """Return whether the palette of a picture may be in the pictures before."""
    context = stream.codec_context
    if context.pix_fmt != "pal8" or context.name in _OWN_PALETTE:
        return False
    return not context.codec.properties & _INTRA_ONLY
