"""Act2See and its peers on the same questions of the board world: `python -m act2see.micro.study.peers`.

All work with the same weights. The token budget of a question is what Act2See spent on it: the tokens that it
read and wrote. What came after its first call is what a peer may spend in another way: the frames that this
buys are shown from the start (`uniform-frames`), or inserted (`inserted-frames`, at least one). Peers that
have nothing to spend it on stop earlier. No peer's writing is cut off at the budget, so one that shows more
frames, and describes them, may spend more than Act2See, which the table shows.

Captions are written before the question, once for all questions about a video. Here each video has one
question. Their tokens have a column of their own.

Traces are kept as `OUT/ARM.jsonl`, and an arm that is there is not asked again.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from act2see.errors import BenchmarkError
from act2see.evaluation.peers import PEERS, create_peer
from act2see.evaluation.peers.captions import CaptionSearch
from act2see.evaluation.peers.rollouts import cited_frames
from act2see.evaluation.statistics import compare_runs, measure_share
from act2see.graphs.ask import AskBuilder, Graph, create_act2see
from act2see.graphs.config import Config
from act2see.graphs.parts import Parts, build_parts
from act2see.graphs.state import AskContext
from act2see.micro.questions import Item, items
from act2see.micro.study.evaluate import AnsweredItem, micro_config, one_thread
from act2see.micro.world import write_clip
from act2see.tools.runtime.files import write_text
from act2see.tools.runtime.markdown import markdown_table
from act2see.trace.record import Frames
from act2see.trace.trace import Trace, load_traces
from act2see.training.concurrency import map_concurrently

OURS = "act2see"
CLIP_SECONDS = 2.0
"""The clips that are captioned: a board clip has 6 to 10 s, so that DVD's 10 s would give one caption."""
_HOURS = 24 * 3600.0
OnAnswer = Callable[[str, int], None]
"""A function that is called with the name of an arm and the number of its answers."""


def spent_tokens(trace: Trace) -> int:
    """Return the tokens that a run read and wrote; those in the cache are not read again."""
    return sum(loop.prefilled + loop.decoded for loop in trace.usage.loops)


def frame_cost(traces: Sequence[Trace]) -> float:
    """Return the mean number of tokens that the model read for one returned frame.

    Raises:
        BenchmarkError: No call returned a single frame, so nothing is known.
    """
    costs = []
    for trace in traces:
        replies = [s for s in trace.segments if isinstance(s, Frames)]
        for reply, loop in zip(replies, trace.usage.loops[1:], strict=False):
            if len(reply.frames) == 1 and not reply.note:
                costs.append(loop.prefilled)
    if not costs:
        raise BenchmarkError("no call of these runs returned a frame: ask more questions")
    return fmean(costs)


def bought_frames(trace: Trace, cost: float) -> int:
    """Return how many frames the tokens after the first call buy, at `cost` tokens a frame."""
    return int(sum(loop.prefilled + loop.decoded for loop in trace.usage.loops[1:]) / cost)


@dataclass(slots=True)
class Arm:
    """A way of working, with its answers."""

    name: str
    answers: list[AnsweredItem]
    caption_tokens: list[int] = field(default_factory=list)

    @property
    def scores(self) -> dict[str, float]:
        """1 for a right answer, 0 for a wrong one, by the seed of the item."""
        return {str(a.item.seed): float(a.right) for a in self.answers}


def compare_arms(arms: Sequence[Arm]) -> str:
    """Return the table. The first arm is the one that the others are compared with."""
    ours = arms[0]
    head = (
        "way of working",
        "right (95 % interval)",
        "right alone: Act2See / peer",
        "McNemar p",
        "tokens",
        "of them written",
        "captions",
        "frames",
        "calls",
        "forced",
        "cite a frame",
    )
    rows = []
    for arm in arms:
        traces = [a.trace for a in arm.answers]
        split, p = "", ""
        if arm is not ours:
            paired = compare_runs(ours.scores, arm.scores)
            split, p = f"{paired.first_only} / {paired.second_only}", f"{paired.p:.2g}"
        rows.append(
            (
                arm.name,
                measure_share(list(arm.scores.values())),
                split,
                p,
                f"{fmean(map(spent_tokens, traces)):.0f}",
                f"{fmean(t.usage.tokens for t in traces):.0f}",
                f"{fmean(arm.caption_tokens):.0f}" if arm.caption_tokens else "",
                f"{fmean(len(t.shown) for t in traces):.1f}",
                f"{fmean(sum(c.outcome == 'ok' for c in t.calls) for t in traces):.2f}",
                sum(t.forced for t in traces),
                sum(bool(cited_frames(t)) for t in traces),
            )
        )
    return markdown_table(head, rows)


@dataclass(slots=True)
class _Study:
    asked: Sequence[Item]
    config: Config
    parts: Parts
    out: Path
    concurrency: int
    progress: OnAnswer | None

    async def arms(self, names: Sequence[str]) -> list[Arm]:
        """Ask all questions in each way; Act2See first, since it sets the budget."""
        graph = create_act2see(self.config, parts=self.parts)
        ours = await self.ask(OURS, lambda _: graph)
        traces = [a.trace for a in ours.answers]
        cost = frame_cost(traces)
        bought = {str(a.item.seed): bought_frames(a.trace, cost) for a in ours.answers}
        shown = {str(a.item.seed): len(a.trace.initial) for a in ours.answers}
        arms = [ours]
        for name in names:
            graphs: dict[int | None, Graph] = {}

            def graph_of(item: Item, name: str = name, graphs: dict[int | None, Graph] = graphs) -> Graph:
                frames: int | None = None
                extra = bought[str(item.seed)]
                if name == "uniform-frames":
                    frames = shown[str(item.seed)] + extra
                elif name == "inserted-frames":
                    frames = max(1, extra)
                if frames not in graphs:
                    graphs[frames] = create_peer(
                        name, self.config, parts=self.parts, frames=frames, clip_seconds=CLIP_SECONDS
                    )
                return graphs[frames]

            arms.append(await self.ask(name, graph_of))
        return arms

    async def ask(self, name: str, graph_of: Callable[[Item], Graph]) -> Arm:
        """Ask all questions in one way."""
        file = self.out / f"{name}.jsonl"
        if file.exists():
            kept = list(load_traces(file))
            if [t.question.text for t in kept] != [item.text for item in self.asked]:
                raise BenchmarkError(f"{file} holds answers to other questions: give another folder")
            answers = [AnsweredItem(item, trace) for item, trace in zip(self.asked, kept, strict=True)]
            return Arm(name, answers, _read_costs(self.out, name))
        done = 0

        async def answer(item: Item) -> AnsweredItem:
            nonlocal done
            clip = self.out / "clips" / f"{item.seed}.mp4"
            if not clip.exists():
                await asyncio.to_thread(write_clip, item.clip, clip)
            question: Any = {"video": str(clip), "question": item.text, "options": list(item.options)}
            result = await graph_of(item).ainvoke(question, context=AskContext(earlier=item.earlier))
            done += 1
            if self.progress:
                self.progress(name, done)
            return AnsweredItem(item, Trace.model_validate(result["trace"]))

        with one_thread():
            answers = await map_concurrently(answer, self.asked, self.concurrency)
        costs = _caption_costs(graph_of(self.asked[0]), answers)
        if costs:
            write_text(self.out / f"{name}.captions", "\n".join(map(str, costs)) + "\n")
        write_text(file, "".join(a.trace.to_json() + "\n" for a in answers))
        return Arm(name, answers, costs)


def _read_costs(out: Path, name: str) -> list[int]:
    file = out / f"{name}.captions"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def _caption_costs(graph: Graph, answers: Sequence[AnsweredItem]) -> list[int]:
    """Return the tokens of the captions of each question's video; 0 if nothing was searched."""
    builder = graph.builder
    assert isinstance(builder, AskBuilder)
    for tool in builder.parts.tools.values():
        if isinstance(tool, CaptionSearch):
            return [tool.tokens.get(a.trace.video.digest, 0) for a in answers]
    return []


async def compare(
    n: int,
    out: Path,
    weights: Path | None = None,
    peers: Sequence[str] = tuple(PEERS),
    concurrency: int = 16,
    progress: OnAnswer | None = None,
) -> list[Arm]:
    """Ask `n` questions of the test split in each way.

    Args:
        n: The number of questions, from the families in turn.
        out: The folder of the traces, the clips and the cache.
        weights: The folder of the weights; None for the shipped ones.
        peers: The peers.
        concurrency: The number of questions asked at once.
        progress: Called after each answer.

    Raises:
        BenchmarkError: `out` holds answers to other questions, or no call returned a frame.
        ConfigError: There is no such peer.
    """
    config = micro_config(weights, out / "cache")
    # Many questions at once on a slow machine must not end one early.
    config = config.model_copy(update={"budget": config.budget.model_copy(update={"seconds": _HOURS})})
    (out / "clips").mkdir(parents=True, exist_ok=True)
    parts = build_parts(config)
    try:
        study = _Study(list(items(n, "test")), config, parts, out, concurrency, progress)
        return await study.arms(peers)
    finally:
        await asyncio.to_thread(parts.reasoner.close)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=60, help="number of questions")
    parser.add_argument("--out", type=Path, help="folder of the traces; default: none are kept")
    parser.add_argument("--weights", type=Path, help="folder of the weights; default: the shipped ones")
    parser.add_argument("--peer", action="append", choices=[*PEERS], help="a peer; default: all")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        out = chosen.out or Path(folder)
        arms = asyncio.run(compare(chosen.n, out, chosen.weights, chosen.peer or tuple(PEERS)))
    print(compare_arms(arms))


if __name__ == "__main__":
    main()
