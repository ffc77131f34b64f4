"""Which seconds of which file a path means: `clip.mp4`, or `clip.mp4#t=2,8` for a part of it.

A part is a media fragment (W3C), a video of its own that begins at 0. Paths are text in states, traces and
corpora. `Window.resolve` reads one where it enters the tools, and from there on the value travels.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from typing import Self

from act2see.errors import VideoError
from act2see.tools.runtime.text import clean_text

_FRAGMENT = re.compile(r"#t=(\d+(?:\.\d+)?)?(?:,(\d+(?:\.\d+)?))?$")


@dataclass(frozen=True, slots=True)
class Window:
    """A video file, or a part of one."""

    path: str
    """The file."""
    start: float = 0.0
    """Its first second, counted in the file."""
    end: float = math.inf
    """Its last second, counted in the file; infinite for the file's own end."""

    @classmethod
    def parse(cls, path: str | os.PathLike[str]) -> Self:
        """Read a path as text alone, without a look at the disk."""
        path = os.fspath(path)
        found = _FRAGMENT.search(path)
        if not found or not any(found.groups()):
            return cls(path)
        start, end = found.groups()
        return cls(path[: found.start()], float(start or 0), float(end) if end else math.inf)

    @classmethod
    def resolve(cls, video: VideoPath) -> Window:
        """Read a path. A file whose very name ends like a fragment comes before the part of another file."""
        if isinstance(video, Window):
            return video
        window = cls.parse(video)
        return window if window.whole or not os.path.exists(video) else cls(os.fspath(video))

    @property
    def whole(self) -> bool:
        """Whether it is the file from its first to its last second."""
        return self.start == 0 and self.end == math.inf

    def part(self, start: float, end: float) -> Window:
        """The part from `start` to `end`, counted in this window."""
        return Window(self.path, self.start + start, self.start + end)

    @property
    def fragment(self) -> str:
        """The end of its path: `#t=2,8`, `#t=2`, or nothing for a whole file."""
        if self.whole:
            return ""
        end = "" if self.end == math.inf else f",{_number(self.end)}"
        return f"#t={_number(self.start)}{end}"

    def __str__(self) -> str:
        """The path that means it."""
        return f"{self.path}{self.fragment}"


VideoPath = str | os.PathLike[str] | Window


def absolute_path(path: str | os.PathLike[str]) -> str:
    """The path of the same video (or part of one) from any working folder.

    Raises:
        VideoError: The path is relative and the working folder no longer exists.
    """
    path = os.fspath(path)
    try:
        here = os.getcwd()
    except FileNotFoundError:
        if not os.path.isabs(path):
            raise VideoError(
                f"{clean_text(path)} cannot be found: the working folder is gone; give an absolute path"
            ) from None
        return path
    plain = os.path.abspath(path)
    joined = path if os.path.isabs(path) else os.path.join(here, path)
    # After a link to a folder, `..` leads elsewhere than its letters say.
    return plain if os.path.realpath(plain) == os.path.realpath(joined) else joined


def _number(seconds: float) -> str:
    """To the microsecond, never in powers of ten."""
    return f"{seconds:.6f}".rstrip("0").rstrip(".")
