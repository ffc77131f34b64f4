"""The index of one video: FAISS over the query-token vectors of its frames, on disk and memory-mapped.

Frame i holds rows i * tokens to (i + 1) * tokens. The score of a frame is

    s_t = mean over phrasings m of max over query tokens p of cos(u_m, v_{t,p})

and `scores` is exact where it matters: it searches for the best rows, and a frame that is not among them
scores the lowest value found, which bounds it from above. An hour at 3 fps is 10,800 x 32 x 256 values, 169
MiB in fp16.

An index is written beside a meta file, under a lock, and renamed into place: two processes build it once, and
a killed one leaves nothing half-written. A file that cannot be read is rebuilt, with a warning.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from act2see.errors import StoreError
from act2see.tools.frames import Curve
from act2see.tools.runtime.forks import natively

log = logging.getLogger(__name__)
_ROWS = 16_384
Scores = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FrameIndex:
    """Searchable frames of one video. `seconds[i]` and `frames[i]` place the i-th indexed frame in it."""

    id: str
    rows: Any
    tokens: int
    seconds: NDArray[np.float64]
    frames: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.seconds)

    def scores(self, phrases: NDArray[np.float32], best: int = 1) -> Scores:
        """`(frames,)` scores of `(phrases, dim)`; the `best` highest are exact, and so are all of a short
        video."""
        total = len(self) * self.tokens
        wanted = min(total, max(_ROWS, best * self.tokens))
        by_phrase, known = self._search(phrases, wanted)
        scores: Scores = by_phrase.mean(0)
        if not known[:, np.argsort(-scores)[:best]].all():
            # With several phrasings a frame can lead by a bound alone: then every row is looked at.
            scores = self._search(phrases, total)[0].mean(0)
        return scores

    @natively
    def _search(self, phrases: NDArray[np.float32], k: int) -> tuple[Scores, NDArray[np.bool_]]:
        """Scores by phrasing, and which of them are exact; the others are bounds from above."""
        similarity, row = self.rows.search(np.ascontiguousarray(phrases, np.float32), k)
        out = np.repeat(similarity[:, -1:], len(self), 1).astype(np.float32)
        known = np.zeros(out.shape, bool)
        for m in range(len(phrases)):
            # Rows come best first: the first row of a frame is its best.
            frame, first = np.unique(row[m] // self.tokens, return_index=True)
            out[m, frame], known[m, frame] = similarity[m, first], True
        return out, known

    def curve(self, scores: Scores, values: int = 128) -> Curve:
        """The scores over time, the best of each part."""
        n = len(scores)
        parts = np.array_split(scores, min(values, n))
        span = float(self.seconds[-1] - self.seconds[0]) if n > 1 else 0.0
        step = span / max(1, n - 1) * (n / len(parts))
        return Curve(
            start=float(self.seconds[0]),
            step=round(step, 4),
            values=tuple(round(float(p.max()), 3) for p in parts),
        )


class IndexWriter:
    """An index that grows batch by batch, and is put in its folder at the end."""

    def __init__(self) -> None:
        self._frames: list[NDArray[np.int64]] = []
        self._seconds: list[NDArray[np.float64]] = []
        self._rows: Any = None
        self._tokens = 0

    @natively
    def add(
        self, frames: NDArray[np.int64], seconds: NDArray[np.float64], features: NDArray[np.float16]
    ) -> None:
        """The next frames: their numbers in the video, their times, and `(n, tokens, dim)` features."""
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
        """Put it in `folder` under this id. Raises `StoreError` where nothing was added, or nothing can be
        written."""
        import faiss

        if self._rows is None:
            raise StoreError("there is no frame to index")
        temporary: Path | None = None
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            faiss.write_index(self._rows, str(temporary / "rows.faiss"))
            np.savez(
                temporary / "frames.npz",
                frames=np.concatenate(self._frames),
                seconds=np.concatenate(self._seconds),
            )
            facts = {**meta, "id": id, "tokens": self._tokens, "rows": self._rows.ntotal}
            (temporary / "meta.json").write_text(json.dumps(facts))
            if folder.exists():
                shutil.rmtree(folder)
            temporary.rename(folder)
        except (OSError, RuntimeError) as e:  # faiss has no error of its own for a file that it cannot write
            why = getattr(e, "strerror", None) or " ".join(str(e).split())
            raise StoreError(
                f"cannot write the index to {folder.parent}: {why}; free some space or set ACT2SEE_CACHE to another folder"
            ) from e
        finally:
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)
        return read_index(folder, id)


@natively
def read_index(folder: Path, id: str) -> FrameIndex:
    """Open an index, memory-mapped. Raises `StoreError` where it is missing, damaged or another one's."""
    import faiss

    try:
        meta = json.loads((folder / "meta.json").read_text())
        if meta["id"] != id:
            raise ValueError(f"it is of {meta['id']}")
        rows = faiss.read_index(str(folder / "rows.faiss"), faiss.IO_FLAG_MMAP_IFC)
        with np.load(folder / "frames.npz") as f:
            frames, seconds = f["frames"], f["seconds"]
        if (
            rows.ntotal != meta["rows"]
            or len(frames) * meta["tokens"] != rows.ntotal
            or len(frames) != len(seconds)
        ):
            raise ValueError("its parts do not fit")
    except FileNotFoundError as e:
        raise StoreError(f"no index in {folder}") from e
    except Exception as e:  # faiss raises RuntimeError, numpy and json their own: all mean a damaged file
        raise StoreError(f"the index {folder} is damaged: {e}") from e
    return FrameIndex(id, rows, meta["tokens"], seconds, frames)
