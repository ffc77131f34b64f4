"""`act2see demo`: the pages, and the suggested commands, which run as they are printed.

Each command is a fork of a process that has imported the model libraries (`preloaded`).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from tests.preloaded import preloaded


@pytest.mark.timeout(300)  # six questions; slow on a busy machine
@pytest.mark.skipif(os.name == "nt", reason="the printed commands are for a POSIX shell")
def test_demo_writes_pages_and_suggests_commands_that_run(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "ACT2SEE_CACHE": str(tmp_path / "cache"),
        "HF_HOME": str(tmp_path / "hf"),
        "NO_COLOR": "1",
    }
    with preloaded(tmp_path / "bin", environment) as installed:
        environment["PATH"] = f"{installed.parent}{os.pathsep}{environment['PATH']}"

        def run(command: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                ["bash", "-c", command],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                encoding="utf-8",
                check=False,
            )

        ran = run("act2see demo")
        assert ran.returncode == 0, ran.stderr
        closing = ran.stdout.partition("The pages are written")[2]
        assert Path(closing.splitlines()[0].rpartition(": ")[2]).is_file()
        commands = [line.strip() for line in closing.splitlines() if line.startswith("  ")]
        assert len(commands) >= 3
        for command in commands:
            if command.endswith(" ui"):
                continue  # it serves until Ctrl-C
            again = run(command)
            # The exit code of `doctor` is 1: the weights of the other preset are missing.
            assert again.returncode == (1 if " doctor " in command else 0), again.stderr
            assert "Answer: " in again.stdout if " ask " in command else again.stdout
            assert not again.stderr
