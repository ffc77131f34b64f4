"""Overhead of HTTP and of the graph, each compared with the engine itself.

All questions go through the graph once before anything is measured: clips are opened, frames indexed and
imagined, and each visit to the reasoner is recorded, with its prompt and its text. A replayed visit stops at
the same character, in a session that is new to the engine.

*A step over HTTP.* `act2see serve openai` in a separate process, reached by `reasoner.use: chat` with
`continuation`, is compared with `TransformersReasoner` in this process. Both replay the visits of some
questions one after the other, in alternating order; the figure is the median ratio of a visit. Each reuses
the cache of the visit before. The time is that from the call to `Done`, which includes PNG encoding, JSON,
the server and LangChain's client, but not the graph, which is the same for both.

*64 questions at once.* `graph.abatch`, and then the same visits given to the engine without a graph: 64
concurrently, those of one question one after another. The figure is decoded tokens per second of wall time.
For the graph this includes nodes, state, initial frames, rendering, grammar and events. It does not include
tools, since a repeated query returns its first result at once; a new query calls the real tool and is
reported. Without the graph, batches are composed differently, and rounding may change a text; tokens are
counted for each way. CPU time is reported too, since other work on the machine hardly affects it.

Predicted before the first run: 1.12 for a step, 1.15 for the first of a question, which sends twelve images,
1.10 for the others; 0.93 of the engine's tokens at 64, because of state validation in each node and the
grammar, both in Python beside an engine that needs the interpreter too.

Measured: 1.19 for a step, 1.12 for the first of a question, 1.24 for the others, which take a quarter of its
time in process; 0.96 of the engine's tokens at 64. In CPU time a request costs 16 ms before its first token,
whatever its length (PNG encoding 4, LangChain and OpenAI's client 9, parsing in the server 3), and a token
0.3 ms in the client and 0.04 in the server, so a step of 30 tokens pays relatively more than one of 200. The
graph's thread takes 10 ms per question more than 64 bare streams: most of it is LangGraph, a tenth is
validation, and the grammar is negligible.
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

from act2see.agent.reasoners.base import Delta, Done, Reasoner, Request, WrappedReasoner
from act2see.graphs.ask import create_act2see
from act2see.graphs.config import Config, load_config
from act2see.graphs.parts import LazyReasoner, build_parts, build_reasoner
from act2see.graphs.sections import ReasonerConfig
from act2see.micro.questions import items
from act2see.micro.world import write_clip
from act2see.tools.base import FrameTool, ToolContext, ToolResult
from act2see.tools.video.store import FrameStore
from benchmarks import Goal, at_least, at_most, reported, require_weights

GOAL_STEP, GOAL_SHARE, AT_ONCE = 1.2, 0.9, 64
_AT = re.compile(r"http://\S+/v1")


@dataclass(frozen=True, slots=True)
class Visit:
    """One visit to the reasoner: the request, the text and the end."""

    request: Request
    text: str
    done: Done


class RecordedReasoner(WrappedReasoner):
    """A reasoner that records the visits of another one, by session."""

    def __init__(self, reasoner: Reasoner, name: str) -> None:
        super().__init__(reasoner)
        self.name = name
        self.visits: dict[str, list[Visit]] = {}

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        text = ""
        async for item in self.reasoner.stream(request):
            if isinstance(item, Delta):
                text += item.text
            else:
                visit = Visit(request, text, item)
                self.visits.setdefault(request.rollout.session, []).append(visit)
            yield item


@dataclass(slots=True)
class CachedTool:
    """A tool that keeps its results: a repeated query on the same clip costs nothing."""

    tool: FrameTool
    tag: str
    usage: str
    results: dict[tuple[str, str], ToolResult] = field(default_factory=dict)
    """Results by video and query."""
    asked: int = 0
    """Number of queries that were not repeated."""

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
class Replay:
    """A replayed visit."""

    seconds: float
    done: Done
    text: str


Pair = tuple[int, Replay, Replay]
"""The index of a visit within its question, and its replays in process and over HTTP."""


async def replay(reasoner: Reasoner, visit: Visit, session: str) -> Replay:
    """Generate the same continuation again, and stop it at the character where the grammar stopped it.

    Args:
        reasoner: The reasoner that generates the text.
        visit: The recorded visit.
        session: The session of the replay: a new one for the first visit of a question, then the same.
    """
    left = len(visit.text)  # characters still to come

    def until(text: str) -> bool:
        nonlocal left
        left -= len(text)
        return left <= 0 and visit.done.stop == "until"

    text, done = "", visit.done
    rollout = replace(visit.request.rollout, session=session)
    started = time.perf_counter()
    async for item in reasoner.stream(replace(visit.request, rollout=rollout, until=until)):
        if isinstance(item, Delta):
            text += item.text
        else:
            done = item
    return Replay(time.perf_counter() - started, done, text)


@dataclass(frozen=True, slots=True)
class Setup:
    """Micro's graph, with recorded visits and cached tool results, and the engine itself."""

    graph: Any
    engine: Reasoner
    kept: RecordedReasoner
    tools: dict[str, CachedTool]
    store: FrameStore
    given: list[Any]
    """The graph's input of each question."""


def build_setup(config: Config, folder: Path, questions: int) -> Setup:
    """Build the graph, and write the clips of this number of questions."""
    made = build_parts(config)
    assert isinstance(made.reasoner, LazyReasoner)
    kept = RecordedReasoner(made.reasoner, made.reasoner.name)
    tools = {tag: CachedTool(tool, tag, tool.usage) for tag, tool in made.tools.items()}
    given = []
    for item in items(questions, "test"):
        clip = write_clip(item.clip, folder / f"{item.seed}.mp4")
        given.append({"video": str(clip), "question": item.text, "options": list(item.options)})
    return Setup(
        create_act2see(config, parts=replace(made, reasoner=kept, tools=tools)),
        made.reasoner.reasoner(),
        kept,
        tools,
        made.resources.store,
        given,
    )


@contextmanager
def run_server() -> Iterator[str]:
    """Run `act2see serve openai` with micro in a separate process on a free port; yield its base URL.

    Raises:
        RuntimeError: If the server exits.
    """
    command = [sys.executable, "-m", "act2see", "serve", "openai", "--preset", "micro", "--port", "0"]
    plain = {"PYTHONUNBUFFERED": "1", "COLUMNS": "200", "NO_COLOR": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **plain}) as process:
        try:
            assert process.stdout is not None
            url = next(filter(None, map(_AT.search, process.stdout)), None)
            if url is None:
                raise RuntimeError("the server exited before it accepted requests")
            yield url.group()
        finally:
            process.terminate()


async def measure_steps(setup: Setup, url: str, questions: int) -> list[Pair]:
    """Replay the visits of some questions in process and over HTTP."""
    options = {"base_url": url, "api_key": "none", "max_retries": 0}
    chat = ReasonerConfig(use="chat", weights="openai:micro", continuation=True, options=options)
    remote = build_reasoner(chat, setup.store)
    engine: Any = setup.engine
    engine.packer.cache_bytes = 0  # the server has not seen these frames either
    pairs: list[Pair] = []
    for q, (session, visits) in enumerate(list(setup.kept.visits.items())[:questions]):
        for n, visit in enumerate(visits):
            ways: list[Reasoner] = [engine, remote]
            first = (q + n) % 2
            done = {i: await replay(ways[i], visit, f"{session} once more") for i in (first, 1 - first)}
            if q:  # the first question opens the connection and warms up
                pairs.append((n, done[0], done[1]))
        engine.forget(f"{session} once more")
    return pairs


@dataclass(frozen=True, slots=True)
class Way:
    """Figures of concurrent questions."""

    seconds: float
    cpu: float
    """Seconds of CPU time."""
    forwards: int
    """Decoding passes."""
    visits: list[tuple[Done, str]]
    """The end and the text of each visit."""

    @property
    def decoded(self) -> int:
        """Decoded tokens."""
        return sum(done.decoded for done, _ in self.visits)

    @property
    def read(self) -> int:
        """Prefilled tokens."""
        return sum(done.prefilled for done, _ in self.visits)

    @property
    def rate(self) -> float:
        """Decoded tokens per second."""
        return self.decoded / self.seconds


async def ask_through_graph(setup: Setup) -> Way:
    """Ask all questions concurrently through the graph."""
    setup.kept.visits.clear()
    seconds, cpu, forwards, _ = await time_work(setup.engine, setup.graph.abatch(setup.given))
    visits = [(v.done, v.text) for of_question in setup.kept.visits.values() for v in of_question]
    return Way(seconds, cpu, forwards, visits)


async def replay_without_graph(setup: Setup, round: int) -> Way:
    """Replay the graph's last visits on the engine alone, all questions concurrently."""

    async def one(session: str, visits: list[Visit]) -> list[Replay]:
        out = [await replay(setup.engine, visit, f"{session} {round}") for visit in visits]
        setup.engine.forget(f"{session} {round}")
        return out

    seconds, cpu, forwards, done = await time_work(
        setup.engine, asyncio.gather(*(one(s, v) for s, v in setup.kept.visits.items()))
    )
    return Way(seconds, cpu, forwards, [(a.done, a.text) for one in done for a in one])


async def time_work(engine: Any, work: Awaitable[Any]) -> tuple[float, float, int, Any]:
    """Await the work; return wall seconds, CPU seconds, decoding passes and its result."""
    forwards, wall, cpu = engine.forwards, time.perf_counter(), time.process_time()
    done = await work
    return time.perf_counter() - wall, time.process_time() - cpu, engine.forwards - forwards, done


async def measure(
    folder: Path, questions: int, stepped: int, rounds: int
) -> tuple[list[Pair], list[tuple[Way, Way]], int]:
    """Run both comparisons.

    Args:
        folder: The folder of clips and the cache.
        questions: The number of questions asked at once.
        stepped: The number of questions replayed over HTTP.
        rounds: The number of rounds with and without the graph.

    Returns:
        Steps in process and over HTTP, rounds with and without the graph, and the number of new queries.
    """
    setup = build_setup(
        load_config("micro", cache=str(folder / "cache"), view={"guard": None}), folder, questions
    )
    await ask_through_graph(setup)
    known = sum(t.asked for t in setup.tools.values())
    ways = [(await ask_through_graph(setup), await replay_without_graph(setup, n)) for n in range(rounds)]
    asked = sum(t.asked for t in setup.tools.values()) - known
    with run_server() as url:
        return await measure_steps(setup, url, stepped), ways, asked


def run(quick: bool = False) -> dict[str, Any]:
    """Measure steps of 17 questions, the first as a warm-up (quick: 5), and three rounds of 64 questions at
    once (quick: one of 24)."""
    require_weights("vlm", "encoder", "generator")
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
            sum(a != b for g, e in ways for (_, a), (_, b) in zip(g.visits, e.visits, strict=True))
        ),
        "queries that tools did not know": reported(asked),
    }
    return {
        "steps": [[n, round(a.seconds, 4), round(b.seconds, 4)] for n, a, b in pairs],
        "rounds": [[round(w.seconds, 3) for w in pair] for pair in ways],
        "goals": goals,
    }
