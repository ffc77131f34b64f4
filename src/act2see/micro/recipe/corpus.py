"""SFT chains of the board world: its reference chains, run through the real graph and the real tools.

A `Reference` replaces the model in the graph and writes the item's chain. Retrieval and generation are the
real tools, so the corpus has the same kind of frames as the model's own runs, with compression and wrong
anchors. If a tool returns a frame other than the expected one, the chain is dropped and counted, since its
next text would not describe that frame.

Chains are made with both tools. Each time that a chain is trained on, its tools are drawn again
(`with_tools`): with a fixed set, the model memorised the tools of each question and did not read them from
the prompt.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from act2see.agent.parser import StopReason
from act2see.agent.prompt import Prompt
from act2see.agent.reasoners.base import Delta, Done, Reasoner, Request
from act2see.agent.rollout import ImagePiece, Rollout
from act2see.graphs.ask import create_act2see
from act2see.graphs.config import Config, load_config
from act2see.graphs.parts import Parts, build_parts
from act2see.graphs.state import AskContext
from act2see.micro.questions import EVERYDAY, FAMILIES, TAGS, Family, Item, Seen, Step, ToolCall, make_item
from act2see.micro.wordings import load_wordings
from act2see.micro.words import describe_seen
from act2see.micro.world import Board, read_board, write_clip
from act2see.tools.frames import FrameRef
from act2see.trace.record import Answer, Call, Frames, Segment, Text
from act2see.trace.trace import Trace

UNSEEN = "I cannot tell without another look."
"""The answer to a question without options that needs a look, if the model has no tool for it."""
CORPUS_FAMILIES: tuple[Family, ...] = (*FAMILIES, *EVERYDAY)


def tools_line(tags: Iterable[str]) -> str:
    """Return the text before a call: the prompt's line of tools, in the same tokens.

    A model that had to find this line in the prompt at the moment of a call often overlooked it.
    """
    return "\n" + Prompt(dict.fromkeys(tags, ""), "short").instruction(letters=False)


def with_lines(item: Item) -> Item:
    """Return the item with the line of all tools before each call of its chain."""
    chain: list[Step] = []
    for step in item.chain:
        chain += [tools_line(TAGS), step] if isinstance(step, ToolCall) else [step]
    return replace(item, chain=tuple(chain))


Look = tuple[float, Board] | None
"""The time of a retrieved frame, and the board that it shows; None if a call returned no frame."""


def next_text(item: Item, returned: int, looks: Sequence[Look] | None = None) -> str:
    """Return the text of an item's chain after its first `returned` calls, up to the next call or to the
    end.

    Args:
        item: The item.
        returned: The number of calls that returned.
        looks: What the calls returned; None if each returned what the chain expects.
    """
    calls = [i for i, step in enumerate(item.chain) if isinstance(step, ToolCall)]
    start = calls[returned - 1] + 1 if returned else 0
    has_call = returned < len(calls)
    stop = calls[returned] + 1 if has_call else len(item.chain)
    text = ""
    for step in item.chain[start:stop]:
        if isinstance(step, ToolCall):
            text += f"<{step.tag}>{step.query}</{step.tag}>"
        elif isinstance(step, Seen):
            look = looks[returned - 1] if looks else _expected(item, calls[returned - 1])
            text += describe_seen(*look) if look else ""
        else:
            text += step
    return text + item.closing() if stop == len(item.chain) else text


def _expected(item: Item, place: int) -> Look:
    call = item.chain[place]
    assert isinstance(call, ToolCall), "the step is a call"
    return call.at, call.expect


class Reference(Reasoner):
    """A reasoner that writes the reference chain of the item of its session."""

    name = "reference"

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}
        """The item of each session."""

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        item = self.items[request.rollout.session]
        looks = [
            (frame.seconds, item.clip.at(frame.seconds)) if frame else None
            for frame in _returned_frames(request.rollout)
        ]
        text = next_text(item, len(looks), looks)
        request.until(text)
        yield Delta(text)
        yield Done(StopReason.UNTIL, decoded=len(text.split()))

    def forget(self, session: str) -> None:
        self.items.pop(session, None)


def _returned_frames(rollout: Rollout) -> list[FrameRef | None]:
    """Return the frame of each call so far, or None for a call that returned only a note."""
    frames: list[FrameRef | None] = []
    inside = False
    for piece in rollout.pieces:
        if isinstance(piece, ImagePiece):
            if inside:
                frames[-1] = piece.frame
        elif piece.text == "<frame>":
            inside = True
            frames.append(None)
        elif piece.text.endswith("</frame>"):
            inside = False
    return frames


def equal_boards(a: Board, b: Board) -> bool:
    """Return whether two boards show the same pieces, in any order, and the same low side."""
    return set(a.pieces) == set(b.pieces) and a.tipped == b.tipped


def returns_expected_frame(item: Item, call: ToolCall, frames: Frames, parts: Parts) -> bool:
    """Return whether a call returned one frame, and that frame shows the expected board.

    A call that looks for what the clip does not show may return anything.

    Args:
        item: The item.
        call: A call of its chain.
        frames: The frames that the call returned.
        parts: The parts of the graph, whose store holds the frames.
    """
    if call.any_frame:
        return True
    if len(frames.frames) != 1:
        return False
    frame = frames.frames[0]
    if frame.imagined:
        shown = read_board(parts.resources.store.get(frame.digest))
    else:
        shown = item.clip.at(frame.seconds)
    return equal_boards(shown, call.expect)


def shuffle_options(trace: Trace, rng: random.Random) -> Trace:
    """Return the trace with its options in a random order and its answer in words."""
    options = list(trace.question.options)
    last = trace.segments[-1]
    if trace.choice is None or not isinstance(last, Answer):
        return trace
    rng.shuffle(options)
    answer = last.model_copy(update={"text": f"<answer>{trace.choice}</answer>", "body": trace.choice})
    question = trace.question.model_copy(update={"options": tuple(options)})
    return trace.model_copy(update={"question": question, "segments": (*trace.segments[:-1], answer)})


def with_tools(trace: Trace, tags: Sequence[str], rng: random.Random) -> Trace:
    """Return the trace as it would be with only some of its tools.

    At the first call of another tool it states that it cannot make the call, and answers.
    """
    old_line = tools_line(trace.versions.tools)
    new_line = tools_line(tags)
    segments: list[Segment] = []
    for segment in trace.segments:
        if isinstance(segment, Call) and segment.tag not in tags:
            before = segments.pop()
            assert isinstance(before, Text), "a chain names its tools before it calls"
            segments += _without_call(trace, segment, before, rng)
            break
        if isinstance(segment, Text):
            segment = segment.model_copy(update={"text": segment.text.replace(old_line, new_line)})
        segments.append(segment)
    tools = {tag: trace.versions.tools.get(tag, "") for tag in tags}
    versions = trace.versions.model_copy(update={"tools": tools})
    return trace.model_copy(update={"segments": tuple(segments), "versions": versions})


def _without_call(trace: Trace, call: Call, before: Text, rng: random.Random) -> tuple[Text, Answer]:
    """Return the end of a trace, from the text before a call that it cannot make.

    Without `retrieve` the answer is a guess among the options, or says that there is none. Without `generate`
    the outcome of the edit is concluded from text.
    """
    *_, conclusion, answer = trace.segments
    body = answer.body if isinstance(answer, Answer) else ""
    if call.tag == "retrieve" and not trace.question.options:
        body = UNSEEN
        end = " I cannot look again.</think>\n"
    elif call.tag == "retrieve":
        body = rng.choice(trace.question.options)
        end = f" I cannot look again. My guess is {body}.</think>\n"
    else:
        assert isinstance(conclusion, Text), "a chain concludes before it answers"
        end = " I cannot imagine it." + conclusion.text[conclusion.text.rindex(". ") + 1 :]
    return Text(text=before.text + end), Answer(text=f"<answer>{body}</answer>", body=body)


def after_view(trace: Trace) -> Trace:
    """Return the trace without its initial frames and with their description masked.

    The model is trained only on the text after the description.

    Raises:
        ValueError: If the trace does not begin with a description of the view.
    """
    first, last = trace.segments[0], int(trace.initial[-1].seconds)
    assert isinstance(first, Text), "a chain begins with what the view shows"
    end = first.text.index(".", first.text.index(f" {last}: ")) + 1
    parts = (Text(text=first.text[:end], author="graph"), Text(text=first.text[end:]))
    return trace.model_copy(update={"initial": (), "segments": (*parts, *trace.segments[1:])})


def corpus_config(folder: Path, weights: Path) -> Config:
    """Return the micro preset with the trained tools in `weights` and a cache in `folder`."""
    return load_config(
        "micro",
        cache=str(folder / "cache"),
        encoder={"weights": str(weights / "encoder")},
        tools={"generate": {"options": {"weights": str(weights / "generator")}}},
        reasoner={"weights": str(weights / "base")},
        index={"keep_frames": False},
        view={"guard": None},
    )


def corpus_item(index: int) -> Item:
    """Return the item of a corpus with this number, in people's words."""
    family = CORPUS_FAMILIES[index % len(CORPUS_FAMILIES)]
    item = make_item(family, index // len(CORPUS_FAMILIES), "train")
    return load_wordings().reword(item, random.Random(f"corpus {index}"))


@dataclass(slots=True)
class MadeChains:
    """The result of `make_chains`."""

    traces: list[Trace]
    dropped: Counter[str]
    """Number of dropped chains for each tool that returned a wrong frame, and for "format"."""


async def make_chains(
    config: Config, indices: Sequence[int], folder: Path, progress: Callable[[int], None] | None = None
) -> MadeChains:
    """Make the traces of training items.

    Args:
        config: The configuration of the graph; a `Reference` replaces its reasoner.
        indices: The numbers of the items, counted over all families in turn.
        folder: The folder for the clips; each is deleted after its question.
        progress: Called with the number of finished items.
    """
    reference = Reference()
    parts = replace(build_parts(config), reasoner=reference)
    graph = create_act2see(config, parts=parts)
    made = MadeChains([], Counter())
    for done, index in enumerate(indices):
        item = with_lines(corpus_item(index))
        session = f"chain-{index}"
        reference.items[session] = item
        clip = write_clip(item.clip, folder / "clips" / f"{index}.mp4")
        result: Any = await graph.ainvoke(
            {"video": str(clip), "question": item.text, "options": list(item.options)},
            {"configurable": {"thread_id": session}},
            context=AskContext(seed=index, earlier=item.earlier),
        )
        clip.unlink()
        trace = Trace.model_validate(result["trace"])
        if fault := _fault(item, trace, parts):
            made.dropped[fault] += 1
        else:
            made.traces.append(trace)
        if progress:
            progress(done + 1)
    return made


def _fault(item: Item, trace: Trace, parts: Parts) -> str:
    """Return the tool that returned a wrong frame, or "format"; an empty text if the trace is good."""
    returned = [s for s in trace.segments if isinstance(s, Frames)]
    wanted = [s for s in item.chain if isinstance(s, ToolCall)]
    for call, frames in zip(wanted, returned, strict=False):
        if not returns_expected_frame(item, call, frames, parts):
            return call.tag
    if len(returned) != len(wanted) or not isinstance(trace.segments[-1], Answer):
        return "format"
    return ""


def _worker(data: dict[str, Any], indices: list[int], folder: str, out: str) -> dict[str, int]:
    import torch

    torch.set_num_threads(1)
    made = asyncio.run(make_chains(load_config(data), indices, Path(folder)))
    Path(out).write_text("".join(t.to_json() + "\n" for t in made.traces), encoding="utf-8")
    return dict(made.dropped)


def build_corpus(config: Config, count: int, folder: Path, processes: int = 2) -> tuple[Path, Counter[str]]:
    """Make a corpus.

    Args:
        config: The configuration of the graph.
        count: The number of items.
        folder: The folder of the corpus.
        processes: The number of processes that share the work.

    Returns:
        The path of `traces.jsonl`, and the number of dropped chains by tool.
    """
    from act2see.micro.recipe.processes import ignore_interrupts, pool_of

    folder.mkdir(parents=True, exist_ok=True)
    parts = [folder / f"part-{p}.jsonl" for p in range(processes)]
    dropped: Counter[str] = Counter()
    with pool_of(processes) as pool:
        jobs = []
        with ignore_interrupts():
            for p, part in enumerate(parts):
                indices = list(range(p, count, processes))
                jobs.append(pool.submit(_worker, config.model_dump(), indices, str(folder), str(part)))
        for job in jobs:
            dropped.update(job.result())
    merged = folder / "traces.jsonl"
    merged.write_text("".join(p.read_text(encoding="utf-8") for p in parts), encoding="utf-8")
    for part in parts:
        part.unlink()
    return merged, dropped
