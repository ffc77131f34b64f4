"""Peers that are a rule about what the model reads: numbered frames, and frames that come unasked.

Both wrap the reasoner and rewrite each rollout in the same way, so a cached prefix stays valid.

Chain-of-Frames puts `Frame1: <image>` ... before the question and asks to point out the key frames and to
reason from them (`eval/utils.py`: `generate_response_for_video`, `add_cot_to_question`); no frame comes
later. Its models are fine-tuned on chains that cite `Frame-k`. Ours is not, and the frames keep their times,
so that a question about a time can be answered. A prompt of the style `short` has no instructions, so a model
that was trained with it sees the numbers alone: any further words would be a part of its question.

ViTCoT asks twice: first for a description of what matters, without an answer (stage 1); then the key video is
put beside that description and the model thinks on to the answer (stage 2). The key video is chosen without
the model, by people. Ours is found by the question itself, and both stages are one chain: after the first
stage the rule stops the model, and the graph inserts the frames, without training and without a tag of the
model. The paper of Act2See calls this inference-only insertion (its Table 4).
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from act2see.agent.parser import StopReason
from act2see.agent.prompt import Prompt
from act2see.agent.reasoners.base import Delta, Done, Reasoner, Request, WrappedReasoner
from act2see.agent.rollout import ImagePiece, Piece, Rollout, TextPiece
from act2see.graphs.sections import Budget
from act2see.trace.trace import Trace

CITE = (
    "Point out the key frames by their numbers, such as Frame1, and reason from those frames to the answer."
)
"""What the question ends with, in the manner of Chain-of-Frames."""
_CITED = re.compile(r"\bframe[ -]?(\d+)", re.IGNORECASE)
_STAGE = 80
"""The least number of characters of a first stage."""
_STAGE_ENDS = re.compile(r"\n\n|(?<=\.)(?= \D)")
"""A paragraph or a sentence ends, unless the next sentence begins with a number: a list of times goes on."""
_MARKS = re.compile(r"</?think>|<answer>|</answer>")
_OPTION = re.compile(r"[A-Z]\. ")
_NOW = "The question now is:\n"


class NumberedFrames(WrappedReasoner):
    """A reasoner whose initial frames are numbered, and who is asked to cite them.

    Args:
        reasoner: The reasoner.
        style: The style of the prompt.
    """

    def __init__(self, reasoner: Reasoner, style: str) -> None:
        super().__init__(reasoner)
        self.name = f"{reasoner.name} with numbered frames"
        self._cite = style != "short"

    def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        return self.reasoner.stream(replace(request, rollout=number_frames(request.rollout, self._cite)))


def number_frames(rollout: Rollout, cite: bool = True) -> Rollout:
    """Return the rollout with `Frame1: ` before its first frame and so on.

    Args:
        rollout: The rollout.
        cite: Whether the question ends with the request to cite the numbers.
    """
    at = _question_at(rollout)
    pieces: list[Piece] = []
    number = 0
    for place, piece in enumerate(rollout.pieces):
        if place == at and cite and isinstance(piece, TextPiece):
            piece = replace(piece, text=f"{piece.text}\n{CITE}")
        elif place < at and isinstance(piece, TextPiece) and _is_before_image(rollout, place):
            number += 1
            piece = replace(piece, text=f"Frame{number}: {piece.text}")
        pieces.append(piece)
    return replace(rollout, pieces=tuple(pieces))


def cited_frames(trace: Trace) -> tuple[int, ...]:
    """Return the numbers of the initial frames that a chain cites, in order, each once."""
    numbers = [int(number) for number in _CITED.findall(trace.text)]
    return tuple(dict.fromkeys(n for n in numbers if 1 <= n <= len(trace.initial)))


class InsertedFrames(WrappedReasoner):
    """A reasoner whose chain is interrupted once, at the end of its first stage, by frames for the question.

    Args:
        reasoner: The reasoner.
        tag: The tag of the graph's tool. Only the graph sees it: it is cut out of what the model reads.
        usage: The tool's line in the prompt, which is cut out, too.
        style: The style of the prompt.
        budget: The limits of the run.
    """

    def __init__(self, reasoner: Reasoner, tag: str, usage: str, style: str, budget: Budget) -> None:
        super().__init__(reasoner)
        self.name = f"{reasoner.name} with frames inserted by rule"
        self._told = Prompt({tag: usage}, style)
        self._untold = Prompt({}, style)
        self._call = re.compile(rf"<{tag}>.*?</{tag}>", re.DOTALL)
        self._tag = tag
        self._longest_query = budget.query

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        hidden = replace(request, rollout=self._hide_tool(request.rollout))
        if self._call.search(str(request.rollout)) or _is_answer_open(request.rollout):
            async with aclosing(self.reasoner.stream(hidden)) as stream:
                async for item in stream:
                    yield item
            return
        written = ""
        done = Done(StopReason.EOS)

        def until_stage_ends(piece: str) -> bool:
            nonlocal written
            written += piece
            return len(cut_stage(written)) < len(written)

        async with aclosing(self.reasoner.stream(replace(hidden, until=until_stage_ends))) as stream:
            async for item in stream:
                if isinstance(item, Done):
                    done = item
        text = f"{cut_stage(written)}<{self._tag}>{self._query(request.rollout)}</{self._tag}>"
        request.until(text)
        yield Delta(text)
        yield replace(done, stop=StopReason.UNTIL)

    def _hide_tool(self, rollout: Rollout) -> Rollout:
        """Return what the model reads: a prompt without tools, and its own text without the rule's call."""
        at = _question_at(rollout)
        pieces: list[Piece] = []
        for place, piece in enumerate(rollout.pieces):
            if place == at and isinstance(piece, TextPiece):
                piece = replace(piece, text=self._untell(piece.text))
            elif place > at and isinstance(piece, TextPiece) and piece.trust == "model":
                piece = replace(piece, text=self._call.sub("", piece.text))
            pieces.append(piece)
        return replace(rollout, pieces=tuple(pieces))

    def _untell(self, text: str) -> str:
        for letters in (True, False):
            told = self._told.instruction(letters)
            if text.endswith(told):
                return text.removesuffix(told) + self._untold.instruction(letters)
        return text

    def _query(self, rollout: Rollout) -> str:
        """Return the question, without earlier turns, options and the instruction."""
        piece = rollout.pieces[_question_at(rollout)]
        assert isinstance(piece, TextPiece)
        lines: list[str] = []
        for line in self._strip_instruction(piece.text).rpartition(_NOW)[2].strip().splitlines():
            if _OPTION.match(line):
                break
            if not line.startswith("Earlier: "):
                lines.append(line)
        return " ".join(" ".join(lines).split())[: self._longest_query]

    def _strip_instruction(self, text: str) -> str:
        for letters in (True, False):
            text = text.removesuffix(self._told.instruction(letters))
        return text


def cut_stage(written: str) -> str:
    """Return the first stage of a chain: all of it if it has not ended.

    It never reaches into an answer, nor beyond the end of the thought.
    """
    mark = _MARKS.search(written)
    text = written[: mark.start()] if mark else written
    end = _STAGE_ENDS.search(text, min(_STAGE, len(text)))
    return text[: end.start()] if end else text


def _is_answer_open(rollout: Rollout) -> bool:
    last = rollout.pieces[-1]
    return isinstance(last, TextPiece) and last.text.endswith("<answer>")


def _is_before_image(rollout: Rollout, place: int) -> bool:
    """Whether a piece is the time of a frame: then come the mark of its beginning and the frame."""
    after = rollout.pieces[place + 2 : place + 3]
    return bool(after) and isinstance(after[0], ImagePiece)


def _question_at(rollout: Rollout) -> int:
    """Return the place of the question: the piece that begins a line after the frames."""
    for place, piece in enumerate(rollout.pieces):
        if isinstance(piece, TextPiece) and piece.trust == "plain" and piece.text.startswith("\n"):
            return place
    raise ValueError("the rollout has no question")
