"""Decoding by decord, with which many video models are evaluated, for `video: {decoder: decord}`.

decord needs the extra `decord`. PyAV is the default, because decord2 3.4 was worse in every respect
(`benchmarks/decode.py`):

- It takes 13 to 23 % more CPU time.
- It reads the compressed file ahead without limit: 580 MiB for an hour of 720p.
- It silently returns wrong frames if the container is neither MP4 nor Matroska, or if keyframes have other
  positions in decoding order than in presentation order. This concerns open GOPs (so most HEVC), MPEG-4 with
  B-frames, AVI, MPEG-TS, MPEG-PS and edit lists.

`Table.decord` is true for files that decord reads correctly. All others, and files on which it fails, are
read by PyAV.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

from act2see.errors import ConfigError
from act2see.tools.video.store import Pixels

_BATCH = 16  # largest number of frames that decord returns at once
_BATCH_BYTES = 32 << 20  # largest size of them, decoded


def check_decord() -> None:
    """Raise `ConfigError` if decord is not installed."""
    if find_spec("decord") is None:
        raise ConfigError(
            "`video: {decoder: decord}` needs decord, which is not installed: pip install 'act2see[decord]', "
            "or leave the key out to decode with PyAV"
        )


def read_by_decord(
    path: str, count: int, wanted: Sequence[int], size: tuple[int, int], threads: int
) -> Iterator[tuple[int, Pixels]]:
    """Yield frames of a file with their numbers.

    Args:
        path: The file.
        count: The known number of frames of the file.
        wanted: The numbers of the frames, in ascending order.
        size: Width and height of the pictures, in pixels.
        threads: The number of decoding threads.

    Raises:
        RuntimeError: decord counts a different number of frames, so its numbers mean other frames.
        Exception: decord's own error type, or an assertion of it.
    """
    if not wanted:
        return
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    width, height = size
    reader = decord.VideoReader(os.path.abspath(path), width=width, height=height, num_threads=threads)
    if len(reader) != count:
        raise RuntimeError(f"it counts {len(reader)} frames, not {count}")
    batch = max(1, min(_BATCH, _BATCH_BYTES // (width * height * 3)))
    for start in range(0, len(wanted), batch):  # a tenth faster than frame by frame
        numbers = wanted[start : start + batch]
        pictures = reader.get_batch(numbers).asnumpy()  # (frames, height, width, 3)
        for i, pixels in zip(numbers, pictures, strict=True):
            yield i, pixels.copy()  # so that a caller that keeps one frame does not keep the batch
