"""The ablations: each stage runs once, on the real models, and the report shows the results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from act2see.errors import CorpusError
from act2see.micro.study.ablate import Sizes, ablate
from act2see.micro.study.ablate_report import calls, markdown, plots, rate, read_results

pytest.importorskip("trl", reason="needs the train extra")
TINY = Sizes(corpus=4, hinted=4, steps=1, asked=4, rounds=1, seeds=1)
STAGES = ("corpus-reference", "insertion", "both", "budget-1")


def test_ablation_stages_run_once_and_build_on_each_other(tmp_path: Path) -> None:
    seen: list[str] = []
    ablate(tmp_path, TINY, lambda name, seconds: seen.append(name), STAGES)
    assert seen == [f"seed 0, {s}" for s in STAGES]
    results = read_results(tmp_path)
    assert results["corpus-reference"][0]["made"] == results["corpus-reference"][0]["right"] == 4
    assert results["insertion"][0]["calls"] >= 4  # the rule makes one for each of four questions
    assert results["both"][0]["steps"] == 1
    assert results["budget-1"][0]["calls"] <= 4
    (tmp_path / "seed-0" / "budget-1.json").unlink()
    ablate(tmp_path, TINY, lambda name, seconds: seen.append(name), STAGES)
    assert seen[len(STAGES) :] == ["seed 0, budget-1"]
    with pytest.raises(CorpusError, match="other sizes"):
        ablate(tmp_path, Sizes(corpus=9))


def arm(right: int, calls: int = 5, asked: int = 10) -> dict[str, Any]:
    families = {f: [right // 4, asked // 4] for f in ("observe", "blink", "imagine", "both")}
    return {
        "right": right,
        "asked": asked,
        "calls": calls,
        "tokens": 100 * asked,
        "families": families,
        "seconds": 60.0,
        "steps": 7,
    }


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for seed, shift in enumerate((0, 2)):
        made = {"made": 10, "called": 4 + shift, "right": 8, "kept": 6, "seconds": 60.0}
        stages = {"text": arm(4 + shift, 0), "both": arm(8 + shift), "budget-0": arm(5), "budget-2": arm(9)}
        stages |= {"corpus-noisy": made, "corpus-hinted": made | {"called": 1}}
        frames = {"vision": 10, "vision written": 5, "opened": 2, "opened itself": 1}
        stages["frame-tokens"] = {
            "both": frames | {"vision written": 0},
            "loss-on-frames": frames,
            "seconds": 1.0,
        }
        for name, data in stages.items():
            file = tmp_path / f"seed-{seed}" / f"{name}.json"
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(data))
    return tmp_path


def test_rates_are_means_with_their_spread(results: Path) -> None:
    found = read_results(results)
    assert str(rate(found["both"])) == "90.0% ± 10.0"
    assert str(calls(found["both"])) == "0.50 ± 0.00"
    alone = rate(found["both"][:1])
    assert alone.value == pytest.approx(0.8)
    assert alone.spread == pytest.approx(0.2265, abs=1e-3)  # half of Wilson's interval for 8 of 10


def test_the_page_shows_finished_arms_and_names_missing_ones(results: Path, tmp_path: Path) -> None:
    page = markdown(read_results(results), "act2see micro ablate")
    assert "| text only | 50.0% ± 10.0 | 0.00 ± 0.00 | 71.9 |" in page
    assert "| both | 90.0% ± 10.0 | 0.50 ± 0.00 | 73.7 |" in page
    assert "Not done yet: retrieval only, generation only." in page
    assert "| without | 50.0% ± 10.0 | 45.2 % |" in page
    assert "| with | 10.0% ± 0.0 | 5.3 % |" in page
    assert "| loss on frames | 50% | 50% |" in page
    assert [p.name for p in plots(read_results(results), tmp_path / "plots")] == ["tools.png", "budget.png"]
    with pytest.raises(CorpusError, match="no results"):
        read_results(tmp_path / "plots")
