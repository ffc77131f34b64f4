"""The initial view: which frames the model is given before it begins."""

from __future__ import annotations

import asyncio

from act2see.graphs.config import ViewConfig
from act2see.graphs.parts import Parts
from act2see.tools.frames import FrameRef, Video
from act2see.tools.video.window import absolute_path


async def initial_view(parts: Parts, view: ViewConfig, video: str) -> tuple[Video, tuple[FrameRef, ...]]:
    """The video's facts and its initial frames: `view.fps` a second, or `view.frames` spread evenly.

    A clip with more than `view.max_frames` is thinned evenly, so that its end is in view too. The path is
    absolute, so that a run is resumed, and a trace asked again, from any working folder.
    """
    clips = parts.resources.finder.clips

    def look() -> tuple[Video, tuple[FrameRef, ...]]:
        clip = clips.clip(video)
        frames = clip.spread(view.frames) if view.frames else clip.every(view.fps)
        if len(frames) > view.max_frames:
            frames = [
                frames[round(i * (len(frames) - 1) / max(1, view.max_frames - 1))]
                for i in range(view.max_frames)
            ]
        facts = clip.info.model_copy(update={"path": absolute_path(video)})
        return facts, tuple(clips.pictures(video, frames))

    return await asyncio.to_thread(look)
