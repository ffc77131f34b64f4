"""The differences between two traces, printed side by side in the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from act2see.tools.frames import FrameRef
from act2see.trace.console import plain
from act2see.trace.diff import CallPair, FramePair, Kind, TraceDiff
from act2see.trace.record import Call, Frames, Segment
from act2see.trace.timeline import clock, count
from act2see.trace.trace import Trace

_SIGNS: dict[Kind, tuple[str, str]] = {
    "same": ("=", "dim"),
    "changed": ("~", "yellow"),
    "added": ("+", "green"),
    "removed": ("-", "red"),
}
_ARROW = " -> "
_MAX_TEXT = 60  # characters of a query, a fact or a note


def show_diff(console: Console, diff: TraceDiff, a: Trace, b: Trace) -> None:
    """Print the differences between two traces.

    Args:
        console: The console to print to.
        diff: The result of `diff_traces(a, b)`.
        a: The first trace.
        b: The second trace.
    """
    for line in _opening(diff, a, b):
        console.print(line, soft_wrap=True)
    if diff.calls:
        console.print(_calls_table(diff, max(a.video.seconds, b.video.seconds)))
    console.print(Text.assemble(("Answer: ", "bold"), _answers(diff)), soft_wrap=True)
    cost = [
        f"{len(a.calls)}{_ARROW}{len(b.calls)} calls",
        f"{diff.tokens[0]}{_ARROW}{diff.tokens[1]} tokens",
        f"{diff.seconds[0]:.1f}{_ARROW}{diff.seconds[1]:.1f} seconds",
    ]
    console.print(Text(", ".join(cost), "dim"), soft_wrap=True)


def _opening(diff: TraceDiff, a: Trace, b: Trace) -> list[Text]:
    """The ids, the facts that differ, and the place where the traces diverge."""
    lines = [Text.assemble(("Differences ", "bold"), plain(_ARROW.join(diff.ids), "dim"))]
    for fact in diff.facts:
        values = plain(f"{_shorten(fact.a)}{_ARROW}{_shorten(fact.b)}")
        lines.append(Text.assemble(plain(f"  {fact.name}: ", "dim"), values))
    different = sum(pair.kind != "same" for pair in diff.initial)
    if different:
        lines.append(Text(f"  initial frames: {different} of {len(diff.initial)} differ"))
    if diff.same:
        lines.append(Text("The same: every frame, every call, every word.", "green"))
    else:
        lines.append(_divergence(diff, a, b))
    return lines


def _divergence(diff: TraceDiff, a: Trace, b: Trace) -> Text:
    """The place where the traces diverge, in words."""
    if diff.parted is None:
        return Text("Every call and every word is the same; the initial frames differ.")
    calls = sum(isinstance(s, Call) for s in a.segments[: diff.parted])
    x = _segment(a, diff.parted)
    y = _segment(b, diff.parted)
    if isinstance(x, Frames) and isinstance(y, Frames):
        return Text(f"They diverge at the result of call {calls}.")
    if isinstance(x, Call) and isinstance(y, Call):
        return Text(f"They diverge at call {calls + 1}.")
    where = f"after {count(calls, 'call')}" if calls else "before any call"
    first, second = _cut_common_start(_words(x), _words(y))
    return Text.assemble(
        f"They diverge {where}: ", plain(repr(first), "red"), _ARROW, plain(repr(second), "green")
    )


def _segment(trace: Trace, index: int) -> Segment | None:
    return trace.segments[index] if index < len(trace.segments) else None


def _words(segment: Segment | None) -> str:
    if segment is None:
        return "(the end)"
    return "(the result)" if isinstance(segment, Frames) else segment.text


def _cut_common_start(a: str, b: str) -> tuple[str, str]:
    """Return both texts from the beginning of the first word that differs."""
    shorter = min(len(a), len(b))
    common = next((n for n in range(shorter) if a[n] != b[n]), shorter)
    start = a.rfind(" ", 0, common) + 1
    mark = "…" if start else ""
    return mark + _shorten(a[start:]), mark + _shorten(b[start:])


def _calls_table(diff: TraceDiff, total: float) -> Table:
    table = Table("", "first", "second", "returned", box=box.SIMPLE)
    for pair in diff.calls:
        table.add_row(
            Text(*_SIGNS[pair.kind]),
            _call(pair.numbers[0], pair.a),
            _call(pair.numbers[1], pair.b),
            _results(pair, total),
        )
    return table


def _call(number: int | None, call: Call | None) -> Text:
    if call is None:
        return Text()
    failed = "" if call.outcome == "ok" else f" ({call.outcome.replace('_', ' ')})"
    return Text.assemble(
        (f"{number} ", "dim"), plain(f"<{call.tag}> {_shorten(call.query)}", "bold cyan"), (failed, "yellow")
    )


def _results(pair: CallPair, total: float) -> Text:
    """The results of a pair of calls: a line for each pair of frames, then the notes."""
    lines = [_frames(frames, total) for frames in pair.frames]
    first, second = pair.notes
    if first != second:
        lines.append(plain(_ARROW.join(_shorten(note) or "no note" for note in pair.notes), "yellow"))
    elif first:
        lines.append(plain(first, "dim"))
    return Text("\n").join(lines) if lines else Text("nothing", "dim")


def _frames(pair: FramePair, total: float) -> Text:
    if pair.kind == "same":
        return Text(f"{_frame(pair.a, total)}, the same", "dim")
    if pair.kind != "changed":
        sign, style = _SIGNS[pair.kind]
        return Text(f"{sign} {_frame(pair.a or pair.b, total)}", style)
    a = _frame(pair.a, total)
    b = _frame(pair.b, total)
    return Text(f"{a}, a different picture" if a == b else f"{a}{_ARROW}{b}", "yellow")


def _frame(frame: FrameRef | None, total: float) -> str:
    """The time of a frame, in a video of `total` seconds."""
    if frame is None:
        return ""
    return frame.place(lambda seconds: clock(seconds, total))


def _answers(diff: TraceDiff) -> Text:
    first, second = (_answer(answer) for answer in diff.answers)
    if first == second:
        return plain(f"{first}, in both")
    return plain(f"{first}{_ARROW}{second}", "bold")


def _answer(answer: str | None) -> str:
    return "none" if answer is None else answer.strip() or "(empty)"


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"
