"""Evaluation during training: held-out questions are asked through the real graph, with the current model.

The loss on held-out chains measures how well the model continues a teacher's chain. Only the graph, with its
tools and their frames, measures whether the model answers right. Decoding is greedy. The tools stay loaded
between evaluations; the model's cache is released.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

from act2see.agent.packing import Packer
from act2see.agent.reasoners.transformers import TransformersReasoner
from act2see.errors import Act2SeeError, ConfigError
from act2see.graphs.ask import create_act2see
from act2see.graphs.config import Config
from act2see.graphs.parts import Parts, build_parts
from act2see.graphs.run import aask
from act2see.graphs.state import AskContext
from act2see.tools.runtime.background import run_sync
from act2see.tools.video.window import Window
from act2see.trace.trace import Trace
from act2see.training.concurrency import map_concurrently
from act2see.training.corpus.sources import Sample

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Scores:
    """Counts over questions, which can be added across processes."""

    questions: int = 0
    right: int = 0
    """Number of questions that were answered right."""
    called: int = 0
    """Number of questions for which a tool was called."""
    calls: int = 0
    """Number of successful calls."""
    failed: int = 0
    """Number of questions whose run failed."""

    def metrics(self, seconds: float) -> dict[str, float]:
        """Return the metrics by the Trainer's names. The call rate is the share of questions with a call."""
        n = max(1, self.questions)
        return {
            "eval_accuracy": self.right / n,
            "eval_call_rate": self.called / n,
            "eval_calls": self.calls / n,
            "eval_questions": float(self.questions),
            "eval_failed": float(self.failed),
            "eval_seconds": round(seconds, 1),
        }


def questions_of(traces: Iterable[Trace]) -> list[Sample]:
    """Return the questions of a corpus's traces. A trace's own answer is the right one, since a corpus holds
    only chains with a right answer."""
    return [
        Sample(
            id=trace.id,
            source="corpus",
            video=trace.video.path,
            question=trace.question.text,
            options=trace.question.options,
            answer=trace.choice or trace.answer or "",
        )
        for trace in traces
    ]


class GraphEvaluation:
    """An evaluation that asks questions through a graph whose reasoner is replaced by the given model.

    Args:
        questions: The held-out questions.
        config: The graph.
        base: The folder of the base, for its tokenizer.
        seed: The seed of the tools.
        concurrency: Number of questions that are asked at the same time.

    Raises:
        ConfigError: The video of a question is missing.
    """

    def __init__(
        self, questions: Sequence[Sample], config: Config, base: str, seed: int = 0, concurrency: int = 8
    ) -> None:
        missing = [q for q in questions if not Path(Window.resolve(q.clip).path).is_file()]
        if missing:
            raise ConfigError(
                f"{len(missing)} of {len(questions)} held-out questions have no video "
                f"({missing[0].id}: {missing[0].video}): restore the clips at the paths of the corpus, "
                "or turn the evaluation off with `eval_samples: 0`"
            )
        self.questions = list(questions)
        self.seed = seed
        self.concurrency = concurrency
        # The tokenizer is the base's. The weights that the config names are never loaded.
        reasoner = config.reasoner.model_copy(
            update={"use": "transformers", "weights": base, "adapter": None}
        )
        self.config = config.model_copy(update={"reasoner": reasoner})
        self.base = base
        self._parts: Parts | None = None

    def __call__(self, model: Any, name: str, *, rank: int = 0, world: int = 1) -> Scores:
        """Ask this process's share of the questions.

        Args:
            model: A Qwen3-VL; its training mode is restored afterwards.
            name: The name of the model in traces.
            rank: The index of this process.
            world: The number of processes.
        """
        was_training = bool(model.training)
        try:
            return run_sync(self._ask(model, name, self.questions[rank::world]))
        finally:
            model.train(was_training)

    async def _ask(self, model: Any, name: str, questions: Sequence[Sample]) -> Scores:
        if self._parts is None:
            self._parts = build_parts(self.config)
        store = self._parts.resources.store
        settings = self.config.reasoner
        packer = Packer.from_pretrained(self.base)
        packer.cache_bytes = 0  # this packer serves one evaluation, so cached frames would only use memory
        engine = TransformersReasoner(
            model, packer, store, name=name, rows=settings.rows, context=settings.context
        )
        graph = create_act2see(self.config, parts=replace(self._parts, reasoner=engine))

        async def score(question: Sample) -> Scores:
            try:
                trace = await aask(
                    graph,
                    question.clip,
                    question.question,
                    question.options,
                    context=AskContext(seed=self.seed, temperature=0.0),
                    thread_id=f"{name}-{question.id}",
                )
            except Act2SeeError as e:
                log.warning("held-out question %s failed: %s", question.id, e)
                return Scores(1, failed=1)
            calls = sum(call.outcome == "ok" for call in trace.calls)
            right = question.is_right(trace.answer)
            return Scores(1, right=int(right), called=int(calls > 0), calls=calls)

        try:
            return add_scores(await map_concurrently(score, questions, self.concurrency))
        finally:
            engine.close()


def add_scores(scores: Iterable[Scores]) -> Scores:
    """Return the sums of the counts."""
    columns = zip(*map(astuple, scores), strict=True)
    return Scores(*map(sum, columns))
