"""Whether a run that is interrupted at any event can be resumed and gives the same answer.

A run with two calls is interrupted at one event of its stream (a token, a call, a frame, a node's end, a
checkpoint) by SIGINT or SIGKILL, and resumed. The answer, the calls and the frames must equal those of an
uninterrupted run. This is repeated for checkpointers in memory and in SQLite and for each durability: at
every event of a run with a scripted model, at some events of a run on the micro models, and through the
command line. If nothing was saved yet (`durability="exit"` saves only at the end), the question is asked
again in the same thread.

Each run is a separate process, forked from one that has loaded the models without using them.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from act2see.agent.parser import StopReason
from act2see.agent.reasoners.base import Delta, Done, Reasoner, Request
from act2see.trace.record import Frames
from act2see.trace.trace import Trace
from benchmarks import Goal, at_least, need, reported

Saver = Literal["memory", "sqlite"]
Durability = Literal["sync", "async", "exit"]
MODES = ["custom", "values", "updates", "tasks", "checkpoints"]
THREAD: Any = {"configurable": {"thread_id": "t"}}
Builder = Callable[[Any], Any]
"""Builds a graph with this checkpointer."""


@dataclass(frozen=True, slots=True)
class Interruption:
    """Where and how a run is interrupted."""

    saver: Saver
    durability: Durability
    by: Literal["SIGINT", "SIGKILL"]
    at: int
    """The number of an event, counted from 1."""


def outcome(trace: Trace) -> list[Any]:
    """Return what must be the same after a resume: everything written, called and shown."""
    out: list[Any] = []
    for segment in trace.segments:
        out.append(segment.model_dump_json(include={"kind", "text", "query", "tag", "body", "note"}))
        if isinstance(segment, Frames):
            out += [frame.digest for frame in segment.frames]
    return out


def kinds_of_events(build: Builder, given: dict[str, Any], folder: Path) -> tuple[list[Any], list[str]]:
    """Return the outcome of an uninterrupted run, and the kind of each of its events."""

    def whole() -> Any:
        kinds: list[str] = []

        async def main() -> Any:
            async with opened("memory", folder) as saver:
                graph = build(saver)
                async for part in graph.astream(
                    given, THREAD, stream_mode=MODES, version="v2", durability="sync"
                ):
                    kinds.append(part["data"]["type"] if part["type"] == "custom" else part["type"])
                trace = Trace.model_validate((await graph.aget_state(THREAD)).values["trace"])
                if len(trace.calls) != 2:
                    raise RuntimeError(f"the run has {len(trace.calls)} calls instead of two")
                return outcome(trace)

        return asyncio.run(main()), kinds

    result = in_child(whole)
    return result[0], result[1]


def survives(
    build: Builder, given: dict[str, Any], folder: Path, how: Interruption, expected: Sequence[Any]
) -> str:
    """Interrupt a run and resume it; return what went wrong, or an empty text."""
    if how.saver == "memory":
        return in_child(lambda: asyncio.run(_in_one_process(build, given, folder, how, expected)))
    status = in_child(lambda: asyncio.run(_run_into(build, given, folder, how)), dies=True)
    if status not in (-signal.SIGKILL, 130):
        return f"the process exited with {status}"
    return in_child(lambda: asyncio.run(_resumed(build, given, folder, how, expected)))


async def _run_into(build: Builder, given: dict[str, Any], folder: Path, how: Interruption) -> None:
    async with opened(how.saver, folder) as saver:
        await _follow(build(saver), given, how)


async def _follow(graph: Any, given: dict[str, Any], how: Interruption) -> None:
    """Stream the run up to the event, and kill this process there."""
    events = 0
    async for _ in graph.astream(given, THREAD, stream_mode=MODES, version="v2", durability=how.durability):
        events += 1
        if events == how.at:
            os.kill(os.getpid(), getattr(signal, how.by))
            await asyncio.sleep(60)  # SIGINT arrives as a cancellation


async def _in_one_process(
    build: Builder, given: dict[str, Any], folder: Path, how: Interruption, expected: Sequence[Any]
) -> str:
    async with opened("memory", folder) as saver:
        graph = build(saver)
        running = asyncio.create_task(_follow_until_cancelled(graph, given, how))
        with suppress(asyncio.CancelledError):
            await running
        return await _compared(graph, given, how, expected)


async def _follow_until_cancelled(graph: Any, given: dict[str, Any], how: Interruption) -> None:
    events = 0
    task = asyncio.current_task()
    assert task is not None
    async for _ in graph.astream(given, THREAD, stream_mode=MODES, version="v2", durability=how.durability):
        events += 1
        if events == how.at:
            task.cancel()
            await asyncio.sleep(0)


async def _resumed(
    build: Builder, given: dict[str, Any], folder: Path, how: Interruption, expected: Sequence[Any]
) -> str:
    async with opened(how.saver, folder) as saver:
        return await _compared(build(saver), given, how, expected)


async def _compared(graph: Any, given: dict[str, Any], how: Interruption, expected: Sequence[Any]) -> str:
    from act2see import aask, aresume
    from act2see.errors import StoreError

    try:
        trace = await aresume(graph, "t")
    except StoreError as e:
        if "no saved run" not in str(e) or (how.durability == "sync" and how.at > 3):
            return f"{type(e).__name__}: {e}"
        trace = await aask(graph, given["video"], given["question"], given["options"], thread_id="t")
    except Exception as e:
        return f"{type(e).__name__}: {e}"
    if outcome(trace) == list(expected):
        return ""
    return f"the resumed run differs: answer {trace.answer!r}, {len(trace.calls)} calls"


@asynccontextmanager
async def opened(kind: Saver, folder: Path) -> Any:
    """Open a checkpointer of this kind; SQLite's file is in the folder."""
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    if kind == "memory":
        yield InMemorySaver()
        return
    async with AsyncSqliteSaver.from_conn_string(str(folder / "runs.sqlite")) as saver:
        yield saver


def in_child(work: Callable[[], Any], dies: bool = False) -> Any:
    """Run `work` in a forked process; return its result or, with `dies`, the exit status of the process."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(read)
            with os.fdopen(write, "w") as pipe:
                json.dump(work(), pipe)
            code = 0
        except KeyboardInterrupt:
            code = 130
        except BaseException as e:
            sys.stderr.write(f"{type(e).__name__}: {e}\n")
        os._exit(code)
    os.close(write)
    with os.fdopen(read) as pipe:
        result = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if dies:
        return status
    if status != 0:
        return f"the process exited with {status}"
    return json.loads(result)


def interruptions(kinds: Sequence[str], tokens: int) -> Iterator[Interruption]:
    """Yield interruptions at each event, for each combination of saver, durability and signal. Of the tokens,
    every `tokens`-th counts."""
    seen = 0
    for at, kind in enumerate(kinds, start=1):
        seen += kind == "token"
        if kind == "token" and seen % tokens != 1:
            continue
        for durability in ("sync", "async", "exit"):
            yield Interruption("memory", durability, "SIGINT", at)
            yield Interruption("sqlite", durability, "SIGINT", at)
            yield Interruption("sqlite", durability, "SIGKILL", at)


def try_all(
    build: Builder, given: dict[str, Any], folder: Path, tokens: int, every: int = 1
) -> dict[str, Any]:
    """Interrupt a run at its events and resume it each time.

    Args:
        build: Builds the graph.
        given: The graph's input.
        folder: Where the runs are kept.
        tokens: Use one token event in this many.
        every: Use one interruption in this many.

    Returns:
        The number of events, the number of interruptions tried, and a line for each failure.
    """
    # A shell that starts this in the background makes it and its children ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    expected, kinds = kinds_of_events(build, given, folder)
    tried = list(interruptions(kinds, tokens))[::every]
    failed: list[str] = []
    for n, how in enumerate(tried):
        place = folder / f"run-{n}"
        place.mkdir()
        if wrong := survives(build, given, place, how, expected):
            failed.append(
                f"{how.saver}, {how.durability}, {how.by} at event {how.at} ({kinds[how.at - 1]}): {wrong}"
            )
    return {"events": len(kinds), "tried": len(tried), "failed": failed}


def through_the_command_line(
    video: Path, question: str, options: Sequence[str], cache: Path, points: int
) -> dict[str, Any]:
    """Interrupt `act2see ask` at `points` places of its output, and resume it with `act2see ask --resume`."""
    environment = {**os.environ, "ACT2SEE_CACHE": str(cache), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "act2see", "ask"]
    asking = [*command, str(video), question, *(x for o in options for x in ("--option", o))]
    whole = subprocess.run(asking, env=environment, capture_output=True, check=True, text=True).stdout
    last = _last_line(whole)
    if not last:
        raise RuntimeError(f"the uninterrupted run has no answer: {whole[-300:]!r}")
    tried, failed = 0, []
    for n in range(points):
        for by in ("SIGINT", "SIGKILL"):
            tried += 1
            at = len(whole.encode()) * n // points
            wrong = _cut_and_resume(asking, command, environment, cache, at=at, by=by, last=last)
            if wrong:
                failed.append(f"command line, {by} after {n} of {points} of the output: {wrong}")
    return {"tried": tried, "failed": failed}


def _cut_and_resume(
    asking: Sequence[str],
    command: Sequence[str],
    environment: dict[str, str],
    cache: Path,
    *,
    at: int,
    by: str,
    last: str,
) -> str:
    """Send the signal `by` after `at` bytes of output; return what went wrong, or an empty text."""
    import sqlite3

    runs = cache / "runs.sqlite"

    def known() -> set[str]:
        if not runs.exists():
            return set()
        with sqlite3.connect(runs) as connection:
            return {row[0] for row in connection.execute("select distinct thread_id from checkpoints")}

    before = known()
    with subprocess.Popen(asking, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        read = 0
        while read <= at and (piece := process.stdout.read1(64)):  # type: ignore[attr-defined]
            read += len(piece)
        process.send_signal(getattr(signal, by))
        rest = process.stdout.read().decode()
        stderr = process.stderr.read().decode()
    new = known() - before
    if not new:
        if process.returncode in (130, -signal.SIGKILL):
            return ""
        return f"nothing was saved; stderr: {stderr[-300:]!r}"
    if process.returncode == 0:
        return "" if _last_line(rest) == last else "it finished before the signal, with another answer"
    resumed = subprocess.run(
        [*command, "--resume", new.pop()], env=environment, capture_output=True, text=True, check=False
    )
    if resumed.returncode != 0:
        return f"exit code {resumed.returncode}: {resumed.stderr[-300:]}"
    answer = _last_line(resumed.stdout)
    return "" if answer == last else f"another answer: {answer!r}, not {last!r}"


def _last_line(output: str) -> str:
    """Return the line with the answer, or an empty text."""
    return next((line for line in reversed(output.splitlines()) if line.startswith("Answer:")), "")


def build_micro(cache: Path) -> Builder:
    """Prepare the micro graph, with loaded but unused models."""
    from act2see import create_act2see, load_config
    from act2see.graphs.parts import build_parts

    config = load_config("micro", cache=str(cache))
    parts = build_parts(config)
    parts.reasoner.reasoner()  # type: ignore[attr-defined]
    assert parts.resources.finder.encoder.id
    return lambda saver: create_act2see(config, checkpointer=saver, parts=parts)


class Speaks(Reasoner):
    """Writes two calls and an answer, a few characters at a time. The rollout alone decides which is next."""

    name = "speaks"
    lines = (
        "I look. <retrieve>the circle</retrieve>",
        "And <generate>the circle in blue</generate>",
        "So.</think>\n<answer>B</answer>",
    )

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        line = self.lines[str(request.rollout).count("</frame>")]
        for at in range(0, len(line), 3):
            yield Delta(line[at : at + 3])
            if request.until(line[at : at + 3]):
                break
        yield Done(StopReason.UNTIL, decoded=len(line) // 3 + 1)


def build_scripted(folder: Path) -> Builder:
    """Prepare a graph with a scripted model, light enough to interrupt it at every event."""
    from act2see import create_act2see
    from act2see.graphs.parts import Parts
    from benchmarks.engine import Event, house

    config, resources = house(folder)
    tools = {tag: Event(resources, 1.0) for tag in ("retrieve", "generate")}
    parts: Any = Parts(Speaks(), tools, resources)
    return lambda saver: create_act2see(config, checkpointer=saver, parts=parts)


def main(folder: Path, quick: bool, what: str) -> dict[str, Any]:
    """Interrupt the run on the micro models if `what` is `micro`, else the scripted run and the command
    line."""
    from act2see.micro.questions import make_item
    from act2see.micro.world import write_clip

    item = make_item("both", 1, "test")
    clip = write_clip(item.clip, folder / "clip.mp4")
    given = {"video": str(clip), "question": item.text, "options": list(item.options)}
    if what == "micro":
        return try_all(build_micro(folder / "cache"), given, folder, tokens=48, every=24 if quick else 6)
    result = try_all(build_scripted(folder), given, folder, tokens=10, every=12 if quick else 1)
    typed = through_the_command_line(
        clip, item.text, item.options, folder / "typed", points=2 if quick else 6
    )
    return {
        **result,
        "typed": typed["tried"],
        "tried": result["tried"] + typed["tried"],
        "failed": result["failed"] + typed["failed"],
    }


def run(quick: bool = False) -> dict[str, Any]:
    """Interrupt the scripted run and the run on the micro models, each in a process of its own, in
    parallel."""
    need("vlm", "encoder", "generator")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LANGGRAPH_STRICT_MSGPACK": "true"}
    command = [sys.executable, "-m", "benchmarks.interruptions", *(["--quick"] if quick else [])]
    parts: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        running: dict[str, subprocess.Popen[str]] = {}
        for what in ("scripted", "micro"):
            place = Path(folder) / what
            place.mkdir()
            with open(place / "output", "w") as output:
                running[what] = subprocess.Popen(
                    [*command, what, str(place)], env=environment, stdout=output, stderr=output, text=True
                )
        for what, process in running.items():
            process.wait()
            text = (Path(folder) / what / "output").read_text()
            if process.returncode != 0:
                raise RuntimeError(f"the runs could not be interrupted: {text[-2000:]}")
            parts[what] = json.loads(text.splitlines()[-1])
    tried = sum(part["tried"] for part in parts.values())
    failed = [line for part in parts.values() for line in part["failed"]]
    goals: dict[str, Goal] = {
        "interruptions tried": at_least(tried, 40 if quick else 200),
        "of these, resumed to the same answer, %": at_least(100 * (tried - len(failed)) / tried, 100),
        "of these, on the micro models": reported(parts["micro"]["tried"] + parts["scripted"]["typed"]),
        "of these, through the command line": reported(parts["scripted"]["typed"]),
    }
    return {
        "events": {what: part["events"] for what, part in parts.items()},
        "failed": failed,
        "goals": goals,
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[-1]), "--quick" in sys.argv, sys.argv[-2])))
