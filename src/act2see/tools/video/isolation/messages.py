"""What the two processes say to each other: the kinds of messages, and the limits of the child.

A message is one byte for its kind, then JSON or numbers of a fixed form; never a pickle, since whoever takes
over the child could then run code in the parent. Pixels are not in messages: they lie in memory that both
processes map, in slots of one picture each.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

READY, REPLY, TIMES, FRAME, END, ERROR, LOG = b"R", b"J", b"T", b"F", b"D", b"E", b"L"
"""From the child: it has started; an answer; times of frames; a frame is in a slot; no more frames; ..."""
TAKEN, STOP = b"+", b"-"
"""From the parent: the oldest slot is free again; send no more frames."""
HEADER = struct.Struct("<IQd")
"""Of a frame: its slot, its number and its time in seconds."""
ROOM = 512 << 20
"""Bytes of shared memory: the largest picture, four times widened. Only what is used takes memory."""
AHEAD = 8
"""The most pictures that the child decodes ahead."""
LONGEST = 64 << 20
"""The longest message, in bytes: the times of `MAX_FRAMES` frames take 41 MB."""
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What decoding may cost. A step is opening a file, or the way to the next frame."""

    memory: int = 3 << 30
    """Bytes of address space, besides those that the child has at its start: 8K takes 1.3 to 2 GB."""
    seconds: float = 120.0
    """Seconds of computing for a step, for a small file."""
    seconds_per_mib: float = 4.0
    """More seconds for each MiB of the file: of a damaged file, all frames are decoded to list them."""
    patience: float = 4.0
    """How many times longer a step may last on the clock, where the processors are busy."""
    files: int = 64
    """Open files."""

    def computing(self, size: int) -> float:
        """Return the seconds of computing for a step, for a file of `size` bytes."""
        return self.seconds + self.seconds_per_mib * size / _MIB


def encode(kind: bytes, content: Any) -> bytes:
    """Return a message of JSON."""
    return kind + json.dumps(content).encode("ascii")


def decode(message: bytes) -> Any:
    """Return the content of a message of JSON. Raises `ValueError` if it is not JSON."""
    return json.loads(message[1:])
