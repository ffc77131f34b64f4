"""`act2see trace`: saved traces, in the terminal, as a page, in other formats; compared, asked again, forked
(`cli/fork.py`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from act2see.cli import fork
from act2see.cli.fork import Saved
from act2see.cli.output import note, out, say
from act2see.errors import TraceError

if TYPE_CHECKING:
    from act2see.trace.trace import Trace

app = typer.Typer(no_args_is_help=True, help="Look at saved traces.")


@app.command("show")
def show(trace: Saved) -> None:
    """Show a trace in the terminal."""
    from act2see.trace.terminal import ChainPrinter, answer_lines, question_lines
    from act2see.trace.trace import Trace

    loaded = Trace.load(trace)
    say(question_lines(loaded.question, loaded.choice), prose=True)
    ChainPrinter(out()).trace(loaded)
    say(answer_lines(loaded), prose=True)


@app.command("html")
def html(
    trace: Saved,
    to: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Where to write the page.")] = Path(
        "trace.html"
    ),
) -> None:
    """Write a trace as one HTML page."""
    from act2see.tools.runtime.files import write_text
    from act2see.trace.folder import frames_of
    from act2see.trace.page import trace_html
    from act2see.trace.trace import Trace

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
            "--out", "-o", help="FILE.jsonl (of any number of traces), FILE.md, or a folder, with frames."
        ),
    ],
) -> None:
    """Write traces as JSON Lines, Markdown, or a folder with their frames."""
    from act2see.tools.runtime.files import write_text
    from act2see.trace.folder import frames_of, save_folder
    from act2see.trace.trace import Trace

    loaded = [Trace.load(t) for t in traces]
    if to.suffix == ".jsonl":
        write_text(to, "".join(t.to_json() + "\n" for t in loaded))
    elif to.suffix not in ("", ".md"):
        raise TraceError(f"a trace cannot be written as {to.suffix}: name a .jsonl or .md file, or a folder")
    elif len(loaded) != 1:
        raise TraceError(
            f"{to} takes one trace and got {len(loaded)}: write them one by one, or to a .jsonl file"
        )
    elif to.suffix == ".md":
        write_text(to, _markdown(loaded[0]))
    elif missing := save_folder(loaded[0], to, frames_of(traces[0])):
        note(f"{missing} pictures are no longer in the frame store")
    say(str(to))


app.command("diff")(fork.diff)
app.command("replay")(fork.replay)
app.command("fork")(fork.fork)


def _markdown(trace: Trace) -> str:
    """The chain as Markdown: words as paragraphs, calls as code, frames as list items."""
    from act2see.trace.record import LETTERS, Answer, Frames
    from act2see.trace.terminal import frame_line

    lines = [f"# {_line(trace.question.text)}", ""]
    lines += [f"- {a}. {_line(o)}" for a, o in zip(LETTERS, trace.question.options, strict=False)]
    lines += [
        "",
        f"{_line(Path(trace.video.path).name)}, {trace.video.seconds:.1f} s, {len(trace.initial)} frames in view",
        "",
    ]
    for segment in trace.segments:
        if isinstance(segment, Frames):
            lines += [f"- {_line(frame_line(f, trace.video.seconds).plain)}" for f in segment.frames]
            lines += [f"- {_line(segment.note)}"] if segment.note else []
            lines.append("")
        elif not isinstance(segment, Answer):
            lines += ["```text", segment.text.strip("\n").replace("```", "'''"), "```", ""]
    answer = "none: this run is not finished" if trace.answer is None else _line(trace.answer)
    lines.append(
        f"**Answer:** {answer}"
        + (f" ({_line(trace.choice)})" if trace.choice and trace.choice != trace.answer else "")
    )
    return "\n".join(lines) + "\n"


def _line(text: str) -> str:
    """In one line, and as words: what would be Markdown or HTML is escaped."""
    return "".join(f"\\{c}" if c in r"\`*_[]<>#|" else c for c in " ".join(text.split()))
