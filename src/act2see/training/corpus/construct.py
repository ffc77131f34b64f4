"""Make chains: a teacher answers each question in the real graph, and again if it was wrong.

    rollout -> judge -> rollout (at most `retries` times more) -> judge -> ...

`rollout` runs the inference graph itself, with the teacher as its reasoner and the same tools. The right
answer is used for judging alone and is never part of the prompt: given it, a teacher looks less (the paper's
table 6: 45 % of chains call a tool without it, 5 % with it). `hint` puts it there, for that comparison only.

Every finished record is on disk before its worker starts the next question (`Journal`); starting a run again
resumes it. An error of the set-up (a key, a full disk) ends the run; an error of one question goes into its
record.
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
from act2see.trace.record import Answer
from act2see.trace.trace import Trace
from act2see.training.concurrency import map_concurrently
from act2see.training.corpus.records import Attempt, Chain, Cost, Journal, Outcome
from act2see.training.corpus.sources import Sample

_ENDS_THE_RUN = (SetupError, StoreError, WeightsError)
HINT = "\nThe right answer is: {answer}.{chain} Write how one comes to it."


class ConstructPlan(Record):
    """How a run makes its chains; a resumed run must have the same plan."""

    retries: Annotated[int, Field(ge=0)] = 2
    """Further attempts after a wrong answer, at most. The default is the paper's."""
    seed: int = 0
    hint: bool = False
    """Put the right answer into the prompt."""
    temperature: float | None = None
    """None: the teacher's default."""
    prices: tuple[float, float] | None = None
    """Dollars for a million tokens, read and written; a budget in dollars needs them."""


class ConstructLimits(Record):
    """When a run stops by itself, and how many questions it works on at once."""

    concurrency: Annotated[int, Field(ge=1)] = 4
    dollars: Annotated[float, Field(gt=0)] | None = None
    tokens: Annotated[int, Field(gt=0)] | None = None


class Meter(WrappedReasoner):
    """A reasoner that counts the cost of another one."""

    def __init__(self, reasoner: Reasoner, prices: tuple[float, float] | None = None) -> None:
        super().__init__(reasoner)
        self.prices = prices
        """Dollars for a million tokens, read and written."""
        self.taken: dict[str, Cost] = {}
        """The cost so far of each session."""

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        cost = Cost(requests=1)
        try:
            async for item in self.reasoner.stream(request):
                if isinstance(item, Done):
                    cost += self._cost_of(item)
                yield item
        finally:
            self.taken[request.rollout.session] = self.taken.get(request.rollout.session, Cost()) + cost

    def _cost_of(self, done: Done) -> Cost:
        read = done.prefilled + done.cached
        dollars = 0.0
        if self.prices:
            dollars = (read * self.prices[0] + done.decoded * self.prices[1]) / 1e6
        return Cost(read=read, written=done.decoded, dollars=dollars)


class ConstructInput(TypedDict):
    """The input of the construction graph."""

    sample: dict[str, Any]
    """A `Sample`, as data."""


class ConstructState(ConstructInput):
    """The state of the construction graph."""

    attempts: Annotated[list[dict[str, Any]], add]
    """Each an `Attempt`, as data."""
    trace: dict[str, Any] | None
    """Of the last attempt."""
    dropped: str
    """The reason; empty if the chain is kept."""


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
        session, started = f"{sample.id}.{nth}", time.perf_counter()
        trace: Trace | None = None
        outcome: Outcome
        try:
            trace = await self._ask(sample, nth, session)
            outcome, why = judge_answer(trace, sample)
        except _ENDS_THE_RUN:
            raise
        except Act2SeeError as e:
            outcome, why = "refused" if isinstance(e, RefusedError) else "failed", f"{type(e).__name__}: {e}"
        attempt = Attempt(
            outcome=outcome,
            answer=trace.answer if trace else None,
            why=why,
            seconds=round(time.perf_counter() - started, 3),
            cost=self.meter.taken.pop(session, Cost()),
        )
        return {
            "attempts": [attempt.model_dump(mode="json")],
            "trace": trace.model_dump(mode="json") if trace else None,
        }

    async def _ask(self, sample: Sample, nth: int, session: str) -> Trace:
        question = teacher_question(sample, self.plan.hint)
        result = await self.ask.ainvoke(
            {"video": sample.clip, "question": question, "options": list(sample.options)},
            {"configurable": {"thread_id": session}},
            context=AskContext(
                seed=call_seed(self.plan.seed, sample.id, "", nth), temperature=self.plan.temperature
            ),
        )
        trace = Trace.model_validate(result["trace"])
        # The saved trace asks what a user would ask, without a hint.
        plain = trace.question.model_copy(update={"text": sample.question})
        return trace.model_copy(update={"question": plain})

    async def judge(self, state: ConstructState) -> Command[Literal["rollout", "__end__"]]:
        """End after a right answer; otherwise try again while attempts are left."""
        last = Attempt.model_validate(state["attempts"][-1])
        if last.outcome == "right":
            return Command(update={"dropped": ""}, goto="__end__")
        hopeless = last.why.startswith(VideoError.__name__)
        if len(state["attempts"]) <= self.plan.retries and not hopeless:
            return Command(goto="rollout")
        why = f" ({last.why})" if last.why else ""
        return Command(
            update={"dropped": f"{last.outcome} after {len(state['attempts'])} attempts{why}"}, goto="__end__"
        )


def teacher_question(sample: Sample, hint: bool = False) -> str:
    """The question as the teacher gets it."""
    if not hint:
        return sample.question
    chain = f" A person thought: {sample.chain}" if sample.chain else ""
    return sample.question + HINT.format(answer=sample.answer, chain=chain)


def judge_answer(trace: Trace, sample: Sample) -> tuple[Outcome, str]:
    """How an attempt ended and, in words, why it is not right. Free answers must have the same words."""
    last = trace.segments[-1]
    if trace.usage.loops and trace.usage.loops[-1].stop == "length":
        return "truncated", "the token limit came before the end"
    if not isinstance(last, Answer) or not last.body:
        return "no answer", "there is nothing in <answer>"
    if last.forced:
        return "format", "it did not open <answer> itself"
    given = sample.read(last.body)
    if given is None:
        return "format", f"{last.body[:60]!r} names no option"
    if sample.is_right(last.body):
        return "right", ""
    return "wrong", f"{given[:60]!r} for {sample.answer[:60]!r}"


@dataclass(frozen=True, slots=True)
class ConstructionStatus:
    """The progress of a run, earlier starts of it included."""

    kept: int
    dropped: int
    cost: Cost
    stopped: str = ""
    """Why no further question may begin; empty if one may."""


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
    """Make chains for `samples`; those that are in `out` already are not made again.

    Args:
        samples: Taken one by one.
        config: The graph, with the teacher as its reasoner.
        out: The run's folder: `chains.jsonl`, `run.json`, and `frames/`.
        plan: What the run does.
        limits: When it stops by itself.
        reasoner: The teacher, instead of that of `config`.
        on_chain: Called with each finished chain.

    Raises:
        CorpusError: `out` holds a run of another plan, teacher or config, it cannot be written, or a budget
            in dollars has no prices.
        SetupError, WeightsError: The teacher or the tools cannot be used.
    """
    plan, limits = plan or ConstructPlan(), limits or ConstructLimits()
    if limits.dollars is not None and plan.prices is None:
        raise CorpusError("a budget in dollars needs prices: give those of a million tokens read and written")
    config = config.model_copy(update={"cache": str(out / "cache"), "store": str(out / "frames")})
    parts: Parts = build_parts(config)
    meter = Meter(reasoner or parts.reasoner, plan.prices)
    graph = create_construction(create_act2see(config, parts=replace(parts, reasoner=meter)), meter, plan)
    with Journal(out) as journal:
        _check_same_run(
            out, {"plan": plan.model_dump(mode="json"), "teacher": meter.name, "config": config.hash}
        )

        async def make_chain(sample: Sample) -> None:
            state: Any = await graph.ainvoke({"sample": sample.model_dump(mode="json")})
            chain = Chain.model_validate({**state, "teacher": meter.name})
            journal.write(chain)
            if on_chain:
                on_chain(chain, _status(journal, limits))

        left = (sample for sample in samples if sample.id not in journal.done)
        within_budget = takewhile(lambda _: not _budget_spent(journal.cost, limits), left)
        try:
            await map_concurrently(make_chain, within_budget, limits.concurrency)
        finally:
            await asyncio.to_thread(parts.reasoner.close)
        return _status(journal, limits)


def _status(journal: Journal, limits: ConstructLimits) -> ConstructionStatus:
    kept = sum(journal.done.values())
    spent = _budget_spent(journal.cost, limits)
    return ConstructionStatus(kept, len(journal.done) - kept, journal.cost, spent)


def _budget_spent(cost: Cost, limits: ConstructLimits) -> str:
    """Which budget is spent, in words; empty if none is."""
    if limits.dollars is not None and cost.dollars >= limits.dollars:
        return f"the budget of ${limits.dollars:g} is spent"
    if limits.tokens is not None and cost.read + cost.written >= limits.tokens:
        return f"the budget of {limits.tokens:,} tokens is spent"
    return ""


def _check_same_run(out: Path, facts: dict[str, Any]) -> None:
    """Write down what this run is, or check that it is the run that is written there."""
    path = out / "run.json"
    if not path.exists():
        write_text(path, json.dumps(facts, indent=1) + "\n")
        return
    written = json.loads(path.read_text(encoding="utf-8"))
    differing = [key for key in facts if written.get(key) != facts[key]]
    if differing:
        raise CorpusError(
            f"{out} holds a run with another {', '.join(differing)}: "
            "continue with those, or give another folder"
        )
