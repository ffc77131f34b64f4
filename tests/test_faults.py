"""A draw of the faults of `python -m benchmarks faults`, always the same one.

It runs in a process of its own, since it forks for each fault.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(300)  # each fault is three runs: eight seconds on an idle core
@pytest.mark.skipif(sys.platform != "linux", reason="each run is a forked process, and /proc is read")
def test_a_draw_of_faults_loses_nothing(tmp_path: Path) -> None:
    result = tmp_path / "faults.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults", "--count", "24", "--seed", "135", "--json", str(result)],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    data = json.loads(result.read_text())
    assert data["problems"] == []
    assert data["goals"]["faults injected"]["lowest"] >= 20
