"""Test that a run can be interrupted at any event and resumed with the same answer.

A run with two calls is interrupted at one event of its stream (a token, a call, a frame, a node's end, a
checkpoint) by SIGINT or SIGKILL, and resumed. The answer, the calls and the frames must equal those of an
uninterrupted run. This is repeated for checkpointers in memory and in SQLite and for each durability: at
every event of a run with a scripted model, at some events of a run on the micro models, and through the
command line (`interrupted_commands`). If nothing was saved yet (`durability="exit"` saves only at the end),
the question is asked again in the same thread.

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
from benchmarks import Goal, at_least, reported, require_weights
from benchmarks.interrupted_commands import try_command_line

Saver = Literal["memory", "sqlite"]
Durability = Literal["sync", "async", "exit"]
MODES = ["custom", "values", "updates", "tasks", "checkpoints"]
THREAD: Any = {"configurable": {"thread_id": "t"}}
Builder = Callable[[Any], Any]
"""A function that builds a graph with the given checkpointer."""


@dataclass(frozen=True, slots=True)
class Interruption:
    """An interruption of a run."""

    saver: Saver
    durability: Durability
    by: Literal["SIGINT", "SIGKILL"]
    at: int
    """The number of an event, counted from 1."""


def outcome(trace: Trace) -> list[Any]:
    """Return the content that must be the same after a resume: all texts, calls and frames."""
    out: list[Any] = []
    for segment in trace.segments:
        out.append(segment.model_dump_json(include={"kind", "text", "query", "tag", "body", "note"}))
        if isinstance(segment, Frames):
            out += [frame.digest for frame in segment.frames]
    return out


def run_uninterrupted(build: Builder, given: dict[str, Any], folder: Path) -> tuple[list[Any], list[str]]:
    """Return the outcome of an uninterrupted run, and the kind of each of its events.

    Raises:
        RuntimeError: If the run does not make two calls.
    """

    def whole() -> Any:
        kinds: list[str] = []

        async def main() -> Any:
            async with open_saver("memory", folder) as saver:
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

    result = run_in_child(whole)
    return result[0], result[1]


def interrupt_and_resume(
    build: Builder, given: dict[str, Any], folder: Path, how: Interruption, expected: Sequence[Any]
) -> str:
    """Interrupt a run and resume it.

    Args:
        build: Builds the graph.
        given: The graph's input.
        folder: The folder of the saved run.
        how: The interruption.
        expected: The outcome of an uninterrupted run.

    Returns:
        The problem, or an empty text.
    """
    if how.saver == "memory":
        # A run in memory ends with its process, so it is cancelled and resumed in one.
        problem: str = run_in_child(lambda: asyncio.run(_in_one_process(build, given, folder, how, expected)))
        return problem
    status = run_in_child(lambda: asyncio.run(_run_until_killed(build, given, folder, how)), dies=True)
    if status not in (-signal.SIGKILL, 130):
        return f"the process exited with {status}"
    problem = run_in_child(lambda: asyncio.run(_open_and_compare(build, given, folder, how, expected)))
    return problem


async def _run_until_killed(build: Builder, given: dict[str, Any], folder: Path, how: Interruption) -> None:
    async with open_saver(how.saver, folder) as saver:
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
    async with open_saver("memory", folder) as saver:
        graph = build(saver)
        running = asyncio.create_task(_follow_until_cancelled(graph, given, how))
        with suppress(asyncio.CancelledError):
            await running
        return await _resume_and_compare(graph, given, how, expected)


async def _follow_until_cancelled(graph: Any, given: dict[str, Any], how: Interruption) -> None:
    events = 0
    task = asyncio.current_task()
    assert task is not None
    async for _ in graph.astream(given, THREAD, stream_mode=MODES, version="v2", durability=how.durability):
        events += 1
        if events == how.at:
            task.cancel()
            await asyncio.sleep(0)


async def _open_and_compare(
    build: Builder, given: dict[str, Any], folder: Path, how: Interruption, expected: Sequence[Any]
) -> str:
    async with open_saver(how.saver, folder) as saver:
        return await _resume_and_compare(build(saver), given, how, expected)


async def _resume_and_compare(
    graph: Any, given: dict[str, Any], how: Interruption, expected: Sequence[Any]
) -> str:
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
async def open_saver(kind: Saver, folder: Path) -> Any:
    """Open a checkpointer of this kind; SQLite's file is in the folder."""
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    if kind == "memory":
        yield InMemorySaver()
        return
    async with AsyncSqliteSaver.from_conn_string(str(folder / "runs.sqlite")) as saver:
        yield saver


def run_in_child(work: Callable[[], Any], dies: bool = False) -> Any:
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


def list_interruptions(kinds: Sequence[str], tokens: int) -> Iterator[Interruption]:
    """Yield interruptions for each combination of saver, durability and signal.

    They are at each event, except that only one in `tokens` token events is used.
    """
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
        folder: The folder of the saved runs.
        tokens: Only one token event in this many is used.
        every: Only one interruption in this many is tried.

    Returns:
        The number of events, the number of interruptions tried, and a line for each failure.
    """
    # A shell makes background processes and their children ignore SIGINT. Restore its handler.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    expected, kinds = run_uninterrupted(build, given, folder)
    tried = list(list_interruptions(kinds, tokens))[::every]
    failed: list[str] = []
    for n, how in enumerate(tried):
        place = folder / f"run-{n}"
        place.mkdir()
        if problem := interrupt_and_resume(build, given, place, how, expected):
            event = f"event {how.at} ({kinds[how.at - 1]})"
            failed.append(f"{how.saver}, {how.durability}, {how.by} at {event}: {problem}")
    return {"events": len(kinds), "tried": len(tried), "failed": failed}


def build_micro(cache: Path) -> Builder:
    """Prepare the micro graph, with loaded but unused models."""
    from act2see import create_act2see, load_config
    from act2see.graphs.parts import build_parts

    config = load_config("micro", cache=str(cache))
    parts = build_parts(config)
    parts.reasoner.reasoner()  # type: ignore[attr-defined]
    assert parts.resources.finder.encoder.id
    return lambda saver: create_act2see(config, checkpointer=saver, parts=parts)


class ScriptedReasoner(Reasoner):
    """A reasoner that writes two calls and an answer, three characters at a time.

    The frames in the rollout decide which line is next, so it can be resumed anywhere.
    """

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
    from benchmarks.engine import Event, micro_resources

    config, resources = micro_resources(folder)
    tools = {tag: Event(resources, 1.0) for tag in ("retrieve", "generate")}
    parts: Any = Parts(ScriptedReasoner(), tools, resources)
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
    typed = try_command_line(clip, item.text, item.options, folder / "typed", points=2 if quick else 6)
    return {
        **result,
        "typed": typed["tried"],
        "tried": result["tried"] + typed["tried"],
        "failed": result["failed"] + typed["failed"],
    }


def run(quick: bool = False) -> dict[str, Any]:
    """Interrupt the scripted run and the run on the micro models, in two parallel processes.

    Raises:
        RuntimeError: If one of the processes fails.
    """
    require_weights("vlm", "encoder", "generator")
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
