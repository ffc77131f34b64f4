"""The page's runs: traces built from events, notified watchers, and saved runs, however they end."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncGenerator
from itertools import pairwise
from pathlib import Path

import pytest
from tests.graphs.doubles import Scripted, clip_in, parts_in
from tests.serve.page_runs import SCRIPT, ask, runs_in

from act2see.agent.parser import StopReason
from act2see.agent.reasoners.base import Delta, Done, Reasoner, Request
from act2see.errors import ToolError
from act2see.graphs.ask import create_act2see
from act2see.graphs.run import aask
from act2see.graphs.state import AskContext
from act2see.serve.ui.live import EVERY, Live
from act2see.serve.ui.page import status
from act2see.serve.ui.runs import AskRequest
from act2see.trace.events import TokenEvent
from act2see.trace.record import Call, Question, Text
from act2see.trace.trace import Trace


class Endless(Reasoner):
    """Writes forever, a word every few milliseconds."""

    name = "endless"

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        while not request.until("so "):
            yield Delta("so ")
            await asyncio.sleep(0.005)
        yield Done(StopReason.UNTIL)


@pytest.mark.parametrize(
    "script",
    [
        SCRIPT,
        ("<generate>a</generate>", "<answer>1</answer> and more"),
        (
            "</retrieve><retrieve></retrieve>",
            "<zoom>x</zoom>",
            "I mean <answer> now.</think><answer> B</answer>",
        ),
        ("nothing but words",),
    ],
    ids=["call", "no text", "malformed", "forced"],
)
async def test_events_build_the_same_trace_as_the_run(tmp_path: Path, script: tuple[str, ...]) -> None:
    config, parts = parts_in(tmp_path, Scripted(*script))
    live, looks = Live("x", Question(text="Which?"), ("retrieve", "generate")), []

    def on_event(event: object) -> None:
        live.event(event)  # type: ignore[arg-type]
        looks.append(live.trace())

    trace = await aask(
        create_act2see(config, parts=parts), clip_in(tmp_path), "Which?", thread_id="x", on_event=on_event
    )
    folded = live.trace()
    assert folded is not None
    assert folded.segments == trace.segments
    assert (folded.id, folded.video, folded.initial) == (trace.id, trace.video, trace.initial)
    # Each look shows all the text so far: it begins with the text of the look before.
    texts = [look.text for look in looks if look]
    assert all(b.startswith(a) for a, b in pairwise(texts))


async def test_an_incomplete_call_is_shown_as_a_call(tmp_path: Path) -> None:
    config, parts = parts_in(tmp_path, Scripted(*SCRIPT))
    live, seen = Live("x", Question(text="Which?"), ("retrieve",)), []

    def on_event(event: object) -> None:
        live.event(event)  # type: ignore[arg-type]
        if (trace := live.trace()) and trace.segments and isinstance(call := trace.segments[-1], Call):
            seen.append(call.query)
            whole = live.trace(open_as_written=True)
            assert whole is not None
            assert whole.text == trace.text

    await aask(create_act2see(config, parts=parts), clip_in(tmp_path), "Which?", on_event=on_event)
    assert seen[0] != "the circle"
    assert "the circle".startswith(seen[0])
    assert seen[-1] == "the circle"


async def test_the_first_token_is_shown_at_once_and_later_ones_at_intervals() -> None:
    live, looks = Live("x", Question(text="?"), ()), []

    async def watch() -> None:
        async for _ in live.watch():
            looks.append(time.monotonic())

    task = asyncio.create_task(watch())
    await asyncio.sleep(0)
    start = time.monotonic()
    live.event(TokenEvent(run="x", text="a"))
    await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    assert len(looks) == 2  # one look before the token, one after it
    for _ in range(40):
        live.event(TokenEvent(run="x", text="a"))
        await asyncio.sleep(0.01)
    live.end()
    await task
    assert len(looks) <= 4 + (time.monotonic() - start) / EVERY


async def test_a_run_continues_without_a_watcher_and_is_saved_like_ask_save(tmp_path: Path) -> None:
    config, runs = runs_in(tmp_path, Scripted(*SCRIPT))
    run = runs.begin(AskRequest(config, clip_in(tmp_path), "Which?", context=AskContext(tools=("retrieve",))))
    assert [p.running for p in runs.list_runs()] == [True]
    assert run.task is not None
    await run.task
    assert runs.running == {}
    folder = tmp_path / "runs" / run.id
    assert {p.name for p in folder.iterdir()} == {"trace.json", "trace.html", "frames"}
    [summary] = runs.list_runs()
    assert (summary.id, summary.question) == (run.id, "Which?")
    assert (summary.answer, summary.tools) == ("B", ("retrieve",))
    loaded = Trace.load(folder)
    assert loaded == run.trace == runs.load(run.id)
    assert runs.frames(run.id)(loaded.shown[-1]).shape == (192, 192, 3)
    assert "Answered: <bdi>B</bdi>" in status(run)


async def test_a_stopped_run_is_saved(tmp_path: Path) -> None:
    config, runs = runs_in(tmp_path, Endless())
    run = runs.begin(AskRequest(config, clip_in(tmp_path), "Which?"))
    async for _ in run.live.watch():
        if (trace := run.live.trace()) and len(trace.text) > 20:
            break
    await runs.stop(run.id)
    await runs.stop(run.id)  # the second call does nothing
    saved = runs.load(run.id)
    assert saved.text.startswith("so so so ")
    assert isinstance(saved.segments[-1], Text)
    assert saved.answer is None
    assert runs.list_runs()[0].answer is None
    assert run.stopped
    assert "Stopped" in status(run)


async def test_a_failed_run_has_a_one_line_error_and_is_saved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Breaks(Scripted):
        async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
            yield Delta("I look")
            raise RuntimeError("a secret path")

    config, runs = runs_in(tmp_path, Breaks(""))
    with caplog.at_level(logging.ERROR, "act2see"):
        run = runs.begin(AskRequest(config, clip_in(tmp_path), "Which?"))
        async for _ in run.live.watch():
            pass
    assert "something went wrong (RuntimeError)" in run.error
    assert "secret" not in status(run)
    [id] = re.findall(r"error (\w{12})\b", run.error)
    assert any(id in r.getMessage() and r.exc_info for r in caplog.records)
    assert runs.load(run.id).text == "I look"
    missing = runs.begin(AskRequest(config, str(tmp_path / "no.mp4"), "Which?"))
    async for _ in missing.live.watch():
        pass
    assert "there is no file" in missing.error
    assert 'role="alert"' in status(missing)
    assert missing.trace is None


async def test_a_run_continues_after_a_failing_tool(tmp_path: Path) -> None:
    config, runs = runs_in(tmp_path, Scripted(*SCRIPT), retrieve=ToolError("no index"))
    trace = await ask(tmp_path, runs, config)
    assert trace.answer == "B"
