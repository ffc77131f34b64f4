"""Search in a folder: find the videos that show what a query describes.

Each video has its own index, which is built at the first search and cached. Scores of one encoder are
comparable across videos, so videos are ranked by their best frame, then by their second best, and so on: a
blink of a third of a second counts as much as a lasting event. Videos whose best frame is below the encoder's
threshold come last, and are marked.

The number of videos and of frames per video is limited, and one index is read at a time. A file that cannot
be opened is reported and skipped. So is one whose name has a line break or a sign that reverses the text: the
result has a line for each video, and such a name could forge one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from act2see.errors import VideoError
from act2see.tools.runtime.outside import one_line
from act2see.tools.search.finder import Finder
from act2see.tools.search.ranking import Hit
from act2see.tools.video.folders import Folders

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Ranked:
    """A video that was searched."""

    name: str
    """Name of the video in the folder."""
    hits: tuple[Hit, ...]
    """Best frames of the video, best first."""
    match: bool
    """Whether the best frame reaches the encoder's threshold."""


@dataclass(frozen=True, slots=True)
class Search:
    """The result of searching a folder."""

    query: str
    ranked: tuple[Ranked, ...]
    """Videos, best first."""
    skipped: tuple[tuple[str, str], ...] = ()
    """Files that could not be opened, with the reasons."""
    searched: int = 0
    """Number of videos that were searched."""
    limited: bool = False
    """Whether the folder has more videos than were searched."""

    def __str__(self) -> str:
        """Return the result for a chat model, with one line per video."""
        title = f'Searched {self.searched} videos for "{one_line(self.query)}".'
        if not any(video.match for video in self.ranked):
            title += " None shows it; the closest:"
        lines = [title]
        for n, video in enumerate(self.ranked, start=1):
            times = ", ".join(f"{hit.seconds:.1f} s (score {hit.score:.2f})" for hit in video.hits)
            no_match = "" if video.match else "; no match"
            lines.append(f"{n}. {video.name}: {times}{no_match}")
        lines += [f"Skipped {name}: {one_line(why)}" for name, why in self.skipped]
        if self.limited:
            lines.append("The folder has more videos than are searched at once; these are the first by name.")
        return "\n".join(lines)


def search_folder(
    finder: Finder,
    folders: Folders,
    query: str,
    *,
    count: int = 3,
    frames: int = 3,
    max_videos: int = 200,
    progress: Progress | None = None,
) -> Search:
    """Find the videos that match a query best.

    Args:
        finder: The finder that searches each video.
        folders: The folders of the videos.
        query: A description of the videos to find.
        count: The largest number of videos to return.
        frames: The largest number of frames per video.
        max_videos: The largest number of videos to search.
        progress: Called after each video with its name, the number of videos done and their total.

    Raises:
        StoreError: An index cannot be written.
    """
    names = folders.videos(max_videos + 1)
    ranked = []
    skipped = [(name, "its name is not UTF-8: rename it") for name in folders.misnamed()]
    for n, name in enumerate(names[:max_videos]):
        shown = one_line(name)
        try:
            if shown != name:
                raise VideoError("its name has a line break or another control character: rename it")
            hits = finder.find(folders.path(name), query, k=frames).hits
        except VideoError as e:
            skipped.append((shown, str(e)))
        else:
            ranked.append(Ranked(name, hits, bool(hits) and hits[0].score >= finder.no_match))
        if progress:
            progress(name, n + 1, min(max_videos, len(names)))
    ranked.sort(key=lambda r: tuple(-h.score for h in r.hits))
    return Search(query, tuple(ranked[:count]), tuple(skipped), len(ranked), len(names) > max_videos)
