"""Traces on disk: a folder with `trace.json`, its pictures in `frames` and the page `trace.html`; and the
traces that a server keeps, one JSON file each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from act2see.errors import StoreError, TraceError, VideoError
from act2see.tools.frames import FrameRef
from act2see.tools.runtime.files import whole_folder
from act2see.tools.video.reader import video_digest
from act2see.tools.video.store import FrameStore, frame_png
from act2see.tools.video.window import Window
from act2see.trace.page import trace_html
from act2see.trace.trace import Trace

if TYPE_CHECKING:
    from act2see.tools.video.store import FrameSource, Pixels

OURS = "trace.json"
"""The file by which a folder is known as one of ours."""
_ID = re.compile(r"[0-9A-Za-z-]{1,64}")  # nothing else may become part of a path


def save_folder(trace: Trace, folder: Path, frames: FrameSource) -> int:
    """Write a trace, its pictures and its page, all or nothing.

    Args:
        frames: Gives the pixels.

    Returns:
        How many pictures `frames` no longer has.

    Raises:
        StoreError: The folder cannot be written, or holds something else.
    """
    missing = 0
    with whole_folder(folder, OURS) as new:
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


def frames_of(path: Path, store: FrameStore | None = None) -> FrameSource:
    """The pixels of a saved trace.

    Args:
        path: The trace: its folder, or the file in it.
        store: Has the frames that were not saved beside the trace; by default that of the cache.
    """
    folder = (path if path.is_dir() else path.parent) / "frames"
    saved = {file.stem.rpartition("-")[2]: file for file in folder.glob("*.png")}
    store = store or FrameStore()

    def frames(frame: FrameRef) -> Pixels:
        import numpy as np
        from PIL import Image

        if frame.digest not in saved:
            return store(frame)
        with Image.open(saved[frame.digest], formats=["PNG"]) as image:
            return np.asarray(image.convert("RGB"))

    return frames


def find_video(trace: Trace, path: Path) -> Trace:
    """The trace with the path at which its video is now: its old path, else one near the saved trace.

    Near means in the trace's folder or in the one around it, under the old name. Only a video of the same
    content is taken. If there is none, the trace is returned unchanged, and opening its video says what is
    wrong.

    Args:
        path: The saved trace: its folder, or the file in it.
    """
    window = Window.parse(trace.video.path)
    old, part = window.path, window.fragment
    name = re.split(r"[\\/]", old)[-1]
    folder = (path if path.is_dir() else path.parent).absolute()
    candidates = [old]
    for place in (folder, folder.parent):
        candidates += [str(place / old), str(place / name)]
    for candidate in dict.fromkeys(candidates):
        try:
            digest = video_digest(candidate + part)
        except VideoError:
            continue
        if digest == trace.video.digest:
            video = trace.video.model_copy(update={"path": candidate + part})
            return trace.model_copy(update={"video": video})
    return trace


def _pictures(trace: Trace) -> Iterator[FrameRef]:
    """Every frame that was shown, and the anchors of the imagined ones, each picture once."""
    seen = set()
    for frame in trace.shown:
        for one in (frame.anchor, frame):
            if one and one.digest not in seen:
                seen.add(one.digest)
                yield one


class KeptTraces:
    """The traces that a server keeps in a folder, to show them again by their id."""

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
                f"the trace {trace.id} holds text that is not Unicode: it cannot be written"
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
        """The error for an id that names no trace."""
        return TraceError(f"there is no trace {id!r}: give an id that a question returned")

    def _path(self, id: str) -> Path:
        return self.folder / f"{id}.json"
