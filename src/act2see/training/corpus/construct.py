"""Make chains: a teacher answers each question in the real graph, and tries again after a wrong answer.

    rollout -> judge -> rollout (at most `retries` more) -> judge -> ...

`rollout` runs the inference graph itself, with the teacher as its reasoner and the same tools. The right
answer is used only to judge and is not part of the prompt: a teacher that reads it calls fewer tools (the
paper's table 6: 45 % of chains call a tool without it, 5 % with it). `hint` adds it, only for that
comparison.

Each finished record is on disk before its worker starts the next question (`Journal`). A run that is started
again resumes. An error of the set-up (a wrong key, a full disk) ends the run; an error of one question is
written into its record.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, replace
from itertools import takewhile
from operator import add
from pathlib import Path
from typing import Annotated, Any, Literal

from langgraph.graph import START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command
from pydantic import Field
from typing_extensions import TypedDict

from act2see.agent.reasoners.base import Delta, Done, Reasoner, Request, WrappedReasoner
from act2see.errors import (
    Act2SeeError,
    CorpusError,
    RefusedError,
    SetupError,
    StoreError,
    VideoError,
    WeightsError,
)
from act2see.graphs.ask import Graph, create_act2see
from act2see.graphs.config import Config
from act2see.graphs.parts import Parts, build_parts
from act2see.graphs.state import AskContext
from act2see.tools.base import call_seed
from act2see.tools.frames import Record
from act2see.tools.runtime.files import write_text
from act2see.tools.runtime.plain_json import read_json
from act2see.trace.record import Answer
from act2see.trace.trace import Trace
from act2see.training.concurrency import map_concurrently
from act2see.training.corpus.records import Attempt, Chain, Cost, Journal, Outcome
from act2see.training.corpus.sources import Sample

_RUN_ERRORS = (SetupError, StoreError, WeightsError)
HINT = "\nThe right answer is: {answer}.{chain} Write how one comes to it."


class ConstructPlan(Record):
    """The settings that decide a run's chains; a resumed run must have the same plan."""

    retries: Annotated[int, Field(ge=0)] = 2
    """Maximum number of further attempts after a wrong answer. The default is the paper's."""
    seed: int = 0
    hint: bool = False
    """Put the right answer into the prompt."""
    temperature: float | None = None
    """Sampling temperature; None uses the teacher's default."""
    prices: tuple[float, float] | None = None
    """Dollars per million tokens, read and written; a budget in dollars requires them."""


class ConstructLimits(Record):
    """The budgets at which a run stops, and its concurrency."""

    concurrency: Annotated[int, Field(ge=1)] = 4
    """Number of questions that are answered at the same time."""
    dollars: Annotated[float, Field(gt=0)] | None = None
    """Budget in dollars; None for no limit."""
    tokens: Annotated[int, Field(gt=0)] | None = None
    """Budget in tokens, read and written; None for no limit."""


class Meter(WrappedReasoner):
    """A wrapper that counts the cost of a reasoner."""

    def __init__(self, reasoner: Reasoner, prices: tuple[float, float] | None = None) -> None:
        super().__init__(reasoner)
        self.prices = prices
        """Dollars per million tokens, read and written."""
        self.costs: dict[str, Cost] = {}
        """Session -> its cost so far."""

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        cost = Cost(requests=1)
        try:
            async for item in self.reasoner.stream(request):
                if isinstance(item, Done):
                    cost += self._cost_of(item)
                yield item
        finally:
            session = request.rollout.session
            self.costs[session] = self.costs.get(session, Cost()) + cost

    def _cost_of(self, done: Done) -> Cost:
        read = done.prefilled + done.cached
        written = done.decoded + done.thinking  # providers charge hidden thinking as output
        dollars = 0.0
        if self.prices:
            dollars = (read * self.prices[0] + written * self.prices[1]) / 1e6
        return Cost(read=read, written=written, dollars=dollars)


class ConstructInput(TypedDict):
    """The input of the construction graph."""

    sample: dict[str, Any]
    """The question, a dumped `Sample`."""


class ConstructState(ConstructInput):
    """The state of the construction graph."""

    attempts: Annotated[list[dict[str, Any]], add]
    """The attempts so far, each a dumped `Attempt`."""
    trace: dict[str, Any] | None
    """The dumped trace of the last attempt."""
    dropped: str
    """The reason why the chain is dropped; empty if it is kept."""


ConstructGraph = CompiledStateGraph[ConstructState, None, ConstructInput, ConstructState]


def create_construction(ask: Graph, meter: Meter, plan: ConstructPlan) -> ConstructGraph:
    """Build the construction graph around `ask`, an inference graph whose reasoner is `meter`."""
    nodes = _Nodes(ask, meter, plan)
    graph: StateGraph[ConstructState, None, ConstructInput, ConstructState] = StateGraph(
        ConstructState, input_schema=ConstructInput, output_schema=ConstructState
    )
    rollout: Any = nodes.rollout
    graph.add_node("rollout", rollout)
    graph.add_node("judge", nodes.judge, destinations=("rollout", "__end__"))
    graph.add_edge(START, "rollout")
    graph.add_edge("rollout", "judge")
    return graph.compile(name="construct")


@dataclass(slots=True)
class _Nodes:
    ask: Graph
    meter: Meter
    plan: ConstructPlan

    async def rollout(self, state: ConstructState) -> dict[str, Any]:
        """Let the teacher make one attempt."""
        sample = Sample.model_validate(state["sample"])
        nth = len(state.get("attempts", []))
        session = f"{sample.id}.{nth}"
        started = time.perf_counter()
        trace: Trace | None = None
        outcome: Outcome
        try:
            trace = await self._ask(sample, nth, session)
            outcome, why = judge_answer(trace, sample)
        except _RUN_ERRORS:
            raise
        except Act2SeeError as e:
            outcome = "refused" if isinstance(e, RefusedError) else "failed"
            why = f"{type(e).__name__}: {e}"
        attempt = Attempt(
            outcome=outcome,
            answer=trace.answer if trace else None,
            why=why,
            seconds=round(time.perf_counter() - started, 3),
            cost=self.meter.costs.pop(session, Cost()),
        )
        return {
            "attempts": [attempt.model_dump(mode="json")],
            "trace": trace.model_dump(mode="json") if trace else None,
        }

    async def _ask(self, sample: Sample, nth: int, session: str) -> Trace:
        question = teacher_question(sample, self.plan.hint)
        seed = call_seed(self.plan.seed, sample.id, "", nth)
        result = await self.ask.ainvoke(
            {"video": sample.clip, "question": question, "options": list(sample.options)},
            {"configurable": {"thread_id": session}},
            context=AskContext(seed=seed, temperature=self.plan.temperature),
        )
        trace = Trace.model_validate(result["trace"])
        # A user's question has no hint, so the saved trace must not have one either.
        without_hint = trace.question.model_copy(update={"text": sample.question})
        return trace.model_copy(update={"question": without_hint})

    async def judge(self, state: ConstructState) -> Command[Literal["rollout", "__end__"]]:
        """End after a right answer; otherwise try again while attempts are left."""
        last = Attempt.model_validate(state["attempts"][-1])
        if last.outcome == "right":
            return Command(update={"dropped": ""}, goto="__end__")
        n = len(state["attempts"])
        # A video that cannot be read fails in every attempt.
        video_failed = last.why.startswith(VideoError.__name__)
        if n <= self.plan.retries and not video_failed:
            return Command(goto="rollout")
        why = f" ({last.why})" if last.why else ""
        return Command(update={"dropped": f"{last.outcome} after {n} attempts{why}"}, goto="__end__")


def teacher_question(sample: Sample, hint: bool = False) -> str:
    """Return the question for the teacher; with `hint`, it includes the right answer and the human chain."""
    if not hint:
        return sample.question
    chain = f" A person thought: {sample.chain}" if sample.chain else ""
    return sample.question + HINT.format(answer=sample.answer, chain=chain)


def judge_answer(trace: Trace, sample: Sample) -> tuple[Outcome, str]:
    """Return the outcome of an attempt and the reason why it is not right.

    A free answer is right if it has the words of the sample's answer.
    """
    last = trace.segments[-1]
    if trace.usage.loops and trace.usage.loops[-1].stop == "length":
        return "truncated", "the token limit was reached before the end"
    if not isinstance(last, Answer) or not last.body:
        return "no answer", "<answer> is empty"
    if last.forced:
        return "format", "the teacher did not write <answer> itself"
    given = sample.read(last.body)
    if given is None:
        return "format", f"{last.body[:60]!r} is not one of the options"
    if sample.is_right(last.body):
        return "right", ""
    return "wrong", f"{given[:60]!r} instead of {sample.answer[:60]!r}"


@dataclass(frozen=True, slots=True)
class ConstructionStatus:
    """The progress of a run, including what it made before it was resumed."""

    kept: int
    dropped: int
    cost: Cost
    stopped: str = ""
    """The reason why no further question is started; empty if the budget is not spent."""


OnChain = Callable[[Chain, ConstructionStatus], None]


async def construct(
    samples: Iterable[Sample],
    config: Config,
    out: Path,
    plan: ConstructPlan | None = None,
    limits: ConstructLimits | None = None,
    *,
    reasoner: Reasoner | None = None,
    on_chain: OnChain | None = None,
) -> ConstructionStatus:
    """Make chains for `samples`, except for those whose chain is already in `out`.

    Args:
        samples: The questions; read one by one, as workers become free.
        config: The graph, with the teacher as its reasoner.
        out: The run's folder: `chains.jsonl`, `run.json`, and `frames/`.
        plan: The settings that decide the chains.
        limits: The budgets and the concurrency.
        reasoner: The teacher; overrides the reasoner of `config`.
        on_chain: Called with each finished chain and the progress.

    Returns:
        The progress of the whole run.

    Raises:
        CorpusError: `out` holds a run with another plan, teacher or config; `out` cannot be written; or a
            budget in dollars is set without prices.
        SetupError, WeightsError: The teacher or the tools cannot be used.
    """
    plan = plan or ConstructPlan()
    limits = limits or ConstructLimits()
    if limits.dollars is not None and plan.prices is None:
        raise CorpusError("a budget in dollars needs prices: give those per million tokens read and written")
    config = config.model_copy(update={"cache": str(out / "cache"), "store": str(out / "frames")})
    parts: Parts = build_parts(config)
    meter = Meter(reasoner or parts.reasoner, plan.prices)
    ask = create_act2see(config, parts=replace(parts, reasoner=meter))
    graph = create_construction(ask, meter, plan)
    run = {"plan": plan.model_dump(mode="json"), "teacher": meter.name, "config": config.hash}
    with Journal(out) as journal:
        _check_same_run(out, run)

        async def make_chain(sample: Sample) -> None:
            state: Any = await graph.ainvoke({"sample": sample.model_dump(mode="json")})
            chain = Chain.model_validate({**state, "teacher": meter.name})
            journal.write(chain)
            if on_chain:
                on_chain(chain, _status(journal, limits))

        remaining = (sample for sample in samples if sample.id not in journal.done)
        # Evaluated each time a worker takes a sample, so the budget is checked before every question.
        within_budget = takewhile(lambda _: not _spent_budget(journal.cost, limits), remaining)
        try:
            await map_concurrently(make_chain, within_budget, limits.concurrency)
        finally:
            await asyncio.to_thread(parts.reasoner.close)
        return _status(journal, limits)


def _status(journal: Journal, limits: ConstructLimits) -> ConstructionStatus:
    kept = sum(journal.done.values())
    spent = _spent_budget(journal.cost, limits)
    return ConstructionStatus(kept, len(journal.done) - kept, journal.cost, spent)


def _spent_budget(cost: Cost, limits: ConstructLimits) -> str:
    """Return a sentence that names the spent budget; empty if none is spent."""
    if limits.dollars is not None and cost.dollars >= limits.dollars:
        return f"the budget of ${limits.dollars:g} is spent"
    if limits.tokens is not None and cost.read + cost.written >= limits.tokens:
        return f"the budget of {limits.tokens:,} tokens is spent"
    return ""


def _check_same_run(out: Path, run: dict[str, Any]) -> None:
    """Write `run` to `run.json`; if the file exists, check that it describes the same run."""
    path = out / "run.json"
    if not path.exists():
        write_text(path, json.dumps(run, indent=1) + "\n")
        return
    try:
        saved = read_json(path)
        if not isinstance(saved, dict):
            raise ValueError("it has no keys")
    except (OSError, ValueError) as e:
        raise CorpusError(f"cannot read {path} ({e}): use another folder") from e
    changed = [key for key in run if saved.get(key) != run[key]]
    if changed:
        raise CorpusError(
            f"{out} holds a run with a different {', '.join(changed)}: "
            "restore it to resume the run, or use another folder"
        )
