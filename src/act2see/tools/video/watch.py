"""A watch on the file of a video, so that frames of one content are never kept under the digest of another.

A file can be replaced while it is read: between two frames, or between its digest and its frames. So whatever
is kept under a digest is checked before: `watch = library.watch(video)`, read, `watch.check()`, keep.
"""

from __future__ import annotations

from collections.abc import Callable

from act2see.errors import VideoError
from act2see.tools.video.identity import FileIdentity, identify
from act2see.tools.video.window import Window


class Watch:
    """Tells whether a video's file is still the one that had a digest.

    Args:
        window: The video.
        compute: Returns the digest of a video.
        digest: The digest that it must have; None for any.

    Raises:
        VideoError: The file cannot be read, or has another digest.
    """

    def __init__(self, window: Window, compute: Callable[[Window], str], digest: str | None = None) -> None:
        self.window = window
        self._compute = compute
        self._identity = self._identify()
        self.digest = compute(window)
        """The digest of the video."""
        if digest not in (None, self.digest):
            raise self._changed()

    def check(self) -> None:
        """Raise `VideoError` if the file was replaced or written to since."""
        now = self._identify()
        if now == self._identity and not self._identity.recent:
            return
        # A new name, link or permission changes the identity too, but nothing else of the same file.
        if now.content != self._identity.content or self._compute(self.window) != self.digest:
            raise self._changed()
        self._identity = now

    def _identify(self) -> FileIdentity:
        try:
            return identify(self.window.path)
        except (OSError, ValueError):
            self._compute(self.window)  # raises an error that explains the problem
            raise self._changed() from None

    def _changed(self) -> VideoError:
        return VideoError(f"{self.window} changed while it was read: ask again")
