"""A chain of thought in the terminal: text as it comes, calls highlighted, a line for every frame."""

from __future__ import annotations

import re
from pathlib import Path

from rich.console import Console
from rich.control import Control
from rich.segment import ControlType
from rich.text import Text

from act2see.tools.frames import FrameRef, Generated, Retrieved
from act2see.trace.console import Breaker, break_lines, plain
from act2see.trace.events import AnswerEvent, CallEvent, Event, FramesEvent, TokenEvent, ViewEvent
from act2see.trace.record import LETTERS, Answer, Call, Frames, Question, Video
from act2see.trace.timeline import clock, count
from act2see.trace.trace import Trace

_OPENING = re.compile(r"<(?:/?[a-z0-9_]{0,32}|\|[a-z0-9_|]{0,32})\Z")
_TAG = re.compile(r"<(/?)([a-z0-9_]{1,32})>|<\|[a-z0-9_]{1,32}\|>")
_HIDDEN = {
    "think",
    "answer",
    "frame",
    "video",
    "image",
    "",
}  # what they mean is shown otherwise; calls are shown as written
_ARROW = ("  => ", "dim")
_CALL, _IMAGINED, _GRAPH, _NOTE = "bold cyan", "bold magenta", "dim italic", "yellow"
LOADING = "loading models ..."


class Chain:
    """Prints one chain, from a run's events or from a saved trace. `loads`: whether models are loaded before
    the first word."""

    def __init__(self, console: Console, *, loads: bool = False) -> None:
        self.console = console
        self.seconds = 0.0  # the video's length: how times are written
        self._loads = loads and console.is_terminal
        self._status = False  # the cursor is behind a word that goes when the next one comes
        self._breaker = Breaker(console.width if console.is_terminal else None)
        self._held = ""  # the beginning of what may be a tag
        self._call = ""  # the tag of the call that is open
        self._answering = False  # the answer is shown by itself, when it is whole
        self._fresh = True  # the cursor is at the start of a line
        self._begun = False  # the chain has words

    def event(self, event: Event) -> None:
        """Show an event of a run; `ask` shows the answer itself."""
        match event:
            case ViewEvent():
                self.view(event.video, len(event.frames), event.run)
                if self._loads:
                    self.console.print(Text(LOADING, "dim"), end="")
                    self._status = True
            case TokenEvent():
                self.text(event.text, event.author == "graph")
            case FramesEvent():
                self.frames(event.frames)
            case AnswerEvent():
                self.close()
            case CallEvent():
                self._print(
                    self._breaker.flush()
                )  # its text has been shown as it came, but for its last word

    def view(self, video: Video, frames: int, run: str) -> None:
        self.seconds = video.seconds
        name = Path(video.path).name
        facts = f"{clock(video.seconds, video.seconds)}, {video.width} x {video.height}, {count(frames, 'frame')} in view, run {run}"
        self._line(Text.assemble(plain(name, "bold"), (f"  {facts}", "dim")))

    def text(self, text: str, by_graph: bool = False) -> None:
        """Some of the model's text; a tag may come in pieces."""
        self._held += text
        if opening := _OPENING.search(self._held):
            ready, self._held = self._held[: opening.start()], self._held[opening.start() :]
        else:
            ready, self._held = self._held, ""
        self._write(ready, by_graph)

    def frames(self, frames: Frames) -> None:
        """What a tool returned: a line for each frame, or its note."""
        self.close()
        for frame in frames.frames:
            self._line(Text.assemble(_ARROW, frame_line(frame, self.seconds)))
        if frames.note:
            self._line(Text.assemble(_ARROW, plain(frames.note, _NOTE)))

    def close(self) -> None:
        """End the line that is being written."""
        self._write(self._held, False)
        self._held = self._call = ""
        self._answering = False
        self._print(self._breaker.flush())
        self._clear()
        if not self._fresh:
            self._line(Text())

    def trace(self, trace: Trace) -> None:
        """A saved chain, or its beginning."""
        self.view(trace.video, len(trace.initial), trace.id)
        for segment in trace.segments:
            if isinstance(segment, Frames):
                self.frames(segment)
            else:
                self.text(segment.text, getattr(segment, "author", "model") == "graph")
                if isinstance(segment, Call | Answer):
                    self.close()
        self.close()

    def _write(self, text: str, by_graph: bool) -> None:
        styled = Text()
        at = 0
        for tag in _TAG.finditer(text):
            styled += self._styled(text[at : tag.start()], by_graph)
            closing, name = tag[1] == "/", tag[2] or ""
            if name == "answer":
                self._answering = not closing
            if name not in _HIDDEN and not self._answering:
                styled += plain(tag[0], _CALL)
                self._call = "" if closing else name
            at = tag.end()
        styled += self._styled(text[at:], by_graph)
        if not self._begun:
            styled = styled[len(styled.plain) - len(styled.plain.lstrip("\n")) :]
        self._print(self._breaker.feed(styled))

    def _styled(self, text: str, by_graph: bool) -> Text:
        if self._answering:
            return Text()
        return plain(text, _CALL if self._call else _GRAPH if by_graph else "")

    def _print(self, text: Text) -> None:
        if text.plain:
            self._clear()
            self.console.print(text, end="", soft_wrap=True)
            self._fresh = text.plain.endswith("\n")
            self._begun = True

    def _line(self, line: Text) -> None:
        self._clear()
        self.console.print(break_lines(line, self.console), soft_wrap=True)
        self._breaker.column = 0
        self._fresh = True

    def _clear(self) -> None:
        """Take away the word that said what is waited for."""
        if not self._status:
            return
        self._status = False
        if self.console.is_dumb_terminal:
            self.console.print()
        else:
            self.console.control(Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2)))


def frame_line(frame: FrameRef, total: float) -> Text:
    """One frame: its time or *imagined*, and its score."""
    p = frame.provenance
    if isinstance(p, Generated):
        score = f", score {p.faithfulness:.2f}" if p.faithfulness is not None else ""
        score += f" (its anchor {p.anchor_score:.2f})" if p.anchor_score is not None else ""
        return Text.assemble(("imagined", _IMAGINED), f" from {clock(p.anchor.seconds, total)}{score}")
    said = (
        f", score {p.score:.2f}"
        if isinstance(p, Retrieved)
        else f", a part: {frame.part}"
        if frame.part
        else ""
    )
    if frame.imagined:
        return Text.assemble(("not in the video", _IMAGINED), said)
    return Text.assemble((clock(frame.seconds, total), "bold green"), said)


def question_lines(question: Question, chosen: str | None = None) -> Text:
    """The question and its options."""
    lines = [plain(question.text, "bold")]
    lines += [
        plain(f"  {a}. {o}", "green" if o == chosen else "")
        for a, o in zip(LETTERS, question.options, strict=False)
    ]
    return Text("\n").join(lines)


def answer_lines(trace: Trace) -> Text:
    """The answer with its option's text, and what it took."""
    if trace.answer is None:
        return Text("This run is not finished.", _NOTE)
    choice, body = trace.choice, trace.answer.strip()
    if choice:
        body = f"{LETTERS[trace.question.options.index(choice)]}. {choice}"
    lines = [Text.assemble(("Answer: ", "bold"), plain(body, "bold green") if body else ("(empty)", _NOTE))]
    refused = trace.refused  # the models know nothing of this video, and were not asked
    if trace.question.options and choice is None and not refused:
        lines.append(Text("It names none of the options.", _NOTE))
    if not refused and any(isinstance(s, Answer) and s.forced for s in trace.segments):
        lines.append(Text("The budget was spent, so the model was made to answer.", _NOTE))
    seconds = sum(trace.usage.node_seconds.values())
    lines.append(
        Text(
            f"{count(len(trace.calls), 'call')}, {count(trace.usage.tokens, 'token')}, {seconds:.1f} s", "dim"
        )
    )
    return Text("\n").join(lines)
