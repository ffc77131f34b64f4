"""`langgraph dev` with the repository's `langgraph.json`, started as a process from the command line."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.load_langgraph import wait_until_up

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "langgraph.json"


@contextmanager
def langgraph_server(folder: Path, videos: str | os.PathLike[str], **environment: str) -> Iterator[str]:
    """Serve in a `with` block, offline, and yield the address. The server may open files in `videos` only.

    Args:
        folder: The working directory of the server, for its log and its cache.
        videos: The served folder.
        environment: More variables of the server's environment.
    """
    # Loading models counts towards the time of the first run, and is slow on a busy machine.
    (folder / "patient.yaml").write_text("preset: micro\nbudget: {seconds: 3600}\n")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    settings = {
        **os.environ,
        "ACT2SEE_CACHE": str(folder / "cache"),
        "ACT2SEE_CONFIG": str(folder / "patient.yaml"),
        "ACT2SEE_FOLDERS": os.fspath(videos),
        "ACT2SEE_HOSTS": "studio.example.org",
        "LANGGRAPH_CLI_NO_ANALYTICS": "1",
        "OMP_NUM_THREADS": "1",
        **environment,
    }
    command = [sys.executable, "-m", "langgraph_cli", "dev", "--config", str(CONFIG)]
    command += ["--port", str(port), "--no-browser", "--no-reload", "--n-jobs-per-worker", "8"]
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(command, cwd=folder, env=settings, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_until_up(f"http://127.0.0.1:{port}/ok", server, folder / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
