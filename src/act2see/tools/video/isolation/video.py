"""A video that is opened in a child process, and the children that this process shares."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from act2see.errors import ConfigError
from act2see.tools.frames import Video
from act2see.tools.runtime.forks import Lock
from act2see.tools.video.isolation.pool import Decoders
from act2see.tools.video.reader import Decoder, video_digest
from act2see.tools.video.store import Pixels
from act2see.tools.video.window import VideoPath, Window

_lock = Lock()
_shared: list[Decoders] = []


def can_isolate() -> bool:
    """Return whether this system can decode in a child process: Windows cannot limit one."""
    return os.name == "posix"


def shared_decoders() -> Decoders:
    """Return the children of this process. None is started before it is needed.

    Raises:
        ConfigError: This system cannot decode in a child process.
    """
    if not can_isolate():
        raise ConfigError("`video: {isolate: always}` does not work on Windows: set it to never")
    # Children are for all libraries together, so this is a global.
    with _lock:
        if not _shared:
            _shared.append(Decoders())
        return _shared[0]


class IsolatedVideo:
    """A video like `VideoFile`, whose file is opened and decoded in a child process.

    Args:
        video: A file, or a part of one.
        decoder: The decoder.
        decoders: The child processes.

    Raises:
        VideoError: As `open_video`; or the child has ended, because the file crashed it or broke a limit.
    """

    def __init__(self, video: VideoPath, decoder: Decoder = "pyav", decoders: Decoders | None = None) -> None:
        self.window = Window.resolve(video)
        self._decoder: Decoder = decoder
        self._decoders = decoders or shared_decoders()
        facts, timestamps = self._decoders.facts(self.window, decoder)
        self.timestamps: NDArray[np.float64] = timestamps
        """Start of each frame, `(frames,)`, in seconds of the window."""
        self.seconds = float(facts["seconds"])
        """Length of the window."""
        self.width, self.height = int(facts["width"]), int(facts["height"])
        """Size of the upright picture, in pixels."""

    def info(self, digest: str | None = None) -> Video:
        """Return the facts of the video, as `VideoFile.info` does."""
        frames = len(self.timestamps)
        return Video(
            path=str(self.window),
            digest=digest or video_digest(self.window),
            seconds=self.seconds,
            width=self.width,
            height=self.height,
            frames=frames,
            fps=frames / self.seconds if self.seconds > 0 else 0.0,
        )

    def read(
        self, indices: Sequence[int], size: tuple[int, int] | None = None
    ) -> Iterator[tuple[int, float, Pixels]]:
        """Yield frames in time order, each once, as `VideoFile.read` does."""
        return self._decoders.frames(self.window, self._decoder, indices, size)
