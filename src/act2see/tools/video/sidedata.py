"""What a decoded frame carries beside its picture, by kind: its display matrix, its light.

PyAV lists the kinds that it knows, and raises `ValueError` for a frame with any other, so that one kind of
FFmpeg's that is newer than PyAV (EXIF is one) would hide all the others. So its list is told to accept them.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av.video.frame import VideoFrame


def read_side_data(frame: VideoFrame) -> dict[str, bytes]:
    """Return the side data of a frame by the names of PyAV's `Type`, without kinds that it does not know.

    A frame whose side data was read stays in memory until the next garbage collection: the two refer to each
    other.
    """
    from av.sidedata import sidedata

    kinds: Any = sidedata.Type
    if "_missing_" not in vars(kinds):
        kinds._missing_ = classmethod(_make_unknown)
    parts: Any = frame.side_data  # PyAV's types say that it yields strings
    return {data.type.name: bytes(data) for data in parts if data.type.name in kinds.__members__}


def _make_unknown(kinds: type[Enum], value: object) -> Enum:
    """Return a kind that is not a member of the list."""
    kind = object.__new__(kinds)
    kind._name_ = f"UNKNOWN_{value}"
    kind._value_ = value
    return kind
