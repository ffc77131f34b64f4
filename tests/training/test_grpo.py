"""GRPO: rewards, advantages, steps and rounds, on the real small model and tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.board_chains import build_chain, make_sample
from transformers import Qwen3VLForConditionalGeneration

from act2see.agent.packing import Packer
from act2see.agent.prompt import Prompt
from act2see.agent.rollout import Rollout, render
from act2see.errors import CorpusError, ReasonerError
from act2see.graphs.config import load_config
from act2see.micro.source import load_world
from act2see.tools.runtime.weights import resolve_weights
from act2see.tools.video.store import FrameStore
from act2see.trace.trace import Trace
from act2see.training.grpo import GrpoSettings, Reward, Round, advantages, grpo, policy_step
from act2see.training.sft.collate import IGNORED, collate


@pytest.fixture
def model() -> Any:
    return Qwen3VLForConditionalGeneration.from_pretrained(resolve_weights("micro:vlm"), dtype=torch.float32)


@pytest.fixture
def packer() -> Packer:
    return Packer.from_pretrained(resolve_weights("micro:vlm"))


def trace(*tags: str, **changes: Any) -> Trace:
    made = build_chain(make_sample(0, **changes), *tags).trace
    assert made
    return made


def test_reward_pays_for_the_answer_and_charges_for_calls() -> None:
    reward = Reward(answer=1, format=0.1, call=0.05)
    question = make_sample(0)
    assert reward.of(trace(), question) == pytest.approx(1.1)
    assert reward.of(trace("retrieve", "generate"), question) == pytest.approx(1.0)
    assert reward.of(trace(answer="red"), question) == pytest.approx(0.1)
    broken = trace().model_copy(update={"segments": trace().segments[-1:]})  # no thought
    assert reward.of(broken, question) == pytest.approx(1.0)


def test_advantages_are_rewards_minus_their_mean() -> None:
    assert advantages([1.0, 0.0]) == [0.5, -0.5]
    assert advantages([5.0, 5.0]) == [0.0, 0.0]


def likelihood(model: Any, packer: Packer, store: FrameStore, rollout: Rollout) -> float:
    tokenizer = packer.codec.tokenizer
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    batch = collate(packer, [rollout], store, tokenizer.pad_token_id, end)
    labels = batch.pop("labels")[0, 1:]
    model.model.rope_deltas = None
    with torch.no_grad():
        logits = model(**batch).logits[0, :-1]
    return -float(torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED))


def test_policy_step_lowers_the_weighted_loss(tmp_path: Path, model: Any, packer: Packer) -> None:
    store = FrameStore(tmp_path)
    usages = {"retrieve": "", "generate": ""}
    rollouts: list[Rollout] = []
    for tags in ((), ("retrieve",)):
        made = build_chain(make_sample(0), *tags, store=store).trace
        assert made
        rollouts.append(render(made, Prompt(usages, "short"), end_of_turn=True))
    before = [likelihood(model, packer, store, r) for r in rollouts]
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
    weighted = list(zip(rollouts, (0.5, -0.5), strict=True))
    loss = policy_step(model, packer, store, weighted, optimiser, batch=1, clip=1.0)
    after = [likelihood(model, packer, store, r) for r in rollouts]
    # All tokens have the same weight: the loss is the mean over the model's text of both rollouts.
    n = [sum(packer.pack(r).trainable) + 1 for r in rollouts]

    def expected(likelihoods: list[float]) -> float:
        return (-0.5 * likelihoods[0] * n[0] + 0.5 * likelihoods[1] * n[1]) / sum(n)

    assert loss == pytest.approx(expected(before), rel=0.05)
    assert expected(after) < expected(before)


def test_grpo_rounds_run_through_the_real_graph(tmp_path: Path, model: Any, packer: Packer) -> None:
    samples = list(load_world(3, tmp_path / "clips"))
    config = load_config("micro", cache=str(tmp_path / "cache"), view={"guard": None})
    seen: list[Round] = []
    settings = GrpoSettings(rounds=1, questions=2, group=2, learning_rate=1e-5, temperature=0.7)
    before = model.lm_head.weight.clone()
    rounds = grpo(model, packer, samples, config, settings, seen.append)
    assert rounds == seen
    assert 0 <= rounds[0].accuracy <= 1
    assert rounds[0].informative in (0.0, 0.5, 1.0)
    assert torch.equal(before, model.lm_head.weight) == (rounds[0].informative == 0)
    with pytest.raises(CorpusError, match="takes 8 questions, but there are 3 samples"):
        grpo(model, packer, samples, config, GrpoSettings())


def test_a_round_of_failed_rollouts_raises_one_error(tmp_path: Path, model: Any, packer: Packer) -> None:
    samples = [make_sample(n, video=str(tmp_path / "gone.mp4")) for n in range(2)]
    config = load_config("micro", cache=str(tmp_path / "cache"), view={"guard": None})
    before = model.lm_head.weight.clone()
    with pytest.raises(ReasonerError, match=r"every rollout of round 0 failed.*VideoError: there is no file"):
        grpo(model, packer, samples, config, GrpoSettings(rounds=1, questions=2, group=2))
    assert torch.equal(before, model.lm_head.weight)
