"""SFT chains of the board world: its reference chains, run through the real graph and the real tools.

A `Reference` takes the model's place in the graph and writes the item's chain; retrieval and generation are
the real ones, so the frames in the corpus are those that the model will meet, with compression, wrong anchors
and all. A chain whose tool returned another frame than the world expects is dropped and counted: what it says
next would not be true of its frame.

Chains are made with both tools. Which of them a chain has is drawn anew each time that it is trained on
(`with_tools`): fixed once, it was remembered with the question and not read from the prompt.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from act2see.agent.grammar import StopReason
from act2see.agent.prompt import Prompt
from act2see.agent.reasoners.base import Delta, Done, Reasoner, Request
from act2see.graphs.ask import create_act2see
from act2see.graphs.config import Config, load_config
from act2see.graphs.parts import Parts, build_parts
from act2see.graphs.state import AskContext
from act2see.micro.questions import FAMILIES, TAGS, Call, Item, Step, make_item
from act2see.micro.world import Board, read_board, write_clip
from act2see.trace.record import Answer, Call as Called, Frames, Segment, Text
from act2see.trace.trace import Trace


def tools_line(tags: Iterable[str]) -> str:
    """What a chain says before it calls: the prompt's own line, in the same tokens.

    Read only at the moment of calling, the prompt's line was overlooked.
    """
    return "\n" + Prompt(dict.fromkeys(tags, ""), "short").instruction(letters=False)


def with_lines(item: Item) -> Item:
    """The item with the line of all tools before each call of its chain."""
    chain: list[Step] = []
    for step in item.chain:
        chain += [tools_line(TAGS), step] if isinstance(step, Call) else [step]
    return replace(item, chain=tuple(chain))


def continued(item: Item, returned: int) -> str:
    """How an item's chain goes on once its calls have returned so often: up to its next call, or to the
    end."""
    calls = [i for i, s in enumerate(item.chain) if isinstance(s, Call)]
    start = calls[returned - 1] + 1 if returned else 0
    stop = calls[returned] + 1 if returned < len(calls) else len(item.chain)
    text = "".join(
        s if isinstance(s, str) else f"<{s.tag}>{s.query}</{s.tag}>" for s in item.chain[start:stop]
    )
    return text + item.closing() if stop == len(item.chain) else text


class Reference(Reasoner):
    """A reasoner that writes the reference chain of whichever item is asked."""

    name = "reference"

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        item = self.items[request.rollout.session]
        text = continued(item, str(request.rollout).count("</frame>"))
        request.until(text)
        yield Delta(text)
        yield Done(StopReason.UNTIL, decoded=len(text.split()))

    def forget(self, session: str) -> None:
        self.items.pop(session, None)


def same(a: Board, b: Board) -> bool:
    return set(a.pieces) == set(b.pieces) and a.tipped == b.tipped


def shows(item: Item, call: Call, frames: Frames, parts: Parts) -> bool:
    """Whether what a tool returned is what the chain expects there."""
    if len(frames.frames) != 1:
        return False
    frame = frames.frames[0]
    if frame.imagined:
        return same(read_board(parts.resources.store.get(frame.digest)), call.expect)
    return same(item.clip.at(frame.seconds), call.expect)


def shuffle_options(trace: Trace, rng: random.Random) -> Trace:
    """The same trace with its options in another order; the answer names its option in words."""
    options, last = list(trace.question.options), trace.segments[-1]
    if trace.choice is None or not isinstance(last, Answer):
        return trace
    rng.shuffle(options)
    answer = last.model_copy(update={"text": f"<answer>{trace.choice}</answer>", "body": trace.choice})
    question = trace.question.model_copy(update={"options": tuple(options)})
    return trace.model_copy(update={"question": question, "segments": (*trace.segments[:-1], answer)})


def with_tools(trace: Trace, tags: Sequence[str], rng: random.Random) -> Trace:
    """The same trace as it would have gone with these of its tools alone: what can then only be guessed is
    guessed."""
    had, has = tools_line(trace.versions.tools), tools_line(tags)
    segments: list[Segment] = []
    for s in trace.segments:
        if isinstance(s, Called) and s.tag not in tags:
            last = segments.pop()
            *_, concluded, answer = trace.segments
            body = answer.body if isinstance(answer, Answer) else ""
            if s.tag == "retrieve":
                body = rng.choice(trace.question.options or (body,))
                end = f" I cannot look again. My guess is {body}.</think>\n"
            else:
                end = " I cannot imagine it." + concluded.text[concluded.text.rindex(". ") + 1 :]  # type: ignore[union-attr]
            segments += [Text(text=last.text + end), Answer(text=f"<answer>{body}</answer>", body=body)]  # type: ignore[union-attr]
            break
        segments.append(s.model_copy(update={"text": s.text.replace(had, has)}) if isinstance(s, Text) else s)
    versions = trace.versions.model_copy(
        update={"tools": {t: v for t, v in trace.versions.tools.items() if t in tags}}
    )
    return trace.model_copy(update={"segments": tuple(segments), "versions": versions})


def after_view(trace: Trace) -> Trace:
    """The trace without initial frames, their description given and not learnt: what is learnt is what
    follows from it."""
    first, last = trace.segments[0], len(trace.initial) - 1
    assert isinstance(first, Text), "a chain begins with what the view shows"
    end = first.text.index(".", first.text.index(f" {last}: ")) + 1
    parts = (Text(text=first.text[:end], author="graph"), Text(text=first.text[end:]))
    return trace.model_copy(update={"initial": (), "segments": (*parts, *trace.segments[1:])})


def corpus_config(folder: Path, weights: Path) -> Config:
    """The micro preset on freshly trained tools, with its cache in `folder`."""
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
class Made:
    traces: list[Trace]
    dropped: Counter[str]


async def make_chains(
    config: Config, indices: Sequence[int], folder: Path, progress: Callable[[int], None] | None = None
) -> Made:
    """Traces for the training items of these numbers, families in turn."""
    reference = Reference()
    parts = replace(build_parts(config), reasoner=reference)
    graph = create_act2see(config, parts=parts)
    made = Made([], Counter())
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
        returned = [s for s in trace.segments if isinstance(s, Frames)]
        wanted = [s for s in item.chain if isinstance(s, Call)]
        wrong = next(
            (c.tag for c, f in zip(wanted, returned, strict=False) if not shows(item, c, f, parts)), ""
        )
        if wrong or len(returned) != len(wanted) or not isinstance(trace.segments[-1], Answer):
            made.dropped[wrong or "format"] += 1
        else:
            made.traces.append(trace)
        if progress:
            progress(done + 1)
    return made


def _worker(data: dict[str, Any], indices: list[int], folder: str, out: str) -> dict[str, int]:
    import torch

    torch.set_num_threads(1)
    made = asyncio.run(make_chains(load_config(data), indices, Path(folder)))
    Path(out).write_text("".join(t.to_json() + "\n" for t in made.traces), encoding="utf-8")
    return dict(made.dropped)


def build_corpus(config: Config, count: int, folder: Path, processes: int = 2) -> tuple[Path, Counter[str]]:
    """`count` chains in `folder/traces.jsonl`, made by several processes; also what was dropped, by tool."""
    from act2see.micro.recipe.processes import deaf, pool_of

    folder.mkdir(parents=True, exist_ok=True)
    parts = [folder / f"part-{p}.jsonl" for p in range(processes)]
    dropped: Counter[str] = Counter()
    with pool_of(processes) as pool:
        with deaf():
            jobs = [
                pool.submit(
                    _worker, config.model_dump(), list(range(p, count, processes)), str(folder), str(parts[p])
                )
                for p in range(processes)
            ]
        for job in jobs:
            dropped.update(job.result())
    merged = folder / "traces.jsonl"
    merged.write_text("".join(p.read_text(encoding="utf-8") for p in parts), encoding="utf-8")
    for p in parts:
        p.unlink()
    return merged, dropped
