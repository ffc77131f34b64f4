"""Which videos a program may open: those in the folders that were named when it was started.

A name is relative to one of the folders, or an absolute path into one; a part may follow it (`clip.mp4#t=2,8`). All
else is refused in one and the same sentence, whether or not there is such a file, so that nobody learns what lies
outside: other absolute paths, `..`, links that lead out. URLs are refused too. What is opened is the resolved path, so that a link
which is changed afterwards leads nowhere else.

URLs can be allowed. Then the video is downloaded first: what decodes videos opens files alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from act2see.errors import ConfigError, VideoError
from act2see.tools.clips import Clips
from act2see.tools.download import download
from act2see.tools.video import split_part

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SUFFIXES = frozenset([".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv"])


class Folders:
    """Opens names. Raises `ConfigError` where a folder is not there."""

    def __init__(self, folders: Sequence[str | os.PathLike[str]], *, downloads: Path | None = None) -> None:
        """`downloads` is where videos from URLs are kept; without it URLs are refused."""
        if not folders:
            raise ConfigError("name at least one folder of videos")
        self.folders = tuple(os.path.abspath(os.path.expanduser(f)) for f in folders)
        for folder in self.folders:
            if not os.path.isdir(folder):
                raise ConfigError(f"there is no folder {folder}: name one that holds videos")
        self.downloads = downloads
        self._roots = tuple(os.path.realpath(f) for f in (*self.folders, *((downloads,) if downloads else ())))

    def path(self, name: str, stop: Callable[[], bool] = lambda: False) -> str:
        """The file that a name means, resolved, its part (`#t=`) kept; may download, until `stop` says so. Raises `VideoError`."""
        if _URL.match(name):
            return self._downloaded(name, stop)
        inside = [real for candidate in self._candidates(name) if (real := self.resolved(candidate))]
        if not inside:
            urls = "or an http(s) address" if self.downloads else "addresses (URLs) are not opened"
            raise VideoError(f"only videos in {self} may be opened: give a name relative to it, without '..'; {urls}")
        for file, part in inside:
            if os.path.exists(file):
                return file + part
        raise VideoError(f"there is no video {name!r} in {self}: check the name")

    def resolved(self, path: str) -> tuple[str, str] | None:
        """An absolute path, its links followed, and its part; None where that is outside the folders."""
        try:
            file, _ = split_part(path)
            real = os.path.realpath(file)
        except ValueError:  # a null character, or half of a surrogate pair
            return None
        return (real, path[len(file) :]) if any(_within(real, root) for root in self._roots) else None

    def videos(self, most: int = 500) -> list[str]:
        """The names of the videos, as `path` takes them, by folder; `most` of them at most."""
        names: list[str] = []
        for folder in self.folders:
            for here, below, files in os.walk(folder):
                below[:] = sorted(b for b in below if not b.startswith("."))
                for file in sorted(f for f in files if os.path.splitext(f)[1].lower() in _SUFFIXES):
                    path = os.path.join(here, file)
                    if self.resolved(path):
                        names.append(self._name(path, folder))
                    if len(names) == most:
                        return names
        return names

    def __str__(self) -> str:
        return " or ".join(self.folders)

    def _candidates(self, name: str) -> list[str]:
        """Where a name may be, by its letters alone: nothing is looked up outside the folders."""
        if os.pardir in re.split(r"[/\\]", name):
            return []
        if os.path.isabs(name):
            path = os.path.normpath(name)
            return [path] if any(_within(path, f) for f in (*self.folders, *self._roots)) else []
        return [os.path.join(f, name) for f in self.folders]

    def _name(self, path: str, folder: str) -> str:
        """Relative, unless a folder named earlier has a video of that name too."""
        name = os.path.relpath(path, folder)
        return name if self.path(name) == os.path.realpath(path) else path

    def _downloaded(self, url: str, stop: Callable[[], bool]) -> str:
        if self.downloads is None:
            raise VideoError(f"addresses (URLs) are not opened, only videos in {self}: give a name relative to it")
        address, mark, part = url.partition("#")
        return f"{download(address, self.downloads, stop=stop)}{mark}{part}"


class FencedClips(Clips):
    """Clips that open no video outside the folders, whatever path a graph is given."""

    def __init__(self, clips: Clips, folders: Folders) -> None:
        super().__init__(clips.cache, clips.store, clips.max_side)
        self.folders = folders

    def _digest(self, path: str) -> str:  # each look at a video begins here
        if not os.path.isabs(path) or os.pardir in Path(path).parts or not self.folders.resolved(path):
            raise VideoError(f"only videos in {self.folders} may be opened: give the absolute path of one, without '..'")
        return super()._digest(path)


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
