"""SFT chains of the board world: its reference chains, run through the real graph and the real tools.

A `Reference` takes the model's place in the graph and writes the item's chain. Retrieval and generation are
the real ones, so the frames in the corpus are those that the model will meet, with compression, wrong anchors
and all. A chain whose tool returned another frame than the world expects is dropped and counted: what it says
next would not be true of its frame.

Chains are made with both tools. The tools that a chain has are drawn anew each time that it is trained on
(`with_tools`): with a fixed set, the model remembered it with the question and did not read it from the
prompt.
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
from act2see.graphs.ask import create_act2see
from act2see.graphs.config import Config, load_config
from act2see.graphs.parts import Parts, build_parts
from act2see.graphs.state import AskContext
from act2see.micro.questions import FAMILIES, TAGS, Item, Step, ToolCall, make_item
from act2see.micro.world import Board, read_board, write_clip
from act2see.trace.record import Answer, Call, Frames, Segment, Text
from act2see.trace.trace import Trace


def tools_line(tags: Iterable[str]) -> str:
    """What a chain says before it calls: the prompt's line of tools, in the same tokens.

    A model that had to read that line in the prompt, at the moment of calling, overlooked it.
    """
    return "\n" + Prompt(dict.fromkeys(tags, ""), "short").instruction(letters=False)


def with_lines(item: Item) -> Item:
    """The item with the line of all tools before each call of its chain."""
    chain: list[Step] = []
    for step in item.chain:
        chain += [tools_line(TAGS), step] if isinstance(step, ToolCall) else [step]
    return replace(item, chain=tuple(chain))


def continued(item: Item, returned: int) -> str:
    """What follows in an item's chain after `returned` of its calls: up to the next call, or to the end."""
    calls = [i for i, step in enumerate(item.chain) if isinstance(step, ToolCall)]
    start = calls[returned - 1] + 1 if returned else 0
    has_call = returned < len(calls)
    stop = calls[returned] + 1 if has_call else len(item.chain)
    text = ""
    for step in item.chain[start:stop]:
        text += step if isinstance(step, str) else f"<{step.tag}>{step.query}</{step.tag}>"
    return text + item.closing() if stop == len(item.chain) else text


class Reference(Reasoner):
    """A reasoner that writes the reference chain of the item that is asked."""

    name = "reference"

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}
        """By session."""

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        item = self.items[request.rollout.session]
        text = continued(item, str(request.rollout).count("</frame>"))
        request.until(text)
        yield Delta(text)
        yield Done(StopReason.UNTIL, decoded=len(text.split()))

    def forget(self, session: str) -> None:
        self.items.pop(session, None)


def same(a: Board, b: Board) -> bool:
    """Whether two boards show the same, whatever the order of their pieces."""
    return set(a.pieces) == set(b.pieces) and a.tipped == b.tipped


def shows(item: Item, call: ToolCall, frames: Frames, parts: Parts) -> bool:
    """Whether a tool returned the one frame that the chain expects."""
    if len(frames.frames) != 1:
        return False
    frame = frames.frames[0]
    if frame.imagined:
        shown = read_board(parts.resources.store.get(frame.digest))
    else:
        shown = item.clip.at(frame.seconds)
    return same(shown, call.expect)


def shuffle_options(trace: Trace, rng: random.Random) -> Trace:
    """The trace with its options in another order; the answer names its option in words."""
    options, last = list(trace.question.options), trace.segments[-1]
    if trace.choice is None or not isinstance(last, Answer):
        return trace
    rng.shuffle(options)
    answer = last.model_copy(update={"text": f"<answer>{trace.choice}</answer>", "body": trace.choice})
    question = trace.question.model_copy(update={"options": tuple(options)})
    return trace.model_copy(update={"question": question, "segments": (*trace.segments[:-1], answer)})


def with_tools(trace: Trace, tags: Sequence[str], rng: random.Random) -> Trace:
    """The trace as it would have gone with these of its tools alone: at the first call of another tool it
    says that it cannot call, and answers."""
    had, has = tools_line(trace.versions.tools), tools_line(tags)
    segments: list[Segment] = []
    for segment in trace.segments:
        if isinstance(segment, Call) and segment.tag not in tags:
            before = segments.pop()
            assert isinstance(before, Text), "a chain names its tools before it calls"
            segments += _without_call(trace, segment, before, rng)
            break
        if isinstance(segment, Text):
            segment = segment.model_copy(update={"text": segment.text.replace(had, has)})
        segments.append(segment)
    tools = {tag: version for tag, version in trace.versions.tools.items() if tag in tags}
    versions = trace.versions.model_copy(update={"tools": tools})
    return trace.model_copy(update={"segments": tuple(segments), "versions": versions})


def _without_call(trace: Trace, call: Call, before: Text, rng: random.Random) -> tuple[Text, Answer]:
    """The end of a trace from the text before a call that it cannot make.

    What only another frame of the video would show is guessed; the outcome of an edit is concluded from text.
    """
    *_, conclusion, answer = trace.segments
    body = answer.body if isinstance(answer, Answer) else ""
    if call.tag == "retrieve":
        body = rng.choice(trace.question.options or (body,))
        end = f" I cannot look again. My guess is {body}.</think>\n"
    else:
        assert isinstance(conclusion, Text), "a chain concludes before it answers"
        end = " I cannot imagine it." + conclusion.text[conclusion.text.rindex(". ") + 1 :]
    return Text(text=before.text + end), Answer(text=f"<answer>{body}</answer>", body=body)


def after_view(trace: Trace) -> Trace:
    """The trace without initial frames, their description given and masked, so that the model is trained on
    what follows from it.

    Raises:
        ValueError: The trace does not begin with a description of the view.
    """
    first, last = trace.segments[0], len(trace.initial) - 1
    assert isinstance(first, Text), "a chain begins with what the view shows"
    end = first.text.index(".", first.text.index(f" {last}: ")) + 1
    parts = (Text(text=first.text[:end], author="graph"), Text(text=first.text[end:]))
    return trace.model_copy(update={"initial": (), "segments": (*parts, *trace.segments[1:])})


def corpus_config(folder: Path, weights: Path) -> Config:
    """The micro preset on newly trained tools, with its cache in `folder`."""
    return load_config(
        "micro",
        cache=str(folder / "cache"),
        encoder={"weights": str(weights / "encoder")},
        tools={"generate": {"options": {"weights": str(weights / "generator")}}},
        reasoner={"weights": str(weights / "base")},
        index={"keep_frames": False},
        view={"guard": None},
    )


@dataclass(slots=True)
class MadeChains:
    """The result of `make_chains`."""

    traces: list[Trace]
    dropped: Counter[str]
    """By the tool that returned another frame than expected, or "format"."""


async def make_chains(
    config: Config, indices: Sequence[int], folder: Path, progress: Callable[[int], None] | None = None
) -> MadeChains:
    """Make the traces of training items.

    Args:
        config: The graph; its reasoner is replaced by a `Reference`.
        indices: The numbers of the items, over all families in turn.
        folder: Holds each clip as long as it is asked about.
        progress: Called with the number of items that are done.
    """
    reference = Reference()
    parts = replace(build_parts(config), reasoner=reference)
    graph = create_act2see(config, parts=parts)
    made = MadeChains([], Counter())
    for done, index in enumerate(indices):
        item = with_lines(make_item(FAMILIES[index % 4], index // 4, "train"))
        session = f"chain-{index}"
        reference.items[session] = item
        clip = write_clip(item.clip, folder / "clips" / f"{index}.mp4")
        result: Any = await graph.ainvoke(
            {"video": str(clip), "question": item.text, "options": list(item.options)},
            {"configurable": {"thread_id": session}},
            context=AskContext(seed=index),
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
    """The tool that returned another frame than the chain expects, or "format"; empty for a good trace."""
    returned = [s for s in trace.segments if isinstance(s, Frames)]
    wanted = [s for s in item.chain if isinstance(s, ToolCall)]
    for call, frames in zip(wanted, returned, strict=False):
        if not shows(item, call, frames, parts):
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
        config: The graph.
        count: How many items are asked.
        folder: The corpus's.
        processes: That share the work.

    Returns:
        The path of `traces.jsonl`, and the dropped chains by tool.
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
