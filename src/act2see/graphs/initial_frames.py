"""The initial frames, which the model sees before its first turn.

The paper shows frames at 1 fps, or 3 evenly spread frames for VideoEspresso (`view.fps`, `view.frames`). A
long video has more of them than a model reads (`view.max_frames`). Then they are spread evenly or, with
`view.choose: changes`, taken where the picture changes: of a screen or a board that stands still most of the
time, even spreading would leave out short states and show long ones several times.

Changes are found once for a video. The frames chosen are kept with its other facts, and their pictures in the
store.
"""

from __future__ import annotations

import asyncio

import numpy as np
from PIL import Image

from act2see.graphs.parts import Parts
from act2see.graphs.sections import ViewConfig
from act2see.tools.frames import FrameRef, Video
from act2see.tools.runtime.forks import natively
from act2see.tools.video.library import VideoLibrary
from act2see.tools.video.store import Pixels
from act2see.tools.video.window import VideoPath, absolute_path

_GRID = 24
"""Pictures are compared as this many squares across and down, which averages noise away."""
_CHANGED = 24.0
"""The smallest difference of a square that counts as a change, of 255. Noise and encoders make less."""


async def initial_frames(parts: Parts, view: ViewConfig, video: str) -> tuple[Video, tuple[FrameRef, ...]]:
    """Return the facts of the video and its initial frames.

    The video's path becomes absolute, so that a run can be resumed, and a trace replayed, from any working
    folder.

    Args:
        parts: The parts of the graph.
        view: The settings of the initial frames.
        video: The path of the video.

    Raises:
        StoreError: A picture or the cache cannot be written.
        VideoError: The video cannot be read.
    """
    library = parts.resources.finder.library

    def read() -> tuple[Video, tuple[FrameRef, ...]]:
        frames = choose_frames(library, view, video)
        facts = library.probe(video).info.model_copy(update={"path": absolute_path(video)})
        return facts, tuple(library.pictures(video, frames))

    return await asyncio.to_thread(read)


def choose_frames(library: VideoLibrary, view: ViewConfig, video: VideoPath) -> list[int]:
    """Return the numbers of the initial frames: `view.fps` a second, or `view.frames` in all.

    If they are more than `view.max_frames`, some are left out as `view.choose` says. The first and the last
    stay, so that the end of the video is in view.

    Args:
        library: The library that opens the video.
        view: The settings of the initial frames.
        video: The path of the video.

    Raises:
        StoreError: A picture or the cache cannot be written.
        VideoError: The video cannot be read.
    """
    clip = library.probe(video)
    frames = clip.spread(view.frames) if view.frames else clip.every(view.fps)
    if len(frames) <= view.max_frames:
        return frames
    if view.choose == "changes":
        name = (
            f"{view.max_frames} changes of {f'{view.frames} frames' if view.frames else f'{view.fps:g} fps'}"
        )
        chosen = clip.views.get(name)
        if chosen is None:
            chosen = _find_changes(library, video, clip.info, frames, view.max_frames)
            library.keep_view(video, name, chosen, clip.info.digest)
        return chosen
    last, steps = len(frames) - 1, max(1, view.max_frames - 1)
    return [frames[round(i * last / steps)] for i in range(view.max_frames)]


def _find_changes(
    library: VideoLibrary, video: VideoPath, info: Video, frames: list[int], most: int
) -> list[int]:
    """Return at most `most` of the frames: the first, those that differ from the last one kept, the last.

    If more differ, those with the largest differences are returned; of equals, the earlier.
    """
    size = info.fit(library.max_side)
    kept: Pixels | None = None
    changes: dict[int, float] = {}
    taken: dict[int, str] = {}
    for number, _, pixels in library.decode(video, frames, size, info.digest):
        small = _reduce(pixels)
        change = np.inf if kept is None else _difference(kept, small)
        if number == frames[-1]:
            change = np.inf
        if change > _CHANGED:
            kept = small
            changes[number] = float(change)
            taken[number] = library.store.put(pixels)
    chosen = sorted(changes, key=lambda number: (-changes[number], number))[:most]
    library.keep(video, {number: taken[number] for number in chosen}, info.digest)
    return sorted(chosen)


@natively
def _reduce(pixels: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(pixels).resize((_GRID, _GRID), Image.Resampling.BOX))


def _difference(one: Pixels, other: Pixels) -> float:
    """Return the difference of the square that changed most, averaged over its colours."""
    return float(np.abs(one.astype(np.int16) - other).mean(-1).max())
