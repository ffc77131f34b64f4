"""Two traces side by side in the terminal."""

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
_WORDS = 60


def show_diff(console: Console, diff: TraceDiff, a: Trace, b: Trace) -> None:
    """Print what differs. `a` and `b` are the traces that `diff` is of."""
    total = max(a.video.seconds, b.video.seconds)
    lines = [Text.assemble(("Differences ", "bold"), plain(_ARROW.join(diff.ids), "dim"))]
    lines += [
        Text.assemble(plain(f"  {f.name}: ", "dim"), plain(f"{_short(f.a)}{_ARROW}{_short(f.b)}"))
        for f in diff.facts
    ]
    others = sum(f.kind != "same" for f in diff.initial)
    lines += [Text(f"  initial frames: {others} of {len(diff.initial)} differ")] if others else []
    lines.append(
        Text("The same: every frame, every call, every word.", "green") if diff.same else _parting(diff, a, b)
    )
    for line in lines:
        console.print(line, soft_wrap=True)
    if diff.calls:
        table = Table("", "first", "second", "came back", box=box.SIMPLE)
        for pair in diff.calls:
            sign = Text(*_SIGNS[pair.kind])
            table.add_row(
                sign, _call(pair.numbers[0], pair.a), _call(pair.numbers[1], pair.b), _came_back(pair, total)
            )
        console.print(table)
    first, second = (_answer(x) for x in diff.answers)
    answer = plain(f"{first}, both times") if first == second else plain(f"{first}{_ARROW}{second}", "bold")
    console.print(Text.assemble(("Answer: ", "bold"), answer), soft_wrap=True)
    cost = [
        ("calls", len(a.calls), len(b.calls)),
        ("tokens", *diff.tokens),
        ("seconds", *(f"{s:.1f}" for s in diff.seconds)),
    ]
    console.print(Text(", ".join(f"{x}{_ARROW}{y} {name}" for name, x, y in cost), "dim"), soft_wrap=True)


def _parting(diff: TraceDiff, a: Trace, b: Trace) -> Text:
    if diff.parted is None:
        return Text("Every call and every word is the same; the initial frames are not.")
    before = sum(isinstance(s, Call) for s in a.segments[: diff.parted])
    x, y = (t.segments[diff.parted] if diff.parted < len(t.segments) else None for t in (a, b))
    if isinstance(x, Frames) and isinstance(y, Frames):
        return Text(f"They part at what call {before} returned.")
    if isinstance(x, Call) and isinstance(y, Call):
        return Text(f"They part at call {before + 1}.")
    where = f"after {count(before, 'call')}" if before else "before any call"
    said, other = _apart(_words(x), _words(y))
    return Text.assemble(
        f"They part {where}: ", plain(repr(said), "red"), _ARROW, plain(repr(other), "green")
    )


def _words(segment: Segment | None) -> str:
    return (
        "(the end)"
        if segment is None
        else "(what came back)"
        if isinstance(segment, Frames)
        else segment.text
    )


def _apart(a: str, b: str) -> tuple[str, str]:
    """Both from the beginning of the first word that differs."""
    same = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    start = a.rfind(" ", 0, same) + 1
    cut = "…" if start else ""
    return cut + _short(a[start:]), cut + _short(b[start:])


def _call(number: int | None, call: Call | None) -> Text:
    if call is None:
        return Text()
    failed = "" if call.outcome == "ok" else f" ({call.outcome.replace('_', ' ')})"
    return Text.assemble(
        (f"{number} ", "dim"), plain(f"<{call.tag}> {_short(call.query)}", "bold cyan"), (failed, "yellow")
    )


def _came_back(pair: CallPair, total: float) -> Text:
    lines = [_frames(f, total) for f in pair.frames]
    if pair.notes[0] == pair.notes[1]:
        lines += [plain(pair.notes[0], "dim")] if pair.notes[0] else []
    else:
        lines.append(plain(_ARROW.join(_short(n) or "no note" for n in pair.notes), "yellow"))
    return Text("\n").join(lines) if lines else Text("nothing", "dim")


def _frames(pair: FramePair, total: float) -> Text:
    if pair.kind == "same":
        return Text(f"{_frame(pair.a, total)}, the same", "dim")
    if pair.kind != "changed":
        return Text(f"{_SIGNS[pair.kind][0]} {_frame(pair.a or pair.b, total)}", _SIGNS[pair.kind][1])
    a, b = _frame(pair.a, total), _frame(pair.b, total)
    return Text(f"{a}, another picture" if a == b else f"{a}{_ARROW}{b}", "yellow")


def _frame(frame: FrameRef | None, total: float) -> str:
    if frame is None:
        return ""
    return f"imagined from {clock(frame.seconds, total)}" if frame.imagined else clock(frame.seconds, total)


def _answer(answer: str | None) -> str:
    return "none" if answer is None else answer.strip() or "(empty)"


def _short(text: str) -> str:
    return text if len(text) <= _WORDS else f"{text[:_WORDS]}…"
