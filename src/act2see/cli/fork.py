"""`act2see trace diff`, `replay` and `fork`: compare traces, ask again, and go back to a call and change
it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from act2see.cli.options import ConfigFile, Preset, chosen_config
from act2see.cli.output import note, out, print_json, say
from act2see.errors import QuestionError, StoreError

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from act2see.graphs.config import Config
    from act2see.tools.video.store import FrameStore
    from act2see.trace.terminal import ChainPrinter
    from act2see.trace.trace import Trace

Saved = Annotated[
    Path,
    typer.Argument(metavar="TRACE", help="A trace file, or the folder of `ask --save`.", show_default=False),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE",
        help="Where to write the new trace: a .json file, or a folder, with frames.",
    ),
]


def diff(
    first: Annotated[Path, typer.Argument(metavar="A", help="A trace file or folder.", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another.", show_default=False)],
    json: Annotated[bool, typer.Option("--json", help="Print the differences as JSON.")] = False,
) -> None:
    """Compare two traces: where they part, call by call."""
    from act2see.trace.diff import diff_traces
    from act2see.trace.side_by_side import show_diff
    from act2see.trace.trace import Trace

    a, b = Trace.load(first), Trace.load(second)
    found = diff_traces(a, b)
    if json:
        print_json(found.to_json())
    else:
        show_diff(out(), found, a, b)


def replay(trace: Saved, to: Out = None, preset: Preset = None, config: ConfigFile = None) -> None:
    """Ask a trace's question again, with its seed and tools, and say whether it comes out the same."""
    from act2see.graphs.ask import create_act2see
    from act2see.graphs.fork import areplay
    from act2see.trace.folder import find_video
    from act2see.trace.trace import Trace

    _check_out(to)
    loaded, chosen = find_video(Trace.load(trace), trace), chosen_config(preset, config)
    _finish(areplay(create_act2see(chosen), loaded, on_event=_chain(chosen).event), loaded, chosen, to)


def fork(
    trace: Saved,
    at: Annotated[
        int | None, typer.Option(metavar="N", help="The call to go back to, from 1; 0 is the beginning.")
    ] = None,
    query: Annotated[str | None, typer.Option(metavar="TEXT", help="Ask this instead.")] = None,
    tool: Annotated[str | None, typer.Option(metavar="TAG", help="Ask this tool instead.")] = None,
    frame: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Show this instead: a picture, or a time in the video in seconds."),
    ] = None,
    drop: Annotated[
        bool, typer.Option("--drop", help="Show nothing: the model is told that there is no such frame.")
    ] = False,
    to: Out = None,
    preset: Preset = None,
    config: ConfigFile = None,
) -> None:
    """Go back to a call of a trace, change it, and let the model go on from there."""
    from act2see.graphs.ask import create_act2see
    from act2see.graphs.fork import afork
    from act2see.graphs.parts import cached_parts
    from act2see.trace.folder import find_video
    from act2see.trace.trace import Trace

    _check_out(to)
    loaded, chosen = find_video(Trace.load(trace), trace), chosen_config(preset, config)
    if at is None:
        calls = "; ".join(f"{n} <{c.tag}> {c.query[:60]}" for n, c in enumerate(loaded.calls, start=1))
        raise QuestionError(
            f"say which call to go back to, with --at N (calls: {calls or 'none, so only 0, the beginning'})"
        )
    _bring_frames(loaded, trace, cached_parts(chosen).resources.store)
    shown = picture_or_time(frame) if frame is not None else None
    on_event = _chain(chosen).event
    work = afork(
        create_act2see(chosen), loaded, at, query=query, tag=tool, frame=shown, drop=drop, on_event=on_event
    )
    _finish(work, loaded, chosen, to, save=True)


def _chain(config: Config) -> ChainPrinter:
    from act2see.trace.terminal import ChainPrinter

    return ChainPrinter(out(), loads=config.reasoner.use == "transformers")


def _finish(
    work: Coroutine[Any, Any, Trace], before: Trace, config: Config, to: Path | None, save: bool = False
) -> None:
    """Run, show the answer and what differs, save: where nobody says where, with `save` under a name of its
    own."""
    from act2see.cli.runs import run_until_done
    from act2see.graphs.parts import cached_parts
    from act2see.tools.runtime.files import write_text
    from act2see.trace.diff import diff_traces
    from act2see.trace.folder import frames_of, save_folder
    from act2see.trace.side_by_side import show_diff
    from act2see.trace.terminal import answer_lines, question_lines

    say(question_lines(before.question), prose=True)
    new = run_until_done(work)
    say(answer_lines(new), prose=True)
    say("")
    show_diff(out(), diff_traces(before, new), before, new)
    if to is None and save:
        to = Path(f"fork-{new.id}.json")
    if to is None:
        return
    if to.suffix:
        write_text(to, new.to_json() + "\n")
    else:
        save_folder(new, to, frames_of(to, cached_parts(config).resources.store))
    note(f"saved in {to}")


def _check_out(to: Path | None) -> None:
    """Before anything is asked: where the new trace goes."""
    from act2see.tools.runtime.files import check_file, check_folder
    from act2see.trace.folder import OURS

    if to is not None and to.suffix not in ("", ".json"):
        raise StoreError(f"a trace cannot be written as {to.suffix}: name a .json file or a folder")
    if to is not None:
        check_file(to) if to.suffix else check_folder(to, OURS)


def _bring_frames(trace: Trace, saved: Path, store: FrameStore) -> None:
    """Put the pictures that were saved beside a trace into the store, where it lacks them."""
    from act2see.trace.folder import frames_of

    pixels = frames_of(saved, store)
    for frame in trace.shown:
        if frame.digest not in store:
            with suppress(StoreError, OSError):  # what is missing for good is said when the run begins
                store.put(pixels(frame))


def picture_or_time(given: str) -> str | float:
    """A file's name, or seconds."""
    if not Path(given).exists():
        with suppress(ValueError):
            return float(given)
    return given
