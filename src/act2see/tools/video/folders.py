"""The door for paths from outside: which videos and pictures a program opens for its clients.

It opens those in the folders that were named when it was started. A name is relative to one of them, or an
absolute path into one; a part may follow it (`clip.mp4#t=2,8`). Everything else is refused in one and the
same sentence, whether or not there is such a file, so that nobody learns what lies outside: other absolute
paths, `..`, links that lead out, devices and pipes. The resolved path is opened, so that a link which is
changed afterwards leads nowhere else. URLs are refused too.

URLs can be allowed. Then the video is downloaded first, since only files are decoded.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from act2see.errors import ConfigError, StoreError, VideoError
from act2see.tools.runtime.files import is_text, printable, read_file
from act2see.tools.video.download import download
from act2see.tools.video.library import VideoLibrary
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
    """Resolves names.

    Args:
        folders: Holds the files that may be opened.
        downloads: The folder in which videos from URLs are kept; without it URLs are refused.

    Raises:
        ConfigError: No folder is named, or one does not exist.
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
        """The path of a video, resolved, with its part (`#t=`).

        Args:
            name: The name that a client gave; a URL is downloaded.
            stop: Asked during a download; once it returns true, the download is given up.

        Raises:
            VideoError: The video may not be opened, does not exist, or cannot be downloaded.
        """
        if _URL.match(name):
            return self._downloaded(name, stop)
        if found := self.find(name):
            return str(found)
        urls = "or an http(s) address" if self.downloads else "addresses (URLs) are not opened"
        raise VideoError(f"{self._only('video')}; give a name relative to it, without '..'; {urls}")

    def find(self, name: str) -> Window | None:
        """The regular file that a name means, resolved; None if there is none that may be opened."""
        for candidate in self._candidates(name):
            found = self.resolved(candidate)
            if found and os.path.isfile(found.path):
                return found
        return None

    def resolved(self, path: str) -> Window | None:
        """An absolute path with its links followed; None if that is outside the folders."""
        try:
            window = Window.resolve(path)
            real = os.path.realpath(window.path)
        except ValueError:  # a null character or a lone surrogate
            return None
        if not is_text(real) or not any(_within(real, root) for root in self._roots):
            return None
        return replace(window, path=real)

    def read_picture(self, name: str, largest: int) -> bytes:
        """The bytes of a picture.

        Args:
            name: The name that a client gave.
            largest: How many bytes it may have.

        Raises:
            StoreError: It cannot be read; or, in one sentence, it does not exist or may not be opened.
        """
        found = self.find(name)
        if found and found.whole:
            try:
                data = read_file(found.path, largest, follow=False)
            except OSError as e:
                raise StoreError(f"the picture {name} cannot be read: {e.strerror}") from e
            if os.path.realpath(found.path) == found.path:  # no folder on its way became a link meanwhile
                return data
        raise StoreError(f"{self._only('picture')}; give a name relative to it, without '..'")

    def videos(self, max_count: int = 500) -> list[str]:
        """The names of the first `max_count` videos, as `path` takes them, by folder."""
        names: list[str] = []
        for folder in self.folders:
            for path in self._listed(folder):
                if not is_text(path):
                    self._warn(path)
                elif name := self._name(path, folder):
                    names.append(name)
                if len(names) == max_count:
                    return names
        return names

    def misnamed(self, max_count: int = 20) -> list[str]:
        """The escaped names of the first `max_count` videos that are left out because they are not UTF-8."""
        wrong: list[str] = []
        for folder in self.folders:
            for path in self._listed(folder):
                if not is_text(path):
                    wrong.append(printable(os.path.relpath(path, folder)))
        return wrong[:max_count]

    def __str__(self) -> str:
        return " or ".join(self.folders)

    def _only(self, kind: str) -> str:
        """The one sentence for a file that does not exist and for one that may not be opened."""
        return f"only {kind}s in {self} may be opened: there is no {kind} of that name"

    def _listed(self, folder: str) -> Iterator[str]:
        for here, below, files in os.walk(folder):
            below[:] = sorted(b for b in below if not b.startswith("."))
            for file in sorted(f for f in files if os.path.splitext(f)[1].lower() in _SUFFIXES):
                yield os.path.join(here, file)

    def _candidates(self, name: str) -> list[str]:
        """The paths that a name may mean, by its letters alone: nothing outside the folders is looked up."""
        if not name or os.pardir in re.split(r"[/\\]", name):
            return []
        if os.path.isabs(name):
            path = os.path.normpath(name)
            return [path] if any(_within(path, f) for f in (*self.folders, *self._roots)) else []
        return [os.path.join(f, name) for f in self.folders]

    def _name(self, path: str, folder: str) -> str | None:
        """Its relative name, or its path if a folder named earlier has a video of that name too.

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

    def _downloaded(self, url: str, stop: Callable[[], bool]) -> str:
        if self.downloads is None:
            raise VideoError(
                f"addresses (URLs) are not opened, only videos in {self}: give a name relative to it"
            )
        address, mark, part = url.partition("#")
        return f"{download(address, self.downloads, stop=stop)}{mark}{part}"


class FencedLibrary(VideoLibrary):
    """A library that opens no video outside the folders, whatever path a graph is given."""

    def __init__(self, library: VideoLibrary, folders: Folders) -> None:
        super().__init__(library.cache, library.store, library.max_side, library.decoder)
        self.folders = folders

    def window(self, video: VideoPath) -> Window:
        """The file and the seconds that a path means. Raises `VideoError` unless it lies in the folders."""
        path = str(video) if isinstance(video, Window) else video
        found = self.folders.find(path) if isinstance(path, str) and os.path.isabs(path) else None
        if found is None:
            raise VideoError(
                f"only videos in {self.folders} may be opened: there is no file of that name; "
                "give the absolute path of one, without '..'"
            )
        return found


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
