"""A run that is interrupted at any event and then resumed gives the same answer.

Run as a program, it interrupts a scripted run with two calls at its events and prints what failed: a process
of its own, since it forks for each interruption. `python -m benchmarks interruptions` does the same on the
micro models, and through the command line.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks.interruptions import try_all

from act2see.graphs.ask import create_act2see
from tests.graphs.doubles import Scripted, clip_in, parts_in
from tests.graphs.parents import LINES


def interrupt_everywhere(folder: Path) -> dict[str, object]:
    """Interrupt at every event of a run whose tools work, and at some events of one in which a tool fails.

    Each event meets one or two of the nine combinations of saver, durability and signal; the benchmark
    tries all of them.

    A checkpoint keeps the error of a tool as text, so that run is a case of its own.
    """
    result: dict[str, object] = {"tried": 0, "failed": []}
    for fails, every in (({}, 7), ({"generate": OSError(errno.ECONNRESET, "the server hung up")}, 25)):
        place = folder / str(every)
        place.mkdir()
        config, parts = parts_in(place, Scripted(*LINES), **fails)
        given = {"video": clip_in(place), "question": "Which colour?", "options": ["blue", "red"]}

        def build(saver: Any, config: Any = config, parts: Any = parts) -> Any:
            return create_act2see(config, parts=parts, checkpointer=saver)

        one = try_all(build, given, place, tokens=40, every=every)
        result = {"tried": result["tried"] + one["tried"], "failed": [*result["failed"], *one["failed"]]}  # type: ignore[operator,misc]
    return result


@pytest.mark.timeout(600)  # some 50 runs, each of them twice
@pytest.mark.skipif(not hasattr(os, "fork"), reason="each run is a forked process")
def test_an_interruption_at_any_event_changes_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.graphs.test_interruptions", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["tried"] >= 35
    assert result["failed"] == []


if __name__ == "__main__":
    print(json.dumps(interrupt_everywhere(Path(sys.argv[1]))))
