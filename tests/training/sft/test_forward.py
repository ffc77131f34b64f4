"""The forward pass for training returns what transformers' does, and trains as it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Qwen3VLForConditionalGeneration

from act2see.agent.packing import Packer
from act2see.agent.prompt import Prompt
from act2see.agent.rollout import render
from act2see.tools.frames import FrameRef
from act2see.tools.runtime.weights import resolve_weights
from act2see.trace.record import Answer, Question, Text
from act2see.trace.trace import Trace
from act2see.training.sft.collate import IGNORED, collate
from act2see.training.sft.forward import Ready, last_hidden, ready
from act2see.training.sft.lengths import split_by_length
from act2see.training.sft.loop import fit, warm_cosine

Source = Callable[[FrameRef], np.ndarray]
Batch = dict[str, torch.Tensor]
Make = Callable[..., Batch]
SMALL, WIDE = (48, 48), (96, 32)


@pytest.fixture(scope="module")
def packer() -> Packer:
    return Packer.from_pretrained(resolve_weights("micro:base"))


@pytest.fixture(scope="module")
def make(packer: Packer, trace: Callable[..., Trace], frame: Callable[..., FrameRef], source: Source) -> Make:
    """Return a batch with a row for each tuple of sizes of frames."""
    end = packer.codec.tokenizer.convert_tokens_to_ids("<|im_end|>")
    pad = packer.codec.tokenizer.pad_token_id

    def build(*rows: tuple[tuple[int, int], ...], start: int = 0) -> Batch:
        rollouts = []
        for n, sizes in enumerate(rows, start):
            made = trace(
                question=Question(text="Where is the circle?", options=("left", "right")[: n % 3]),
                initial=tuple(
                    frame(10 * n + i + size[0] * 100, float(i), *size) for i, size in enumerate(sizes)
                ),
                segments=(Text(text="Top left." * (1 + n)), Answer(text="<answer>A</answer>", body="A")),
            )
            rollouts.append(render(made, Prompt({"retrieve": "a frame"}, "short"), end_of_turn=True))
        return collate(packer, rollouts, source, pad, end)

    return build


def load() -> Any:
    torch.manual_seed(0)
    return Qwen3VLForConditionalGeneration.from_pretrained(resolve_weights("micro:base"), dtype=torch.float32)


MIXES = [
    pytest.param(((SMALL,) * 3, (SMALL,), (SMALL,) * 2), id="one-size"),
    pytest.param(((SMALL, WIDE), (WIDE,), (SMALL, WIDE, SMALL)), id="two-sizes"),
    pytest.param(((), (SMALL,)), id="one-row-of-text"),
    pytest.param(((), ()), id="text"),
]


@pytest.mark.parametrize("rows", MIXES)
def test_hidden_states_equal_those_of_transformers(make: Make, rows: Any) -> None:
    model = load().eval()
    made = make(*rows)
    inputs = {k: t for k, t in made.items() if k != "labels"}
    with torch.inference_mode():
        wanted = model.model(**inputs, use_cache=False).last_hidden_state
        seen = last_hidden(model, ready(made))
    read = made["attention_mask"].bool()
    assert not read.all(), "without padding, this does not test it"
    assert torch.allclose(wanted[read], seen[read], atol=1e-4)


@pytest.mark.parametrize("rows", MIXES)
def test_positions_equal_those_of_transformers(make: Make, rows: Any) -> None:
    made = make(*rows)
    read = made["attention_mask"].bool()
    if "image_grid_thw" not in made:
        assert (ready(made)["position_ids"] == torch.arange(read.shape[1])).all()
        return
    wanted, _ = load().model.get_rope_index(
        made["input_ids"],
        mm_token_type_ids=made["mm_token_type_ids"],
        image_grid_thw=made["image_grid_thw"],
        attention_mask=made["attention_mask"],
    )
    assert (wanted[:, read] == ready(made)["position_ids"][:, read]).all()


def test_targets_are_the_next_tokens_of_their_places(make: Make) -> None:
    made = make((SMALL, SMALL), (SMALL,))
    got = ready(made)
    ids = made["input_ids"].flatten()
    assert (ids[got["places"] + 1] == got["targets"]).all()
    assert (made["labels"].flatten()[got["places"] + 1] == got["targets"]).all()
    assert len(got["targets"]) == (made["labels"] != IGNORED).sum()
    assert ready(got) is got


def test_fit_gives_the_losses_and_weights_of_a_plain_loop(make: Make) -> None:
    """The loop as it was with transformers' forward, its mask and all of its logits."""
    batches = [make((SMALL,) * 3, (SMALL,), (SMALL, SMALL), start=10 * i) for i in range(4)]
    batches.insert(2, make((), (), start=7))
    model = load().train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01, betas=(0.9, 0.98))
    wanted = []
    for step, made in enumerate(batches):
        optimiser.param_groups[0]["lr"] = warm_cosine(step, 5, 1e-3, 2)
        model.model.rope_deltas = None
        logits = model(**{k: t for k, t in made.items() if k != "labels"}).logits[:, :-1]
        labels = made["labels"][:, 1:]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        wanted.append(loss.item())

    fitted, losses = load(), []
    made_ready = map(Ready(batches.__getitem__), range(5))
    fit(fitted, made_ready, 5, rate=1e-3, warmup=2, progress=lambda *report: losses.append(report[3]))
    assert losses == pytest.approx([wanted[0], wanted[4]], abs=1e-4)
    for name, weight in fitted.named_parameters():
        assert torch.allclose(weight, model.get_parameter(name), atol=2e-4), name


@pytest.mark.parametrize("rows", MIXES)
@pytest.mark.parametrize("parts", [1, 2, 6])
def test_parts_of_similar_length_have_the_loss_of_the_whole(make: Make, rows: Any, parts: int) -> None:
    model = load().eval()
    whole = ready(make(*rows))
    split = split_by_length(whole, parts)
    assert len(split) == min(parts, len(rows))
    assert sum(len(part["input_ids"]) for part in split) == len(rows)

    def losses(batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            hidden = last_hidden(model, batch).flatten(0, 1)[batch["places"]]
            logits = model.lm_head(hidden)
        return torch.nn.functional.cross_entropy(logits, batch["targets"], reduction="none")

    got = torch.cat([losses(part) for part in split])
    assert torch.allclose(got.sort().values, losses(whole).sort().values, atol=1e-4)


def test_parts_end_with_their_last_target(make: Make) -> None:
    whole = ready(make((SMALL,) * 3, (), (SMALL,)))
    widths = [part["input_ids"].shape[1] for part in split_by_length(whole, 3)]
    assert widths == sorted(widths)
    assert widths[-1] < whole["input_ids"].shape[1]
    for part in split_by_length(whole, 3):
        assert int(part["places"].max()) == part["input_ids"].numel() - 1
    text, *_ = split_by_length(whole, 3)
    assert "pixel_values" not in text
