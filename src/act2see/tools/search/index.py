"""The index of one video: FAISS over the query-token vectors of its frames, memory-mapped from disk.

The vectors of frame i are the rows from i * tokens to (i + 1) * tokens. The score of frame t is

    s_t = mean over phrasings m of max over query tokens p of cos(u_m, v_{t,p})

`scores` searches for the best rows. Frames among them have exact scores; any other frame has the lowest score
found, an upper bound of its own. An hour at 3 fps has 10,800 x 32 x 256 values, 169 MiB in fp16.

An index is written atomically, as a folder. Its files have checksums, which are compared before FAISS reads
the file: FAISS ends the process on some damaged files, and searches zeroes in others. One that cannot be read
is built again, with a warning (`tools/search/finder.py`).
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from act2see.errors import StoreError
from act2see.tools.frames import Curve
from act2see.tools.runtime.files import replacing_folder
from act2see.tools.runtime.forks import natively
from act2see.tools.runtime.text import quote_text
from act2see.tools.search.segments import FrameSegment as FrameSegment, find_segments as find_segments
from act2see.tools.video.uses import use_file

INDEX_VERSION = 2
"""Version of the files. Version 1, of act2see 0.1.0, had no checksums; such an index is built again."""
_ROWS = 16_384  # smallest number of rows that a search asks for
_FILES = ("rows.faiss", "frames.npz")
_CHUNK = 1 << 20
Scores = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FrameIndex:
    """Searchable frames of one video."""

    id: str
    rows: Any
    """The FAISS index: `(frames x tokens, dim)`."""
    tokens: int
    """Number of vectors per frame."""
    seconds: NDArray[np.float64]
    """Times of the indexed frames, `(frames,)`."""
    frames: NDArray[np.int64]
    """Numbers of the indexed frames in the video, `(frames,)`."""

    def __len__(self) -> int:
        return len(self.seconds)

    def scores(self, phrases: NDArray[np.float32], best: int = 1, above: float | None = None) -> Scores:
        """Return the scores of all frames.

        Args:
            phrases: `(phrases, dim)` vectors of length 1.
            best: How many of the highest scores must be exact.
            above: If given, scores above it must be exact too.

        Returns:
            `(frames,)` scores: those that must be are exact, for a short video all. Others are upper bounds.
            A frame for which the encoder computed NaN has the lowest cosine, -1.

        Raises:
            StoreError: No frame has a score.
        """
        total = len(self) * self.tokens
        wanted = min(total, max(_ROWS, best * self.tokens))
        by_phrase, exact = self._search(phrases, wanted)
        scores: Scores = by_phrase.mean(0)
        needed = np.argsort(-scores)[:best]
        if above is not None:
            needed = np.union1d(needed, np.flatnonzero(scores > above))
        if not exact[:, needed].all():
            # With several phrasings a frame can lead by an upper bound: then all rows are searched.
            scores = self._search(phrases, total)[0].mean(0)
        return scores

    @natively
    def _search(self, phrases: NDArray[np.float32], k: int) -> tuple[Scores, NDArray[np.bool_]]:
        """Return `(phrases, frames)` scores from the `k` best rows, and which of them are exact."""
        similarity, row = self.rows.search(np.ascontiguousarray(phrases, np.float32), k)  # (phrases, k) each
        found = (row >= 0) & np.isfinite(similarity)  # FAISS does not find vectors with NaN
        if not found.any(1).all():
            raise StoreError(
                f"the index {self.id} gives no valid scores, since the encoder computed NaN: set "
                "`encoder.dtype: float32` in a config file"
            )
        similarity = np.where(found, similarity, np.float32(-1))
        scores = np.repeat(similarity[:, -1:], len(self), 1).astype(np.float32)
        exact = np.zeros(scores.shape, bool)
        for m in range(len(phrases)):
            # Rows are sorted by similarity, so the first row of a frame is its best.
            frame, first = np.unique(row[m] // self.tokens, return_index=True)
            scores[m, frame] = similarity[m, first]
            exact[m, frame] = True
        return scores, exact

    def curve(self, scores: Scores, values: int = 128) -> Curve:
        """Return the scores over time, as at most `values` values, each the highest of its part."""
        n = len(scores)
        parts = np.array_split(scores, min(values, n))
        span = float(self.seconds[-1] - self.seconds[0]) if n > 1 else 0.0
        step = span / max(1, n - 1) * (n / len(parts))
        return Curve(
            start=float(self.seconds[0]),
            step=round(step, 4),
            values=tuple(round(float(part.max()), 3) for part in parts),
        )


class IndexWriter:
    """Collects the frames of an index batch by batch, and writes the index to a folder."""

    def __init__(self) -> None:
        self._frames: list[NDArray[np.int64]] = []
        self._seconds: list[NDArray[np.float64]] = []
        self._rows: Any = None
        self._tokens = 0

    @natively
    def add(
        self, frames: NDArray[np.int64], seconds: NDArray[np.float64], features: NDArray[np.float16]
    ) -> None:
        """Add the next frames.

        Args:
            frames: `(n,)` numbers of the frames in the video.
            seconds: `(n,)` times of the frames.
            features: `(n, tokens, dim)` vectors of length 1.
        """
        import faiss

        n, self._tokens, dim = features.shape
        if self._rows is None:
            self._rows = faiss.IndexScalarQuantizer(
                dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
            )
        self._rows.add(np.ascontiguousarray(features.reshape(n * self._tokens, dim), np.float32))
        self._frames.append(frames)
        self._seconds.append(seconds)

    @natively
    def write(self, folder: Path, id: str, meta: dict[str, Any]) -> FrameIndex:
        """Write the index to a folder, and open it.

        Args:
            folder: The folder, which is replaced if it exists.
            id: The name of the index.
            meta: Facts to save with the index.

        Raises:
            StoreError: No frame was added, or the folder cannot be written.
        """
        import faiss

        if self._rows is None:
            raise StoreError("there is no frame to index")
        facts = {
            "index_version": INDEX_VERSION,
            **meta,
            "id": id,
            "tokens": self._tokens,
            "rows": self._rows.ntotal,
        }
        try:
            with replacing_folder(folder) as new:
                faiss.write_index(self._rows, str(new / "rows.faiss"))
                np.savez(
                    new / "frames.npz",
                    frames=np.concatenate(self._frames),
                    seconds=np.concatenate(self._seconds),
                )
                facts["checksums"] = {name: _checksum(new / name) for name in _FILES}
                (new / "meta.json").write_text(json.dumps(facts))
        except (OSError, RuntimeError) as e:  # FAISS raises a RuntimeError if it cannot write a file
            why = getattr(e, "strerror", None) or " ".join(str(e).split())
            raise StoreError(
                f"cannot write the index to {folder.parent}: {why}; free some space or set ACT2SEE_CACHE "
                "to another folder"
            ) from e
        return read_index(folder, id)


@natively
def read_index(folder: Path, id: str) -> FrameIndex:
    """Open an index, memory-mapped.

    Args:
        folder: The folder of the index.
        id: The name that the index must have.

    Raises:
        StoreError: The index is missing or damaged, or has another name.
    """
    import faiss

    try:
        meta = json.loads((folder / "meta.json").read_text())
        if meta.get("index_version") != INDEX_VERSION:
            raise ValueError(
                f"its version is {quote_text(str(meta.get('index_version', 1)))}, not {INDEX_VERSION}"
            )
        if meta["id"] != id:
            raise ValueError(f"its name is {quote_text(str(meta['id']))}")
        if not id.startswith(f"{meta.get('video', id)}"):
            raise ValueError("it has the frames of another video")
        for name in _FILES:
            if _checksum(folder / name) != meta["checksums"][name]:
                raise ValueError(f"{name} is not as it was written")
        rows = faiss.read_index(str(folder / "rows.faiss"), faiss.IO_FLAG_MMAP_IFC)
        with np.load(folder / "frames.npz") as f:
            frames, seconds = f["frames"], f["seconds"]
        if not rows.ntotal == meta["rows"] == len(frames) * meta["tokens"] or len(frames) != len(seconds):
            raise ValueError("its files do not belong together")
    except Exception as e:  # of FAISS, NumPy or JSON: the files are damaged
        if isinstance(e, FileNotFoundError) and not (folder / "meta.json").exists():
            raise StoreError(f"no index in {folder}") from e
        raise StoreError(f"the index {folder} is damaged: {e}") from e
    use_file(folder / "meta.json")
    return FrameIndex(id, rows, meta["tokens"], seconds, frames)


def _checksum(file: Path) -> int:
    """Return the CRC-32 of a file: quick, and enough against damage. A cache holds nothing of strangers."""
    checksum = 0
    with open(file, "rb", buffering=0) as data:
        while block := data.read(_CHUNK):
            checksum = zlib.crc32(block, checksum)
    return checksum
