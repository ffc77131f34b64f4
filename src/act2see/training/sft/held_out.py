"""Evaluation during training: held-out questions through the real graph, with the model as it is now.

The loss on held-out chains says how well the model continues a teacher; only the graph, with its own tools
and their frames, says whether it answers. Decoding is greedy. The tools stay loaded between evaluations, the
model's cache does not.
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
    """Counts over questions; those of several processes can be added."""

    questions: int = 0
    right: int = 0
    called: int = 0
    """Questions for which a tool was called."""
    calls: int = 0
    failed: int = 0

    def metrics(self, seconds: float) -> dict[str, float]:
        """The metrics as the Trainer logs them. The call rate is the share of questions with a call."""
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
    """The questions of a corpus's traces. Their own answers are the right ones: a corpus holds no others."""
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
    """Asks questions through a graph whose reasoner is replaced by the given model.

    Args:
        questions: The held-out questions.
        config: The graph.
        base: The folder of the base, for its tokenizer.
        seed: Of the tools.
        concurrency: How many questions are asked at once.

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
                f"({missing[0].id}: {missing[0].video}): put the clips where the corpus says they are, "
                "or evaluate on nothing with eval_samples 0"
            )
        self.questions, self.seed, self.concurrency = list(questions), seed, concurrency
        # The base's own tokenizer; the weights that the config names are not loaded.
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
            name: Names the model in traces.
            rank: The number of this process.
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
        store, settings = self._parts.resources.store, self.config.reasoner
        packer = Packer.from_pretrained(self.base)
        packer.cached_images = 0
        engine = TransformersReasoner(
            model,
            packer,
            store,
            name=name,
            rows=settings.rows,
            context=settings.context,
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
            return Scores(1, int(question.is_right(trace.answer)), int(calls > 0), calls)

        try:
            return added(await map_concurrently(score, questions, self.concurrency))
        finally:
            engine.close()


def added(scores: Iterable[Scores]) -> Scores:
    """The sums of the counts."""
    columns = zip(*map(astuple, scores), strict=True)
    return Scores(*map(sum, columns))
