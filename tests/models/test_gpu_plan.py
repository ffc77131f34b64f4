"""`python -m benchmarks.gpu`: benchmarks in their order, within a time limit, each result written at once."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.gpu import __main__ as plan
from benchmarks.gpu.__main__ import PLAN, Plan, find_obstacle, run_all, run_benchmark
from rich.console import Console


def run(plans: list[Plan], folder: Path, seconds: float = 300) -> list[Any]:
    return run_all(plans, True, seconds, folder, Console(file=io.StringIO()))


@pytest.mark.parametrize("limit", ["nan", "inf", "0", "-5", "soon"])
def test_a_limit_that_is_no_time_is_refused(
    limit: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks.gpu", "--tiny", f"--seconds={limit}"])
    with pytest.raises(SystemExit) as ended:
        plan.main()
    assert ended.value.code == 2
    assert f"{limit!r} is not a number of seconds above 0" in capsys.readouterr().err


def test_every_gpu_benchmark_is_planned() -> None:
    folder = Path(plan.__file__).parent
    scripts = {path.stem for path in folder.glob("*.py") if "def main()" in path.read_text(encoding="utf-8")}
    assert {p.name for p in PLAN} == scripts - {"__main__"}


def test_a_result_is_written_before_the_next_benchmark_starts(tmp_path: Path) -> None:
    [done, skipped] = run([Plan("encoder_g", 24), Plan("generator_35", 48, ("no_such_package",))], tmp_path)
    assert (done["state"], skipped["reason"]) == ("done", "needs no_such_package")
    report = json.loads((tmp_path / "encoder_g.json").read_text())
    assert report["tiny"] is True
    assert done["goals"] == report["goals"]
    assert not (tmp_path / "generator_35.json").exists()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [b["state"] for b in summary["benchmarks"]] == ["done", "skipped"]


def test_a_failed_benchmark_does_not_stop_the_others(tmp_path: Path) -> None:
    [failed, skipped] = run(
        [Plan("no_such_benchmark", 1), Plan("encoder_g", 1, ("no_such_package",))], tmp_path
    )
    assert failed["state"] == "failed"
    assert "No module named benchmarks.gpu.no_such_benchmark" in failed["reason"]
    assert "no_such_benchmark" in (tmp_path / "no_such_benchmark.log").read_text()
    assert skipped["state"] == "skipped"


def test_benchmarks_without_time_are_skipped(tmp_path: Path) -> None:
    summary = run([Plan("encoder_g", 24), Plan("generator_35", 48)], tmp_path, seconds=1)
    assert [b["reason"] for b in summary] == ["1 s are left, too few to start"] * 2


def test_a_benchmark_is_stopped_when_the_time_is_up(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match="when the time was up"):
        run_benchmark("encoder_g", tiny=True, seconds=0.2, log=tmp_path / "encoder_g.log")


def test_a_real_run_needs_a_gpu_that_is_large_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_obstacle(Plan("encoder_g", 24), False, 480) == (
        "no CUDA GPU is available; --tiny runs a small version on a CPU"
    )

    class Small:
        total_memory = 16e9

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Small())
    assert find_obstacle(Plan("encoder_g", 24), False, 480) == "needs a GPU with 24 GB; this one has 16 GB"
    assert find_obstacle(Plan("encoder_g", 12), False, 480) is None
