"""The videos that the page offers: samples, videos in the folders that it was started with, and uploads.

The browser names a video by key, never by path, so it cannot name any other file. The exception is its own
upload: Gradio tells the browser the path of it and trusts the path that comes back. So only a regular file in
Gradio's upload folder is accepted as an upload. An upload must open as a video before it is stored. It keeps
the harmless characters of its name and is stored in a folder named by its content, so a file that is uploaded
twice is stored once. Nothing here depends on a file's extension.
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
class CatalogVideo:
    """A video that the page offers."""

    label: str
    path: str

    question: str = ""
    """A sample's question, which the form is filled with."""

    options: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return hashlib.blake2b(os.fsencode(self.path), digest_size=8).hexdigest()


class VideoCatalog:
    """The videos that the page offers. Uploads are stored in the folder `uploads`."""

    def __init__(
        self, uploads: Path, samples: Sequence[CatalogVideo] = (), folders: Folders | None = None
    ) -> None:
        self.uploads, self.samples, self.folders = uploads, tuple(samples), folders

    def clips(self) -> dict[str, CatalogVideo]:
        """Return the videos by key: samples, then folders, then uploads, newest first. Reads the disk."""
        clips = [*self.samples, *self._in_folders()]
        newest = sorted(self._uploaded(), reverse=True)
        clips += [CatalogVideo(f"upload: {shown_name(path.name)}", str(path)) for _, path in newest]
        return {c.key: c for c in clips}

    def take(self, upload: str) -> tuple[CatalogVideo, Video]:
        """Move an uploaded file into the folder of uploads, if it is a video.

        Raises:
            VideoError: It is not a video, and was deleted; or it was not uploaded, and was left alone.
            StoreError: It cannot be stored.
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
                f"cannot store {name} ({e.strerror or e}): "
                "free disk space or choose another folder with --runs"
            ) from e
        finally:
            with suppress(OSError):
                new.unlink(missing_ok=True)
        return CatalogVideo(f"upload: {name}", str(to)), info

    def _in_folders(self) -> list[CatalogVideo]:
        """The videos of the folders. Those that cannot be listed are left out."""
        clips: list[CatalogVideo] = []
        if self.folders is None:
            return clips
        try:
            for name in self.folders.videos():
                path = self.folders.path(name)
                if os.path.isfile(path):  # opening a pipe would block for ever
                    clips.append(CatalogVideo(shown_name(name), path))
        except (Act2SeeError, OSError) as e:
            log.warning("cannot list all videos of the folders: %s", ascii(str(e)))
        return clips

    def _uploaded(self) -> Iterator[tuple[float, Path]]:
        """The modification times and paths of the stored uploads."""
        for path in self.uploads.glob("*/*"):
            with suppress(OSError):  # another process has just deleted it
                found = path.lstat()
                if stat.S_ISREG(found.st_mode) and not path.name.startswith("."):
                    yield found.st_mtime, path


def uploaded_file(path: str) -> str:
    """Return the resolved path of an upload that Gradio has received.

    Raises:
        VideoError: It is not a regular file in Gradio's upload folder. The message does not reveal whether
            the file exists.
    """
    named = os.path.abspath(
        os.environ.get("GRADIO_TEMP_DIR") or os.path.join(tempfile.gettempdir(), "gradio")
    )
    folder = os.path.realpath(named)
    try:
        # Compare the strings first: outside the folder the disk is not touched, as a network folder may hang.
        if os.path.abspath(path).startswith((named + os.sep, folder + os.sep)):
            real = os.path.realpath(path)
            # A link is refused wherever it leads: Gradio creates none.
            if real.startswith(folder + os.sep) and stat.S_ISREG(os.lstat(path).st_mode):
                return real
    except (OSError, ValueError):  # no such file, a null character or a lone surrogate
        pass
    raise VideoError("this file was not uploaded here: choose it again")


def shown_name(name: str) -> str:
    """Return a file name as text. Bytes that are not UTF-8 are written as \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _harmless(name: str) -> str:
    """Replace the characters of a name that have a meaning in a shell, a path, HTML or a media fragment."""
    stem, ending = os.path.splitext(_HARMLESS.sub("_", name).strip(" ."))
    short = stem.encode()[:150].decode(errors="ignore")  # file systems count bytes
    return f"{short or 'video'}{ending[:12]}"
