"""A draw of the mutated containers of `python -m benchmarks containers`, always the same one."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
from benchmarks.fuzz import containers
from benchmarks.fuzz.container_files import FORMATS, make_containers, mutate_container
from benchmarks.fuzz.containers import Child, fuzz_containers


def test_mutated_containers_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    tally = fuzz_containers(tmp_path, 60, seed=0)
    assert tally.failures == []
    assert (tally.files, tally.read.total() + tally.refused.total()) == (60, 60)
    assert tally.read.total() > 10
    assert tally.refused.total() > 10


def test_mutations_are_repeated_by_their_seed() -> None:
    valid = make_containers(("gif",))["gif"]
    assert valid.startswith(b"GIF89a")
    made = [mutate_container(valid, random.Random(f"0 {i}")) for i in (1, 1, 2)]
    assert made[0] == made[1] != made[2]
    assert len(FORMATS) == 12


def test_a_crash_a_hang_and_an_error_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    program = """
import os, sys, time
print("{}", flush=True)
for line in sys.stdin:
    if "crash" in line:
        os.abort()
    if "hang" in line:
        time.sleep(60)
    print('{"error": "KeyError: 1"}', flush=True)
"""
    monkeypatch.setattr(containers, "SECONDS", 1.0)
    with Child([sys.executable, "-c", program]) as child:
        assert child.read(Path("crash")) == {"crash": "signal SIGABRT"}
        assert "hang" in child.read(Path("hang"))
        assert child.read(Path("other")) == {"error": "KeyError: 1"}
