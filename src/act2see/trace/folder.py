"""Traces in folders: `trace.json`, the pictures in `frames`, and the page `trace.html`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from act2see.errors import StoreError, VideoError
from act2see.tools.frames import FrameRef, Generated
from act2see.tools.runtime.files import whole_folder
from act2see.tools.video.reader import video_digest
from act2see.tools.video.store import FrameStore
from act2see.tools.video.window import Window
from act2see.trace.page import trace_html
from act2see.trace.trace import Trace

if TYPE_CHECKING:
    from act2see.tools.video.store import FrameSource, Pixels

OURS = "trace.json"


def save_folder(trace: Trace, folder: Path, frames: FrameSource) -> int:
    """Write trace, pictures and page, all or nothing; returns how many pictures `frames` no longer has."""
    from PIL import Image

    missing = 0
    with whole_folder(folder, OURS) as new:
        trace.save(new / OURS)
        (new / "frames").mkdir()
        for n, frame in enumerate(_pictures(trace)):
            kind = "-imagined" if frame.imagined else ""
            name = f"{n:03d}-{frame.seconds:.1f}s{kind}-{frame.digest}.png"
            try:
                Image.fromarray(frames(frame)).save(new / "frames" / name)
            except StoreError:
                missing += 1
        (new / "trace.html").write_text(trace_html(trace, frames), encoding="utf-8", errors="replace")
    return missing


def frames_of(path: Path, store: FrameStore | None = None) -> FrameSource:
    """The pixels of a trace: from the pictures beside it where it was saved with them, else from the
    store."""
    folder = (path if path.is_dir() else path.parent) / "frames"
    beside = {p.stem.rpartition("-")[2]: p for p in folder.glob("*.png")}
    known = store or FrameStore()

    def frames(frame: FrameRef) -> Pixels:
        import numpy as np
        from PIL import Image

        if frame.digest not in beside:
            return known.get(frame.digest)
        with Image.open(beside[frame.digest], formats=["PNG"]) as image:
            return np.asarray(image.convert("RGB"))

    return frames


def find_video(trace: Trace, path: Path) -> Trace:
    """The trace with its video where it is now: where it was asked, else near `path`, the saved trace, as
    when both were moved.

    Near is in the trace's folder or the one around it, under the old name. Only a video of the same content
    is taken; where there is none, the trace is as it was, and whoever opens the video says what is wrong.
    """
    window = Window.parse(trace.video.path)
    was, part = window.path, window.fragment
    folder = (path if path.is_dir() else path.parent).absolute()
    name = re.split(r"[\\/]", was)[-1]
    for candidate in dict.fromkeys(
        [was, *(str(place / n) for place in (folder, folder.parent) for n in (was, name))]
    ):
        try:
            if video_digest(candidate + part) == trace.video.digest:
                return trace.model_copy(
                    update={"video": trace.video.model_copy(update={"path": candidate + part})}
                )
        except VideoError:
            continue
    return trace


def _pictures(trace: Trace) -> Iterator[FrameRef]:
    """Every frame that was shown, and the anchors of the imagined ones, each picture once."""
    seen = set()
    for frame in trace.shown:
        made_from = [frame.provenance.anchor] if isinstance(frame.provenance, Generated) else []
        for f in (*made_from, frame):
            if f.digest not in seen:
                seen.add(f.digest)
                yield f
