"""Act2See and its peers on the same questions of the board world: `python -m act2see.micro.study.peers`.

All work with the same weights, and all are runs of the harness of `act2see eval`: a folder with
`questions.jsonl` for each, which a killed study continues. The token budget of a question is what Act2See
spent on it: the tokens that it read and wrote. What came after its first call is what a peer may spend in
another way: the frames that this buys are shown from the start (`uniform-frames`), or inserted
(`inserted-frames`, at least one). Peers that have nothing to spend it on stop earlier. No peer's writing is
cut off at the budget, so one that shows more frames, and describes them, may spend more than Act2See, which
the table shows.

Captions are written before the question, once for all questions about a video. Here each video has one
question. Their tokens have a column of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from act2see.errors import BenchmarkError
from act2see.evaluation.asking import Arm, GraphArm, Question
from act2see.evaluation.benchmarks import Suite
from act2see.evaluation.harness import Options, open_evaluation
from act2see.evaluation.inspecting import run_tasks
from act2see.evaluation.peers import PEERS
from act2see.evaluation.peers.arms import SHORT_CLIP_SECONDS, PeerArm
from act2see.evaluation.peers.rollouts import cited_frames
from act2see.evaluation.records import QuestionRecord, read_questions
from act2see.graphs.config import Config
from act2see.graphs.parts import Parts, build_parts
from act2see.micro.study.board import load_board
from act2see.micro.study.evaluate import micro_config, one_thread
from act2see.micro.study.peers_report import Answers, compare_arms, export_lines, report
from act2see.tools.runtime.files import write_text
from act2see.tools.video.store import FrameStore
from act2see.trace.record import Frames
from act2see.trace.trace import Trace

OURS = "act2see"
_HOURS = 24 * 3600.0


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


def budget_frames(way: str, traces: Sequence[Trace]) -> dict[str, int]:
    """Return the frames that a peer may show for each question, by the id of Act2See's trace of it.

    Empty for a peer that has nothing to spend on frames.
    """
    if way not in ("uniform-frames", "inserted-frames"):
        return {}
    cost = frame_cost(traces)
    bought = {trace.id: bought_frames(trace, cost) for trace in traces}
    if way == "inserted-frames":
        return {name: max(1, frames) for name, frames in bought.items()}
    return {trace.id: len(trace.initial) + bought[trace.id] for trace in traces}


class BudgetedPeer:
    """A peer that may show as many frames as Act2See's tokens for the same question buy.

    Args:
        way: The peer.
        config: The configuration of Act2See.
        parts: Its parts.
        frames: The number of frames by the name of the question; none for a peer with a fixed number.
        costs: The file that gets the tokens of captions, since a trace has no place for them.
    """

    def __init__(
        self, way: str, config: Config, parts: Parts, frames: Mapping[str, int], costs: Path
    ) -> None:
        self.name = way
        self._way, self._base, self._parts = way, config, parts
        self._frames = frames
        self._costs = costs
        self._arms: dict[int | None, PeerArm] = {}
        self.config = self._arm(None).config

    @property
    def store(self) -> FrameStore | None:
        """The store of the graph's frames."""
        return self._parts.resources.store

    async def ask(self, question: Question) -> Trace:
        """Run the peer with the frames of this question."""
        arm = self._arm(self._frames.get(question.name))
        trace = await arm.ask(question)
        if (tokens := arm.caption_tokens(trace.video.digest)) is not None:
            with self._costs.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"trace": trace.id, "tokens": tokens}) + "\n")
        return trace

    async def close(self) -> None:
        """Do nothing: the parts are those of all arms."""

    def _arm(self, frames: int | None) -> PeerArm:
        if frames not in self._arms:
            self._arms[frames] = PeerArm(
                self._way,
                self._base,
                parts=self._parts,
                frames=frames,
                clip_seconds=SHORT_CLIP_SECONDS,
            )
        return self._arms[frames]


@dataclass(slots=True)
class Study:
    """The runs of Act2See and its peers in one folder."""

    suite: Suite
    config: Config
    out: Path
    concurrency: int = 16
    parts: Parts = field(init=False)

    def __post_init__(self) -> None:
        self.parts = build_parts(self.config)

    def run(self, ways: Sequence[str]) -> list[Answers]:
        """Ask all questions in each way; Act2See first, since it sets the budget."""
        ours = self.ask(GraphArm(self.config, OURS, parts=self.parts))
        traces = [Trace.load(self.out / OURS / line.trace) for line in ours.lines if line.trace]
        found = [ours]
        for way in ways:
            costs = self.out / f"{way}.captions.jsonl"
            arm = BudgetedPeer(way, self.config, self.parts, budget_frames(way, traces), costs)
            found.append(self.ask(arm))
        return found

    def ask(self, arm: Arm) -> Answers:
        """Ask all questions in one way, by the harness."""
        options = Options(concurrency=self.concurrency, pictures=False)
        folder = self.out / arm.name
        evaluation = open_evaluation(self.suite, arm, options, folder)
        try:
            with one_thread():
                run_tasks(evaluation)
            run = evaluation.finish()
        finally:
            evaluation.folder.close()
        lines = list(read_questions(folder))
        costs = _read_costs(self.out, arm.name, lines)
        return Answers(arm.name, lines, run.weights, count_citing(folder, lines), costs)


def count_citing(folder: Path, lines: Sequence[QuestionRecord]) -> int:
    """Return the number of chains that cite a frame by its number."""
    return sum(bool(cited_frames(Trace.load(folder / line.trace))) for line in lines if line.trace)


def _read_costs(out: Path, name: str, lines: Sequence[QuestionRecord]) -> list[int]:
    """Return the tokens of the captions of each question's video; 0 if nothing was searched."""
    file = out / f"{name}.captions.jsonl"
    if not file.exists():
        return []
    costs = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        found = json.loads(line)
        costs[found["trace"]] = int(found["tokens"])
    return [costs.get(Path(line.trace or "").stem, 0) for line in lines]


def compare(
    n: int,
    out: Path,
    weights: Path | None = None,
    peers: Sequence[str] = tuple(PEERS),
    concurrency: int = 16,
) -> list[Answers]:
    """Ask `n` questions of the test split in each way. Must not be called from a running event loop.

    Args:
        n: The number of questions, from the families in turn.
        out: The folder of the runs, the clips and the cache.
        weights: The folder of the weights; None for the shipped ones.
        peers: The peers.
        concurrency: The number of questions asked at once.

    Raises:
        BenchmarkError: `out` holds answers to other questions, or no call returned a frame.
        ConfigError: There is no such peer.
    """
    config = micro_config(weights, out / "cache")
    # Many questions at once on a slow machine must not end one early.
    config = config.model_copy(update={"budget": config.budget.model_copy(update={"seconds": _HOURS})})
    study = Study(load_board(n, out / "clips"), config, out, concurrency)
    try:
        return study.run(peers)
    finally:
        asyncio.run(asyncio.to_thread(study.parts.reasoner.close))


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=60, help="number of questions")
    parser.add_argument("--out", type=Path, help="folder of the runs; default: none are kept")
    parser.add_argument("--weights", type=Path, help="folder of the weights; default: the shipped ones")
    parser.add_argument("--peer", action="append", choices=[*PEERS], help="a peer; default: all")
    parser.add_argument(
        "--report", type=Path, help="Markdown file to write; beside it, all answers as .jsonl"
    )
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = compare(chosen.n, chosen.out or Path(folder), chosen.weights, chosen.peer or tuple(PEERS))
    print(compare_arms(found))
    if chosen.report:
        write_text(chosen.report.with_suffix(".jsonl"), export_lines(found))
        write_text(chosen.report, report(found, chosen.report.with_suffix(".jsonl").name))


if __name__ == "__main__":
    main()
