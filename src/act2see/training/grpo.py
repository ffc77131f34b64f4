"""GRPO: train the model on its own rollouts through the real graph, to learn when to call a tool.

Each round draws questions and lets the model answer each of them several times. The advantage of a rollout is
its reward minus the mean of its group, so the model learns the difference between good and bad rollouts of
the same question. The gradient covers the text that the model wrote, with the same labels as in SFT.

Each round makes one gradient step. The updated policy is therefore the one that wrote the rollouts, which
needs no clipped ratio, and a few small steps need no reference model. Advantages are not divided by the
group's standard deviation, nor losses by the rollout's length: both would bias the gradient towards some
questions and rollouts (Dr. GRPO, arXiv 2503.20783).

TRL's GRPOTrainer (1.16) accepts images that a tool returns, but only as turns of a chat template and with its
own call syntax. Here a frame is inside the thought, so this module has its own loop.
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
from act2see.errors import Act2SeeError, CorpusError, ReasonerError
from act2see.graphs.ask import Graph, create_act2see
from act2see.graphs.config import Config
from act2see.graphs.parts import Parts, build_parts
from act2see.graphs.run import aask
from act2see.graphs.state import AskContext
from act2see.tools.base import call_seed
from act2see.tools.frames import Record
from act2see.tools.runtime.background import run_sync
from act2see.tools.runtime.quiet import quiet
from act2see.tools.runtime.text import first_line
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
    """Reward for a right answer."""
    format: float = 0.1
    """Reward for a chain that passes the format check of the filter."""
    call: float = 0.05
    """Cost of each call."""

    def of(self, trace: Trace, sample: Sample) -> float:
        """Return the reward of a rollout of `sample`."""
        earned = self.answer * sample.is_right(trace.answer) + self.format * (format_fault(trace) == "")
        return earned - self.call * len(trace.calls)


class GrpoSettings(Record):
    """The settings of a GRPO run."""

    rounds: Count = 100
    questions: Count = 8
    """Questions per round."""
    group: Annotated[int, Field(ge=2)] = 4
    """Rollouts per question."""
    temperature: Positive = 1.0
    learning_rate: Positive = 1e-6
    batch: Count = 8
    """Rollouts per forward pass."""
    clip: Positive = 1.0
    """Maximum norm of the gradient."""
    reward: Reward = Reward()
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Round:
    """The figures of a round, averaged over its rollouts."""

    number: int
    reward: float
    accuracy: float
    calls: float
    """Mean number of calls of a rollout."""
    informative: float
    """The share of groups with different rewards; the other groups have no gradient."""
    loss: float
    """The loss of the gradient step; 0 if no group was informative."""


@dataclass(frozen=True, slots=True)
class Group:
    """A question with the model's rollouts and their rewards, without the rollouts that failed."""

    sample: Sample
    traces: list[Trace]
    rewards: list[float]


def advantages(rewards: Sequence[float]) -> list[float]:
    """Return each reward of a group minus the group's mean."""
    return [reward - fmean(rewards) for reward in rewards]


def grpo(
    model: Any,
    packer: Packer,
    samples: Sequence[Sample],
    config: Config,
    settings: GrpoSettings,
    on_round: Callable[[Round], None] | None = None,
) -> list[Round]:
    """Train a model on questions that it answers through a graph.

    Args:
        model: A Qwen3-VL, which is trained in place.
        packer: The packer of the model.
        samples: The questions.
        config: The graph, whose reasoner is replaced by the model.
        settings: The settings of the run.
        on_round: Called after each round.

    Returns:
        The figures of each round.

    Raises:
        CorpusError: There are fewer samples than questions per round.
        ReasonerError: Every rollout of a round failed.
    """
    if len(samples) < settings.questions:
        raise CorpusError(
            f"a round takes {settings.questions} questions, but there are {len(samples)} samples: "
            "give more samples, or reduce the questions per round"
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
    """Run `grpo` on the weights of the config's reasoner, with a frozen vision tower, and save the model.

    Args:
        out: The folder for the model, its tokenizer and its preprocessor.
        samples: The questions.
        config: The graph, with the reasoner to train.
        settings: The settings of the run.
        on_round: Called after each round.

    Returns:
        The figures of each round.

    Raises:
        CorpusError: There are fewer samples than questions per round.
        ReasonerError: Every rollout of a round failed.
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
    """Let the model answer each drawn question `settings.group` times, and compute the rewards.

    Raises:
        ReasonerError: Every rollout failed.
    """
    rows = config.reasoner.rows
    engine = TransformersReasoner(model, packer, parts.resources.store, name=f"round-{number}", rows=rows)
    graph: Graph = create_act2see(config, parts=replace(parts, reasoner=engine))
    errors: list[Act2SeeError] = []

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
            errors.append(e)
            return None

    attempts = [(sample, nth) for sample in drawn for nth in range(settings.group)]
    try:
        # Twice the rows of a batch: while one rollout waits for a tool, another one fills its row.
        rollouts = await map_concurrently(roll_out, attempts, 2 * rows)
    finally:
        engine.close()
    if len(errors) == len(attempts):
        raise ReasonerError(
            f"every rollout of round {number} failed, the last one with {type(errors[-1]).__name__}: "
            f"{first_line(errors[-1])}"
        ) from errors[-1]
    groups = []
    for i, sample in enumerate(drawn):
        of_sample = rollouts[i * settings.group : (i + 1) * settings.group]
        traces = [trace for trace in of_sample if trace]
        groups.append(Group(sample, traces, [settings.reward.of(trace, sample) for trace in traces]))
    return groups


def _weighted_rollouts(groups: Sequence[Group], parts: Parts, config: Config) -> list[tuple[Rollout, float]]:
    """Return the rollouts with their advantages, without those whose advantage is 0 and has no gradient."""
    weighted = []
    for group in groups:
        for trace, advantage in zip(group.traces, advantages(group.rewards), strict=True):
            if abs(advantage) > 1e-9:
                usages = {tag: parts.tools[tag].usage for tag in trace.versions.tools}
                rollout = render(trace, Prompt(usages, config.reasoner.prompt_style), end_of_turn=True)
                weighted.append((rollout, advantage))
    return weighted


def _summarise(number: int, groups: Sequence[Group], loss: float) -> Round:
    rewards: list[float] = []
    right: list[bool] = []
    calls: list[int] = []
    informative: list[bool] = []
    for group in groups:
        rewards += group.rewards
        right += [group.sample.is_right(trace.answer) for trace in group.traces]
        calls += [len(trace.calls) for trace in group.traces]
        # Rounded, since rewards are sums of floats.
        informative.append(len({round(reward, 6) for reward in group.rewards}) > 1)
    return Round(number, fmean(rewards), fmean(right), fmean(calls), fmean(informative), loss)


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
        model: A Qwen3-VL, which is updated in place.
        packer: The packer of the model.
        source: The source of the frames' pixels.
        weighted: The rollouts, each with its advantage.
        optimiser: The optimiser of the model's trainable parameters.
        batch: Rollouts per forward pass.
        clip: Maximum norm of the gradient.

    Returns:
        The loss: the mean of -advantage x log-likelihood over all tokens that the model wrote.
    """
    import torch

    by_length = sorted(weighted, key=lambda pair: len(packer.pack(pair[0]).ids))
    # One more token for each rollout: the end of the turn, which the model also learns.
    written = sum(sum(packer.pack(rollout).trainable) + 1 for rollout, _ in by_length)
    loss = 0.0
    model.train()
    with equal_frames(model):
        for start in range(0, len(by_length), batch):
            part = by_length[start : start + batch]
            part_loss = _weighted_loss(model, packer, source, part) / written
            part_loss.backward()
            loss += part_loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    model.eval()
    return loss


def _weighted_loss(
    model: Any, packer: Packer, source: FrameSource, part: Sequence[tuple[Rollout, float]]
) -> Any:
    """Return the sum of -advantage x log-likelihood over the tokens that the model wrote, in one forward
    pass."""
    import torch

    tokenizer = packer.codec.tokenizer
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    device = model.device
    inputs = collate(packer, [rollout for rollout, _ in part], source, tokenizer.pad_token_id, end)
    inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
    labels = inputs.pop("labels")[:, 1:]  # (B, T - 1)
    del inputs["attention_mask"]  # as in `fit`
    model.model.rope_deltas = None  # as in `fit`
    trainable = labels != IGNORED
    with torch.autocast(device.type, torch.bfloat16, enabled=fast_bf16(device.type)):
        hidden = model.model(**inputs, use_cache=False).last_hidden_state[:, :-1]  # (B, T - 1, D)
        logits = model.lm_head(hidden[trainable]).float()  # (N, V)
        losses = torch.nn.functional.cross_entropy(logits, labels[trainable], reduction="none")  # (N,)
    gains = torch.tensor([advantage for _, advantage in part], device=device)  # (B,)
    per_token = gains[:, None].expand_as(labels)[trainable]  # (N,)
    return (losses * per_token).sum()
