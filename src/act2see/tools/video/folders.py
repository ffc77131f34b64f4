"""The door for paths from outside: which videos and pictures a program opens for its clients.

Those in the folders that were named when it was started. A name is relative to one of them, or an absolute
path into one; a part may follow it (`clip.mp4#t=2,8`). Everything else is refused in one and the same
sentence, whether or not there is such a file, so that nobody learns what lies outside: other absolute paths,
`..`, links that lead out, what is no regular file. What is opened is the resolved path, so that a link which
is changed afterwards leads nowhere else. URLs are refused too.

URLs can be allowed. Then the video is downloaded first: what decodes videos opens files alone.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from act2see.errors import ConfigError, StoreError, VideoError
from act2see.tools.runtime.files import is_text, printable, read_file
from act2see.tools.video.download import download
from act2see.tools.video.library import VideoLibrary
from act2see.tools.video.reader import split_part

log = logging.getLogger(__name__)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SUFFIXES = frozenset(
    [
        ".3gp",
        ".avi",
        ".flv",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mts",
        ".ogv",
        ".ts",
        ".webm",
        ".wmv",
    ]
)


class Folders:
    """Opens names. Raises `ConfigError` where a folder is not there."""

    def __init__(self, folders: Sequence[str | os.PathLike[str]], *, downloads: Path | None = None) -> None:
        """`downloads` is where videos from URLs are kept; without it URLs are refused."""
        if not folders:
            raise ConfigError("name at least one folder of videos")
        self.folders = tuple(os.path.abspath(os.path.expanduser(f)) for f in folders)
        for folder in self.folders:
            if not os.path.isdir(folder):
                raise ConfigError(f"there is no folder {printable(folder)}: name one that holds videos")
            if not is_text(os.path.realpath(folder)):
                raise ConfigError(f"the path of the folder {printable(folder)} is not UTF-8: rename it")
        self.downloads = downloads
        self._told: set[str] = set()
        self._roots = tuple(
            os.path.realpath(f) for f in (*self.folders, *((downloads,) if downloads else ()))
        )

    def path(self, name: str, stop: Callable[[], bool] = lambda: False) -> str:
        """The file that a name means, resolved, its part (`#t=`) kept; may download, until `stop` says so.
        Raises `VideoError`."""
        if _URL.match(name):
            return self._downloaded(name, stop)
        if found := self.find(name):
            return "".join(found)
        urls = "or an http(s) address" if self.downloads else "addresses (URLs) are not opened"
        raise VideoError(f"{self._only('video')}; give a name relative to it, without '..'; {urls}")

    def find(self, name: str) -> tuple[str, str] | None:
        """The regular file that a name means, resolved, and its part; None where there is none that may be
        opened."""
        inside = (self.resolved(candidate) for candidate in self._candidates(name))
        return next((found for found in inside if found and os.path.isfile(found[0])), None)

    def resolved(self, path: str) -> tuple[str, str] | None:
        """An absolute path, its links followed, and its part; None where that is outside the folders."""
        try:
            file, _ = split_part(path)
            real = os.path.realpath(file)
        except ValueError:  # a null character, or half of a surrogate pair
            return None
        return (
            (real, path[len(file) :])
            if is_text(real) and any(_within(real, root) for root in self._roots)
            else None
        )

    def read_picture(self, name: str, largest: int) -> bytes:
        """The bytes of the picture that a name means. Raises `StoreError`: the same wherever it may not be
        opened."""
        found = self.find(name)
        if found and not found[1]:
            real = found[0]
            try:
                data = read_file(real, largest, follow=False)
            except OSError as e:
                raise StoreError(f"the picture {name} cannot be read: {e.strerror}") from e
            if os.path.realpath(real) == real:  # nothing on its way became a link in the meantime
                return data
        raise StoreError(f"{self._only('picture')}; give a name relative to it, without '..'")

    def videos(self, most: int = 500) -> list[str]:
        """The names of the videos, as `path` takes them, by folder; `most` of them at most."""
        names: list[str] = []
        for folder in self.folders:
            for path in self._listed(folder):
                if not is_text(path):
                    self._tell(path)
                elif name := self._name(path, folder):
                    names.append(name)
                if len(names) == most:
                    return names
        return names

    def misnamed(self, most: int = 20) -> list[str]:
        """The videos that `videos` leaves out because their names are no text, with escapes in them; `most`
        of them at most."""
        wrong = [
            printable(os.path.relpath(p, f)) for f in self.folders for p in self._listed(f) if not is_text(p)
        ]
        return wrong[:most]

    def __str__(self) -> str:
        return " or ".join(self.folders)

    def _only(self, kind: str) -> str:
        """The one sentence for what is not there and for what may not be opened."""
        return f"only {kind}s in {self} may be opened: there is no {kind} of that name"

    def _listed(self, folder: str) -> Iterator[str]:
        for here, below, files in os.walk(folder):
            below[:] = sorted(b for b in below if not b.startswith("."))
            for file in sorted(f for f in files if os.path.splitext(f)[1].lower() in _SUFFIXES):
                yield os.path.join(here, file)

    def _candidates(self, name: str) -> list[str]:
        """Where a name may be, by its letters alone: nothing is looked up outside the folders."""
        if not name or os.pardir in re.split(r"[/\\]", name):
            return []
        if os.path.isabs(name):
            path = os.path.normpath(name)
            return [path] if any(_within(path, f) for f in (*self.folders, *self._roots)) else []
        return [os.path.join(f, name) for f in self.folders]

    def _name(self, path: str, folder: str) -> str | None:
        """Relative, unless a folder named earlier has a video of that name too; None where it may not be
        opened."""
        for name in (os.path.relpath(path, folder), path):
            found = self.find(name)
            if found == (os.path.realpath(path), ""):
                return name
        return None

    def _tell(self, path: str) -> None:
        if path not in self._told:
            self._told.add(path)
            log.warning("%s is left out, since its name is not UTF-8: rename it", printable(path))

    def _downloaded(self, url: str, stop: Callable[[], bool]) -> str:
        if self.downloads is None:
            raise VideoError(
                f"addresses (URLs) are not opened, only videos in {self}: give a name relative to it"
            )
        address, mark, part = url.partition("#")
        return f"{download(address, self.downloads, stop=stop)}{mark}{part}"


class FencedLibrary(VideoLibrary):
    """Clips that open no video outside the folders, whatever path a graph is given."""

    def __init__(self, clips: VideoLibrary, folders: Folders) -> None:
        super().__init__(clips.cache, clips.store, clips.max_side)
        self.folders = folders

    def _digest(self, path: str) -> str:  # each look at a video begins here
        if not isinstance(path, str) or not os.path.isabs(path) or not self.folders.find(path):
            may = f"only videos in {self.folders} may be opened"
            raise VideoError(
                f"{may}: there is no file of that name; give the absolute path of one, without '..'"
            )
        return super()._digest(path)


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
