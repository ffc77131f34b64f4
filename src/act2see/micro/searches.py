"""Searches in the board world whose truth is known: what each clip shows at some time, as text.

`act2see micro clips` writes them as the table that `act2see calibrate --queries` reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from act2see.errors import StoreError
from act2see.micro.questions import Split, items
from act2see.micro.recipe.learn_encoder import Phrase, is_true, search_name
from act2see.micro.world import CELLS, COLOURS, SHAPES, Clip, write_clip
from act2see.tools.runtime.files import write_text

TABLE = "queries.tsv"
NOWHERE = "none"
"""The name in the table for texts that no clip shows."""


def searches() -> Iterator[Phrase]:
    """Yield texts about a shape's colour, its place, and its blink, each with the one claim that it makes."""
    for shape in SHAPES:
        yield f"the {shape} blinks", (("blink", shape),)
        for colour in COLOURS:
            yield f"the {colour} {shape}", (("is", shape, colour),)
        for cell in CELLS:
            yield f"the {shape} at {search_name(cell)}", (("at", shape, search_name(cell)),)


def shows(clip: Clip, phrase: Phrase) -> bool:
    """Return whether a frame of the clip shows what the phrase claims."""
    _, claims = phrase
    return any(all(is_true(c, clip.board(frame)) for c in claims) for frame in range(clip.frames))


def search_table(clips: Mapping[str, Clip]) -> list[tuple[str, str]]:
    """Return a row for each text and each clip that shows it; `NOWHERE` stands for the clip if none does.

    Args:
        clips: The clips by name.
    """
    rows = []
    for phrase in searches():
        names = [name for name, clip in clips.items() if shows(clip, phrase)]
        rows += [(name, phrase[0]) for name in names or [NOWHERE]]
    return rows


def write_clips(
    folder: Path,
    count: int,
    split: Split = "test",
    skip: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write clips of all families, and the table of what they show; return the path of the table.

    Args:
        folder: The folder, which is created.
        count: The number of clips.
        split: The split of their questions.
        skip: The number of clips of the split to leave out at the start.
        progress: Called with the number of clips written and their total.

    Raises:
        StoreError: A file cannot be written.
    """
    clips: dict[str, Clip] = {}
    try:
        for n, item in enumerate(items(skip + count, split)):
            if n < skip:
                continue
            name = f"{n:03d}.mp4"
            clips[name] = item.clip
            write_clip(item.clip, folder / name)
            if progress:
                progress(len(clips), count)
    except OSError as e:
        raise StoreError(f"cannot write {folder}: {e.strerror or e}; choose another folder") from e
    table = folder / TABLE
    write_text(table, "".join(f"{name}\t{text}\n" for name, text in search_table(clips)))
    return table
