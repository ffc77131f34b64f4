"""`act2see index` and `act2see find`: the video's index, and the frames that fit a text."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from act2see.cli.options import ConfigFile, Preset, chosen_config
from act2see.cli.output import note, out, progress_bar, say, size
from act2see.errors import QuestionError
from act2see.trace.console import plain

if TYPE_CHECKING:
    from act2see.graphs.config import Config
    from act2see.tools.base import Resources
    from act2see.tools.frames import FrameRef
    from act2see.tools.search.finder import Finder
    from act2see.tools.search.index import FrameIndex

_OURS = "found.html"


def index(
    videos: Annotated[list[str], typer.Argument(metavar="VIDEO...", help="Video files.", show_default=False)],
    preset: Preset = None,
    config: ConfigFile = None,
) -> None:
    """Index videos, so that the first question about them is as quick as the second."""
    from act2see.graphs.parts import build_resources

    finder = build_resources(chosen_config(preset, config)).finder
    for video in videos:
        started, encoded = time.perf_counter(), finder.encoded
        made = _indexed(finder, video)
        folder = finder.folder(made.id)
        on_disk = size(sum(f.stat().st_size for f in folder.iterdir()))
        said = f"{len(made)} frames, {on_disk}"
        took = (
            f"{time.perf_counter() - started:.1f} s"
            if finder.encoded > encoded
            else "nothing to do: it is indexed"
        )
        say(f"{video}: {said}, {took}")


def find(
    video: Annotated[str, typer.Argument(help="A video file.", show_default=False)],
    query: Annotated[str, typer.Argument(help="What the frame shows.", show_default=False)],
    top: Annotated[int, typer.Option("--top", "-n", min=1, help="How many frames.")] = 5,
    segments: Annotated[
        bool,
        typer.Option("--segments", help="The best frame of each segment, for events that have a length."),
    ] = False,
    to: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Write the frames, and a page of them, to a folder."),
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page of the frames.")] = None,
    preset: Preset = None,
    config: ConfigFile = None,
) -> None:
    """Find the frames of a video that fit a text."""
    from rich import box
    from rich.table import Table

    from act2see.graphs.parts import build_resources
    from act2see.tools.runtime.files import check_file, check_folder, whole_folder, write_text
    from act2see.trace.page import find_html
    from act2see.trace.timeline import clock

    if not query.strip():
        raise QuestionError("the query is empty: say what the frame shows")
    if to:
        check_folder(to, _OURS)
    if html:
        check_file(html)
    chosen = chosen_config(preset, config)
    resources = build_resources(chosen)
    finder, store = resources.finder, resources.store
    length = finder.clips.clip(video).info.seconds
    _indexed(finder, video)
    hits = finder.find(video, query, top, segments=segments).hits
    if refused := _refused(chosen, resources, video):
        say(f"These scores mean nothing: {refused}", "yellow")
    if not hits:
        say("No frame was found: nothing in this video is similar enough.", "yellow")
    table = Table("", "time", "score", "frame", box=box.SIMPLE, title=plain(query), title_justify="left")
    for n, hit in enumerate(hits, start=1):
        table.add_row(str(n), clock(hit.seconds, length), f"{hit.score:.3f}", str(hit.frame))
    if hits:
        out().print(table)
    if not to and not html:
        return
    pictures = finder.clips.pictures(video, [h.frame for h in hits])
    rows: list[tuple[FrameRef, float]] = [(p, h.score) for p, h in zip(pictures, hits, strict=True)]
    page = find_html(Path(video).name, query, rows, store)
    if to:
        with whole_folder(to, _OURS) as folder:
            for n, (frame, score) in enumerate(rows, start=1):
                store.export(frame.digest, folder / f"{n:02d}-{frame.seconds:.1f}s-{score:.2f}.png")
            (folder / _OURS).write_text(page, encoding="utf-8", errors="replace")
        note(f"written to {to}")
    if html:
        write_text(html, page)
        note(f"written to {html}")


def _refused(config: Config, resources: Resources, video: str) -> str | None:
    """Why this configuration's models know nothing of this video: models of one world still score whatever
    they are shown."""
    from act2see.cli.runs import run_until_done
    from act2see.graphs.parts import build_guard

    guard = build_guard(config)
    if guard is None:
        return None
    clip = resources.finder.clips.clip(video)
    shown = resources.finder.clips.pictures(video, clip.spread(3))
    said = run_until_done(guard.refuses([resources.store.get(f.digest) for f in shown]))
    return said.removeprefix("I cannot tell: ") if said else None


def _indexed(finder: Finder, video: str) -> FrameIndex:
    """The index of a video, built with a progress bar where it is not there yet."""
    with progress_bar() as bar:
        task = bar.add_task(f"indexing {Path(video).name}".replace("[", r"\["), total=None)
        return finder.index(video, lambda done, total: bar.update(task, completed=done, total=total))
