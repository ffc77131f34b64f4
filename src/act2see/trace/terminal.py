"""A chain of thought in the terminal: streamed text, highlighted calls, and a line for each frame."""

from __future__ import annotations

import re

from rich.console import Console
from rich.control import Control
from rich.segment import ControlType
from rich.text import Text

from act2see.tools.frames import FrameRef, Generated
from act2see.trace.console import Breaker, break_lines, plain
from act2see.trace.events import (
    AnswerEvent,
    CallEvent,
    Event,
    FramesEvent,
    IndexEvent,
    TokenEvent,
    ViewEvent,
)
from act2see.trace.options import option_label
from act2see.trace.record import Answer, Call, Frames, Question, Text as ReasoningText, Video
from act2see.trace.timeline import clock, count
from act2see.trace.trace import Trace

_OPENING = re.compile(r"<(?:/?[a-z0-9_]{0,32}|\|[a-z0-9_|]{0,32})\Z")
"""The beginning of a possible tag, at the end of a text."""
_TAG = re.compile(r"<(/?)([a-z0-9_]{1,32})>|<\|[a-z0-9_]{1,32}\|>")
_HIDDEN = {"think", "answer", "frame", "video", "image", ""}
"""Tags that are not printed, since the output shows their meaning in another way."""
_ARROW = ("  => ", "dim")
_CALL, _IMAGINED, _GRAPH, _NOTE = "bold cyan", "bold magenta", "dim italic", "yellow"
LOADING = "loading models ..."


class ChainPrinter:
    """Prints one chain, from the events of a run or from a saved trace.

    Args:
        console: The console to print to.
        loads: Whether models must be loaded first. A terminal then shows a status until the first word.
    """

    def __init__(self, console: Console, *, loads: bool = False) -> None:
        self.console = console
        self.seconds = 0.0  # the video's length, which determines the format of times
        self._loads = loads and console.is_terminal
        self._status = False  # whether the status is printed; the next text replaces it
        self._breaker = Breaker(console.width if console.is_terminal else None)
        self._held = ""  # the beginning of a possible tag
        self._call = ""  # the tag of the open call
        self._answering = False  # whether `<answer>` is open; `answer_lines` prints its content
        self._at_line_start = True
        self._started = False  # whether a word was printed

    def event(self, event: Event) -> None:
        """Print an event of a run, except for the answer (`answer_lines`)."""
        match event:
            case ViewEvent():
                self.header(event.video, len(event.frames), event.run)
                if self._loads:
                    self._show_status(LOADING)
            case TokenEvent():
                self.text(event.text, event.author == "graph")
            case IndexEvent():
                if self.console.is_terminal:
                    self._show_status(f"{event.describe()} ...")
            case FramesEvent():
                self.frames(event.frames)
            case AnswerEvent():
                self.close()
            case CallEvent():  # its text has been printed already, except for a held word
                self._print(self._breaker.flush())

    def header(self, video: Video, frames: int, run: str) -> None:
        """Print the line above a chain: the video, the number of frames in view, and the run's id."""
        self.seconds = video.seconds
        facts = [
            clock(video.seconds, video.seconds),
            f"{video.width} x {video.height}",
            f"{count(frames, 'frame')} in view",
            f"run {run}",
        ]
        self._line(Text.assemble(plain(video.name, "bold"), plain(f"  {', '.join(facts)}", "dim")))

    def text(self, text: str, by_graph: bool = False) -> None:
        """Print a piece of text. A tag can be split over several pieces.

        Args:
            text: The piece.
            by_graph: Whether the graph wrote it, and not the model.
        """
        self._held += text
        if opening := _OPENING.search(self._held):
            ready, self._held = self._held[: opening.start()], self._held[opening.start() :]
        else:
            ready, self._held = self._held, ""
        self._write(ready, by_graph)

    def frames(self, frames: Frames) -> None:
        """Print a tool's result: a line for each frame, and the note."""
        self.close()
        for frame in frames.frames:
            self._line(Text.assemble(_ARROW, frame_line(frame, self.seconds)))
        if frames.note:
            self._line(Text.assemble(_ARROW, plain(frames.note, _NOTE)))

    def close(self) -> None:
        """Print the held text and end the line."""
        self._write(self._held, False)
        self._held = ""
        self._call = ""
        self._answering = False
        self._print(self._breaker.flush())
        self._clear()
        if not self._at_line_start:
            self._line(Text())

    def trace(self, trace: Trace) -> None:
        """Print the chain of a saved trace, which may be unfinished."""
        self.header(trace.video, len(trace.initial), trace.id)
        for segment in trace.segments:
            if isinstance(segment, Frames):
                self.frames(segment)
            else:
                by_graph = isinstance(segment, ReasoningText) and segment.author == "graph"
                self.text(segment.text, by_graph)
                if isinstance(segment, Call | Answer):
                    self.close()
        self.close()

    def _write(self, text: str, by_graph: bool) -> None:
        """Style a text whose tags are complete, and print it."""
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
        if not self._started:
            line_ends = len(styled.plain) - len(styled.plain.lstrip("\n"))
            styled = styled[line_ends:]
        self._print(self._breaker.feed(styled))

    def _styled(self, text: str, by_graph: bool) -> Text:
        if self._answering:
            return Text()
        if self._call:
            return plain(text, _CALL)
        return plain(text, _GRAPH if by_graph else "")

    def _print(self, text: Text) -> None:
        if text.plain:
            self._clear()
            self.console.print(text, end="", soft_wrap=True)
            self._at_line_start = text.plain.endswith("\n")
            self._started = True

    def _line(self, line: Text) -> None:
        self._clear()
        self.console.print(break_lines(line, self.console), soft_wrap=True)
        self._breaker.column = 0
        self._at_line_start = True

    def _show_status(self, text: str) -> None:
        """Print a status on a line of its own, in place of an earlier one."""
        self._clear()
        if not self._at_line_start:
            self._line(Text())
        self.console.print(Text(text, "dim"), end="")
        self._status = True

    def _clear(self) -> None:
        """Remove the status."""
        if not self._status:
            return
        self._status = False
        if self.console.is_dumb_terminal:
            self.console.print()
        else:
            self.console.control(Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2)))


def frame_line(frame: FrameRef, total: float) -> Text:
    """Return the line of a frame: its time or *imagined*, and its score.

    Args:
        frame: The frame.
        total: The video's length in seconds.
    """
    made = frame.provenance
    if isinstance(made, Generated):
        score = f", score {made.faithfulness:.2f}" if made.faithfulness is not None else ""
        if made.anchor_score is not None:
            score += f" (its anchor {made.anchor_score:.2f})"
        return Text.assemble(("imagined", _IMAGINED), f" from {clock(frame.anchor_seconds, total)}{score}")
    when = ("not in the video", _IMAGINED) if frame.imagined else (clock(frame.seconds, total), "bold green")
    return Text.assemble(when, plain("".join(f", {fact}" for fact in frame.facts)))


def question_lines(question: Question, chosen: str | None = None) -> Text:
    """Return the earlier turns, the question and its options.

    Args:
        question: The question.
        chosen: The option to highlight.
    """
    lines = [plain(f"Earlier: {turn.line}", "dim") for turn in question.earlier]
    lines.append(plain(question.text, "bold"))
    for place, option in enumerate(question.options):
        lines.append(plain(f"  {option_label(place)}. {option}", "green" if option == chosen else ""))
    return Text("\n").join(lines)


def answer_lines(trace: Trace) -> Text:
    """Return the answer, with the text of its option, and the cost of the run."""
    if trace.answer is None:
        return Text("This run is not finished.", _NOTE)
    choice = trace.choice
    body = trace.answer.strip()
    if choice:
        body = f"{option_label(trace.question.options.index(choice))}. {choice}"
    shown = plain(body, "bold green") if body else Text("(empty)", _NOTE)
    lines = [Text.assemble(("Answer: ", "bold"), shown)]
    if trace.question.options and choice is None and not trace.refused:
        lines.append(Text("It names none of the options.", _NOTE))
    if trace.forced and not trace.refused:
        lines.append(Text(f"The model was made to answer: {trace.forced_because}.", _NOTE))
    cost = [
        count(len(trace.calls), "call"),
        count(trace.usage.tokens, "token"),
        f"{trace.usage.seconds:.1f} s",
    ]
    if trace.usage.thinking:
        cost.insert(2, count(trace.usage.thinking, "hidden token"))
    lines.append(Text(", ".join(cost), "dim"))
    return Text("\n").join(lines)
