"""`act2see serve openai` under load: 200 clients for ten minutes, many of whom hang up.

Each client asks one question after another, of a few words, half of them with one to four pictures that the
server has never seen, streamed or whole. A fifth of the clients' requests is dropped: at once, after the
first bytes, or after a time. Clients are plain sockets in this process, which cost little beside the server.

A request must end in a whole answer, or in 429 with a time to wait; anything else is an error, as is a
traceback in the server's log. The server's memory is sampled each second. Its slope is that of the second
half, since the first fills the caches (patches, pieces, the rows of keys and values). When the clients have
left, no request may be under way, whoever hung up.

`python -m benchmarks load` measures ten minutes, with `--quick` half a minute. `python -m benchmarks.load
--seconds 90 --clients 50` measures what you like and writes the result of a quick run.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

from benchmarks import Goal, at_most, reported, require_weights

CLIENTS, SECONDS, QUICK = 200, 600.0, 30.0
_AT = re.compile(r"http://\S+/v1")
_WORDS = ("ring", "square", "red", "blinks", "left", "when", "what", "colour", "moves", "before", "after")
_HANG_UP = 0.2  # the share of requests that are dropped
_PATIENCE = 120.0  # seconds after which an answer that does not come is an error
_FLAT = 5.0  # MB a minute


@dataclass
class Counts:
    """What the clients have seen."""

    ends: Counter[str] = field(default_factory=Counter)
    """The number of requests by their end."""
    first: list[float] = field(default_factory=list)
    """Seconds until the head of an answer, of those that were streamed."""
    whole: list[float] = field(default_factory=list)
    """Seconds until the end of an answer."""
    errors: list[str] = field(default_factory=list)

    def fail(self, what: str) -> None:
        self.ends["error"] += 1
        if len(self.errors) < 10:
            self.errors.append(what[:300])


@contextmanager
def run_server(log: Path) -> Iterator[tuple[str, int]]:
    """Run the server in a process of its own; yield its base URL and its process id.

    Raises:
        RuntimeError: The server exits.
    """
    command = [sys.executable, "-m", "act2see", "serve", "openai", "--preset", "micro", "--port", "0"]
    plain = {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200", "NO_COLOR": "1"}
    with log.open("wb") as err:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, text=True, env=plain)
    with process:
        try:
            assert process.stdout is not None
            url = next(filter(None, map(_AT.search, process.stdout)), None)
            if url is None:
                raise RuntimeError(f"the server exited: {log.read_text(encoding='utf-8')[-500:]}")
            yield url.group(), process.pid
        finally:
            process.terminate()


def draw_body(rng: random.Random) -> bytes:
    """Return the body of a random request."""
    from PIL import Image

    parts: list[dict[str, Any]] = []
    if rng.random() < 0.5:
        for _ in range(rng.randint(1, 4)):
            size = rng.randint(16, 192), rng.randint(16, 192)
            picture = Image.effect_noise((8, 8), 90).resize(size).convert("RGB")
            picture.putpixel((0, 0), (rng.randrange(256), rng.randrange(256), rng.randrange(256)))
            out = io.BytesIO()
            picture.save(out, rng.choice(("PNG", "JPEG")))
            data = base64.b64encode(out.getvalue()).decode()
            parts.append({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}})
    words = " ".join(rng.choices(_WORDS, k=rng.randint(1, 12)))
    parts.append({"type": "text", "text": f"{words} {rng.randrange(10**6)}?"})
    asked = {
        "model": "micro",
        "messages": [{"role": "user", "content": parts}],
        "max_tokens": rng.randint(1, 24),
        "stream": rng.random() < 0.5,
    }
    return json.dumps(asked).encode()


async def ask(port: int, rng: random.Random, counts: Counts) -> None:
    """Send one request, and read its answer or hang up."""
    body = draw_body(rng)
    hangs_up = rng.random() < _HANG_UP
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost:{port}\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    started = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        if hangs_up and rng.random() < 0.2:  # in the middle of the body
            body = body[: rng.randrange(len(body))]
        writer.write(head.encode() + body)
        await writer.drain()
        if hangs_up:
            with suppress(TimeoutError):
                async with asyncio.timeout(rng.expovariate(1.0)):
                    await reader.read(1 if rng.random() < 0.5 else -1)
            counts.ends["hung up"] += 1
            writer.transport.abort()
            return
        async with asyncio.timeout(_PATIENCE):
            first = await reader.readuntil(b"\r\n\r\n")
            seconds = time.perf_counter() - started
            answer = await reader.read()
        judge(first, answer, counts, seconds, time.perf_counter() - started)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    if first.startswith(b"HTTP/1.1 429"):
        await asyncio.sleep(1)


def judge(head: bytes, answer: bytes, counts: Counts, first: float, whole: float) -> None:
    """Count an answer."""
    if head.startswith(b"HTTP/1.1 429") and b"retry-after" in head:
        counts.ends["refused"] += 1
        return
    streamed = b"text/event-stream" in head
    # The chunks of HTTP lie between the events; no token looks like the marks below.
    is_whole = b"data: [DONE]" in answer if streamed else b'"finish_reason"' in answer
    if not head.startswith(b"HTTP/1.1 200") or b'"error"' in answer or not is_whole:
        counts.fail(f"{head[:40]!r} {answer[-200:]!r}")
        return
    counts.ends["answered"] += 1
    counts.whole.append(whole)
    if streamed:
        counts.first.append(first)


async def be_client(port: int, number: int, until: float, counts: Counts) -> None:
    """Ask one question after another."""
    rng = random.Random(number)
    await asyncio.sleep(rng.random() * min(5.0, until - time.monotonic()))
    while time.monotonic() < until:
        try:
            await ask(port, rng, counts)
        except (OSError, EOFError, TimeoutError) as e:
            counts.fail(f"{type(e).__name__}: {e}")


def resident(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def count_threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def slope(samples: list[tuple[float, float]]) -> float:
    """Return the slope of samples (seconds, MB) in MB a minute."""
    if len(samples) < 2:
        return 0.0
    return statistics.linear_regression(*zip(*samples, strict=True)).slope * 60


async def measure(url: str, pid: int, seconds: float, clients: int) -> tuple[Counts, list[Any], int, int]:
    """Return the counts, the samples of memory, the requests left under way and the threads of the server."""
    port = int(urlsplit(url).port or 0)
    counts, samples = Counts(), []
    begin = time.monotonic()
    tasks = [asyncio.ensure_future(be_client(port, n, begin + seconds, counts)) for n in range(clients)]
    while time.monotonic() < begin + seconds:
        samples.append((round(time.monotonic() - begin, 1), round(resident(pid), 1)))
        await asyncio.sleep(1)
    await asyncio.gather(*tasks)

    def under_way() -> int:
        with urlopen(f"{url.removesuffix('/v1')}/health", timeout=30) as answer:
            return int(json.load(answer)["under_way"])

    left = await asyncio.to_thread(under_way)
    for _ in range(20):  # a row whose client left is free after the next token
        if left:
            await asyncio.sleep(0.25)
            left = await asyncio.to_thread(under_way)
    return counts, samples, left, count_threads(pid)


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def run(quick: bool = False, seconds: float | None = None, clients: int = CLIENTS) -> dict[str, Any]:
    """Measure ten minutes with 200 clients (quick: half a minute)."""
    require_weights("vlm")
    seconds = seconds or (QUICK if quick else SECONDS)
    with TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with run_server(log) as (url, pid):
            counts, samples, left, threads = asyncio.run(measure(url, pid, seconds, clients))
        said = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line]
    late = [sample for sample in samples if sample[0] >= seconds / 2]
    faults = [line for line in said if re.search(r"Traceback|\berror\b|Exception", line)]
    goals: dict[str, Goal] = {
        "requests that ended wrong": at_most(counts.ends["error"], 0),
        "lines of errors in the server's log": at_most(len(faults), 0),
        "requests under way after the clients have left": at_most(left, 0),
        "MB a minute, second half": at_most(slope(late), _FLAT),
        "MB at the middle": reported(late[0][1] if late else 0),
        "MB at the end": reported(samples[-1][1]),
        "seconds to an answer, p50": reported(percentile(counts.whole, 0.5)),
        "seconds to an answer, p95": reported(percentile(counts.whole, 0.95)),
        "seconds to the head of a stream, p50": reported(percentile(counts.first, 0.5)),
        "seconds to the head of a stream, p95": reported(percentile(counts.first, 0.95)),
        "requests answered": reported(counts.ends["answered"]),
        "requests hung up": reported(counts.ends["hung up"]),
        "requests refused with 429": reported(counts.ends["refused"]),
    }
    return {
        "clients": clients,
        "duration": seconds,
        "threads": threads,
        "errors": counts.errors,
        "log": faults[:10],
        "memory": samples[:: max(1, len(samples) // 60)],
        "goals": goals,
    }


def main(name: str = "load", measured: Callable[..., dict[str, Any]] = run) -> int:
    """Measure for as long as the command line says, and write the result of a quick run.

    Args:
        name: The benchmark.
        measured: Its function, which takes `seconds` and `clients`.
    """
    from benchmarks import machine
    from benchmarks.__main__ import save

    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    parser.add_argument("--seconds", type=float, default=QUICK)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    arguments = parser.parse_args()
    host = machine()
    result = measured(seconds=arguments.seconds, clients=arguments.clients)
    result |= {"benchmark": name, "quick": True, "seconds": arguments.seconds, "machine": host}
    save(name, result, quick=True)
    for what, goal in result["goals"].items():
        print(f"{what}: {goal.get('highest')}{'' if goal['met'] in (None, True) else '  (missed)'}")
    print("\n".join((*result["errors"], *result["log"])))
    return int(any(goal["met"] is False for goal in result["goals"].values()))


if __name__ == "__main__":
    sys.exit(main())
