"""The initial frames, which the model sees before its first turn.

The paper shows frames at 1 fps, or 3 evenly spread frames for VideoEspresso (`view.fps`, `view.frames`).
"""

from __future__ import annotations

import asyncio

from act2see.graphs.parts import Parts
from act2see.graphs.sections import ViewConfig
from act2see.tools.frames import FrameRef, Video
from act2see.tools.video.window import absolute_path


async def initial_frames(parts: Parts, view: ViewConfig, video: str) -> tuple[Video, tuple[FrameRef, ...]]:
    """Return the facts of the video and its initial frames: `view.fps` a second, or `view.frames` in all.

    If they are more than `view.max_frames`, frames are left out evenly, so that the end of the video is still
    in view. The video's path becomes absolute, so that a run can be resumed, and a trace replayed, from any
    working folder.

    Args:
        parts: The parts of the graph.
        view: The settings of the initial frames.
        video: The path of the video.

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
