"""The micro checkpoint in vLLM, compared with `TransformersReasoner`: equal texts, prefix caching, latency.

    python -m benchmarks.parity.vllm --python vllm-env/bin/python --questions 100

Questions are asked through the real graph with `TransformersReasoner`. Each step (the rollout that it read
and the text that it wrote) is then replayed by this module in vLLM's environment, over HTTP on the server
that `act2see serve vllm` starts, and by `VLLMReasoner` in process. Decoding is greedy, so the texts must be
equal. A step can reuse at most what its loops have read and written before, in whole blocks. The two take
turns at each step, so that both see the same machine. docs/parity.md describes the environment and the
results.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from act2see.agent.grammar import Grammar
from act2see.agent.parser import StopReason
from act2see.agent.reasoners.base import Delta, Done, Needs, Reasoner, Request
from act2see.agent.rollout import Rollout

# Settings for one process on few cores: no compilation, a small cache, threads that are not bound to cores.
ENGINE: dict[str, Any] = {"dtype": "float32", "enforce_eager": True, "max_num_seqs": 8, "max_model_len": 4096}
FLAGS = ("--enforce-eager", "--max-num-seqs", "8")
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}
SETTLED = 1.1  # seconds after which an idle engine stops spinning


@dataclass(frozen=True, slots=True)
class Step:
    """One continuation of a rollout."""

    rollout: Rollout
    stops: tuple[str, ...]
    max_tokens: int
    text: str
    known: int
    """Tokens that the earlier loops have left in the cache."""


@dataclass(frozen=True, slots=True)
class Replay:
    """The same step, replayed by another engine."""

    text: str
    seconds: float
    cached: int
    decoded: int


class Recorder(Reasoner):
    """A reasoner that records the steps of another one."""

    def __init__(self, inner: Reasoner) -> None:
        self.inner, self.name = inner, inner.name
        self.steps: list[Step] = []
        self._known: dict[str, int] = {}

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        text = ""
        async for item in self.inner.stream(request):
            if isinstance(item, Delta):
                text += item.text
            else:
                rollout, stops = request.rollout, tuple(request.stops)
                known = self._known.get(rollout.session, 0)
                self.steps.append(Step(rollout, stops, request.max_tokens, text, known))
                # The last token is written but not yet read.
                self._known[rollout.session] = item.prefilled + item.cached + item.decoded - 1
            yield item

    def forget(self, session: str) -> None:
        self.inner.forget(session)


async def record(questions: int, folder: Path) -> tuple[list[Step], dict[str, Any]]:
    """Ask questions of the board world, all families in turn; return the steps and the frames by digest."""
    import dataclasses

    from act2see.graphs.ask import create_act2see
    from act2see.graphs.config import load_config
    from act2see.graphs.parts import build_parts
    from act2see.graphs.run import aask
    from act2see.micro.questions import FAMILIES, make_item
    from act2see.micro.world import write_clip

    config = load_config("micro", cache=str(folder / "cache"))
    parts = build_parts(config)
    recorder = Recorder(parts.reasoner)
    graph = create_act2see(config, parts=dataclasses.replace(parts, reasoner=recorder))
    for n in range(questions):
        item = make_item(FAMILIES[n % len(FAMILIES)], 7_000_000 + n, "test")
        await aask(graph, write_clip(item.clip, folder / f"{n}.mp4"), item.text, item.options)
        print(f"\r{n + 1} of {questions} questions asked", end="", file=sys.stderr)
    print(file=sys.stderr)
    frames = {f.digest: parts.resources.store.get(f.digest) for s in recorder.steps for f in s.rollout.frames}
    return recorder.steps, frames


async def play(steps: Sequence[Step], engine: Reasoner) -> list[Replay]:
    """Replay the steps one after another, with the requests of the graph."""
    played = []
    for step in steps:
        tags = tuple(s[2:-1] for s in step.stops if s != "</answer>")
        parser = Grammar(tags).parser(answering=str(step.rollout).endswith("<answer>"))
        started, done = time.perf_counter(), Done(StopReason.EOS)
        request = Request(step.rollout, step.max_tokens, parser.feed, step.stops)
        async for item in engine.stream(request):
            done = item if isinstance(item, Done) else done
        played.append(Replay(parser.text, time.perf_counter() - started, done.cached, done.decoded))
    return played


async def take_turns(steps: Sequence[Step], engines: Sequence[Reasoner]) -> list[list[Replay]]:
    """Replay each step on all engines, one after another."""
    played: list[list[Replay]] = [[] for _ in engines]
    for engine in engines:
        await play(steps[:1], engine)  # an engine's first request warms it up
    for step in steps:
        for engine, replays in zip(engines, played, strict=True):
            await asyncio.sleep(SETTLED)
            replays += await play([step], engine)
    return played


async def measure_rate(steps: Sequence[Step], engine: Reasoner) -> float:
    """Replay up to 64 questions at once; return the number of tokens written per second."""
    await asyncio.sleep(SETTLED)
    questions: dict[str, list[Step]] = {}
    for step in steps:
        questions.setdefault(step.rollout.session, []).append(step)
    started = time.perf_counter()
    done = await asyncio.gather(*(play(q, engine) for q in list(questions.values())[:64]))
    return sum(p.decoded for q in done for p in q) / (time.perf_counter() - started)


def report(steps: Sequence[Step], played: Sequence[Replay], block: int) -> dict[str, Any]:
    """Return the number of equal texts, the share of known whole blocks that came from the cache, and the
    seconds per step."""
    later = [(s, p) for s, p in zip(steps, played, strict=True) if s.known]
    known = sum(s.known for s, _ in later)
    whole = sum(s.known // block * block for s, _ in later)
    # vLLM may have read the last token before it noticed the end of the text: count only known whole blocks.
    cached = sum(min(p.cached, s.known // block * block) for s, p in later)
    differ = [(s.text, p.text) for s, p in zip(steps, played, strict=True) if s.text != p.text]
    return {
        "steps": len(steps),
        "equal": len(steps) - len(differ),
        "later steps": len(later),
        "prefix tokens known": known,
        "in whole blocks": whole,
        "from cache": cached,
        "share of whole blocks": round(cached / whole, 3) if whole else None,
        "median seconds a step": round(median(p.seconds for p in played), 4),
        "first differences": differ[:3],
    }


def serve(
    python: Path, folder: Path, loras: Sequence[str] = (), flags: Sequence[str] = FLAGS
) -> tuple[subprocess.Popen[bytes], str]:
    """Start `act2see serve vllm` on a free port and wait until it answers.

    Args:
        python: The interpreter of vLLM's environment.
        folder: The folder of its config, cache and log.
        loras: Adapters to load, as `NAME=FOLDER`.
        flags: Flags for vLLM.

    Returns:
        The process and its base URL.

    Raises:
        SystemExit: If the server exits or does not answer in ten minutes.
    """
    import urllib.request

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = folder / "parity.yaml"
    config.write_text(f"preset: micro\ncache: {folder / 'cache'}\n", encoding="utf-8")
    log = (folder / "server.log").open("wb")
    command = [
        sys.executable,
        "-m",
        "act2see",
        "serve",
        "vllm",
        "--config",
        str(config),
        "--python",
        str(python),
        "--port",
        str(port),
    ]
    command += [word for lora in loras for word in ("--lora", lora)]
    # A session of its own lets `killpg` end the engine's processes, too.
    server = subprocess.Popen(
        [*command, "--", *flags],
        stdout=log,
        stderr=log,
        env={**os.environ, **ENVIRONMENT},
        start_new_session=True,
    )
    for _ in range(600):
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=2):
                return server, f"http://127.0.0.1:{port}/v1"
        except OSError:
            time.sleep(1)
    end_of_log = (folder / "server.log").read_text(errors="replace")[-3000:]
    raise SystemExit(f"the server did not start; the end of its log:\n{end_of_log}")


def replay_on_both(saved: Path, url: str) -> tuple[list[list[Replay]], list[float]]:
    """Replay the steps over HTTP and in process; return the replays, and both rates of many questions at
    once.

    This runs in vLLM's environment.
    """
    from act2see.agent.reasoners.vllm.engine import VLLMReasoner
    from act2see.agent.reasoners.vllm.http import VLLMHTTPReasoner
    from act2see.tools.runtime.weights import resolve_weights

    steps, frames = pickle.loads(saved.read_bytes())
    there = VLLMHTTPReasoner(url, "micro:vlm", lambda f: frames[f.digest], needs=Needs(76, 192, 664))
    here = VLLMReasoner.from_pretrained(
        resolve_weights("micro:vlm"), lambda f: frames[f.digest], images=76, **ENGINE
    )

    async def run() -> tuple[list[list[Replay]], list[float]]:
        await there.check()
        played = await take_turns(steps, (there, here))
        rates = [await measure_rate(steps, there), await measure_rate(steps, here)]
        return played, rates

    try:
        return asyncio.run(run())
    finally:
        here.close()


def compare(python: Path, folder: Path, steps: Sequence[Step], block: int) -> dict[str, Any]:
    """Replay the recorded steps in vLLM's environment; return the figures.

    Args:
        python: The interpreter of vLLM's environment.
        folder: The folder with the recorded steps.
        steps: The same steps.
        block: vLLM's block size.
    """
    source = Path(__file__).resolve().parents[2]
    search = os.pathsep.join([str(source / "src"), str(source)])
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": search}
    server, url = serve(python, folder)
    try:
        command = [str(python), "-m", "benchmarks.parity.vllm", "--url", url, "--folder", str(folder)]
        subprocess.run(command, check=True, env=environment, cwd=folder)
    finally:
        os.killpg(server.pid, 15)
        server.wait()
    (there, here), (there_rate, here_rate) = pickle.loads((folder / "steps.played").read_bytes())
    ratio = median(a.seconds / b.seconds for a, b in zip(there, here, strict=True))
    return {
        "over HTTP": report(steps, there, block),
        "in process": report(steps, here, block),
        "HTTP over in-process, seconds a step": round(ratio, 3),
        "HTTP over in-process, tokens a second, questions at once": round(there_rate / here_rate, 3),
    }


def main() -> None:
    """Print the report as JSON."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.parity.vllm", description=(__doc__ or "").partition("\n\n")[0]
    )
    options.add_argument("--python", type=Path, help="the interpreter of vLLM's environment")
    options.add_argument("--questions", type=int, default=100)
    options.add_argument("--block", type=int, default=128, help="vLLM's block size (128 on CPUs, 16 on GPUs)")
    options.add_argument(
        "--folder", type=Path, help="folder for steps and logs; its recorded steps are used again"
    )
    options.add_argument("--url", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.url:
        saved = given.folder / "steps.pickle"
        saved.with_suffix(".played").write_bytes(pickle.dumps(replay_on_both(saved, given.url)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        saved = folder / "steps.pickle"
        if not saved.exists():
            saved.write_bytes(pickle.dumps(asyncio.run(record(given.questions, folder))))
        steps, _ = pickle.loads(saved.read_bytes())
        result: dict[str, Any] = {"questions": len({s.rollout.session for s in steps})}
        if given.python:
            result |= compare(given.python, folder, steps, given.block)
        print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
