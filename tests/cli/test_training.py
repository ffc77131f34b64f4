"""The training commands, run in order on the board world as in docs/training.md, and their errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.helpers import assert_one_line_error
from typer.testing import CliRunner, Result

from act2see.cli.app import app
from act2see.cli.sft import read_settings
from act2see.errors import ConfigError

pytest.importorskip("trl", reason="needs the train extra")


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(w) for w in words])


@pytest.fixture(scope="module")
def chains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "chains"
    done = run("corpus", "build", "world", "--count", 8, "--out", folder)
    assert done.exit_code == 0, done.output
    assert "8 samples" in done.output
    return folder


@pytest.fixture(scope="module")
def corpus(chains: Path) -> Path:
    filtered = run("corpus", "filter", chains)
    assert filtered.exit_code == 0, filtered.output
    assert "format: 8 in, 0 dropped" in filtered.output
    packed = run("corpus", "pack", chains, "--out", chains.parent / "corpus")
    assert packed.exit_code == 0, packed.output
    return chains.parent / "corpus"


def test_finished_build_is_reused_and_another_plan_rejected(chains: Path) -> None:
    again = run("corpus", "build", "world", "--count", 8, "--out", chains)
    assert "8 chains kept, 0 dropped" in again.output
    other = run("corpus", "build", "world", "--count", 8, "--out", chains, "--retries", 1)
    assert (other.exit_code, "holds a run with a different plan" in other.output) == (2, True)


def test_filter_writes_a_report_and_review_a_page(chains: Path, corpus: Path) -> None:
    report = json.loads((chains / "report" / "report.json").read_text())
    assert report["kept"] == len(
        [1 for line in (chains / "filtered.jsonl").open() if json.loads(line)["dropped"] == ""]
    )
    page = run("corpus", "review", chains, "--count", 3)
    assert "3 chains in" in page.output
    assert "<script" in (chains / "review.html").read_text()
    card = (corpus / "README.md").read_text()
    assert "scripted" in card
    assert "0.9" in card


def test_export_is_imported_again(corpus: Path, tmp_path: Path) -> None:
    assert run("corpus", "export", corpus, "--for", "ms-swift", "--out", tmp_path / "swift").exit_code == 0
    back = run("corpus", "import", tmp_path / "swift", "--for", "ms-swift", "--out", tmp_path / "back")
    assert back.exit_code == 0, back.output
    assert (tmp_path / "back" / "chains.jsonl").read_text().count("\n") == json.loads(
        (corpus / "act2see.json").read_text()
    )["chains"]


def test_sft_dry_run_prints_the_command_and_a_run_writes_a_model(corpus: Path, tmp_path: Path) -> None:
    dry = run("sft", corpus, "--preset", "micro", "--dry-run", "--gpus", 1, "--out", tmp_path / "dry")
    assert dry.exit_code == 0, dry.output
    assert "accelerate launch" in dry.output
    assert not (tmp_path / "dry").exists()
    done = run(
        "sft", corpus, "--preset", "micro", "--max-steps", 2, "--batch", 2, "--out", tmp_path / "tuned"
    )
    assert done.exit_code == 0, done.output
    assert (tmp_path / "tuned" / "model.safetensors").exists()
    again = run(
        "sft", corpus, "--preset", "micro", "--max-steps", 2, "--batch", 2, "--out", tmp_path / "tuned"
    )
    assert (again.exit_code, "resume it" in again.output) == (2, True)


def test_grpo_writes_a_model(tmp_path: Path) -> None:
    done = run(
        *("grpo", "world", "--count", 3, "--rounds", 1, "--questions", 2, "--group", 2, "--temperature", 0.7),
        "--out",
        tmp_path / "grpo",
    )
    assert done.exit_code == 0, done.output
    assert "round 1 of 1: reward" in done.output
    assert (tmp_path / "grpo" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("corpus", "build", "minerva"), "minerva needs a file"),
        (("corpus", "build", "minerva", "none.json"), "cannot read none.json"),
        (("corpus", "build", "jsonl", "x.jsonl", "--teacher", "scripted"), "supports only the board world"),
        (("corpus", "build", "world", "--faults", 2, 0, 0, 0), "from 0 to 1"),
        (("corpus", "build", "world", "--max-dollars", 1, "--out", "{tmp}/r", "--count", 1), "needs prices"),
        (("corpus", "filter", "nothing"), "cannot read"),
        (("corpus", "pack", "nothing", "--out", "{tmp}/c"), "cannot read"),
        (("sft", "nothing"), "nothing"),
        (("sft",), "name a corpus"),
        (("grpo", "world", "--count", 2, "--out", "{tmp}/g"), "takes 8 questions, but there are 2 samples"),
        (("sft", "x", "--lerning-rate", "1"), "did you mean 'learning_rate'"),
        (("sft", "x", "--learning-rate", "-1"), "learning_rate"),
        (("sft", "x", "--mode", "loar"), "mode"),
    ],
)
def test_training_errors_are_one_line(words: tuple[object, ...], said: str, tmp_path: Path) -> None:
    result = run(*(str(w).replace("{tmp}", str(tmp_path)) for w in words))
    assert result.exit_code == 2
    assert said in result.output
    assert_one_line_error(result)


def test_read_settings_from_options() -> None:
    text = (
        "--learning-rate 1e-5 --no-freeze-vision --lora-targets q_proj --lora-targets=v_proj --loss-on-frames"
    )
    expected = {
        "learning_rate": "1e-5",
        "freeze_vision": False,
        "lora_targets": ("q_proj", "v_proj"),
        "loss_on_frames": True,
    }
    assert read_settings(text.split()) == expected
    with pytest.raises(ConfigError, match="unexpected argument 'learning'"):
        read_settings(["learning", "1e-5"])
