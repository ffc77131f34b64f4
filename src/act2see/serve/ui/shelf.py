"""The videos that the page offers: samples, those in the folders that it was started with, and uploads.

The browser knows a video by a key and never by a path, so that it can name no other file. Gradio does tell it
the path of its own upload, and believes whatever path comes back; so only a regular file in the folder of
Gradio's uploads is one. It is opened before it is taken; it keeps the harmless characters of its name and
lies in a folder named by its content, so that the same file sent twice is there once. Nothing here decides by
a name's ending.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from act2see.errors import Act2SeeError, StoreError, VideoError
from act2see.tools.frames import Video
from act2see.tools.video.folders import Folders
from act2see.tools.video.reader import open_video

log = logging.getLogger(__name__)
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


class VideoCatalog:
    """What is on offer. `uploads` is the folder that uploads are kept in."""

    def __init__(self, uploads: Path, samples: Sequence[Clip] = (), folders: Folders | None = None) -> None:
        self.uploads, self.samples, self.folders = uploads, tuple(samples), folders

    def clips(self) -> dict[str, Clip]:
        """By key: samples, then folders, then uploads, the last one first. Looks at the disk."""
        clips = [*self.samples, *self._in_folders()]
        newest = sorted(self._uploaded(), reverse=True)
        clips += [Clip(f"upload: {shown_name(path.name)}", str(path)) for _, path in newest]
        return {c.key: c for c in clips}

    def take(self, upload: str) -> tuple[Clip, Video]:
        """Keep an uploaded file, which is moved, if it is a video.

        Raises:
            VideoError: It is no video, and has been deleted; or no file that was uploaded, and has not been touched.
            StoreError: It cannot be kept.
        """
        upload = uploaded_file(upload)
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
            raise StoreError(
                f"{name} cannot be kept ({e.strerror or e}): free some space, or name another folder with --runs"
            ) from e
        finally:
            with suppress(OSError):
                new.unlink(missing_ok=True)
        return Clip(f"upload: {name}", str(to)), info

    def _in_folders(self) -> list[Clip]:
        """What cannot be listed is left out: the page offers the rest."""
        clips: list[Clip] = []
        if self.folders is None:
            return clips
        try:
            for name in self.folders.videos():
                path = self.folders.path(name)
                if os.path.isfile(path):  # what opens a pipe waits for ever
                    clips.append(Clip(shown_name(name), path))
        except (Act2SeeError, OSError) as e:
            log.warning("not all videos of the folders can be offered: %s", ascii(str(e)))
        return clips

    def _uploaded(self) -> Iterator[tuple[float, Path]]:
        """The uploads that are kept, with the time of each."""
        for path in self.uploads.glob("*/*"):
            with suppress(OSError):  # another process has just deleted it
                found = path.lstat()
                if stat.S_ISREG(found.st_mode) and not path.name.startswith("."):
                    yield found.st_mtime, path


def uploaded_file(path: str) -> str:
    """The path of an upload that Gradio has received, its links followed.

    Raises:
        VideoError: It is no regular file in the folder of Gradio's uploads. The message does not say whether there is such a file.
    """
    named = os.path.abspath(
        os.environ.get("GRADIO_TEMP_DIR") or os.path.join(tempfile.gettempdir(), "gradio")
    )
    folder = os.path.realpath(named)
    try:
        # By its letters first: nothing is looked up outside, where a network's folder may hang.
        if os.path.abspath(path).startswith((named + os.sep, folder + os.sep)):
            real = os.path.realpath(path)
            # A link is refused wherever it leads: Gradio makes none.
            if real.startswith(folder + os.sep) and stat.S_ISREG(os.lstat(path).st_mode):
                return real
    except (OSError, ValueError):  # not there; a null character, or half of a surrogate pair
        pass
    raise VideoError("this file was not uploaded here: choose it again")


def shown_name(name: str) -> str:
    """A file name as text: the bytes in it that are not UTF-8 are written as \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _harmless(name: str) -> str:
    """A name without what a shell, a path, a page or a media fragment would read as more than a letter."""
    stem, ending = os.path.splitext(_HARMLESS.sub("_", name).strip(" ."))
    short = stem.encode()[:150].decode(errors="ignore")  # file systems count bytes
    return f"{short or 'video'}{ending[:12]}"
