"""The videos that the page offers: samples, those in the folders that it was started with, and uploads.

The browser knows a video by a key and never by a path, so that it can name no other file. An upload is opened before
it is taken; it keeps the harmless characters of its name and lies in a folder named by its content, so that the same
file sent twice is there once. Nothing here decides by a name's ending.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from act2see.errors import StoreError, VideoError
from act2see.tools.folders import Folders
from act2see.tools.video import VideoInfo, open_video

_HARMLESS = re.compile(r"[^\w .()\[\],+-]")


@dataclass(frozen=True, slots=True)
class Clip:
    """A video on offer; a sample brings its question."""

    label: str
    path: str
    question: str = ""
    options: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return hashlib.blake2b(os.fsencode(self.path), digest_size=8).hexdigest()


class Shelf:
    """What is on offer. `uploads` is the folder that uploads are kept in."""

    def __init__(self, uploads: Path, samples: Sequence[Clip] = (), folders: Folders | None = None) -> None:
        self.uploads, self.samples, self.folders = uploads, tuple(samples), folders

    def clips(self) -> dict[str, Clip]:
        """By key: samples, then folders, then uploads, the last one first. Looks at the disk."""
        clips = list(self.samples)
        if self.folders:
            clips += [Clip(name, self.folders.path(name)) for name in self.folders.videos()]
        with suppress(FileNotFoundError):
            newest = sorted(self.uploads.glob("*/*"), key=lambda p: p.stat().st_mtime, reverse=True)
            clips += [Clip(f"upload: {p.name}", str(p)) for p in newest if not p.name.startswith(".")]
        return {c.key: c for c in clips}

    def take(self, upload: str) -> tuple[Clip, VideoInfo]:
        """Keep an uploaded file, which is moved, if it is a video; else it is deleted, and `VideoError` raised."""
        name = _harmless(Path(upload).name)
        try:
            info = open_video(upload).info()
        except VideoError as e:
            with suppress(OSError):
                os.unlink(upload)
            raise VideoError(str(e).replace(upload, name)) from e
        to = self.uploads / info.digest / name
        new = to.with_name(f".{uuid4().hex}")
        try:
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(upload, new)
            new.replace(to)
        except OSError as e:
            raise StoreError(f"{name} cannot be kept ({e.strerror or e}): free some space, or name another folder with --runs") from e
        finally:
            with suppress(OSError):
                new.unlink(missing_ok=True)
        return Clip(f"upload: {name}", str(to)), info


def _harmless(name: str) -> str:
    """A name without what a shell, a path, a page or a media fragment would read as more than a letter."""
    stem, ending = os.path.splitext(_HARMLESS.sub("_", name).strip(" ."))
    return f"{stem[:100] or 'video'}{ending[:12]}"
