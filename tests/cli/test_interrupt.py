"""Ctrl-C at any moment: the process ends at once with one line and code 130.

The tests start real processes and send them signals as a terminal does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from tests.cli.helpers import environment
from tests.tools.hub_server import Hub, folder_files, hub_server

from act2see.micro.questions import make_item
from act2see.micro.world import write_clip
from act2see.tools.runtime.weights import resolve_weights

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
# A shell's background job ignores SIGINT, and so do the processes that it starts.
START = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from act2see.cli import main
main()
"""
QUESTION = ("Where is the triangle when the circle blinks?", "--option", "east", "--option", "west")


@contextmanager
def started(
    folder: Path, *arguments: str, imports: bool = False, **variables: str
) -> Iterator[subprocess.Popen[str]]:
    """Start a command in its own process group. With `imports`, its stderr lists the imported modules."""
    options = ["-X", "importtime"] if imports else []
    command = [sys.executable, *options, "-u", "-c", START, *arguments]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment(folder / "cache", **variables),
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def wait_for(stream: IO[str] | None, words: str) -> None:
    """Read until a line contains these words, or reports the import of this module."""
    assert stream is not None
    for line in stream:
        if line.startswith("import time:"):
            if line.rpartition("|")[2].strip() == words:
                return
        elif words in line:
            return
    raise AssertionError(f"the stream ended without {words!r}")


def interrupt(process: subprocess.Popen[str], times: int = 1) -> str:
    """Press Ctrl-C and return the one line that is printed. The exit code must be 130."""
    for _ in range(times):
        os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    lines = [line for line in said.strip().splitlines() if not line.startswith("import time:")]
    assert process.returncode == 130, said[-2000:]
    assert len(lines) == 1, "\n".join(lines)
    return lines[0]


@pytest.fixture
def clip(tmp_path: Path) -> str:
    return str(write_clip(make_item("blink", 3, "test").clip, tmp_path / "blink.mp4"))


@pytest.mark.parametrize(
    ("module", "times"), [("typer", 1), ("ssl", 1), ("pydantic", 2), ("langgraph.graph", 1), ("torch", 1)]
)
def test_interrupt_during_imports(tmp_path: Path, clip: str, module: str, times: int) -> None:
    with started(tmp_path, "ask", clip, *QUESTION, imports=True) as process:
        wait_for(process.stderr, module)
        assert interrupt(process, times).startswith("resume with" if module == "torch" else "interrupted")


@pytest.mark.parametrize("times", [1, 2])
def test_interrupt_during_loading_and_answering(tmp_path: Path, clip: str, times: int) -> None:
    with started(tmp_path, "ask", clip, *QUESTION) as process:
        wait_for(process.stdout, "in view, run")
        assert interrupt(process, times).startswith(("interrupted", "resume with"))
    with started(tmp_path, "ask", clip, *QUESTION) as process:
        wait_for(process.stdout, "retrieve>")  # the model has written a call, and the tool is running
        said = interrupt(process, times)
    assert said.startswith("resume with: act2see ask --resume ")


@pytest.mark.parametrize(
    "command", [("demo", "--out", "demo"), ("index", "CLIP"), ("find", "CLIP", "a shape")]
)
def test_interrupt_of_other_commands(
    tmp_path: Path, clip: str, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with started(tmp_path, *(clip if word == "CLIP" else word for word in command), imports=True) as process:
        wait_for(process.stderr, "torch")
        assert interrupt(process) == "interrupted"


def test_interrupted_training_ends_its_processes(tmp_path: Path) -> None:
    with started(tmp_path, "micro", "train", "--quick", "--out", str(tmp_path / "weights")) as process:
        wait_for(process.stderr, "step 1 of")
        os.killpg(process.pid, signal.SIGINT)
        # This returns when no process holds the streams, so the child processes have ended, too.
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    # Child processes may report steps before they end, but print no traceback.
    assert [line for line in said.splitlines() if " step " not in f" {line}"] == ["interrupted"]


@pytest.fixture
def hub() -> Iterator[tuple[Hub, threading.Event]]:
    """Return a hub that never sends the weights, and an event that is set when they are requested."""
    asked, over = threading.Event(), threading.Event()

    class Never(dict[str, int]):
        def get(self, file: str, default: int = 0) -> int:  # type: ignore[override]
            if file.endswith(".safetensors"):
                asked.set()
                over.wait()
            return default

    with hub_server() as made:
        made.repos, made.cut = {"micro/vlm": folder_files(resolve_weights("micro:vlm"))}, Never()
        yield made, asked
        over.set()


def test_interrupted_download_ends_at_once(tmp_path: Path, hub: tuple[Hub, threading.Event]) -> None:
    made, asked = hub
    variables = {"HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": made.url, "HF_HUB_OFFLINE": "0"}
    with started(tmp_path, "download", "micro/vlm", **variables) as process:
        assert asked.wait(60)
        assert interrupt(process) == "interrupted"
