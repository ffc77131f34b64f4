"""The micro checkpoint under vLLM, beside `TransformersReasoner`: the same text, how much of a prefix is
cached, latency.

    python -m benchmarks.parity.vllm --python vllm-env/bin/python --questions 100

Questions are asked through the real graph with `TransformersReasoner`; each step of it, the rollout that went
in and the text that came out, is then given to the server over HTTP (`act2see serve vllm`'s own command) and
to `VLLMReasoner` in process, by this module run in vLLM's environment. Greedy, so the texts must be equal.
What may be cached of a step is what its loops have read and written before, in whole blocks. The two take
turns at each step, so that their times are those of one machine. docs/parity.md says how the environment is
made, and what came out.
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

from act2see.agent.grammar import Grammar, StopReason
from act2see.agent.reasoners.base import Delta, Done, Needs, Reasoner, Request
from act2see.agent.rollout import Rollout

# One process on few cores: no compilation, a small cache, threads left to the system.
ENGINE = {"dtype": "float32", "enforce_eager": True, "max_num_seqs": 8, "max_model_len": 4096}
FLAGS = ("--enforce-eager", "--max-num-seqs", "8")
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}
SETTLED = 1.1  # seconds after which an engine that has nothing to do no longer spins


@dataclass(frozen=True, slots=True)
class Step:
    """One continuation: what was read, what was written, how many tokens the loops before have left in the
    cache."""

    rollout: Rollout
    stops: tuple[str, ...]
    max_tokens: int
    text: str
    known: int


@dataclass(frozen=True, slots=True)
class Played:
    """The same step by another engine."""

    text: str
    seconds: float
    cached: int
    decoded: int


class Recorder(Reasoner):
    """A reasoner that writes down what another one does."""

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
                # The last token that was written has not been read yet.
                self._known[rollout.session] = item.prefilled + item.cached + item.decoded - 1
            yield item

    def forget(self, session: str) -> None:
        self.inner.forget(session)


async def record(questions: int, folder: Path) -> tuple[list[Step], dict[str, Any]]:
    """The steps of that many questions of the board world, all families in turn, and the frames they show."""
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


async def play(steps: Sequence[Step], engine: Reasoner) -> list[Played]:
    """One after the other, as the graph would ask."""
    played = []
    for step in steps:
        tags = tuple(s[2:-1] for s in step.stops if s != "</answer>")
        parser = Grammar(tags).parser(answering=str(step.rollout).endswith("<answer>"))
        started, done = time.perf_counter(), Done(StopReason.EOS)
        request = Request(step.rollout, step.max_tokens, parser.feed, step.stops)
        async for item in engine.stream(request):
            done = item if isinstance(item, Done) else done
        played.append(Played(parser.text, time.perf_counter() - started, done.cached, done.decoded))
    return played


async def take_turns(steps: Sequence[Step], engines: Sequence[Reasoner]) -> list[list[Played]]:
    """Each step by each engine, one after the other, as the graph would ask."""
    played: list[list[Played]] = [[] for _ in engines]
    for engine in engines:
        await play(steps[:1], engine)  # an engine's first request warms it up
    for step in steps:
        for engine, its in zip(engines, played, strict=True):
            await asyncio.sleep(SETTLED)
            its += await play([step], engine)
    return played


async def together(steps: Sequence[Step], engine: Reasoner) -> float:
    """Up to 64 questions at once: tokens written a second."""
    await asyncio.sleep(SETTLED)
    questions: dict[str, list[Step]] = {}
    for step in steps:
        questions.setdefault(step.rollout.session, []).append(step)
    started = time.perf_counter()
    done = await asyncio.gather(*(play(q, engine) for q in list(questions.values())[:64]))
    return sum(p.decoded for q in done for p in q) / (time.perf_counter() - started)


def report(steps: Sequence[Step], played: Sequence[Played], block: int) -> dict[str, Any]:
    """How many texts are equal, what share of the whole blocks that were known came from the cache, seconds a
    step."""
    later = [(s, p) for s, p in zip(steps, played, strict=True) if s.known]
    known = sum(s.known for s, _ in later)
    whole = sum(s.known // block * block for s, _ in later)
    # vLLM may have read the last token, too, before it saw that the text had ended: no more than the whole
    # blocks is counted.
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
    """`act2see serve vllm` on a free port; waits until it answers."""
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
    # A session of its own, so that the engine's processes end with it.
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
    raise SystemExit(
        f"the server did not come up; its last words:\n{(folder / 'server.log').read_text(errors='replace')[-3000:]}"
    )


def in_turns(saved: Path, url: str) -> tuple[list[list[Played]], list[float]]:
    """Run in vLLM's environment: the steps over HTTP and in process, and the rates of many at once."""
    from act2see.agent.reasoners.vllm.engine import VLLMReasoner
    from act2see.agent.reasoners.vllm.http import VLLMHTTPReasoner
    from act2see.tools.runtime.weights import resolve_weights

    steps, frames = pickle.loads(saved.read_bytes())
    there = VLLMHTTPReasoner(url, "micro:vlm", lambda f: frames[f.digest], needs=Needs(76, 192, 664))
    here = VLLMReasoner.from_pretrained(
        resolve_weights("micro:vlm"), lambda f: frames[f.digest], images=76, **ENGINE
    )

    async def run() -> tuple[list[list[Played]], list[float]]:
        await there.check()
        return await take_turns(steps, (there, here)), [
            await together(steps, there),
            await together(steps, here),
        ]

    try:
        return asyncio.run(run())
    finally:
        here.close()


def main() -> None:
    """Print the report as JSON."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.parity.vllm", description=(__doc__ or "").partition("\n\n")[0]
    )
    options.add_argument("--python", type=Path, help="the Python of vLLM's environment")
    options.add_argument("--questions", type=int, default=100)
    options.add_argument("--block", type=int, default=128, help="vLLM's block size (128 on CPUs, 16 on GPUs)")
    options.add_argument(
        "--folder", type=Path, help="keep steps, logs and reports here, and use the steps that are there"
    )
    options.add_argument("--url", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.url:
        saved = given.folder / "steps.pickle"
        saved.with_suffix(".played").write_bytes(pickle.dumps(in_turns(saved, given.url)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        saved = folder / "steps.pickle"
        if not saved.exists():
            saved.write_bytes(pickle.dumps(asyncio.run(record(given.questions, folder))))
        steps, _ = pickle.loads(saved.read_bytes())
        said: dict[str, Any] = {"questions": len({s.rollout.session for s in steps})}
        if given.python:
            source = Path(__file__).resolve().parents[2]
            environment = {
                **os.environ,
                **ENVIRONMENT,
                "PYTHONPATH": os.pathsep.join([str(source / "src"), str(source)]),
            }
            server, url = serve(given.python, folder)
            try:
                command = [
                    str(given.python),
                    "-m",
                    "benchmarks.parity.vllm",
                    "--url",
                    url,
                    "--folder",
                    str(folder),
                ]
                subprocess.run(command, check=True, env=environment, cwd=folder)
            finally:
                os.killpg(server.pid, 15)
                server.wait()
            (there, here), (there_rate, here_rate) = pickle.loads(saved.with_suffix(".played").read_bytes())
            said |= {
                "over HTTP": report(steps, there, given.block),
                "in process": report(steps, here, given.block),
            }
            said["HTTP over in-process, seconds a step"] = round(
                median(a.seconds / b.seconds for a, b in zip(there, here, strict=True)), 3
            )
            said["HTTP over in-process, tokens a second, questions at once"] = round(
                there_rate / here_rate, 3
            )
        print(json.dumps(said, indent=1))


if __name__ == "__main__":
    main()
