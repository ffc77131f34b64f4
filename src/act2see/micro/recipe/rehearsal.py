"""Rehearsal: which lines in people's words the model misreads, so that these come more often.

Of some 38,000 lines, a run of a few thousand steps shows each once or twice. Most are read rightly soon; what
is left are short ones, odd ones, and those of kinds that are drawn seldom. So all lines are read once in the
middle of training, and the misread ones are repeated in what follows.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from act2see.agent.packing import Packer
from act2see.agent.rollout import Rollout
from act2see.micro.common_words import fill_common
from act2see.micro.kinds import KINDS, ask, slots_of
from act2see.micro.recipe.chain_lessons import Readings, render_reading
from act2see.micro.recipe.rollouts import DrawnFrames
from act2see.micro.wordings import Wordings, draw_slots, fill_plainly
from act2see.trace.record import Question
from act2see.training.sft.forward import last_hidden, ready, to_device

if TYPE_CHECKING:
    from transformers import Qwen3VLForConditionalGeneration

_REPEATS = ((0.5, 4), (0.8, 2))
"""How often a line is repeated that is read rightly with less than this probability."""
_BATCH = 128


def repeat_misread(
    model: Qwen3VLForConditionalGeneration,
    packer: Packer,
    wordings: Wordings,
    seed: int = 0,
    limit: int | None = None,
) -> Wordings:
    """Return the lines, those that the model misreads several times.

    Args:
        model: The model, which reads each line once, with slots drawn for it.
        packer: Its packer.
        wordings: The lines.
        seed: The seed of the slots.
        limit: The number of lines that are read, drawn from all; the others are taken as read rightly.
    """
    rng = random.Random(seed)
    lines = [(name, line) for name in wordings.lines if _kind_of(name) for line in wordings.lines[name]]
    if limit is not None and limit < len(lines):
        lines = rng.sample(lines, limit)
    repeats: dict[tuple[str, str], int] = {}
    for line, probability in zip(lines, _read(model, packer, lines, rng), strict=True):
        repeats[line] = next((times for below, times in _REPEATS if probability < below), 1)
    return Wordings(
        {
            name: [line for line in of_name for _ in range(repeats.get((name, line), 1))]
            for name, of_name in wordings.lines.items()
        }
    )


def _kind_of(name: str) -> str | None:
    """Return the kind of question that lines of this name ask; None for talk, follow-ups and searches."""
    kind = "beyond" if name == "beyond_of" else name
    return kind if kind in KINDS else None


def _rollout_of(name: str, line: str, rng: random.Random) -> Rollout:
    kind = _kind_of(name)
    assert kind is not None
    slots = draw_slots(rng)
    text = fill_plainly(fill_common(line, rng), slots)
    return render_reading(
        Question(text=text), ask(kind, **{slot: slots[slot] for slot in slots_of(kind)}), ()
    )


def _read(
    model: Any, packer: Packer, lines: Sequence[tuple[str, str]], rng: random.Random
) -> Sequence[float]:
    """Return the probability of the right reading of each line."""
    import torch

    lesson = Readings(packer, _BATCH, 0)
    rollouts = [_rollout_of(name, line, rng) for name, line in lines]
    # Lines of similar length are read together, so that little is padding.
    order = sorted(range(len(lines)), key=lambda i: len(lines[i][1]))
    found = [0.0] * len(lines)
    for start in range(0, len(order), _BATCH):
        chosen = order[start : start + _BATCH]
        batch = ready(lesson.collate([rollouts[i] for i in chosen], DrawnFrames(0)))
        rows = batch["places"] // batch["input_ids"].shape[1]
        batch = to_device(batch, model.device)
        with torch.no_grad():
            hidden = last_hidden(model, batch).flatten(0, 1)[batch["places"]]
            scores = model.lm_head(hidden).float().log_softmax(-1)  # (targets, vocabulary)
        of_target = scores.gather(-1, batch["targets"][:, None])[:, 0].cpu()
        sums = torch.zeros(len(chosen)).index_add_(0, rows, of_target)
        for i, total in zip(chosen, sums.exp().tolist(), strict=True):
            found[i] = total
    return found
