"""Traces on disk, in two forms.

`act2see ask --save` writes a folder with `trace.json`, the pictures in `frames`, and the page `trace.html`.
A server keeps one JSON file for each trace (`KeptTraces`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from act2see.errors import StoreError, TraceError, VideoError
from act2see.tools.frames import FrameRef
from act2see.tools.runtime.files import check_file, check_folder, read_file, whole_folder
from act2see.tools.runtime.picture_files import MAX_BYTES, PictureError, decode_picture
from act2see.tools.video.reader import had_digest, video_digest
from act2see.tools.video.store import FrameStore, frame_digest, frame_png
from act2see.tools.video.window import Window
from act2see.trace.page import trace_html
from act2see.trace.trace import Trace

if TYPE_CHECKING:
    from act2see.tools.video.store import FrameSource, Pixels

OURS = "trace.json"
"""The file that marks a folder as a saved trace. Only such a folder, or an empty one, is overwritten."""
OTHERS = ("frames", "trace.html", ".DS_Store")
"""What else such a folder contains. A folder with other files is not overwritten: they would be lost."""
MARKS = {".html": b".a2s", ".json": b'"schema_version"', ".jsonl": b'"schema_version"', ".md": b" in view"}
"""Bytes near the start of each kind of file that a trace is written to: only such files are overwritten."""
_ID = re.compile(r"[0-9A-Za-z-]{1,64}")  # clients supply ids, and an id becomes a file name


def save_folder(trace: Trace, folder: Path, frames: FrameSource) -> int:
    """Write a trace, its pictures and its page, all or nothing.

    Args:
        trace: The trace, finished or not.
        folder: The folder to write. An earlier trace in it is replaced.
        frames: The source of pixels.

    Returns:
        The number of pictures that `frames` lacks.

    Raises:
        StoreError: The folder cannot be written, or contains other files.
    """
    missing = 0
    with whole_folder(folder, OURS, OTHERS) as new:
        (new / OURS).write_text(trace.to_json() + "\n", encoding="utf-8")
        (new / "frames").mkdir()
        for number, frame in enumerate(_pictures(trace)):
            kind = "-imagined" if frame.imagined else ""
            name = f"{number:03d}-{frame.seconds:.1f}s{kind}-{frame.digest}.png"
            try:
                png = frame_png(frame, frames)
            except StoreError:
                missing += 1
                continue
            (new / "frames" / name).write_bytes(png)
        (new / "trace.html").write_text(trace_html(trace, frames), encoding="utf-8", errors="replace")
    return missing


def check_target(path: Path, *, force: bool = False) -> None:
    """Check that a trace may be written to a folder, or to a file of a kind in `MARKS`.

    Args:
        path: The folder (a name without a suffix) or the file.
        force: Whether a file that is no trace may be replaced. Folders with other files never are.

    Raises:
        StoreError: The folder or file exists and is no trace.
    """
    if path.suffix in MARKS:
        check_file(path, MARKS[path.suffix], force=force)
    else:
        check_folder(path, OURS, OTHERS)


def frames_of(path: Path, store: FrameStore | None = None) -> FrameSource:
    """Return the source of pixels of a saved trace.

    Args:
        path: The folder of the trace, or the file in it.
        store: The source of frames that were not saved with the trace; by default the store of the cache.

    The source raises `StoreError` for a picture that cannot be read.
    """
    folder = (path if path.is_dir() else path.parent) / "frames"
    saved = {file.stem.rpartition("-")[2]: file for file in folder.glob("*.png")}
    store = store or FrameStore()

    def frames(frame: FrameRef) -> Pixels:
        import numpy as np

        if frame.digest not in saved:
            return store(frame)
        path = saved[frame.digest]
        try:
            with decode_picture(read_file(path, MAX_BYTES)) as image:
                pixels = np.asarray(image.convert("RGB"))
        except (OSError, PictureError) as e:
            why = getattr(e, "strerror", None) or e
            raise StoreError(f"the picture {path} cannot be read ({why}): copy the saved run again") from e
        if frame_digest(pixels) != frame.digest:
            raise StoreError(f"the picture {path} is not the one that was saved: copy the saved run again")
        return pixels

    return frames


def find_video(trace: Trace, path: Path) -> Trace:
    """Return the trace with the current path of its video, which may have been moved with the trace.

    The old path is tried first, then the old name in the folder of the trace and in the parent of that
    folder. Only a video of the same content is accepted. act2see 0.1.0 gave large files another digest, which
    is replaced by the present one. If none is found, the trace is returned unchanged, and opening its video
    reports the problem.

    Args:
        trace: The trace.
        path: The folder of the trace, or the file in it.
    """
    window = Window.parse(trace.video.path)
    old, part = window.path, window.fragment
    name = re.split(r"[\\/]", old)[-1]  # the trace may come from Windows
    folder = (path if path.is_dir() else path.parent).absolute()
    candidates = [old]
    for place in (folder, folder.parent):
        candidates += [str(place / old), str(place / name)]
    for candidate in dict.fromkeys(candidates):
        file = candidate + part
        try:
            digest = video_digest(file)
            found = digest == trace.video.digest or had_digest(file, trace.video.digest)
        except VideoError:
            continue
        if found:
            video = trace.video.model_copy(update={"path": file, "digest": digest})
            return trace.model_copy(update={"video": video})
    return trace


def _pictures(trace: Trace) -> Iterator[FrameRef]:
    """Yield every frame that was shown, and the anchors of the imagined ones, each picture once."""
    seen = set()
    for frame in trace.shown:
        for one in (frame.anchor, frame):
            if one and one.digest not in seen:
                seen.add(one.digest)
                yield one


class KeptTraces:
    """The traces that a server keeps in a folder, by their ids."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, trace: Trace) -> None:
        """Write a trace.

        Raises:
            StoreError: The trace cannot be written, or its id cannot be a file name.
        """
        if not _ID.fullmatch(trace.id):
            raise StoreError(
                f"a trace with the id {trace.id!r} cannot be kept: "
                "name the run with letters, digits and hyphens"
            )
        try:
            trace.save(self._path(trace.id))
        except StoreError as e:
            raise StoreError(f"{e}, or free some space, or set ACT2SEE_CACHE to another folder") from e
        except ValueError as e:  # a lone surrogate
            raise StoreError(
                f"the trace {trace.id} cannot be written: it contains text that is not Unicode"
            ) from e

    def get(self, id: str) -> Trace:
        """Read a trace.

        Raises:
            TraceError: There is no trace with this id, or it cannot be read.
        """
        if not _ID.fullmatch(id) or not self._path(id).is_file():
            raise self.unknown(id)
        return Trace.load(self._path(id))

    def unknown(self, id: str) -> TraceError:
        """Return the error for an id without a trace."""
        return TraceError(f"there is no trace {id!r}: give an id that a question returned")

    def _path(self, id: str) -> Path:
        return self.folder / f"{id}.json"
