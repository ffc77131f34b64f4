"""The initial frames: those that the model is shown before it begins.

The paper shows frames at 1 fps, or 3 frames spread evenly for VideoEspresso (`view.fps`, `view.frames`).
"""

from __future__ import annotations

import asyncio

from act2see.graphs.config import ViewConfig
from act2see.graphs.parts import Parts
from act2see.tools.frames import FrameRef, Video
from act2see.tools.video.window import absolute_path


async def initial_frames(parts: Parts, view: ViewConfig, video: str) -> tuple[Video, tuple[FrameRef, ...]]:
    """The video's facts and its initial frames: `view.fps` a second, or `view.frames` spread evenly.

    More than `view.max_frames` are thinned evenly, so that the end of the video is in view too. The path is
    absolute, so that a run is resumed, and a trace asked again, from any working folder.

    Raises:
        VideoError: The video cannot be read.
    """
    library = parts.resources.finder.library

    def read() -> tuple[Video, tuple[FrameRef, ...]]:
        clip = library.probe(video)
        frames = clip.spread(view.frames) if view.frames else clip.every(view.fps)
        if len(frames) > view.max_frames:
            last, steps = len(frames) - 1, max(1, view.max_frames - 1)
            frames = [frames[round(i * last / steps)] for i in range(view.max_frames)]
        facts = clip.info.model_copy(update={"path": absolute_path(video)})
        return facts, tuple(library.pictures(video, frames))

    return await asyncio.to_thread(read)
