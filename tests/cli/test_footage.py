"""Footage that micro does not understand: it is refused, a preset for this machine is recommended, and `find`
warns that its scores are not meaningful."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.helpers import write_footage
from typer.testing import CliRunner

from act2see.cli.app import app
from act2see.graphs.machine import recommend_preset

GPU, NO_GPU = ("a GPU", 85e9), ("no CUDA device", None)


@pytest.fixture
def footage(tmp_path: Path) -> str:
    """A clip that shows no board."""
    return str(write_footage(tmp_path / "street [1].mp4"))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Simulate a machine with an empty hub cache, no GPU, 32 GB of memory and 100 GB of disk."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(
        "act2see.graphs.machine.device_memory", lambda d: NO_GPU if d == "cuda" else ("CPU", 32e9)
    )
    monkeypatch.setattr("act2see.tools.runtime.hub.free_space", lambda _: 100_000_000_000)
    return monkeypatch


@pytest.fixture
def config(tmp_path: Path) -> list[str]:
    """Micro with a cache of its own."""
    file = tmp_path / "mine.yaml"
    file.write_text(f"preset: micro\ncache: {tmp_path / 'cache'}\n", encoding="utf-8")
    return ["--config", str(file)]


def test_refusal_recommends_a_preset_for_this_machine(
    machine: pytest.MonkeyPatch, footage: str, config: list[str]
) -> None:
    result = CliRunner().invoke(
        app, ["ask", footage, "What is this?", "-o", "a street", "-o", "a board", *config]
    )
    assert result.exit_code == 0, result.output
    said = " ".join(result.stdout.split())
    assert "can run the preset laptop: `act2see doctor --preset laptop` lists the steps, then ask" in said
    for wrong in ("budget", "made to answer", "none of the options", "paper"):
        assert wrong not in said
    result = CliRunner().invoke(app, ["ask", footage, "What is this?", "--json", *config])
    assert (result.exit_code, json.loads(result.stdout)["refused"]) == (0, True)


@pytest.mark.parametrize(
    ("gpu", "ram", "disk", "said"),
    [
        (
            GPU,
            64e9,
            500e9,
            "can run the preset paper (paper-24gb and laptop would run too): "
            "`act2see download --preset paper`",
        ),
        (
            ("a GPU", 25.3e9),
            64e9,
            500e9,
            "can run the preset paper-24gb (laptop would run too): `act2see download --preset paper-24gb`",
        ),
        (NO_GPU, 17e9, 12e9, "this machine can run the preset laptop: `act2see doctor --preset laptop`"),
        (NO_GPU, 17e9, 8e9, "only the preset api runs on this machine: a chat model answers"),
        (NO_GPU, 9e9, 500e9, "only the preset api runs on this machine"),
        (NO_GPU, 4e9, 500e9, "the preset laptop needs 16 GB of memory and 10 GB of disk"),
    ],
)
def test_recommended_preset_fits_the_machine(
    machine: pytest.MonkeyPatch, gpu: tuple[str, float | None], ram: float, disk: float, said: str
) -> None:
    machine.setattr("act2see.graphs.machine.device_memory", lambda d: gpu if d == "cuda" else ("CPU", ram))
    machine.setattr("act2see.tools.runtime.hub.free_space", lambda _: int(disk))
    assert said in recommend_preset()


def test_recommendation_without_download_if_the_weights_are_here(machine: pytest.MonkeyPatch) -> None:
    machine.setattr("act2see.graphs.machine.what_is_missing", lambda _: "")
    machine.setattr("act2see.tools.runtime.hub.free_space", lambda _: 0)
    machine.setattr("act2see.graphs.machine.device_memory", lambda _: ("a GPU", 25.3e9))
    assert recommend_preset() == (
        "For other footage, this machine can run the preset paper-24gb (laptop would run too): ask again "
        "with the preset paper-24gb."
    )


def test_find_warns_that_scores_are_not_meaningful(
    machine: pytest.MonkeyPatch, footage: str, config: list[str], tmp_path: Path
) -> None:
    found = CliRunner().invoke(app, ["find", footage, "a street", *config])
    assert found.exit_code == 0, found.output
    assert "These scores are not meaningful: this clip does not show a 3 x 3 board" in found.stdout
    assert "--preset laptop" in found.stdout
    board = tmp_path / "blink.mp4"
    CliRunner().invoke(app, ["micro", "clip", "--out", str(board)])
    found = CliRunner().invoke(app, ["find", str(board), "a shape blinks", *config])
    assert found.exit_code == 0, found.output
    assert "not meaningful" not in found.output
