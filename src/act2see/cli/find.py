"""`act2see index` and `act2see find`: builds the index of a video, and finds frames that match a text."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from act2see.cli.options import ConfigFile, Force, Preset, chosen_config
from act2see.cli.output import note, out, print_json, progress_bar, say
from act2see.errors import QuestionError
from act2see.tools.runtime.text import format_bytes
from act2see.trace.console import plain

if TYPE_CHECKING:
    from act2see.graphs.config import Config
    from act2see.tools.base import Resources
    from act2see.tools.frames import FrameRef
    from act2see.tools.search.finder import Finder
    from act2see.tools.search.index import FrameIndex
    from act2see.tools.search.ranking import Found
    from act2see.tools.video.store import FrameStore

_PAGE = "found.html"


def index(
    videos: Annotated[list[str], typer.Argument(metavar="VIDEO...", help="Video files.", show_default=False)],
    preset: Preset = None,
    config: ConfigFile = None,
) -> None:
    """Index videos, so that the first question about them is as fast as later ones.

    Needs video files. The indexes are kept in the cache folder.
    """
    from act2see.graphs.parts import build_resources

    finder = build_resources(chosen_config(preset, config)).finder
    for video in videos:
        started = time.perf_counter()
        encoded = finder.encoded
        built = build_index(finder, video)
        if finder.encoded > encoded:
            took = f"{time.perf_counter() - started:.1f} s"
        else:
            took = "nothing to do: it is indexed"
        on_disk = sum(file.stat().st_size for file in finder.folder(built.id).iterdir())
        say(f"{video}: {len(built)} frames, {format_bytes(on_disk)}, {took}")


def find(
    video: Annotated[str, typer.Argument(help="A video file.", show_default=False)],
    query: Annotated[str, typer.Argument(help="A description of the frame.", show_default=False)],
    top: Annotated[int, typer.Option("--top", "-n", min=1, help="The number of frames.")] = 5,
    segments: Annotated[
        bool,
        typer.Option("--segments", help="Find the best frame of each segment, for events of some duration."),
    ] = False,
    to: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Write the frames and an HTML page of them to a folder."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write an HTML page of the frames.")
    ] = None,
    force: Force = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    preset: Preset = None,
    config: ConfigFile = None,
) -> None:
    """Find the frames of a video that match a text.

    Needs a video and a description of the frame. The first search in a video indexes it.
    """
    from act2see.cli.thresholds import configured_threshold
    from act2see.graphs.parts import build_resources
    from act2see.tools.runtime.files import check_file, check_folder, write_text
    from act2see.trace.folder import MARKS
    from act2see.trace.page import find_html

    if not query.strip():
        raise QuestionError("the query is empty: describe the frame")
    if to:
        check_folder(to, _PAGE)
    if html:
        check_file(html, MARKS[".html"], force=force)
    chosen = chosen_config(preset, config)
    resources = build_resources(chosen)
    finder, store = resources.finder, resources.store
    seconds = finder.library.probe(video).info.seconds
    build_index(finder, video)
    configured = configured_threshold(chosen)
    threshold = finder.no_match if configured is None else configured
    found = finder.find(video, query, top, segments=segments, threshold=threshold)
    hits = found.hits
    refusal = guard_refusal(chosen, resources, video)
    if json:
        _print_json(query, found, threshold, refusal)
    else:
        if refusal:
            say(f"These scores are not meaningful: {refusal}", "yellow")
        _print_found(query, found, threshold, seconds)
        _explain_threshold(chosen, finder, found, threshold)
    if not to and not html:
        return
    frames = finder.library.pictures(video, [hit.frame for hit in hits])
    rows = [(frame, hit.score) for frame, hit in zip(frames, hits, strict=True)]
    page = find_html(Path(video).name, query, rows, store, threshold)
    if to:
        _write_folder(to, rows, page, store)
        note(f"written to {to}")
    if html:
        write_text(html, page)
        note(f"written to {html}")


def _print_json(query: str, found: Found, threshold: float, refusal: str | None) -> None:
    """Print the frames as JSON: times in seconds, and whether each reaches the threshold of a match.

    `refused` is the reason why the scores are not meaningful; null if they are.
    """
    import json

    frames = []
    for hit in found.hits:
        frames.append(
            {
                "seconds": round(hit.seconds, 6),
                "score": round(hit.score, 6),
                "frame": hit.frame,
                "match": bool(hit.score >= threshold),
            }
        )
    result = {"query": query, "threshold": threshold, "refused": refusal, "frames": frames}
    print_json(json.dumps(result, ensure_ascii=False))


def _print_found(query: str, found: Found, threshold: float, seconds: float) -> None:
    """Print a table of the frames, and mark those that do not match.

    Args:
        query: The query.
        found: The result of the search.
        threshold: The score below which a frame does not match.
        seconds: The length of the video.
    """
    from rich import box
    from rich.table import Table

    from act2see.trace.timeline import clock

    if found.hits:
        table = Table(
            "", "time", "score", "frame", "", box=box.SIMPLE, title=plain(query), title_justify="left"
        )
        for n, hit in enumerate(found.hits, start=1):
            mark = "" if hit.score >= threshold else "no match"
            table.add_row(str(n), clock(hit.seconds, seconds), f"{hit.score:.3f}", str(hit.frame), mark)
        out().print(table)
    if found.closest and not any(hit.score >= threshold for hit in found.hits):
        closest = (
            f"the closest frame, at {clock(found.closest.seconds, seconds)}, scores {found.closest.score:.3f}"
        )
        say(f"No match: {closest}, and {threshold:.3f} is needed.", "yellow")


def _explain_threshold(config: Config, finder: Finder, found: Found, threshold: float) -> None:
    """Print the origin of the threshold if it decided something, or if there is none."""
    from act2see.cli.thresholds import describe_threshold, is_uncalibrated

    calibration = finder.calibration
    refused = found.best < threshold or any(hit.score < threshold for hit in found.hits)
    uncalibrated = is_uncalibrated(config, calibration)
    if refused or uncalibrated:
        advice = "; `act2see calibrate` finds one" if uncalibrated else ""
        say(f"threshold: {describe_threshold(config, calibration)}{advice}", "dim")


def _write_folder(to: Path, rows: Sequence[tuple[FrameRef, float]], page: str, store: FrameStore) -> None:
    """Write the frames as PNG files, best first, and the page."""
    from act2see.tools.runtime.files import whole_folder

    with whole_folder(to, _PAGE) as folder:
        for n, (frame, score) in enumerate(rows, start=1):
            store.export(frame.digest, folder / f"{n:02d}-{frame.seconds:.1f}s-{score:.2f}.png")
        (folder / _PAGE).write_text(page, encoding="utf-8", errors="replace")


def guard_refusal(config: Config, resources: Resources, video: str) -> str | None:
    """Return the reason why the models of this configuration cannot understand this video, or None.

    Models of a small world give every frame a score, even if they cannot understand it.
    """
    from act2see.cli.runs import run_until_done
    from act2see.graphs.parts import build_guard

    guard = build_guard(config)
    if guard is None:
        return None
    library = resources.finder.library
    shown = library.pictures(video, library.probe(video).spread(3))
    refusal = run_until_done(guard.refuses([resources.store.get(frame.digest) for frame in shown]))
    return refusal.removeprefix("I cannot tell: ") if refusal else None


def build_index(finder: Finder, video: str) -> FrameIndex:
    """Return the index of a video. Show a progress bar while it is built."""
    from rich.markup import escape

    with progress_bar() as bar:
        task = bar.add_task(f"indexing {escape(Path(video).name)}", total=None)
        return finder.index(video, lambda done, total: bar.update(task, completed=done, total=total))
