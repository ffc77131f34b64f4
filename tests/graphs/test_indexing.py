"""Indexes that are built while the model thinks: a call waits only for what is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from act2see.agent.reasoners.base import Delta, Done, Reasoner, Request
from act2see.graphs.ask import Graph, create_act2see
from act2see.graphs.config import load_config
from act2see.graphs.parts import build_parts
from act2see.graphs.run import aask
from act2see.graphs.state import AskContext
from act2see.micro.questions import make_item
from act2see.micro.world import write_clip
from act2see.tools.base import Resources, ToolContext, ToolResult
from act2see.tools.retrieve import Retrieve
from act2see.tools.search.finder import Finder
from act2see.tools.video.library import VideoLibrary
from act2see.tools.video.store import FrameStore
from act2see.trace.events import Event, IndexEvent
from act2see.trace.record import Frames
from tests.graphs.doubles import Scripted, Slow, reached

CALL, ANSWER = "<retrieve>the circle</retrieve>", "</think><answer>b</answer>"
BATCHES = 23  # of 8 of the film's 180 frames
Make = Callable[..., Graph]


class Thinks(Scripted):
    """Thinks until the test lets it go on."""

    def __init__(self, *lines: str) -> None:
        super().__init__(*lines)
        self.go_on = asyncio.Event()

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        await self.go_on.wait()
        async for item in super().stream(request):
            yield item


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A video of a minute: 180 frames to index."""
    clip = make_item("blink", 0, seconds=60).clip
    return str(write_clip(clip, tmp_path_factory.mktemp("film") / "film.mp4", 96))


@pytest.fixture
def slow(tmp_path: Path) -> Finder:
    store = FrameStore(tmp_path / "frames")
    return Finder(VideoLibrary(tmp_path, store, 96), Slow(), tmp_path, batch=8, workers=1)


@pytest.fixture
def make(slow: Finder, tmp_path: Path) -> Make:
    """Return a function that makes a graph whose tool `retrieve` has the slow finder."""

    def made(reasoner: Reasoner, tool: Any = None, **changes: Any) -> Graph:
        tools = {"generate": None, "retrieve": changes}
        config = load_config("micro", cache=str(tmp_path), view={"guard": None}, tools=tools)
        parts = build_parts(config)
        resources = Resources(parts.resources.store, slow)
        tool = tool or Retrieve("retrieve", Retrieve.Options(), resources)
        return create_act2see(config, parts=replace(parts, reasoner=reasoner, tools={"retrieve": tool}))

    return made


def finish(finder: Finder) -> None:
    """Let the encoder work without permits."""
    encoder: Any = finder.encoder
    encoder.let_all = True
    encoder.permits.release(1)


async def test_a_video_is_indexed_while_the_model_thinks(slow: Finder, make: Make, film: str) -> None:
    finish(slow)
    thinks = Thinks(CALL, ANSWER)
    run = asyncio.create_task(aask(make(thinks), film, "What?"))
    await reached(lambda: slow.encoded == 180 and not slow.building)
    assert not thinks.visits  # it has written nothing
    thinks.go_on.set()
    trace = await run
    assert [call.outcome for call in trace.calls] == ["ok"]
    assert len(trace.returned) == 1
    assert slow.encoded == 180


async def test_an_answer_does_not_wait_for_the_index(slow: Finder, make: Make, film: str) -> None:
    encoder: Any = slow.encoder
    trace = await aask(make(Scripted(ANSWER)), film, "What?")
    assert trace.answer == "b"
    assert slow.building == 1
    assert not encoder.batches
    finish(slow)  # the index is completed for the next question
    await reached(lambda: not slow.building)
    assert sum(encoder.batches) == 180
    await aask(make(Scripted(CALL, ANSWER)), film, "What?")
    assert sum(encoder.batches) == 180


async def test_two_runs_at_once_share_one_index(slow: Finder, make: Make, film: str) -> None:
    encoder: Any = slow.encoder
    graph = make(Scripted(CALL, ANSWER))
    runs = [asyncio.create_task(aask(graph, film, "What?")) for _ in range(2)]
    await reached(lambda: slow.building == 1)
    finish(slow)
    assert [trace.answer for trace in await asyncio.gather(*runs)] == ["b", "b"]
    assert sum(encoder.batches) == 180


async def test_a_cancelled_run_leaves_the_index_to_another(slow: Finder, make: Make, film: str) -> None:
    encoder: Any = slow.encoder
    thinks = Thinks(CALL, ANSWER)
    graph = make(thinks)
    one, two = (asyncio.create_task(aask(graph, film, "What?")) for _ in range(2))
    encoder.permits.release(1)
    await reached(lambda: len(encoder.batches) == 1 and len(_begun(graph)) == 2)
    one.cancel()
    await asyncio.gather(one, return_exceptions=True)
    finish(slow)
    thinks.go_on.set()
    assert (await two).answer == "b"
    assert sum(encoder.batches) == 180
    assert not _begun(graph)


async def test_a_run_cancelled_while_it_thinks_stops_the_index(slow: Finder, make: Make, film: str) -> None:
    encoder: Any = slow.encoder
    run = asyncio.create_task(aask(make(Thinks(ANSWER)), film, "What?"))
    encoder.permits.release(1)
    await reached(lambda: len(encoder.batches) == 1)
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    finish(slow)
    await reached(lambda: not slow.building)
    assert len(encoder.batches) <= 3


def test_a_synchronous_run_begins_the_index(slow: Finder, make: Make, film: str) -> None:
    given: Any = {"video": film, "question": "What?"}
    assert make(Scripted(ANSWER)).invoke(given)["answer"] == "b"
    assert slow.building == 1
    finish(slow)
    slow.close(30)
    assert not slow.building


@pytest.mark.parametrize("context", [AskContext(tools=()), AskContext(max_calls=0)])
async def test_a_run_without_calls_begins_no_index(
    slow: Finder, make: Make, film: str, context: AskContext
) -> None:
    await aask(make(Scripted(ANSWER)), film, "What?", context=context)
    assert slow.building == 0
    assert not list(slow.cache.glob("indexes/*"))


class Instant:
    """A tool that needs an index and then takes no time."""

    tag, usage, version = "retrieve", "", "instant"

    def __init__(self, finder: Finder) -> None:
        self.index_of = finder

    async def call(self, query: str, context: ToolContext) -> ToolResult:
        return ToolResult(note="done")


async def test_an_index_does_not_count_for_the_timeout_and_shows_its_progress(
    slow: Finder, make: Make, film: str
) -> None:
    encoder: Any = slow.encoder
    graph = make(Scripted(CALL, ANSWER), Instant(slow), timeout=0.9)
    events: list[Event] = []

    def on_event(event: Event) -> None:
        events.append(event)
        if isinstance(event, IndexEvent):  # sent after a second: the call would have timed out
            finish(slow)

    encoder.permits.release(3)
    trace = await aask(graph, film, "What?", on_event=on_event)
    assert [segment.note for segment in trace.segments if isinstance(segment, Frames)] == ["done"]
    shown = [event for event in events if isinstance(event, IndexEvent)]
    assert [(event.done, event.of) for event in shown[:1]] == [(24, 180)]
    assert shown[0].run == trace.id
    assert trace.usage.node_seconds["retrieve"] < 0.9


async def test_an_error_of_the_index_is_reported_by_the_call(slow: Finder, make: Make, film: str) -> None:
    class Broken(Slow):
        def frames(self, pixels: Any) -> Any:
            raise RuntimeError("the encoder is broken")

    slow.encoder = Broken()
    thinks = Thinks(CALL, ANSWER)
    run = asyncio.create_task(aask(make(thinks), film, "What?"))
    await reached(lambda: list(slow.cache.glob("indexes/*.lock")) != [] and not slow.building)
    thinks.go_on.set()
    trace = await run
    [reply] = [segment for segment in trace.segments if isinstance(segment, Frames)]
    assert reply.note == "The tool failed: the encoder is broken. Go on without it."
    assert trace.answer == "b"


async def test_an_index_that_cannot_be_begun_does_not_end_the_run(
    slow: Finder, make: Make, film: str
) -> None:
    (slow.cache / "indexes").write_text("a file")
    trace = await aask(make(Scripted(ANSWER)), film, "What?")
    assert trace.answer == "b"
    await reached(lambda: not slow.building)


async def test_parts_of_a_video_are_indexed_apart(slow: Finder, make: Make, film: str) -> None:
    finish(slow)
    graph = make(Scripted(CALL, ANSWER))
    traces = await asyncio.gather(*(aask(graph, f"{film}#t={n},{n + 10}", "What?") for n in (0, 20)))
    assert [len(trace.returned) for trace in traces] == [1, 1]
    assert slow.encoded == 60
    with pytest.raises(FileNotFoundError):
        (slow.folder(slow.index_id(film)) / "meta.json").read_text()


def _begun(graph: Graph) -> dict[str, Any]:
    builder: Any = graph.builder
    begun: dict[str, Any] = builder.indexing._begun
    return begun
