"""Access control for paths from clients: only videos and pictures in named folders are opened.

A name is relative to one of the folders, or an absolute path into one, with an optional part
(`clip.mp4#t=2,8`). Other absolute paths, `..`, links that lead out, devices and pipes are rejected, always
with the same message, so that a client cannot learn whether a file outside exists.

Whoever writes into a folder may also change it while it is read. The resolved path is opened, never parsed
for a part again, and a `FencedLibrary` looks at the file before it is opened and after each frame: a file
that was replaced, even for a moment, or became a link, is an error. A folder of the path that becomes a link
and is put back between two looks is not noticed: give servers folders that strangers cannot write to.

URLs are rejected too, unless a folder for downloads is given. Then the video is downloaded first, because
only files are decoded.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from act2see.errors import ConfigError, StoreError, VideoError
from act2see.tools.runtime.files import is_text, printable, read_file
from act2see.tools.video.download import download
from act2see.tools.video.library import ProbedVideo, VideoLibrary
from act2see.tools.video.store import Pixels
from act2see.tools.video.window import VideoPath, Window

log = logging.getLogger(__name__)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# fmt: off
_SUFFIXES = frozenset([
    ".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4",
    ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv",
])
# fmt: on


class Folders:
    """The folders whose videos and pictures may be opened.

    Args:
        folders: The folders.
        downloads: The folder for videos from URLs. None rejects URLs.

    Raises:
        ConfigError: No folder is named, a folder does not exist, or its path is not UTF-8.
    """

    def __init__(self, folders: Sequence[str | os.PathLike[str]], *, downloads: Path | None = None) -> None:
        if not folders:
            raise ConfigError("name at least one folder of videos")
        self.folders = tuple(os.path.abspath(os.path.expanduser(f)) for f in folders)
        for folder in self.folders:
            if not os.path.isdir(folder):
                raise ConfigError(f"there is no folder {printable(folder)}: name one that holds videos")
            if not is_text(os.path.realpath(folder)):
                raise ConfigError(f"the path of the folder {printable(folder)} is not UTF-8: rename it")
        self.downloads = downloads
        self._warned: set[str] = set()
        self._roots = tuple(os.path.realpath(folder) for folder in self.folders)
        if downloads:
            self._roots += (os.path.realpath(downloads),)

    def path(self, name: str, stop: Callable[[], bool] = lambda: False) -> str:
        """Return the resolved path of a video, with its part (`#t=`).

        Args:
            name: The name or the URL from a client. A URL is downloaded.
            stop: Called during a download. When it returns true, the download stops.

        Raises:
            VideoError: The video may not be opened, does not exist, or cannot be downloaded.
        """
        if _URL.match(name):
            return self._download(name, stop)
        found = self.find(name)
        # As text the path is parsed again. It could then mean a file that was not checked, with the name of
        # the part.
        if found and Window.resolve(str(found)).path == found.path:
            return str(found)
        urls = "or an http(s) address" if self.downloads else "addresses (URLs) are not opened"
        raise VideoError(f"{self._not_found('video')}; give a name relative to it, without '..'; {urls}")

    def find(self, name: str) -> Window | None:
        """Return the regular file that a name means, resolved; None if no such file may be opened."""
        for candidate in self._candidates(name):
            found = self.resolve(candidate)
            if found and os.path.isfile(found.path):
                return found
        return None

    def resolve(self, path: str | Window) -> Window | None:
        """Return an absolute path with its links followed; None if the result is outside the folders.

        A `Window` is not parsed again.
        """
        try:
            window = Window.resolve(path)
            real = os.path.realpath(window.path)
        except ValueError:  # a null character or a lone surrogate
            return None
        if not is_text(real) or not any(_within(real, root) for root in self._roots):
            return None
        return replace(window, path=real)

    def read_picture(self, name: str, largest: int) -> bytes:
        """Return the bytes of a picture file.

        Args:
            name: The name from a client.
            largest: The largest size, in bytes.

        Raises:
            StoreError: The file cannot be read; or, with the same message, does not exist or may not be
                opened.
        """
        found = self.find(name)
        if found and found.whole:
            try:
                data = read_file(found.path, largest, follow=False)
            except OSError as e:
                raise StoreError(f"the picture {name} cannot be read: {e.strerror}") from e
            if os.path.realpath(found.path) == found.path:  # no folder of the path became a link meanwhile
                return data
        raise StoreError(f"{self._not_found('picture')}; give a name relative to it, without '..'")

    def videos(self, max_count: int = 500) -> list[str]:
        """Return the names of the first `max_count` videos, by folder, as `path` takes them."""
        names: list[str] = []
        for folder in self.folders:
            for path in self._list_files(folder):
                if not is_text(path):
                    self._warn(path)
                elif name := self._name(path, folder):
                    names.append(name)
                if len(names) == max_count:
                    return names
        return names

    def misnamed(self, max_count: int = 20) -> list[str]:
        """Return the escaped names of the first `max_count` videos whose names are not UTF-8."""
        wrong: list[str] = []
        for folder in self.folders:
            for path in self._list_files(folder):
                if not is_text(path):
                    wrong.append(printable(os.path.relpath(path, folder)))
        return wrong[:max_count]

    def __str__(self) -> str:
        return " or ".join(self.folders)

    def _not_found(self, kind: str) -> str:
        """Return the same message for a file that does not exist and for one that may not be opened."""
        return f"only {kind}s in {self} may be opened: there is no {kind} of that name"

    def _list_files(self, folder: str) -> Iterator[str]:
        """Yield the paths of files with a video's suffix, in order, without hidden folders."""
        for here, folders, files in os.walk(folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for file in sorted(files):
                if os.path.splitext(file)[1].lower() in _SUFFIXES:
                    yield os.path.join(here, file)

    def _candidates(self, name: str) -> list[str]:
        """Return the paths that a name may mean, without access to the disk outside the folders."""
        if not name or os.pardir in re.split(r"[/\\]", name):
            return []
        if os.path.isabs(name):
            path = os.path.normpath(name)
            return [path] if any(_within(path, f) for f in (*self.folders, *self._roots)) else []
        return [os.path.join(f, name) for f in self.folders]

    def _name(self, path: str, folder: str) -> str | None:
        """Return the relative name of a video, or its path if an earlier folder has a video of that name.

        None if it may not be opened.
        """
        for name in (os.path.relpath(path, folder), path):
            if self.find(name) == Window(os.path.realpath(path)):
                return name
        return None

    def _warn(self, path: str) -> None:
        if path not in self._warned:
            self._warned.add(path)
            log.warning("%s is left out, since its name is not UTF-8: rename it", printable(path))

    def _download(self, url: str, stop: Callable[[], bool]) -> str:
        """Download the video of a URL and return its path, with the URL's fragment."""
        if self.downloads is None:
            raise VideoError(
                f"addresses (URLs) are not opened, only videos in {self}: give a name relative to it"
            )
        address, mark, part = url.partition("#")
        if not mark:
            return str(download(address, self.downloads, stop=stop))
        # Behind a path, any other fragment would be a part of the path: `#/../../etc/passwd`.
        if Window.parse(f"{mark}{part}").path:
            raise VideoError(f"{url} names no part of a video: write #t=2,8 for its seconds 2 to 8")
        return f"{download(address, self.downloads, stop=stop)}{mark}{part}"


class FencedLibrary(VideoLibrary):
    """A library that opens only videos in the folders, whatever path a graph receives."""

    def __init__(self, library: VideoLibrary, folders: Folders) -> None:
        super().__init__(library.cache, library.store, library.max_side, library.decoder, library.framer)
        self.folders = folders

    def window(self, video: VideoPath) -> Window:
        """Return the window of a path.

        Raises:
            VideoError: The path is not absolute, or not a file in the folders.
        """
        found = None
        if isinstance(video, Window):
            found = self.folders.resolve(video)
        elif isinstance(video, str) and os.path.isabs(video):
            found = self.folders.find(video)
        if found is None or not os.path.isfile(found.path):
            raise VideoError(
                f"only videos in {self.folders} may be opened: there is no file of that name; "
                "give the absolute path of one, without '..'"
            )
        return found

    def probe(self, video: VideoPath) -> ProbedVideo:
        """Return the facts of a video. Raises `VideoError` also if the file changes meanwhile."""
        window = self.window(video)
        before = _identity(window.path)
        clip = super().probe(window)
        _check_same(window.path, before)
        return clip

    def decode(
        self,
        video: VideoPath,
        frames: Sequence[int],
        size: tuple[int, int] | None,
        digest: str | None = None,
    ) -> Iterator[tuple[int, float, Pixels]]:
        """Yield frames of a video. Raises `VideoError` also if the file changes meanwhile."""
        window = self.window(video)
        before = _identity(window.path)
        for frame in super().decode(window, frames, size, digest):
            _check_same(window.path, before)  # before anyone sees a frame of another file
            yield frame


def _identity(path: str) -> tuple[int, ...] | None:
    """Return what tells the file at a path from any other; None if it is not a regular file.

    A rename changes the time of the last status change, also that of a file which is put back.
    """
    try:
        found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode) or os.path.realpath(path) != path:
            return None
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns


def _check_same(path: str, before: tuple[int, ...] | None) -> None:
    if before is None or _identity(path) != before:
        raise VideoError(f"{path} was changed while it was read: ask again when it is complete")


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
