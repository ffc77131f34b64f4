"""Changes of a file's bytes: cuts, damage, lost packets, edit lists. Each is the same every time."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

Change = Callable[[bytes], bytes]
_TS = 188  # bytes of a packet of MPEG-TS
_BOXES = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts")


def keep(first: float, last: float) -> Change:
    """Keep a part of the file, given in shares of its length."""
    return lambda data: data[round(len(data) * first) : round(len(data) * last)]


def zero(first: float, last: float) -> Change:
    """Set a part of the file to zero."""

    def change(data: bytes) -> bytes:
        a, b = round(len(data) * first), round(len(data) * last)
        return data[:a] + bytes(b - a) + data[b:]

    return change


def flip(count: int, first: float, last: float, seed: int = 0) -> Change:
    """Flip single bits in a part of the file."""

    def change(data: bytes) -> bytes:
        rng, out = random.Random(seed), bytearray(data)
        for _ in range(count):
            out[rng.randrange(round(len(data) * first), round(len(data) * last))] ^= 1 << rng.randrange(8)
        return bytes(out)

    return change


def lose(every: int, first: float = 0.3, last: float = 0.7) -> Change:
    """Lose every so many packets of MPEG-TS, in a part of the file."""

    def change(data: bytes) -> bytes:
        packets = [data[at : at + _TS] for at in range(0, len(data), _TS)]
        a, b = len(packets) * first, len(packets) * last
        return b"".join(p for n, p in enumerate(packets) if not (a <= n < b and n % every == every - 1))

    return change


def restamp(place: int, by: int) -> Change:
    """Move the PTS of a picture in MPEG-TS, by ticks of 90 kHz. The place is that in the file."""

    def change(data: bytes) -> bytes:
        out, seen = bytearray(data), 0
        for at in range(0, len(out) - _TS + 1, _TS):
            body = at + 4 + (1 + out[at + 4] if out[at + 3] & 0x20 else 0)
            if not out[at + 1] & 0x40 or out[body : body + 3] != b"\0\0\1" or out[body + 3] >> 4 != 0xE:
                continue
            if seen == place and out[body + 7] & 0x80:
                _write_stamp(out, body + 9, by)
                if out[body + 7] & 0x40:
                    _write_stamp(out, body + 14, by)
            seen += 1
        return bytes(out)

    return change


def _write_stamp(out: bytearray, at: int, by: int) -> None:
    high, middle, low = out[at] >> 1 & 7, int.from_bytes(out[at + 1 : at + 3], "big") >> 1, 0
    low = int.from_bytes(out[at + 3 : at + 5], "big") >> 1
    stamp = ((high << 30 | middle << 15 | low) + by) % (1 << 33)
    out[at] = out[at] & 0xF0 | (stamp >> 30 & 7) << 1 | 1
    out[at + 1 : at + 3] = ((stamp >> 15 & 0x7FFF) << 1 | 1).to_bytes(2, "big")
    out[at + 3 : at + 5] = ((stamp & 0x7FFF) << 1 | 1).to_bytes(2, "big")


def edit(skipped: float) -> Change:
    """Move the start of an MP4's edit list by so many seconds, as a cut without encoding does."""

    def change(data: bytes) -> bytes:
        found = {name: (start, end) for name, start, end in _walk(data)}
        start = found[b"mdhd"][0]
        scale = struct.unpack(">I", data[start + 12 : start + 16])[0]
        at = found[b"elst"][0] + 12
        media = struct.unpack(">i", data[at : at + 4])[0] + round(skipped * scale)
        return data[:at] + struct.pack(">i", media) + data[at + 4 :]

    return change


def retag(name: bytes, start: int, value: bytes) -> Change:
    """Overwrite bytes of the first MP4 box of a name."""

    def change(data: bytes) -> bytes:
        at = next(begin for box, begin, _ in _walk(data) if box == name) + start
        return data[:at] + value + data[at + len(value) :]

    return change


def damage_media(first: float, last: float) -> Change:
    """Set a part of an MP4's pictures to zero, but not of its tables."""

    def change(data: bytes) -> bytes:
        begin, end = next((a, b) for box, a, b in _walk(data) if box == b"mdat")
        a, b = (begin + round((end - begin) * share) for share in (first, last))
        return data[:a] + bytes(b - a) + data[b:]

    return change


def _walk(data: bytes, start: int = 0, stop: int | None = None) -> list[tuple[bytes, int, int]]:
    """Return the boxes of an MP4: name, start and end of the content."""
    found, stop = [], len(data) if stop is None else stop
    while start + 8 <= stop:
        size, name = struct.unpack(">I4s", data[start : start + 8])
        if size < 8:
            break
        found.append((name, start + 8, start + size))
        if name in _BOXES:
            found += _walk(data, start + 8, start + size)
        start += size
    return found


def repeat_tags(places: tuple[int, ...], stamps: dict[int, int]) -> Change:
    """Change an FLV: pictures in these places get the timestamp before; others get these, in ms."""

    def change(data: bytes) -> bytes:
        out, at, n, before = bytearray(data), 13, 0, 0
        while at + 11 < len(out):
            if out[at] == 9:  # a picture
                own = out[at + 7] << 24 | int.from_bytes(out[at + 4 : at + 7], "big")
                stamp = before if n in places else stamps.get(n, own)
                out[at + 4 : at + 8] = (stamp & 0xFFFFFF).to_bytes(3, "big") + bytes([stamp >> 24])
                before, n = own, n + 1
            at += 15 + int.from_bytes(out[at + 1 : at + 4], "big")
        return bytes(out)

    return change
