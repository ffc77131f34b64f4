"""GRPO: learn when to call, from the model's own rollouts through the real graph.

Each round draws some questions and lets the model answer each of them several times. A rollout's advantage is
its reward minus the mean of its group, so what is learnt is what tells one rollout of a question from another
of the same question. The gradient goes through the text that the model wrote, the same labels as in SFT.
There is one step a round: the policy that is updated is the one that wrote, so there is no ratio to clip, and
a few small steps need no reference model. Advantages are not divided by a group's deviation, nor losses by a
rollout's length: both would favour some questions and rollouts for no merit (Dr. GRPO, arXiv 2503.20783).

TRL's GRPOTrainer (1.16) takes images that a tool returns, but as turns of a chat template and by its own
syntax of calls. Here the frame is inside the thought, so the loop is ours.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

from pydantic import Field

from act2see.agent.packing import Packer
from act2see.agent.prompt import Prompt
from act2see.agent.reasoners.transformers import TransformersReasoner
from act2see.agent.rollout import Rollout, render
from act2see.errors import Act2SeeError, CorpusError
from act2see.graphs.ask import Graph, create_act2see
from act2see.graphs.config import Config
from act2see.graphs.parts import Parts, build_parts
from act2see.graphs.run import aask
from act2see.graphs.state import AskContext
from act2see.tools.base import call_seed
from act2see.tools.frames import Record
from act2see.tools.runtime.background import run_sync
from act2see.tools.runtime.quiet import quiet
from act2see.tools.runtime.weights import local_weights, pick_device
from act2see.tools.video.store import FrameSource
from act2see.trace.trace import Trace
from act2see.training.concurrency import map_concurrently
from act2see.training.corpus.filtering import format_fault
from act2see.training.corpus.sources import Sample
from act2see.training.sft.collate import IGNORED, collate, equal_frames
from act2see.training.sft.loop import fast_bf16

log = logging.getLogger(__name__)
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Reward(Record):
    """The reward of a rollout."""

    answer: float = 1.0
    """For a right answer."""
    format: float = 0.1
    """For a form that SFT could learn from."""
    call: float = 0.05
    """The price of each call."""

    def of(self, trace: Trace, sample: Sample) -> float:
        earned = self.answer * sample.is_right(trace.answer) + self.format * (format_fault(trace) == "")
        return earned - self.call * len(trace.calls)


class GrpoSettings(Record):
    """How to train."""

    rounds: Count = 100
    questions: Count = 8
    """Of a round."""
    group: Annotated[int, Field(ge=2)] = 4
    """Rollouts of a question."""
    temperature: Positive = 1.0
    learning_rate: Positive = 1e-6
    batch: Count = 8
    """Rollouts of one forward pass."""
    clip: Positive = 1.0
    """The largest norm of the gradient."""
    reward: Reward = Reward()
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Round:
    """The means over the rollouts of a round."""

    number: int
    reward: float
    accuracy: float
    calls: float
    taught: float
    """The share of groups whose rewards differed: the others teach nothing."""
    loss: float


@dataclass(frozen=True, slots=True)
class Group:
    """A question, the model's rollouts of it, and their rewards. A rollout that failed is not among them."""

    sample: Sample
    traces: list[Trace]
    rewards: list[float]


def advantages(rewards: Sequence[float]) -> list[float]:
    """Each reward of a group minus the group's mean."""
    return [reward - fmean(rewards) for reward in rewards]


def grpo(
    model: Any,
    packer: Packer,
    samples: Sequence[Sample],
    config: Config,
    settings: GrpoSettings,
    on_round: Callable[[Round], None] | None = None,
) -> list[Round]:
    """Train a model on questions, answered through a graph.

    Args:
        model: A Qwen3-VL; trained in place.
        packer: Its packer.
        samples: The questions.
        config: The graph; its reasoner is replaced by the model.
        settings: How to train.
        on_round: Called after each round.

    Raises:
        CorpusError: There are fewer samples than questions in a round.
    """
    if len(samples) < settings.questions:
        raise CorpusError(
            f"a round takes {settings.questions} questions and there are {len(samples)}: "
            "give more, or make rounds smaller"
        )
    import torch

    parts = build_parts(config)
    store = parts.resources.store

    trainable = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trainable, lr=settings.learning_rate, weight_decay=0.0)
    rng = random.Random(settings.seed)
    rounds = []
    for number in range(settings.rounds):
        drawn = rng.sample(list(samples), settings.questions)
        groups = run_sync(_make_groups(model, packer, parts, config, drawn, settings, number))
        weighted = _weighted_rollouts(groups, parts, config)
        loss = 0.0
        if weighted:
            loss = policy_step(model, packer, store, weighted, optimiser, settings.batch, settings.clip)
        rounds.append(_summarise(number, groups, loss))
        log.info("round %d: %s", number, rounds[-1])
        if on_round:
            on_round(rounds[-1])
    return rounds


def train_folder(
    out: Path,
    samples: Sequence[Sample],
    config: Config,
    settings: GrpoSettings,
    on_round: Callable[[Round], None] | None = None,
) -> list[Round]:
    """Run `grpo` on the weights of the config's reasoner, with its vision tower frozen, and save the model to
    `out`, an ordinary folder.

    Raises:
        CorpusError: There are fewer samples than questions in a round.
        WeightsError: The weights cannot be found.
    """
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    weights = local_weights("the reasoner's weights", config.reasoner.weights)
    packer = Packer.from_pretrained(weights)
    with quiet():
        model: Any = Qwen3VLForConditionalGeneration.from_pretrained(weights, dtype=torch.float32)
    model = model.to(pick_device(config.reasoner.device))
    model.model.visual.requires_grad_(False)
    torch.manual_seed(settings.seed)
    rounds = grpo(model, packer, samples, config, settings, on_round)
    model.save_pretrained(out)
    packer.codec.tokenizer.save_pretrained(out)
    packer.image_processor.save_pretrained(out)
    return rounds


async def _make_groups(
    model: Any,
    packer: Packer,
    parts: Parts,
    config: Config,
    drawn: Sequence[Sample],
    settings: GrpoSettings,
    number: int,
) -> list[Group]:
    """Let the model answer each drawn question `settings.group` times, and reward its rollouts."""
    store, rows = parts.resources.store, config.reasoner.rows
    engine = TransformersReasoner(model, packer, store, name=f"round-{number}", rows=rows)
    graph: Graph = create_act2see(config, parts=replace(parts, reasoner=engine))

    async def roll_out(attempt: tuple[Sample, int]) -> Trace | None:
        sample, nth = attempt
        seed = call_seed(settings.seed, sample.id, str(number), nth)
        try:
            return await aask(
                graph,
                sample.clip,
                sample.question,
                sample.options,
                context=AskContext(seed=seed, temperature=settings.temperature),
                thread_id=f"{number}-{sample.id}-{nth}",
            )
        except Act2SeeError as e:
            log.warning("a rollout of %s failed: %s", sample.id, e)
            return None

    attempts = [(sample, nth) for sample in drawn for nth in range(settings.group)]
    try:
        made = await map_concurrently(roll_out, attempts, 2 * rows)
    finally:
        engine.close()
    groups = []
    for i, sample in enumerate(drawn):
        rollouts = made[i * settings.group : (i + 1) * settings.group]
        traces = [trace for trace in rollouts if trace]
        groups.append(Group(sample, traces, [settings.reward.of(trace, sample) for trace in traces]))
    return groups


def _weighted_rollouts(groups: Sequence[Group], parts: Parts, config: Config) -> list[tuple[Rollout, float]]:
    """The rollouts with their advantages; those without an advantage teach nothing and are left out."""
    weighted = []
    for group in groups:
        for trace, advantage in zip(group.traces, advantages(group.rewards), strict=True):
            if abs(advantage) > 1e-9:
                usages = {tag: parts.tools[tag].usage for tag in trace.versions.tools}
                rollout = render(trace, Prompt(usages, config.reasoner.prompt), end_of_turn=True)
                weighted.append((rollout, advantage))
    return weighted


def _summarise(number: int, groups: Sequence[Group], loss: float) -> Round:
    answered = [(group.sample, trace) for group in groups for trace in group.traces]
    return Round(
        number,
        reward=fmean(reward for group in groups for reward in group.rewards),
        accuracy=fmean(sample.is_right(trace.answer) for sample, trace in answered),
        calls=fmean(len(trace.calls) for _, trace in answered),
        taught=fmean(len({round(reward, 6) for reward in group.rewards}) > 1 for group in groups),
        loss=loss,
    )


def policy_step(
    model: Any,
    packer: Packer,
    source: FrameSource,
    weighted: Sequence[tuple[Rollout, float]],
    optimiser: Any,
    batch: int,
    clip: float,
) -> float:
    """Make one gradient step on rollouts with their advantages.

    Args:
        model: A Qwen3-VL; updated in place.
        packer: Its packer.
        source: From a frame to its pixels.
        weighted: The rollouts, each with its advantage.
        optimiser: Of the model's trainable parameters.
        batch: Rollouts of one forward pass.
        clip: The largest norm of the gradient.

    Returns:
        The loss: the mean of -advantage x log-likelihood over all tokens that the model wrote.
    """
    import torch

    tokenizer = packer.codec.tokenizer
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    by_length = sorted(weighted, key=lambda pair: len(packer.pack(pair[0]).ids))
    written = sum(sum(packer.pack(rollout).trainable) + 1 for rollout, _ in by_length)
    device = model.device
    loss = 0.0
    model.train()
    with equal_frames(model):
        for i in range(0, len(by_length), batch):
            part = by_length[i : i + batch]
            inputs = collate(packer, [rollout for rollout, _ in part], source, tokenizer.pad_token_id, end)
            inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
            labels = inputs.pop("labels")[:, 1:]  # (B, T - 1)
            del inputs["attention_mask"]  # as in `fit`
            model.model.rope_deltas = None
            trainable = labels != IGNORED
            with torch.autocast(device.type, torch.bfloat16, enabled=fast_bf16(device.type)):
                hidden = model.model(**inputs, use_cache=False).last_hidden_state[:, :-1]  # (B, T - 1, D)
                logits = model.lm_head(hidden[trainable]).float()  # (N, V)
                losses = torch.nn.functional.cross_entropy(logits, labels[trainable], reduction="none")
            gains = torch.tensor([advantage for _, advantage in part], device=device)  # (B,)
            per_token = gains[:, None].expand_as(labels)[trainable]  # (N,)
            summed: Any = (losses * per_token).sum() / written
            summed.backward()
            loss += summed.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    model.eval()
    return loss
