"""Recorded decoding steps give the logits of ordinary ones. The recorder here repeats the forward itself: it
reads its inputs from the same tensors as a CUDA graph, and only the launching of kernels differs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from act2see.agent.reasoners import decode
from act2see.agent.reasoners.decode import Forward, StepDecoder, choose_record
from act2see.agent.reasoners.kv import RowCache

TOKENS = [(7 * n) % 500 for n in range(70)]


@pytest.fixture(scope="module")
def model(vlm_folder: Path) -> Any:
    from transformers import Qwen3VLForConditionalGeneration

    return Qwen3VLForConditionalGeneration.from_pretrained(vlm_folder).eval()


@pytest.fixture(autouse=True)
def short_strides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let 70 tokens cross several strides, and the cache grow twice."""
    monkeypatch.setattr(decode, "STRIDE", 16)


def make_decoder(model: Any, record: decode.Record | None) -> StepDecoder:
    text = model.config.text_config
    cache = RowCache(
        text.num_hidden_layers,
        rows=2,
        heads=text.num_key_value_heads,
        head_dim=text.head_dim,
        dtype=model.dtype,
        device=model.device,
        length=24,
    )
    return StepDecoder(model, cache, record)


def decode_tokens(decoder: StepDecoder) -> Any:
    """Decode all tokens in row 0; return the logits, `(tokens, vocabulary)`."""
    import torch

    with torch.inference_mode():
        return torch.stack(
            [decoder.decode(0, [place], [token], [place])[0] for place, token in enumerate(TOKENS)]
        )


def repeat(forward: Forward) -> Forward:
    return forward


def test_recorded_steps_give_the_logits_of_ordinary_steps(model: Any) -> None:
    import torch

    recorded = make_decoder(model, repeat)
    expected = decode_tokens(make_decoder(model, None))
    torch.testing.assert_close(decode_tokens(recorded), expected, rtol=1e-4, atol=1e-5)
    # 96 tokens, in which the last growth ended: the steps of reach 64 and 80 were recorded since.
    assert recorded.recorded_steps == 2


def test_every_reach_is_recorded_once(model: Any) -> None:
    recorded = []

    def count(forward: Forward) -> Forward:
        recorded.append(forward)
        return forward

    decode_tokens(make_decoder(model, count))
    # Reach 16 and 24 at length 24; 32 and 48 at length 48; 64 and 80 at length 96.
    assert len(recorded) == 6


def test_the_output_of_a_step_survives_the_next_step(model: Any) -> None:
    """A graph writes its output to the same memory each time."""
    import torch

    memory: list[torch.Tensor] = []

    def overwrite(forward: Forward) -> Forward:
        def replay() -> torch.Tensor:
            output = forward()
            if not memory:
                memory.append(torch.empty_like(output))
            return memory[0].copy_(output)

        return replay

    expected = decode_tokens(make_decoder(model, None))
    torch.testing.assert_close(decode_tokens(make_decoder(model, overwrite)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("error", ["operation not permitted when stream is capturing", "CUDA out of memory"])
def test_a_step_that_cannot_be_recorded_runs_as_usual(
    model: Any, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    import torch

    def fail(forward: Forward) -> Forward:
        forward()  # a recording that fails has run its warm-up
        raise RuntimeError(error)

    with caplog.at_level(logging.WARNING):
        found = decode_tokens(make_decoder(model, fail))
    torch.testing.assert_close(found, decode_tokens(make_decoder(model, None)), rtol=0, atol=0)
    assert [r.getMessage() for r in caplog.records] == [
        f"decoding without CUDA graphs, since recording failed: {error}"
    ]


def test_several_rows_and_other_rows_are_not_recorded(model: Any) -> None:
    import torch

    decoder = make_decoder(model, repeat)
    with torch.inference_mode():
        both = decoder.decode(0, [0, 0], [5, 6], [0, 0])
        second = decoder.decode(1, [1], [7], [1])
    assert (len(both), len(second), decoder.recorded_steps) == (2, 1, 0)


def test_a_model_on_the_cpu_is_not_recorded(model: Any) -> None:
    assert choose_record(model) is None
