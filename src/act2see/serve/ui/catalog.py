"""The videos that the page offers: samples, videos in the folders of `--folder`, and uploads.

The browser names a video by key, never by path, so it cannot name any other file. The exception is an upload:
Gradio sends its path to the browser and trusts the path that comes back. So only a regular file in Gradio's
upload folder is accepted. It must open as a video before it is stored. The stored file keeps the harmless
characters of its name, in a folder named by its content, so identical uploads are stored once. File
extensions are ignored.
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
from act2see.tools.runtime.outside import one_line
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
    """The question of a sample. Selecting the sample enters it in the form."""

    options: tuple[str, ...] = ()
    """The options of a sample's question."""

    @property
    def key(self) -> str:
        """The name by which the browser requests the video."""
        return hashlib.blake2b(os.fsencode(self.path), digest_size=8).hexdigest()


class VideoCatalog:
    """The videos that the page offers.

    Args:
        uploads: The folder in which uploads are stored.
        samples: The sample videos.
        folders: The folders whose videos are offered.
    """

    def __init__(
        self, uploads: Path, samples: Sequence[CatalogVideo] = (), folders: Folders | None = None
    ) -> None:
        self.uploads = uploads
        self.samples = tuple(samples)
        self.folders = folders

    def videos(self) -> dict[str, CatalogVideo]:
        """Return the videos by key: samples, then folders, then uploads, newest first. Reads the disk."""
        videos = [*self.samples, *self._in_folders()]
        newest_first = sorted(self._uploaded(), reverse=True)
        for _, path in newest_first:
            videos.append(CatalogVideo(f"upload: {one_line(shown_name(path.name))}", str(path)))
        return {video.key: video for video in videos}

    def add_upload(self, upload: str) -> tuple[CatalogVideo, Video]:
        """Move an uploaded file into the folder of uploads, if it is a video.

        Args:
            upload: The path of the uploaded file.

        Returns:
            The video as the page offers it, and its properties.

        Raises:
            VideoError: The file is not a video and was deleted, or it was not uploaded and was left alone.
            StoreError: The file cannot be stored.
        """
        upload = uploaded_file(upload)
        name = _harmless(Path(upload).name)
        try:
            info = open_video(upload).info()
        except VideoError as e:
            with suppress(OSError):
                os.unlink(upload)
            raise VideoError(str(e).replace(upload, name)) from e
        target = self.uploads / info.digest / name
        # Move to a hidden name first: a move between disks is a copy, and a partial copy must not be listed.
        new = target.with_name(f".{uuid4().hex}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(upload, new)
            new.replace(target)
        except OSError as e:
            raise StoreError(
                f"cannot store {name} ({e.strerror or e}): "
                "free disk space or choose another folder with --runs"
            ) from e
        finally:
            with suppress(OSError):
                new.unlink(missing_ok=True)
        return CatalogVideo(f"upload: {name}", str(target)), info

    def _in_folders(self) -> list[CatalogVideo]:
        """Return the videos in the folders. Videos that cannot be listed are left out."""
        videos: list[CatalogVideo] = []
        if self.folders is None:
            return videos
        try:
            for name in self.folders.videos():
                path = self.folders.path(name)
                if os.path.isfile(path):  # opening a pipe would block forever
                    videos.append(CatalogVideo(one_line(shown_name(name)), path))
        except (Act2SeeError, OSError) as e:
            log.warning("cannot list all videos of the folders: %s", ascii(str(e)))
        return videos

    def _uploaded(self) -> Iterator[tuple[float, Path]]:
        """Yield the modification times and paths of the stored uploads."""
        for path in self.uploads.glob("*/*"):
            with suppress(OSError):  # another process may have just deleted it
                status = path.lstat()
                if stat.S_ISREG(status.st_mode) and not path.name.startswith("."):
                    yield status.st_mtime, path


def uploaded_file(path: str) -> str:
    """Return the resolved path of an upload that Gradio has received.

    Raises:
        VideoError: The path is not a regular file in Gradio's upload folder. The message does not reveal
            whether the file exists.
    """
    named = os.path.abspath(
        os.environ.get("GRADIO_TEMP_DIR") or os.path.join(tempfile.gettempdir(), "gradio")
    )
    folder = os.path.realpath(named)
    try:
        # Compare strings first, without touching the disk outside the folder: a network folder may hang.
        if os.path.abspath(path).startswith((named + os.sep, folder + os.sep)):
            real = os.path.realpath(path)
            # Links are refused wherever they lead, because Gradio creates none.
            if real.startswith(folder + os.sep) and stat.S_ISREG(os.lstat(path).st_mode):
                return real
    except (OSError, ValueError):  # the file is missing, or its name has a null or a lone surrogate
        pass
    raise VideoError("this file was not uploaded here: choose it again")


def shown_name(name: str) -> str:
    """Return a file name as text. Bytes that are not UTF-8 are written as \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _harmless(name: str) -> str:
    """Replace characters that have a meaning in a shell, a path, HTML or a media fragment."""
    stem, ending = os.path.splitext(_HARMLESS.sub("_", name).strip(" ."))
    short = stem.encode()[:150].decode(errors="ignore")  # file systems count bytes
    return f"{short or 'video'}{ending[:12]}"
