"""decord, the decoder that many video models are evaluated with, for `video: {decoder: decord}`.

It needs the extra `decord`, and PyAV is the default, since decord2 3.4 lost on every count
(`benchmarks/decode.py`): it takes 13 to 23 % more CPU time; it reads the compressed file ahead without bound,
580 MiB for an hour of 720p; and it gives other frames than those asked for, silently, where keyframes do not
stand in decoding order where they stand on the screen, or the container is neither MP4 nor Matroska (open
GOPs, so most HEVC; MPEG-4 with B-frames; AVI, MPEG-TS, MPEG-PS; edit lists). `Table.decord` says which files
it reads right; the others, and those on which it fails, are read by PyAV.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

from act2see.errors import ConfigError
from act2see.tools.video.store import Pixels

_BATCH, _BATCH_BYTES = 16, 32 << 20


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
    """Stream frames of a file by their numbers in it.

    Args:
        path: The file.
        count: How many frames it is known to have.
        wanted: The numbers of the frames, in ascending order.
        size: Width and height of the pictures.
        threads: How many threads decode.

    Raises:
        RuntimeError: decord counts the frames differently, so its numbers mean other frames.
        Exception: decord has a type of its own for errors, and raises plain assertions too.
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
    for start in range(0, len(wanted), batch):  # it seeks by itself; a tenth quicker than frame by frame
        numbers = wanted[start : start + batch]
        for i, pixels in zip(numbers, reader.get_batch(numbers).asnumpy(), strict=True):
            yield i, pixels.copy()  # a caller that keeps one frame must not keep the batch
