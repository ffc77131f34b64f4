"""GRPO: learn when to call, from the model's own rollouts through the real graph.

Each round draws some questions and lets the model answer each of them several times. A rollout's advantage is
its reward less the mean of its group, so what is learnt is what tells one rollout of a question from another
of the same. The gradient goes through the text that the model wrote, the same labels as in SFT. There is one
step a round: the policy that is updated is the one that wrote, so there is no ratio to clip, and few small
steps need no reference model. Advantages are not divided by a group's deviation, nor losses by a rollout's
length: both favour some questions and rollouts for no merit (Dr. GRPO, arXiv 2503.20783).

TRL's GRPOTrainer (1.16) takes images that a tool returns, but as turns of a chat template and by its syntax
of calls; here the frame stands within the thought, so the loop is ours.
"""

from __future__ import annotations

import asyncio
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
from act2see.tools.frames import FrameRef, Record
from act2see.tools.runtime.background import run_sync
from act2see.tools.runtime.quiet import quiet
from act2see.tools.runtime.weights import local_weights, pick_device
from act2see.tools.video.store import FrameSource
from act2see.trace.trace import Trace
from act2see.training.corpus.filtering import format_fault
from act2see.training.corpus.sources import Sample
from act2see.training.sft.collate import IGNORED, collate, equal_frames
from act2see.training.sft.loop import fast_bf16

log = logging.getLogger(__name__)
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Reward(Record):
    """What a rollout earns: for a right answer, for a form that can be learnt from, and less for each
    call."""

    answer: float = 1.0
    format: float = 0.1
    call: float = 0.05

    def of(self, trace: Trace, sample: Sample) -> float:
        earned = self.answer * sample.is_right(trace.answer) + self.format * (format_fault(trace) == "")
        return earned - self.call * len(trace.calls)


class GrpoSettings(Record):
    """`questions` a round, each answered `group` times at `temperature`; `batch` rollouts a forward."""

    rounds: Count = 100
    questions: Count = 8
    group: Annotated[int, Field(ge=2)] = 4
    temperature: Positive = 1.0
    learning_rate: Positive = 1e-6
    batch: Count = 8
    clip: Positive = 1.0
    reward: Reward = Reward()
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Round:
    """What a round saw, as means over its rollouts; `taught` is the share of groups whose rewards
    differed."""

    number: int
    reward: float
    accuracy: float
    calls: float
    taught: float
    loss: float


def advantages(rewards: Sequence[Sequence[float]]) -> list[list[float]]:
    """By group: each reward less the group's mean."""
    return [[r - fmean(group) for r in group] for group in rewards]


def grpo(
    model: Any,
    packer: Packer,
    samples: Sequence[Sample],
    config: Config,
    settings: GrpoSettings,
    on_round: Callable[[Round], None] | None = None,
) -> list[Round]:
    """Train `model` in place on `samples`, answered through the graph of `config`. Returns its rounds.

    Raises `CorpusError` where there are fewer samples than questions in a round.
    """
    if len(samples) < settings.questions:
        raise CorpusError(
            f"a round takes {settings.questions} questions and there are {len(samples)}: give more, or make rounds smaller"
        )
    import torch

    parts = build_parts(config)
    store = parts.resources.store

    def source(ref: FrameRef) -> Any:
        return store.get(ref.digest)

    optimiser = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=settings.learning_rate, weight_decay=0.0
    )
    rng = random.Random(settings.seed)
    rounds = []
    for number in range(settings.rounds):
        drawn = rng.sample(list(samples), settings.questions)
        groups = run_sync(_rollouts(model, packer, parts, config, drawn, settings, number))
        kept = [(s, [t for t in group if t]) for s, group in zip(drawn, groups, strict=True)]
        rewards = [[settings.reward.of(t, s) for t in group] for s, group in kept]
        weighted = [
            (
                render(
                    t,
                    Prompt({tag: parts.tools[tag].usage for tag in t.versions.tools}, config.reasoner.prompt),
                    end_of_turn=True,
                ),
                a,
            )
            for (_, group), by in zip(kept, advantages(rewards), strict=True)
            for t, a in zip(group, by, strict=True)
            if abs(a) > 1e-9
        ]
        loss = (
            policy_step(model, packer, source, weighted, optimiser, settings.batch, settings.clip)
            if weighted
            else 0.0
        )
        every = [(t, s) for s, group in kept for t in group]
        rounds.append(
            Round(
                number,
                fmean(r for group in rewards for r in group),
                fmean(s.is_right(t.answer) for t, s in every),
                fmean(len(t.calls) for t, _ in every),
                fmean(len({round(r, 6) for r in group}) > 1 for group in rewards),
                loss,
            )
        )
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
    """`grpo` on the weights of the config's reasoner, its vision tower frozen; the model goes to `out`, an
    ordinary folder."""
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


async def _rollouts(
    model: Any,
    packer: Packer,
    parts: Parts,
    config: Config,
    drawn: Sequence[Sample],
    settings: GrpoSettings,
    number: int,
) -> list[list[Trace | None]]:
    """`group` traces of each question, all at once; None for one that failed."""
    store, rows = parts.resources.store, config.reasoner.rows
    engine = TransformersReasoner(
        model, packer, lambda ref: store.get(ref.digest), name=f"round-{number}", rows=rows
    )
    graph: Graph = create_act2see(config, parts=replace(parts, reasoner=engine))
    gate = asyncio.Semaphore(2 * rows)

    async def one(sample: Sample, nth: int) -> Trace | None:
        seed = call_seed(settings.seed, sample.id, str(number), nth)
        context = AskContext(seed=seed, temperature=settings.temperature)
        async with gate:
            try:
                return await aask(
                    graph,
                    sample.clip,
                    sample.question,
                    sample.options,
                    context=context,
                    thread_id=f"{number}-{sample.id}-{nth}",
                )
            except Act2SeeError as e:
                log.warning("a rollout of %s failed: %s", sample.id, e)
                return None

    try:
        made = await asyncio.gather(*(one(s, n) for s in drawn for n in range(settings.group)))
    finally:
        engine.close()
    return [made[i : i + settings.group] for i in range(0, len(made), settings.group)]


def policy_step(
    model: Any,
    packer: Packer,
    source: FrameSource,
    weighted: Sequence[tuple[Rollout, float]],
    optimiser: Any,
    batch: int,
    clip: float,
) -> float:
    """One gradient step on rollouts with their advantages; returns the loss.

    It is the mean, over all tokens that the model wrote in them, of -advantage x log-likelihood.
    """
    import torch

    tokenizer = packer.codec.tokenizer
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    packed = sorted(weighted, key=lambda pair: len(packer.pack(pair[0]).ids))  # like lengths together
    device, written = model.device, sum(sum(packer.pack(r).learnt) + 1 for r, _ in packed)
    loss = 0.0
    model.train()
    with equal_frames(model):
        for i in range(0, len(packed), batch):
            part = packed[i : i + batch]
            inputs = collate(packer, [r for r, _ in part], source, tokenizer.pad_token_id, end)
            labels = inputs.pop("labels")[:, 1:].to(device)
            del inputs["attention_mask"]  # as in `fit`
            model.model.rope_deltas = None
            with torch.autocast(device.type, torch.bfloat16, enabled=fast_bf16(device.type)):
                hidden = model.model(
                    **{k: v.to(device) for k, v in inputs.items()}, use_cache=False
                ).last_hidden_state[:, :-1]
                learnt = labels != IGNORED
                each = torch.nn.functional.cross_entropy(
                    model.lm_head(hidden[learnt]).float(), labels[learnt], reduction="none"
                )
            gains = torch.tensor([a for _, a in part], device=device)[:, None].expand_as(labels)[learnt]
            summed: Any = (each * gains).sum() / written
            summed.backward()
            loss += summed.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    model.eval()
    return loss
