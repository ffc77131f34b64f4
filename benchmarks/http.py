"""What HTTP and the graph cost, each beside the engine itself.

All questions go through the graph once before anything is measured: clips are opened, frames indexed and
imagined, and each visit to the reasoner is kept, what it read and what it wrote. A visit done once more stops
at the same character, in a session that the engine has not met.

*A step over HTTP.* `act2see serve openai` in a process of its own, reached by `reasoner.use: chat` with `continuation`, against
`TransformersReasoner` in this one. Both do some questions' visits once more, one after the other, in turns who begins; a ratio is
of one visit, and the median counts. Each goes on with what it read in the visit before. Counted: from the call to `Done`, so
pictures as PNG, JSON, the server and LangChain's client are in it. Not counted: the graph, which is the same for both.

*64 questions at once.* `graph.abatch`, and then the very same visits given to the engine without a graph: 64 at once, a question's
own one after another. Tokens decoded a second, by the wall clock of all. Counted for the graph: nodes, state, view, rendering,
grammar, events. Not counted: what tools cost, since what one has returned before is returned again at once; a query that was not
asked before is asked of the real tool, and reported. Batches are composed otherwise without a graph, and by rounding a text may
differ; tokens are counted each way. The processor's time is reported too, since other work on the machine hardly shows in it.

Predicted before the first run: 1.12 for a step, 1.15 for the first of a question, which sends twelve pictures, 1.10 for the others;
0.93 of the engine's tokens at 64, the rest being validation of the state in each node, and the grammar, both in Python beside
an engine that needs the interpreter too.

Seen: 1.19 for a step, 1.12 for the first of a question, 1.24 for the others, whose time in process is a
quarter of it; 0.96 of the engine's tokens at 64. By the processor's time a request costs 16 ms before its
first word however much is written (pictures as PNG 4, LangChain and OpenAI's client 9, reading it in the
server 3), then a token 0.3 ms in the client and 0.04 in the server, so that a step of 30 tokens pays more
than one of 200. The graph's own thread takes 10 ms a question more than 64 bare streams do: most of it is
LangGraph's, a tenth is validation, and the grammar does not show.
"""

from __future__ import annotations

import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from act2see.agent.reasoners.base import Delta, Done, Reasoner, Request
from act2see.graphs.ask import create_act2see
from act2see.graphs.config import Config, ReasonerConfig, load_config
from act2see.graphs.parts import LazyReasoner, build_parts, build_reasoner
from act2see.micro.questions import items
from act2see.micro.world import write_clip
from act2see.tools.base import FrameTool, ToolContext, ToolResult
from act2see.tools.video.store import FrameStore
from benchmarks import Goal, at_least, at_most, need, reported

GOAL_STEP, GOAL_SHARE, AT_ONCE = 1.2, 0.9, 64
_AT = re.compile(r"http://\S+/v1")


@dataclass(frozen=True, slots=True)
class Visit:
    """One visit to the reasoner: what it was given and what it said."""

    request: Request
    text: str
    done: Done


@dataclass(slots=True)
class Kept(Reasoner):
    """A reasoner whose visits are kept, by question."""

    reasoner: Reasoner
    name: str
    visits: dict[str, list[Visit]] = field(default_factory=dict)

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        said: list[str] = []
        async for item in self.reasoner.stream(request):
            if isinstance(item, Delta):
                said.append(item.text)
            else:
                visit = Visit(request, "".join(said), item)
                self.visits.setdefault(request.rollout.session, []).append(visit)
            yield item

    def forget(self, session: str) -> None:
        self.reasoner.forget(session)


@dataclass(slots=True)
class Known:
    """A tool that has answered before: the same query on the same clip costs nothing. `asked` counts the
    others."""

    tool: FrameTool
    tag: str
    usage: str
    results: dict[tuple[str, str], ToolResult] = field(default_factory=dict)
    asked: int = 0

    @property
    def version(self) -> str:
        return self.tool.version

    async def call(self, query: str, context: ToolContext) -> ToolResult:
        key = context.video, query
        if key not in self.results:
            self.asked += 1
            self.results[key] = await self.tool.call(query, context)
        return self.results[key]


@dataclass(frozen=True, slots=True)
class Again:
    """A visit done once more: seconds, its end, its text."""

    seconds: float
    done: Done
    text: str


async def again(reasoner: Reasoner, visit: Visit, session: str) -> Again:
    """The same continuation, stopped at the character at which the grammar stopped it; `session` names a run
    not seen before."""
    left = len(visit.text)

    def until(text: str) -> bool:
        nonlocal left
        left -= len(text)
        return left <= 0 and visit.done.stop == "until"

    said, done = "", visit.done
    rollout = replace(visit.request.rollout, session=session)
    started = time.perf_counter()
    async for item in reasoner.stream(replace(visit.request, rollout=rollout, until=until)):
        if isinstance(item, Delta):
            said += item.text
        else:
            done = item
    return Again(time.perf_counter() - started, done, said)


@dataclass(frozen=True, slots=True)
class House:
    """Micro, its visits kept, its tools known; the engine itself beside it."""

    graph: Any
    engine: Reasoner
    kept: Kept
    tools: dict[str, Known]
    store: FrameStore
    given: list[Any]


def house(config: Config, folder: Path, questions: int) -> House:
    made = build_parts(config)
    assert isinstance(made.reasoner, LazyReasoner)
    kept = Kept(made.reasoner, made.reasoner.name)
    tools = {tag: Known(tool, tag, tool.usage) for tag, tool in made.tools.items()}
    given = [
        {
            "video": str(write_clip(item.clip, folder / f"{item.seed}.mp4")),
            "question": item.text,
            "options": list(item.options),
        }
        for item in items(questions, "test")
    ]
    return House(
        create_act2see(config, parts=replace(made, reasoner=kept, tools=tools)),
        made.reasoner.reasoner(),
        kept,
        tools,
        made.resources.store,
        given,
    )


@contextmanager
def server() -> Iterator[str]:
    """`act2see serve openai` with micro, in a process of its own, on any free port: its base URL."""
    command = [sys.executable, "-m", "act2see", "serve", "openai", "--preset", "micro", "--port", "0"]
    plain = {"PYTHONUNBUFFERED": "1", "COLUMNS": "200", "NO_COLOR": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **plain}) as process:
        try:
            assert process.stdout is not None
            said = next(filter(None, map(_AT.search, process.stdout)), None)
            if said is None:
                raise RuntimeError("the server has ended before it served")
            yield said.group()
        finally:
            process.terminate()


async def steps(at: House, url: str, questions: int) -> list[tuple[int, Again, Again]]:
    """Which visit of its question it was, in process, over HTTP."""
    options = {"base_url": url, "api_key": "none", "max_retries": 0}
    chat = ReasonerConfig(use="chat", weights="openai:micro", continuation=True, options=options)
    remote = build_reasoner(chat, at.store)
    engine: Any = at.engine
    engine.packer.cached_images = 0  # the server has not met these frames either
    pairs: list[tuple[int, Again, Again]] = []
    for q, (session, visits) in enumerate(list(at.kept.visits.items())[:questions]):
        for n, visit in enumerate(visits):
            ways: list[Reasoner] = [engine, remote]
            first = (q + n) % 2
            done = {i: await again(ways[i], visit, f"{session} once more") for i in (first, 1 - first)}
            if q:  # the first question makes the connection, and compiles what is compiled
                pairs.append((n, done[0], done[1]))
        engine.forget(f"{session} once more")
    return pairs


@dataclass(frozen=True, slots=True)
class Way:
    """Many at once: seconds by the clock and of the processor, decoding forwards, what each visit ended with
    and said."""

    seconds: float
    cpu: float
    forwards: int
    said: list[tuple[Done, str]]

    @property
    def decoded(self) -> int:
        return sum(done.decoded for done, _ in self.said)

    @property
    def read(self) -> int:
        return sum(done.prefilled for done, _ in self.said)

    @property
    def rate(self) -> float:
        return self.decoded / self.seconds


async def through_graph(at: House) -> Way:
    at.kept.visits.clear()
    seconds, cpu, forwards, _ = await timed(at.engine, at.graph.abatch(at.given))
    return Way(
        seconds, cpu, forwards, [(v.done, v.text) for visits in at.kept.visits.values() for v in visits]
    )


async def alone(at: House, round: int) -> Way:
    """The visits that the graph made last, without it."""

    async def one(session: str, visits: list[Visit]) -> list[Again]:
        out = [await again(at.engine, visit, f"{session} {round}") for visit in visits]
        at.engine.forget(f"{session} {round}")
        return out

    seconds, cpu, forwards, done = await timed(
        at.engine, asyncio.gather(*(one(s, v) for s, v in at.kept.visits.items()))
    )
    return Way(seconds, cpu, forwards, [(a.done, a.text) for one in done for a in one])


async def timed(engine: Any, work: Awaitable[Any]) -> tuple[float, float, int, Any]:
    """Seconds, the processor's seconds, decoding forwards, and what came of it."""
    forwards, wall, cpu = engine.forwards, time.perf_counter(), time.process_time()
    done = await work
    return time.perf_counter() - wall, time.process_time() - cpu, engine.forwards - forwards, done


async def measure(
    folder: Path, questions: int, stepped: int, rounds: int
) -> tuple[list[tuple[int, Again, Again]], list[tuple[Way, Way]], int]:
    """Steps in process and over HTTP, rounds through the graph and without, queries that tools did not
    know."""
    at = house(load_config("micro", cache=str(folder / "cache"), view={"guard": None}), folder, questions)
    await through_graph(at)
    known = sum(t.asked for t in at.tools.values())
    ways = [(await through_graph(at), await alone(at, n)) for n in range(rounds)]
    asked = sum(t.asked for t in at.tools.values()) - known
    with server() as url:
        return await steps(at, url, stepped), ways, asked


def run(quick: bool = False) -> dict[str, Any]:
    """Steps of 17 questions, the first of which does not count (quick: 5); three rounds of 64 at once (quick:
    one of 24)."""
    need("vlm", "encoder", "generator")
    questions = 24 if quick else AT_ONCE
    with tempfile.TemporaryDirectory() as name:
        pairs, ways, asked = asyncio.run(
            measure(Path(name), questions, 5 if quick else 17, 1 if quick else 3)
        )
    ratios = [(n, remote.seconds / local.seconds) for n, local, remote in pairs]

    def median(values: Iterator[float]) -> float:
        return statistics.median(values)

    goals: dict[str, Goal] = {
        "seconds of a step over HTTP, times in process": at_most(median(r for _, r in ratios), GOAL_STEP),
        "the same, the first step of a question": reported(median(r for n, r in ratios if n == 0)),
        "the same, the later steps": reported(median(r for n, r in ratios if n)),
        "seconds of a step in process": reported(median(local.seconds for _, local, _ in pairs)),
        "steps with other words over HTTP": at_most(sum(a.text != b.text for _, a, b in pairs), 0),
        f"tokens a second of {questions} questions, times the engine's": at_least(
            median(g.rate / e.rate for g, e in ways), GOAL_SHARE
        ),
        "the same, by the processor's time": reported(
            median(g.decoded / g.cpu / (e.decoded / e.cpu) for g, e in ways)
        ),
        "tokens a second through the graph": reported(median(g.rate for g, _ in ways)),
        "tokens a second of the engine alone": reported(median(e.rate for _, e in ways)),
        "tokens a decoding forward, graph": reported(median(g.decoded / g.forwards for g, _ in ways)),
        "tokens a decoding forward, engine": reported(median(e.decoded / e.forwards for _, e in ways)),
        "tokens read, graph": reported(median(g.read for g, _ in ways)),
        "tokens read, engine": reported(median(e.read for _, e in ways)),
        "steps with other words alone": reported(
            sum(a != b for g, e in ways for (_, a), (_, b) in zip(g.said, e.said, strict=True))
        ),
        "queries that tools did not know": reported(asked),
    }
    return {
        "steps": [[n, round(a.seconds, 4), round(b.seconds, 4)] for n, a, b in pairs],
        "rounds": [[round(w.seconds, 3) for w in pair] for pair in ways],
        "goals": goals,
    }
