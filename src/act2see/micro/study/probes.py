"""Probes of the ablations: frames that a rule inserts, and the tokens that a model would write in the place
of a frame."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

from act2see.agent.packing import Packed, Packer
from act2see.agent.parser import StopReason
from act2see.agent.prompt import Prompt
from act2see.agent.reasoners.base import Delta, Done, Reasoner, Request, WrappedReasoner
from act2see.agent.rollout import Rollout, TextPiece, render
from act2see.tools.video.store import FrameStore
from act2see.trace.trace import Trace

_CONCLUDES = re.compile(r"(?<=\.)(?= \D)")  # the end of a sentence, unless the next second follows


class FrameByRule(WrappedReasoner):
    """A reasoner with a frame inserted by rule (the paper's table 4).

    It retrieves as soon as it has described its view, with the question as the query.
    """

    def __init__(self, reasoner: Reasoner) -> None:
        super().__init__(reasoner)
        self.name = f"{reasoner.name} with a frame by rule"

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        inserted = "</frame>" in str(request.rollout)
        written = ""
        done = Done(StopReason.EOS)

        def until_described(piece: str) -> bool:
            nonlocal written
            written += piece
            return _CONCLUDES.search(written) is not None

        stream = self.reasoner.stream(request if inserted else replace(request, until=until_described))
        async with aclosing(stream):
            async for item in stream:
                if inserted:
                    yield item
                elif isinstance(item, Done):
                    done = item
        if not inserted:
            text = f"{_CONCLUDES.split(written)[0]}<retrieve>{_question(request.rollout)}</retrieve>"
            request.until(text)
            yield Delta(text)
            yield replace(done, stop=StopReason.UNTIL)


def _question(rollout: Rollout) -> str:
    for piece in rollout.pieces:
        if isinstance(piece, TextPiece) and piece.trust == "plain" and piece.text.startswith("\n"):
            return piece.text.strip().splitlines()[0]
    raise ValueError("the rollout has no question")


def count_written_frames(weights: Path, traces: Sequence[Trace], store: FrameStore) -> dict[str, int]:
    """Count the tokens of returned frames, and how many of them the model would write itself (by argmax).

    Args:
        weights: The folder of the model.
        traces: Traces with calls.
        store: The store of their frames.

    Returns:
        The numbers of vision tokens ("vision", "vision written") and of opening tags ("opened", "opened
        itself").
    """
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    packer = Packer.from_pretrained(weights)
    model: Any = Qwen3VLForConditionalGeneration.from_pretrained(weights, dtype=torch.float32).eval()
    tokenizer = packer.codec.tokenizer
    marks = tokenizer.convert_tokens_to_ids(["<|vision_start|>", "<|vision_end|>"])
    vision = {packer.image_token_id, *marks}
    opening = packer.codec.encode("<frame>", "plain")
    counts = {"vision": 0, "vision written": 0, "opened": 0, "opened itself": 0}
    for trace in traces:
        prompt = Prompt(dict.fromkeys(trace.versions.tools, ""), "short")
        packed = packer.pack(render(trace, prompt, end_of_turn=True))
        start = len(packer.pack(render(trace.model_copy(update={"segments": ()}), prompt)).ids)
        best = _best_tokens(model, packer, packed, store)
        for i in range(start, len(packed.ids)):
            if packed.ids[i] in vision:
                counts["vision"] += 1
                counts["vision written"] += best[i - 1] in vision
            if packed.ids[i : i + len(opening)] == opening and not packed.trainable[i]:
                counts["opened"] += 1
                counts["opened itself"] += best[i - 1] == opening[0]
    return counts


def _best_tokens(model: Any, packer: Packer, packed: Packed, store: FrameStore) -> list[int]:
    """Return, for each position, the token that the model would write next."""
    import torch

    ids = torch.tensor([packed.ids])  # (1, T)
    model.model.rope_deltas = None
    with torch.no_grad():
        logits = model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == packer.image_token_id).int(),
            pixel_values=packer.patches(packed.images, store),
            image_grid_thw=torch.tensor(packed.grids),
        ).logits  # (1, T, V)
    best: list[int] = logits[0].argmax(-1).tolist()
    return best
