"""Which sampling a run uses: the run's, the configuration's, the checkpoint's, or greedy decoding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from act2see.agent.reasoners.base import Sampling
from act2see.graphs.config import load_config
from act2see.graphs.sampling import resolve_sampling
from act2see.graphs.sections import ReasonerConfig

PUBLISHED = {
    "do_sample": True,
    "temperature": 0.6,
    "top_p": 0.95,
    "top_k": 20,
    "repetition_penalty": 1.05,
    "eos_token_id": [1, 2],
}


def checkpoint(folder: Path, **keys: Any) -> str:
    (folder / "generation_config.json").write_text(json.dumps(keys), encoding="utf-8")
    return str(folder)


@pytest.mark.parametrize("use", ["transformers", "vllm", "vllm-http", "llama-cpp"])
def test_checkpoint_decides_what_the_configuration_leaves_open(use: Any, tmp_path: Path) -> None:
    weights = checkpoint(tmp_path, **PUBLISHED)
    assert resolve_sampling(ReasonerConfig(use=use, weights=weights), seed=7) == Sampling(
        0.6, 0.95, 7, top_k=20, repetition_penalty=1.05
    )


def test_configuration_and_run_come_first(tmp_path: Path) -> None:
    reasoner = ReasonerConfig(weights=checkpoint(tmp_path, **PUBLISHED), temperature=0, top_k=0)
    said = Sampling(0.0, 0.95, top_k=0, repetition_penalty=1.05)
    assert resolve_sampling(reasoner) == said
    assert resolve_sampling(reasoner, temperature=1.5).temperature == 1.5


@pytest.mark.parametrize(
    ("keys", "temperature"),
    [
        ({"do_sample": False, "temperature": 0.6}, 0.0),
        ({"temperature": 0.6}, 0.0),
        ({"do_sample": True}, 1.0),
        ({}, 0.0),
    ],
)
def test_checkpoint_samples_only_with_do_sample(
    keys: dict[str, Any], temperature: float, tmp_path: Path
) -> None:
    assert resolve_sampling(ReasonerConfig(weights=checkpoint(tmp_path, **keys))) == Sampling(temperature)


def test_unreadable_values_are_reported_and_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = checkpoint(tmp_path, do_sample=True, temperature=-1)
    assert resolve_sampling(ReasonerConfig(weights=weights)) == Sampling()
    assert "generation_config.json is not used" in caplog.text


@pytest.mark.parametrize("weights", ["owner/absent", "owner/absent-GGUF:Q8_0", "no/such/folder", "micro:vlm"])
def test_greedy_without_a_checkpoint_that_says_more(weights: str) -> None:
    assert resolve_sampling(ReasonerConfig(weights=weights)) == Sampling()


def test_hash_of_a_configuration_that_says_nothing_stays_the_same() -> None:
    micro = load_config("micro")
    assert micro.hash == load_config("micro", reasoner={"temperature": 0, "top_p": 1}).hash
    assert micro.hash != load_config("micro", reasoner={"temperature": 0.5}).hash
