"""The finished part of an index that is being built, on disk, so that an interruption loses little work.

Each segment is a file with the vectors of consecutive frames, in the folder `ID.parts` beside the index. A
segment is used only if it is undamaged, was made for this index (the same video, encoder and rate), and holds
exactly the frames that come next; otherwise it and those after it are deleted. The folder contains no file
of a complete index, so it cannot be taken for one. It is deleted when the index is complete.

Segments hold the same values that an uninterrupted build adds, in fp16.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from act2see.tools.runtime.files import replacing_file

log = logging.getLogger(__name__)
Batch = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float16]]
"""`(n,)` numbers of the frames in the video, `(n,)` their times, `(n, tokens, dim)` their vectors."""


class UnfinishedIndex:
    """The segments of one index. Only the holder of the index's lock may use them.

    Args:
        folder: The folder of the segments.
        id: The name of the index.
        save_every: The number of seconds between two segments.
    """

    def __init__(self, folder: Path, id: str, save_every: float) -> None:
        self.folder = folder
        self.id = id
        self.save_every = save_every
        self.taken_up = 0
        """Number of frames that an earlier build encoded."""
        self._segments = 0
        self._unsaved: list[Batch] = []
        self._saved = time.monotonic()

    def read(self, frames: Sequence[int]) -> Iterator[Batch]:
        """Yield the segments that an earlier build saved, in order.

        Args:
            frames: The numbers of all frames to index.
        """
        files = sorted(self.folder.glob("[0-9]*.npz"))
        for n, file in enumerate(files):
            try:
                batch = self._read(file, frames[self.taken_up :])
            except Exception as e:  # of zipfile or NumPy: the file is damaged
                log.warning("%s cannot be used (%s); its frames are encoded again", file, e)
                for unused in files[n:]:
                    unused.unlink(missing_ok=True)
                return
            self._segments += 1
            self.taken_up += len(batch[0])
            yield batch

    def add(self, batch: Batch) -> bool:
        """Add the next frames. Return whether a segment was written now, because it was time.

        Raises:
            OSError: The segment cannot be written.
        """
        self._unsaved.append(batch)
        if time.monotonic() - self._saved < self.save_every:
            return False
        self.save()
        return True

    def save(self) -> None:
        """Write the frames that are not saved yet as a segment.

        Raises:
            OSError: The segment cannot be written.
        """
        if self._unsaved:
            frames, seconds, vectors = (np.concatenate(arrays) for arrays in zip(*self._unsaved, strict=True))
            with replacing_file(self.folder / f"{self._segments:06}.npz") as new:
                np.savez(new, id=np.array(self.id), frames=frames, seconds=seconds, vectors=vectors)
            self._segments += 1
            self._unsaved = []
        self._saved = time.monotonic()

    def delete(self) -> None:
        """Delete all segments, and start without any."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.taken_up = self._segments = 0
        self._unsaved = []

    def _read(self, file: Path, expected: Sequence[int]) -> Batch:
        """Read a segment, which must have the first of the `expected` frames. Raises if it cannot be used."""
        with np.load(file) as saved:  # the archive has a checksum of each array
            id, frames, seconds, vectors = (saved[key] for key in ("id", "frames", "seconds", "vectors"))
        if str(id) != self.id:
            raise ValueError(f"it belongs to {id}")
        n = len(frames)
        if not n or frames.tolist() != list(expected[:n]) or not n == len(seconds) == len(vectors):
            raise ValueError("it does not have the next frames")
        return frames, seconds, vectors
