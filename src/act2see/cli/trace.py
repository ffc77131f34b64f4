"""`act2see trace`: shows, converts, compares, replays and forks saved traces."""

from __future__ import annotations

from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from act2see.cli.complete import tool_tags
from act2see.cli.options import ConfigFile, Force, Preset, SavedTrace, chosen_config, picture_or_time
from act2see.cli.output import chain_printer, note, out, print_json, say
from act2see.errors import QuestionError, StoreError, TraceError
from act2see.tools.runtime.markdown import escape_markdown
from act2see.tools.runtime.text import drop_controls

if TYPE_CHECKING:
    from act2see.graphs.config import Config
    from act2see.tools.video.store import FrameStore
    from act2see.trace.trace import Trace

app = typer.Typer(no_args_is_help=True, help="Show, convert, compare, replay and fork saved traces.")

NewTrace = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE",
        help="Write the new trace to a .json file, or to a folder with its frames.",
    ),
]


@app.command("show")
def show(
    trace: SavedTrace,
    json: Annotated[
        bool, typer.Option("--json", help="Print the trace as JSON, as `act2see ask --json` does.")
    ] = False,
) -> None:
    """Print a trace in the terminal.

    Needs a trace: a file, or a folder of `act2see ask --save`.
    """
    from act2see.trace.terminal import ChainPrinter, answer_lines, question_lines
    from act2see.trace.trace import Trace

    loaded = Trace.load(trace)
    if json:
        print_json(loaded.to_json(summary=True))
        return
    say(question_lines(loaded.question, loaded.choice), prose=True)
    ChainPrinter(out()).trace(loaded)
    say(answer_lines(loaded), prose=True)


@app.command("html")
def html(
    trace: SavedTrace,
    to: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The HTML file to write.")] = Path(
        "trace.html"
    ),
    force: Force = False,
) -> None:
    """Write a trace as an HTML page.

    Needs a trace. The pictures come from its folder, or from the frame store of this machine.
    """
    from act2see.tools.runtime.files import check_file, write_text
    from act2see.trace.folder import MARKS, frames_of
    from act2see.trace.page import trace_html
    from act2see.trace.trace import Trace

    check_file(to, MARKS[".html"], force=force)
    write_text(to, trace_html(Trace.load(trace), frames_of(trace)))
    say(str(to))


@app.command("export")
def export(
    traces: Annotated[
        list[Path], typer.Argument(metavar="TRACE...", help="Trace files or folders.", show_default=False)
    ],
    to: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="FILE.jsonl for any number of traces; FILE.md, or a folder with frames, for one trace.",
        ),
    ],
    force: Force = False,
) -> None:
    """Write traces as JSON Lines, or one trace as Markdown or as a folder with its frames.

    Needs one or more traces. The name of the target selects the format.
    """
    from act2see.tools.runtime.files import write_text
    from act2see.trace.folder import check_target, frames_of, save_folder
    from act2see.trace.trace import Trace

    if to.suffix in ("", ".jsonl", ".md"):
        check_target(to, force=force)
    loaded = [Trace.load(t) for t in traces]
    if to.suffix == ".jsonl":
        write_text(to, "".join(t.to_json() + "\n" for t in loaded))
    elif to.suffix not in ("", ".md"):
        raise TraceError(f"a trace cannot be written as {to.suffix}: name a .jsonl or .md file, or a folder")
    elif len(loaded) != 1:
        raise TraceError(
            f"{to} can hold only one trace, not {len(loaded)}: export them one by one, or to a .jsonl file"
        )
    elif to.suffix == ".md":
        write_text(to, _markdown(loaded[0]))
    elif missing := save_folder(loaded[0], to, frames_of(traces[0])):
        note(f"{missing} pictures are missing from the frame store")
    say(str(to))


@app.command("diff")
def diff(
    first: Annotated[Path, typer.Argument(metavar="A", help="A trace file or folder.", show_default=False)],
    second: Annotated[
        Path, typer.Argument(metavar="B", help="Another trace file or folder.", show_default=False)
    ],
    json: Annotated[bool, typer.Option("--json", help="Print the differences as JSON.")] = False,
) -> None:
    """Compare two traces call by call, and show where they diverge.

    Needs two traces, for example an original and its fork.
    """
    from act2see.trace.diff import diff_traces
    from act2see.trace.side_by_side import show_diff
    from act2see.trace.trace import Trace

    a, b = Trace.load(first), Trace.load(second)
    found = diff_traces(a, b)
    if json:
        print_json(found.to_json())
    else:
        show_diff(out(), found, a, b)


@app.command("replay")
def replay(
    trace: SavedTrace,
    to: NewTrace = None,
    force: Force = False,
    preset: Preset = None,
    config: ConfigFile = None,
) -> None:
    """Ask the question of a trace again, with its seed and tools, and compare the results.

    Needs a trace and its video. Use the preset or config with which the question was asked.
    """
    from act2see.graphs.ask import create_act2see
    from act2see.graphs.fork import areplay

    _check_target(to, force)
    old, chosen = _load_with_video(trace), chosen_config(preset, config)
    work = areplay(create_act2see(chosen), old, on_event=chain_printer(chosen).event)
    new = _run_and_compare(work, old)
    if to is not None:
        _write_trace(new, to, chosen)


@app.command("fork")
def fork(
    trace: SavedTrace,
    at: Annotated[
        int | None, typer.Option(metavar="N", help="The call to go back to; 1 is the first, 0 the beginning.")
    ] = None,
    query: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Call the tool with this query instead.")
    ] = None,
    tool: Annotated[
        str | None, typer.Option(metavar="TAG", autocompletion=tool_tags, help="Call this tool instead.")
    ] = None,
    frame: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Show this picture instead, or the video's frame at this time in seconds."
        ),
    ] = None,
    drop: Annotated[
        bool, typer.Option("--drop", help="Show no frame, and tell the model that none was found.")
    ] = False,
    to: NewTrace = None,
    force: Force = False,
    preset: Preset = None,
    config: ConfigFile = None,
) -> None:
    """Go back to a call of a trace, change it, and let the model continue from there.

    Needs a trace, its video, and --at with the number of the call. Use the preset or config with which the
    question was asked.
    """
    from act2see.graphs.ask import create_act2see
    from act2see.graphs.fork import afork
    from act2see.graphs.parts import cached_parts

    _check_target(to, force)
    old, chosen = _load_with_video(trace), chosen_config(preset, config)
    if at is None:
        raise QuestionError(f"choose a call with --at N (calls: {_list_calls(old)})")
    _restore_frames(old, trace, cached_parts(chosen).resources.store)
    work = afork(
        create_act2see(chosen),
        old,
        at,
        query=query,
        tag=tool,
        frame=picture_or_time(frame) if frame is not None else None,
        drop=drop,
        on_event=chain_printer(chosen).event,
    )
    new = _run_and_compare(work, old)
    _write_trace(new, to or Path(f"fork-{new.id}.json"), chosen)


def _load_with_video(path: Path) -> Trace:
    """Load a trace. If its video was moved, look for it beside the trace."""
    from act2see.trace.folder import find_video
    from act2see.trace.trace import Trace

    return find_video(Trace.load(path), path)


def _list_calls(trace: Trace) -> str:
    calls = [f"{n} <{call.tag}> {call.query[:60]}" for n, call in enumerate(trace.calls, start=1)]
    return "; ".join(calls) or "none, so only 0, the beginning"


def _restore_frames(trace: Trace, saved: Path, store: FrameStore) -> None:
    """Put pictures that were saved beside a trace into the store, if they are missing there."""
    from act2see.trace.folder import frames_of

    pixels = frames_of(saved, store)
    for frame in trace.shown:
        if frame.digest not in store:
            with suppress(StoreError, OSError):  # the run reports missing pictures
                store.put(pixels(frame))


def _run_and_compare(work: Coroutine[Any, Any, Trace], old: Trace) -> Trace:
    """Run the graph, and print the chain of thought, the answer and the differences from the old trace."""
    from act2see.cli.runs import run_until_done
    from act2see.trace.diff import diff_traces
    from act2see.trace.side_by_side import show_diff
    from act2see.trace.terminal import answer_lines, question_lines

    say(question_lines(old.question), prose=True)
    new = run_until_done(work)
    say(answer_lines(new), prose=True)
    say("")
    show_diff(out(), diff_traces(old, new), old, new)
    return new


def _check_target(to: Path | None, force: bool) -> None:
    """Raise `StoreError` before the run starts if the new trace could not be written."""
    from act2see.trace.folder import check_target

    if to is None:
        return
    if to.suffix not in ("", ".json"):
        raise StoreError(f"a trace cannot be written as {to.suffix}: name a .json file or a folder")
    check_target(to, force=force)


def _write_trace(trace: Trace, to: Path, config: Config) -> None:
    """Write a trace as a file, or as a folder with its frames."""
    from act2see.graphs.parts import cached_parts
    from act2see.tools.runtime.files import write_text
    from act2see.trace.folder import frames_of, save_folder

    if to.suffix:
        write_text(to, trace.to_json() + "\n")
    else:
        save_folder(trace, to, frames_of(to, cached_parts(config).resources.store))
    note(f"saved in {to}")


def _markdown(trace: Trace) -> str:
    """Return the chain of thought as Markdown: text as code blocks, frames as list items."""
    from act2see.trace.options import LETTERS
    from act2see.trace.record import Answer, Frames
    from act2see.trace.terminal import frame_line

    lines = [f"# {escape_markdown(trace.question.text)}", ""]
    for turn in trace.question.earlier:
        lines += [f"Earlier: {escape_markdown(turn.line)}", ""]
    for letter, option in zip(LETTERS, trace.question.options, strict=False):
        lines.append(f"- {letter}. {escape_markdown(option)}")
    video = escape_markdown(Path(trace.video.path).name)
    lines += ["", f"{video}, {trace.video.seconds:.1f} s, {len(trace.initial)} frames in view", ""]
    for segment in trace.segments:
        if isinstance(segment, Frames):
            for frame in segment.frames:
                lines.append(f"- {escape_markdown(frame_line(frame, trace.video.seconds).plain)}")
            if segment.note:
                lines.append(f"- {escape_markdown(segment.note)}")
            lines.append("")
        elif not isinstance(segment, Answer):
            lines += ["```text", drop_controls(segment.text).strip("\n").replace("```", "'''"), "```", ""]
    lines.append(f"**Answer:** {_markdown_answer(trace)}")
    return "\n".join(lines) + "\n"


def _markdown_answer(trace: Trace) -> str:
    if trace.answer is None:
        return "none: this run has not finished"
    answer = escape_markdown(trace.answer)
    if trace.choice and trace.choice != trace.answer:
        return f"{answer} ({escape_markdown(trace.choice)})"
    return answer
