"""The librarian: which videos of a folder show what a query describes.

Each video has an index of its own, built when it is first searched and kept in the cache. A query is encoded
for each and searched in all of them; the scores of one encoder can be compared across videos, so videos are
ranked by their best frame, then by their second, so that a blink of a third of a second counts as much as
something that lasts. Videos whose best frame lies under the encoder's "no match" come last, and are marked.

Bounded: so many videos of a folder and so many frames of each; one index is read at a time. A file that
cannot be opened is named and skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from act2see.errors import VideoError
from act2see.tools.search.finder import Finder, Hit
from act2see.tools.video.folders import Folders

Progress = Callable[[str, int, int], None]  # a video's name, how many are done, of how many


@dataclass(frozen=True, slots=True)
class Ranked:
    """A video by its name in the folder, and its best frames, best first; `match` is False under the
    encoder's threshold."""

    name: str
    hits: tuple[Hit, ...]
    match: bool


@dataclass(frozen=True, slots=True)
class Search:
    """What came of a search: videos, best first; files that could not be opened, with the reason; whether
    videos were left out."""

    query: str
    ranked: tuple[Ranked, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    searched: int = 0
    limited: bool = False

    def __str__(self) -> str:
        """For a chat model, a line a video."""
        matching = sum(r.match for r in self.ranked)
        lines = [
            f'Searched {self.searched} videos for "{self.query}".'
            + ("" if matching else " None shows it; the closest:")
        ]
        for n, r in enumerate(self.ranked, start=1):
            times = ", ".join(f"{h.seconds:.1f} s (score {h.score:.2f})" for h in r.hits)
            lines.append(f"{n}. {r.name}: {times}" + ("" if r.match else "; no match"))
        lines += [f"Skipped {name}: {why}" for name, why in self.skipped]
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
    most: int = 200,
    progress: Progress | None = None,
) -> Search:
    """The `count` videos that fit `query` best, each with its `frames` best frames; at most `most` videos are
    searched.

    Raises `StoreError` where an index cannot be written.
    """
    names = folders.videos(most + 1)
    ranked = []
    skipped = [(name, "its name is not UTF-8: rename it") for name in folders.misnamed()]
    for n, name in enumerate(names[:most]):
        try:
            hits = finder.find(folders.path(name), query, k=frames).hits
        except VideoError as e:
            skipped.append((name, str(e)))
        else:
            ranked.append(Ranked(name, hits, bool(hits) and hits[0].score >= finder.encoder.no_match))
        if progress:
            progress(name, n + 1, min(most, len(names)))
    ranked.sort(key=lambda r: tuple(-h.score for h in r.hits))
    return Search(query, tuple(ranked[:count]), tuple(skipped), len(ranked), len(names) > most)
