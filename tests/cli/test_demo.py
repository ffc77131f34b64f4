"""`act2see demo`: the pages, and the suggested commands, which run as they are printed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import act2see


@pytest.mark.timeout(300)  # six questions; slow on a busy machine
def test_demo_writes_pages_and_suggests_commands_that_run(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(act2see.__file__).parents[1]),
        "ACT2SEE_CACHE": str(tmp_path / "cache"),
    }
    environment |= {"HF_HOME": str(tmp_path / "hf"), "NO_COLOR": "1"}
    given: dict[str, Any] = {
        "cwd": tmp_path,
        "env": environment,
        "capture_output": True,
        "text": True,
        "encoding": "utf-8",
    }
    ran = subprocess.run([sys.executable, "-m", "act2see", "demo"], check=True, **given)
    closing = ran.stdout.partition("The pages are written")[2]
    assert Path(closing.splitlines()[0].rpartition(": ")[2]).is_file()
    commands = [line.strip() for line in closing.splitlines() if line.startswith("  ")]
    assert len(commands) >= 3
    for command in commands:
        if command.endswith(" ui"):
            continue  # it serves until Ctrl-C
        again = subprocess.run(["bash", "-c", command], check=False, **given)
        # The exit code of `doctor` is 1: the weights of the other preset are missing.
        assert again.returncode == (1 if " doctor " in command else 0), again.stderr
        assert "Answer: " in again.stdout if " ask " in command else again.stdout
        assert not again.stderr
