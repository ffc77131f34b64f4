"""Headers of codecs that are in the packets themselves: without them, later pictures are decoded wrongly.

MPEG-4 (part 2) has one, its "video object layer". H.264 and HEVC have parameter sets, which most encoders
repeat in each keyframe, but recorders may not. Only what comes before a packet's picture is searched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer

Headers = tuple[bytes, ...]

_SEARCHED = 1 << 16  # bytes of a packet: messages to players may stand before the headers
_START = b"\0\0\1"
_LAYER = re.compile(rb"\x00\x00\x01[\x20-\x2f].*?(?=\x00\x00\x01|$)", re.S)
_LAYER_ENDS = 512  # bytes in which the header of MPEG-4 ends
_SETS = {"h264": range(7, 9), "hevc": range(32, 35)}  # kinds of units that are parameter sets
_PICTURES = {"h264": range(1, 6), "hevc": range(32)}
_NEEDED = {"h264": {7, 8}, "hevc": {33, 34}}
_LENGTH_AT = {"h264": 4, "hevc": 21}  # where a file's own header says how long the lengths of units are


def headers_in(codec: str, data: Buffer, extra: bytes) -> Headers:
    """Return the headers at the start of a packet, or of a file's own header.

    Args:
        codec: FFmpeg's name of the codec.
        data: A packet, or the file's own header.
        extra: The file's own header, which says how packets are written.
    """
    if codec == "mpeg4":
        found = _LAYER.search(bytes(memoryview(data)[:_LAYER_ENDS]))
        return _shared((found[0],)) if found else ()
    if codec not in _SETS:
        return ()
    start = bytes(memoryview(data)[:_SEARCHED])
    if not extra.startswith(b"\1"):
        units = _by_start_codes(start)
    elif start == extra[:_SEARCHED]:
        units = _of_file(codec, start)
    else:
        units = _by_lengths(start, _length_of(codec, extra))
    out = []
    for unit in units:
        kind = _kind(codec, unit)
        if kind in _SETS[codec]:
            out.append(unit)
        elif kind in _PICTURES[codec]:
            break
    return _shared(tuple(out))


def are_whole(codec: str, headers: Headers) -> bool:
    """Return whether pictures can be decoded by these headers alone."""
    return bool(headers) and _NEEDED.get(codec, set()) <= {_kind(codec, unit) for unit in headers}


@lru_cache(64)
def _shared(headers: Headers) -> Headers:
    """Return the same object for equal headers: a long recording repeats them at every keyframe."""
    return headers


def _kind(codec: str, unit: bytes) -> int:
    if codec == "hevc":
        return unit[0] >> 1 & 63
    return unit[0] & 31 if codec == "h264" else 0


def _length_of(codec: str, extra: bytes) -> int:
    at = _LENGTH_AT[codec]
    return (extra[at] & 3) + 1 if len(extra) > at else 4


def _by_start_codes(data: bytes) -> Iterator[bytes]:
    at = data.find(_START)
    while at >= 0:
        after = data.find(_START, at + 3)
        if unit := data[at + 3 : None if after < 0 else after].rstrip(b"\0"):
            yield unit
        at = after


def _by_lengths(data: bytes, size: int) -> Iterator[bytes]:
    at = 0
    while at + size < len(data):
        end = at + size + int.from_bytes(data[at : at + size], "big")
        if unit := data[at + size : end].rstrip(b"\0"):
            yield unit
        at = end


def _of_file(codec: str, extra: bytes) -> Iterator[bytes]:
    """Yield the units of the header of an MP4, MKV or FLV (avcC or hvcC)."""
    if codec == "h264":  # the sets of the sequence, then those of the pictures
        at = 5
        for mask in (31, 255):
            count, at = (extra[at] & mask if at < len(extra) else 0), at + 1
            for _ in range(count):
                yield from _by_lengths(extra[at : (end := _end_of_unit(extra, at))], 2)
                at = end
        return
    at = 23
    for _ in range(extra[22] if len(extra) > at else 0):  # an array of units of each kind
        count, at = int.from_bytes(extra[at + 1 : at + 3], "big"), at + 3
        for _ in range(count):
            yield from _by_lengths(extra[at : (end := _end_of_unit(extra, at))], 2)
            at = end


def _end_of_unit(data: bytes, at: int) -> int:
    return min(len(data), at + 2 + int.from_bytes(data[at : at + 2], "big"))
