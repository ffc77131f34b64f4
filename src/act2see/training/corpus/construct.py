"""Make chains: a teacher answers each question in the real graph, and again where it was wrong.

    rollout -> judge -> rollout (at most `retries` times more) -> judge -> ...

`rollout` runs the inference graph itself, with the teacher in the reasoner's place and the same tools. The
right answer is compared with, and never part of the prompt: given it, a teacher looks less (the paper: 45 %
of chains call a tool without it, 5 % with it). `hint` puts it there, for that comparison alone.

Every finished record is on disk before its place in the run is taken by the next (`Journal`); a run is gone
on with by starting it again. What is wrong with the set-up (a key, a full disk) ends the run; what is wrong
with one question is told by its record.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from operator import add
from pathlib import Path
from typing import Annotated, Any, Literal

from langgraph.graph import START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command
from pydantic import Field
from typing_extensions import TypedDict

from act2see.agent.reasoners.base import Delta, Done, Reasoner, Request
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
from act2see.graphs.parts import Parts, build_parts, closed
from act2see.graphs.state import AskContext
from act2see.tools.base import call_seed
from act2see.tools.frames import Record
from act2see.trace.record import Answer
from act2see.trace.trace import Trace
from act2see.training.corpus.journal import Journal
from act2see.training.corpus.records import Attempt, Chain, Cost, Outcome
from act2see.training.corpus.sources import Sample

log = logging.getLogger(__name__)
_ENDS_THE_RUN = (SetupError, StoreError, WeightsError)
HINT = "\nThe right answer is: {answer}.{chain} Write how one comes to it."


class Plan(Record):
    """What a run does. `prices` are dollars for a million tokens, read and written; a budget of dollars needs
    them."""

    retries: Annotated[int, Field(ge=0)] = 2
    seed: int = 0
    hint: bool = False
    temperature: float | None = None
    prices: tuple[float, float] | None = None


class Limits(Record):
    """When a run stops of itself, and how many questions it works on at once."""

    concurrency: Annotated[int, Field(ge=1)] = 4
    dollars: Annotated[float, Field(gt=0)] | None = None
    tokens: Annotated[int, Field(gt=0)] | None = None


@dataclass(slots=True)
class Meter(Reasoner):
    """A reasoner that counts what another one takes, by session."""

    reasoner: Reasoner
    prices: tuple[float, float] | None = None
    taken: dict[str, Cost] = field(default_factory=dict)
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.reasoner.name

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        cost = Cost(requests=1)
        try:
            async for item in self.reasoner.stream(request):
                if isinstance(item, Done):
                    read = item.prefilled + item.cached
                    dollars = (
                        (read * self.prices[0] + item.decoded * self.prices[1]) / 1e6 if self.prices else 0.0
                    )
                    cost += Cost(read=read, written=item.decoded, dollars=dollars)
                yield item
        finally:
            self.taken[request.rollout.session] = self.taken.get(request.rollout.session, Cost()) + cost

    def forget(self, session: str) -> None:
        self.reasoner.forget(session)


class ConstructInput(TypedDict):
    """A `Sample`, as data."""

    sample: dict[str, Any]


class ConstructState(ConstructInput):
    """A sample on its way: its attempts so far, the last one's trace, and why it was dropped."""

    attempts: Annotated[list[dict[str, Any]], add]
    trace: dict[str, Any] | None
    dropped: str


ConstructGraph = CompiledStateGraph[ConstructState, None, ConstructInput, ConstructState]


def create_construction(ask: Graph, meter: Meter, plan: Plan) -> ConstructGraph:
    """The construction graph around an inference graph whose reasoner is `meter`."""
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
    plan: Plan

    async def rollout(self, state: ConstructState) -> dict[str, Any]:
        """One attempt of the teacher."""
        sample = Sample.model_validate(state["sample"])
        nth = len(state.get("attempts", []))
        session, started = f"{sample.id}.{nth}", time.perf_counter()
        seed = call_seed(self.plan.seed, sample.id, "", nth)
        trace: Trace | None = None
        outcome: Outcome
        try:
            result = await self.ask.ainvoke(
                {
                    "video": sample.clip,
                    "question": asked(sample, self.plan.hint),
                    "options": list(sample.options),
                },
                {"configurable": {"thread_id": session}},
                context=AskContext(seed=seed, temperature=self.plan.temperature),
            )
            trace = Trace.model_validate(result["trace"])
            outcome, why = judged(trace, sample)
            # What is kept is asked as a user would ask it.
            trace = trace.model_copy(
                update={"question": trace.question.model_copy(update={"text": sample.question})}
            )
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

    async def judge(self, state: ConstructState) -> Command[Literal["rollout", "__end__"]]:
        """Right: it is done. Wrong: once more, while attempts are left."""
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


def asked(sample: Sample, hint: bool = False) -> str:
    """The question as the teacher gets it."""
    chain = f" A person thought: {sample.chain}" if sample.chain else ""
    return sample.question + (HINT.format(answer=sample.answer, chain=chain) if hint else "")


def judged(trace: Trace, sample: Sample) -> tuple[Outcome, str]:
    """How an attempt ended, and in words why it is not right. Free answers must be the same words."""
    last = trace.segments[-1]
    if trace.usage.loops and trace.usage.loops[-1].stop == "length":
        return "truncated", "the token limit came before the end"
    if not isinstance(last, Answer) or not last.body:
        return "no answer", "nothing stands in <answer>"
    if last.forced:
        return "format", "it did not open <answer> itself"
    given = sample.read(last.body)
    if given is None:
        return "format", f"{last.body[:60]!r} names no option"
    return (
        ("right", "")
        if sample.is_right(last.body)
        else ("wrong", f"{given[:60]!r} for {sample.answer[:60]!r}")
    )


@dataclass(frozen=True, slots=True)
class Run:
    """What a run has so far: chains kept and dropped (those of earlier starts too), their cost, and why it
    stopped."""

    kept: int
    dropped: int
    cost: Cost
    stopped: str = ""


async def construct(
    samples: Iterable[Sample],
    config: Config,
    out: Path,
    plan: Plan | None = None,
    limits: Limits | None = None,
    *,
    reasoner: Reasoner | None = None,
    on_chain: Callable[[Chain, Run], None] | None = None,
) -> Run:
    """Chains for `samples` in `out`, by the reasoner of `config` or the one given; those that are there are
    not made again.

    Frames go to `out/frames`. Raises `CorpusError` where `out` holds a run of another plan, teacher or
    config.
    """
    plan, limits = plan or Plan(), limits or Limits()
    if limits.dollars is not None and plan.prices is None:
        raise CorpusError("a budget in dollars needs prices: give those of a million tokens read and written")
    config = config.model_copy(update={"cache": str(out / "cache"), "store": str(out / "frames")})
    parts: Parts = build_parts(config)
    meter = Meter(reasoner or parts.reasoner, plan.prices)
    graph = create_construction(create_act2see(config, parts=replace(parts, reasoner=meter)), meter, plan)
    with Journal(out) as journal:
        _same_run(out, {"plan": plan.model_dump(mode="json"), "teacher": meter.name, "config": config.hash})
        waiting = (s for s in samples if s.id not in journal.done)
        state = _State(journal, limits)
        workers = [
            asyncio.create_task(_work(graph, waiting, state, meter.name, on_chain))
            for _ in range(limits.concurrency)
        ]
        try:
            await asyncio.gather(*workers)
        finally:
            for w in workers:
                w.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            await closed(parts.reasoner)
        return state.run()


@dataclass(slots=True)
class _State:
    journal: Journal
    limits: Limits

    def run(self) -> Run:
        kept = sum(self.journal.done.values())
        return Run(kept, len(self.journal.done) - kept, self.journal.cost, self.spent())

    def spent(self) -> str:
        """Why no other question may begin, if so."""
        cost, limits = self.journal.cost, self.limits
        if limits.dollars is not None and cost.dollars >= limits.dollars:
            return f"the budget of ${limits.dollars:g} is spent"
        if limits.tokens is not None and cost.read + cost.written >= limits.tokens:
            return f"the budget of {limits.tokens:,} tokens is spent"
        return ""


async def _work(
    graph: ConstructGraph,
    waiting: Iterator[Sample],
    state: _State,
    teacher: str,
    on_chain: Callable[[Chain, Run], None] | None,
) -> None:
    for sample in waiting:
        if state.spent():
            return
        done: Any = await graph.ainvoke({"sample": sample.model_dump(mode="json")})
        chain = Chain.model_validate({**done, "teacher": teacher})
        state.journal.write(chain)
        if on_chain:
            on_chain(chain, state.run())


def _same_run(out: Path, facts: dict[str, Any]) -> None:
    """Write down what this run is; or see that it is what is written there."""
    path = out / "run.json"
    if not path.exists():
        path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        return
    there = json.loads(path.read_text(encoding="utf-8"))
    other = [k for k in facts if there.get(k) != facts[k]]
    if other:
        raise CorpusError(
            f"{out} holds a run with another {', '.join(other)}: go on with those, or give another folder"
        )
