"""The LangGraph server under load: 200 clients for ten minutes, many of whom hang up.

Each client opens a thread, streams the run of a question about one of twelve clips, and deletes the thread. A
fifth of the runs is left in the middle: the stream is closed, and the server cancels the run. The answers of
the others must be those that the server gave before the load, to one client at a time; anything else is an
error, as is a traceback through act2see in the server's log (those within the server itself, such as a cancel
that comes after the end, are counted). When the clients have left, no run may be pending or under way.
Memory is sampled each second; its slope is that of the second half.

`python -m benchmarks load_langgraph` measures ten minutes, with `--quick` half a minute. `python -m
benchmarks.load_langgraph --seconds 90 --clients 50` measures what you like and writes the result of a quick
run.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from benchmarks import Goal, at_most, reported, require_weights
from benchmarks.load import CLIENTS, QUICK, SECONDS, Counts, main, percentile, resident, slope

ROOT = Path(__file__).parents[1]
_CLIPS = 12
_HANG_UP = 0.2  # the share of runs that are left
_PATIENCE = 900.0  # seconds after which a run that does not end is an error: 200 wait for two cores
_FLAT = 5.0  # MB a minute
_START = 120.0
_OURS = re.compile(r'File ".*[/\\](src|site-packages)[/\\]act2see[/\\]')


@contextmanager
def run_server(folder: Path, log: Path) -> Iterator[tuple[str, int]]:
    """Run the server, which may open videos in `folder`; yield its address and its process id.

    Raises:
        RuntimeError: The server does not start.
    """
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    patient = log.parent / "patient.yaml"
    patient.write_text("preset: micro\nbudget: {seconds: 3600}\n")
    settings = {
        **os.environ,
        "ACT2SEE_CACHE": str(log.parent / "cache"),
        "ACT2SEE_CONFIG": str(patient),
        "ACT2SEE_FOLDERS": str(folder),
        "LANGGRAPH_CLI_NO_ANALYTICS": "1",
    }
    command = [sys.executable, "-m", "langgraph_cli", "dev", "--config", str(ROOT / "langgraph.json")]
    command += ["--port", str(port), "--no-browser", "--no-reload", "--n-jobs-per-worker", "8"]
    with log.open("wb") as out:
        server = subprocess.Popen(command, cwd=log.parent, env=settings, stdout=out, stderr=subprocess.STDOUT)
    with server:
        try:
            wait_until_up(f"http://127.0.0.1:{port}/ok", server, log)
            yield f"http://127.0.0.1:{port}", server.pid
        finally:
            server.terminate()


def wait_until_up(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a server answers. Raises RuntimeError, with the end of its log, if it does not."""
    end = time.monotonic() + _START
    while time.monotonic() < end and server.poll() is None:
        try:
            with urlopen(url, timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"the server did not start: {log.read_text(encoding='utf-8')[-3000:]}")


def write_questions(folder: Path) -> list[dict[str, Any]]:
    """Write the clips, and return the input of a run about each."""
    from act2see.micro.questions import make_item
    from act2see.micro.world import write_clip

    questions = []
    for n in range(_CLIPS):
        item = make_item(("observe", "blink", "imagine", "both")[n % 4], n, "test")
        clip = write_clip(item.clip, folder / f"{n}.mp4")
        questions.append({"video": str(clip), "question": item.text, "options": list(item.options)})
    return questions


async def ask(client: Any, question: dict[str, Any], leaves_after: float | None = None) -> str | None:
    """Ask in a thread of its own; return the answer, or None for a run that was left."""
    thread = (await client.threads.create())["thread_id"]
    answer = ""
    try:
        stream = client.runs.stream(
            thread, "act2see", input=question, stream_mode=["custom", "values"], on_disconnect="cancel"
        )
        async with asyncio.timeout(leaves_after or _PATIENCE):
            async for part in stream:
                if part.event == "error":
                    return f"error: {part.data}"
                if part.event == "values" and part.data.get("trace"):
                    answer = str(part.data["trace"].get("answer", ""))
    except TimeoutError:
        if leaves_after is None:
            raise
        return None
    finally:
        await _delete(client, thread)
    return answer


async def _delete(client: Any, thread: str) -> None:
    """Delete a thread when its run has ended: the stream ends before the server has kept the run's status."""
    for _ in range(int(2 * _PATIENCE)):
        if (await client.threads.get(thread))["status"] != "busy":
            break
        await asyncio.sleep(0.5)
    await client.threads.delete(thread)


async def be_client(
    url: str, number: int, until: float, questions: list[Any], expected: list[str], counts: Counts
) -> None:
    """Ask one question after another."""
    from langgraph_sdk import get_client

    rng = random.Random(number)
    await asyncio.sleep(rng.random() * min(5.0, until - time.monotonic()))
    async with get_client(url=url, timeout=_PATIENCE) as client:
        while time.monotonic() < until:
            n = rng.randrange(len(questions))
            leaves = rng.expovariate(0.1) if rng.random() < _HANG_UP else None
            began = time.monotonic()
            try:
                answer = await ask(client, questions[n], leaves)
            except Exception as e:  # whatever the SDK raises is a request that ended wrong
                counts.fail(f"{type(e).__name__}: {e}")
                await asyncio.sleep(1)
                continue
            if answer is None:
                counts.ends["hung up"] += 1
            elif answer != expected[n]:
                counts.fail(f"question {n}: {answer!r}, alone {expected[n]!r}")
            else:
                counts.ends["answered"] += 1
                counts.whole.append(time.monotonic() - began)


async def measure(
    url: str, pid: int, questions: list[Any], seconds: float, clients: int
) -> tuple[Counts, list[tuple[float, float]], int]:
    """Return the counts, the samples of memory, and the runs left when the clients have gone."""
    from langgraph_sdk import get_client

    counts, samples = Counts(), []
    async with get_client(url=url, timeout=_PATIENCE) as client:
        expected = [str(await ask(client, question)) for question in questions]
        begin = time.monotonic()
        until = begin + seconds
        tasks = [
            asyncio.ensure_future(be_client(url, n, until, questions, expected, counts))
            for n in range(clients)
        ]
        while time.monotonic() < until:
            samples.append((round(time.monotonic() - begin, 1), round(resident(pid), 1)))
            await asyncio.sleep(1)
        await asyncio.gather(*tasks)
        left = len(await client.threads.search(status="busy", limit=1000))
    return counts, samples, left


def find_tracebacks(log: str) -> list[str]:
    """Return the tracebacks in a log: the lines after each heading that are indented, and the error's."""
    return re.findall(r"^Traceback .*\n(?:[ ].*\n)*.*", log, re.M)


def run(quick: bool = False, seconds: float | None = None, clients: int = CLIENTS) -> dict[str, Any]:
    """Measure ten minutes with 200 clients (quick: half a minute)."""
    require_weights("vlm")
    seconds = seconds or (QUICK if quick else SECONDS)
    with TemporaryDirectory() as folder:
        log, videos = Path(folder) / "log", Path(folder) / "videos"
        videos.mkdir()
        questions = write_questions(videos)
        with run_server(videos, log) as (url, pid):
            counts, samples, left = asyncio.run(measure(url, pid, questions, seconds, clients))
        tracebacks = find_tracebacks(log.read_text(encoding="utf-8", errors="replace"))
    late = [sample for sample in samples if sample[0] >= seconds / 2]
    faults = [text for text in tracebacks if _OURS.search(text)]
    goals: dict[str, Goal] = {
        "runs that ended wrong": at_most(counts.ends["error"], 0),
        "tracebacks through act2see": at_most(len(faults), 0),
        "tracebacks within the server": reported(len(tracebacks) - len(faults)),
        "runs under way after the clients have left": at_most(left, 0),
        "MB a minute, second half": at_most(slope(late), _FLAT),
        "MB at the middle": reported(late[0][1] if late else 0),
        "MB at the end": reported(samples[-1][1]),
        "seconds to an answer, p50": reported(percentile(counts.whole, 0.5)),
        "seconds to an answer, p95": reported(percentile(counts.whole, 0.95)),
        "runs answered": reported(counts.ends["answered"]),
        "runs left": reported(counts.ends["hung up"]),
    }
    return {
        "clients": clients,
        "duration": seconds,
        "errors": counts.errors,
        "log": faults[:10],
        "memory": samples[:: max(1, len(samples) // 60)],
        "goals": goals,
    }


if __name__ == "__main__":
    sys.exit(main("load_langgraph", run))
