"""The micro checkpoint in llama.cpp, compared with `TransformersReasoner`: equal texts, caching, faults.

    python -m benchmarks.parity.llama_cpp --source llama.cpp --server llama.cpp/build/bin/llama-server

`--source` is llama.cpp's source, for its converter: the checkpoint becomes two GGUF files, the text model and
the vision tower. Questions are asked through the real graph with `TransformersReasoner`; each step (the
rollout that it read and the text that it wrote) is then replayed by `LlamaCppReasoner` on `llama-server`.
Decoding is greedy, so the texts must be equal, up to ties that other kernels round otherwise. Then the server
is killed, restarted, started without its vision tower and with too small a context. docs/parity.md has the
results.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from act2see.agent.reasoners.base import Needs
from act2see.agent.reasoners.connection import BACKOFF
from act2see.agent.reasoners.llama_cpp.reasoner import LlamaCppReasoner
from act2see.errors import Act2SeeError
from act2see.tools.runtime.weights import resolve_weights
from benchmarks.parity.vllm import Step, play, record, report

NEEDS = Needs(images=76, side=192, tokens=664)
QUICK = replace(BACKOFF, requests=2, first=0.1, longest=0.5)
# The converter knows tokenizers by a hash of what they make of a text. Micro's is unknown to it, and splits
# text as Qwen's does.
CONVERT = """
import runpy, sys
from pathlib import Path
source = Path(sys.argv[1])
sys.path[:0] = [str(source), str(source / "gguf-py")]
from conversion import base
base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen2"
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def convert(source: Path, folder: Path) -> tuple[Path, Path]:
    """Convert the micro checkpoint; return the GGUF files of the text model and of the vision tower."""
    weights = resolve_weights("micro:vlm")
    model, mmproj = folder / "micro.gguf", folder / "mmproj-micro.gguf"
    for out, flags in ((model, ()), (mmproj, ("--mmproj",))):
        script = str(source / "convert_hf_to_gguf.py")
        command = [script, weights, "--outtype", "f32", *flags, "--outfile", str(out)]
        subprocess.run(
            [sys.executable, "-c", CONVERT, str(source), *command], check=True, capture_output=True
        )
    return model, mmproj


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def serving(
    server: Path, model: Path, *flags: str, port: int = 0
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run `llama-server`; yield its process and address once it answers.

    Raises:
        SystemExit: It does not answer in a minute.
    """
    port = port or free_port()
    log = model.with_suffix(".log")
    command = [str(server), "-m", str(model), "--host", "127.0.0.1", "--port", str(port), *flags]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        for _ in range(120):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                    break
            except OSError:
                time.sleep(0.5)
        else:
            raise SystemExit(f"the server did not start; see {log}")
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


async def try_faults(server: Path, model: Path, mmproj: Path, step: Step, frames: Any) -> dict[str, str]:
    """Return what the reasoner says of each fault, or that it went on."""

    def reasoner(url: str) -> LlamaCppReasoner:
        return LlamaCppReasoner(url, "micro", lambda f: frames[f.digest], needs=NEEDS, backoff=QUICK)

    async def outcome(engine: LlamaCppReasoner) -> str:
        try:
            await engine.check()
            (played,) = await play([step], engine)
        except Act2SeeError as e:
            return f"{type(e).__name__}: {e}"
        return "the same text" if played.text == step.text else "another text"

    sees = ("--mmproj", str(mmproj), "--image-min-tokens", "1", "--image-max-tokens", "9")
    found: dict[str, str] = {}
    with serving(server, model) as (_, url):
        found["no vision"] = await outcome(reasoner(url))
    with serving(server, model, *sees, "-c", "256", "-np", "1") as (_, url):
        found["context too small"] = await outcome(reasoner(url))
        engine = LlamaCppReasoner(url, "micro", lambda f: frames[f.digest], backoff=QUICK)
        found["context exceeded"] = await outcome(engine)
    port = free_port()
    with serving(server, model, *sees, "-c", "4096", "-np", "1", port=port) as (process, url):
        engine = reasoner(url)
        await engine.check()
        process.send_signal(signal.SIGKILL)
        process.wait()
        found["killed"] = await outcome(engine)
    with serving(server, model, *sees, "-c", "4096", "-np", "1", port=port) as (_, url):
        found["restarted, with another marker"] = await outcome(engine)
    return found


async def replay(steps: Sequence[Step], frames: Any, url: str) -> dict[str, Any]:
    engine = LlamaCppReasoner(url, "micro", lambda f: frames[f.digest], needs=NEEDS)
    await engine.check()
    played = []
    for session in dict.fromkeys(step.rollout.session for step in steps):
        played += await play([step for step in steps if step.rollout.session == session], engine)
        engine.forget(session)
    return report(steps, played, 1)


def main() -> None:
    """Print the report as JSON."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.parity.llama_cpp", description=(__doc__ or "").partition("\n\n")[0]
    )
    options.add_argument("--source", type=Path, required=True, help="llama.cpp's source")
    options.add_argument("--server", type=Path, required=True, help="the program llama-server")
    options.add_argument("--questions", type=int, default=100)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model, mmproj = convert(given.source, folder)
        steps, frames = asyncio.run(record(given.questions, folder))
        sees = ("--mmproj", str(mmproj), "--image-min-tokens", "1", "--image-max-tokens", "9")
        threads = str(min(2, os.cpu_count() or 1))
        with serving(given.server, model, *sees, "-c", "16384", "-np", "4", "-t", threads) as (_, url):
            result: dict[str, Any] = {"questions": given.questions, **asyncio.run(replay(steps, frames, url))}
        long = max(steps, key=lambda step: len(step.rollout.frames))
        result["faults"] = asyncio.run(try_faults(given.server, model, mmproj, long, frames))
        print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
