"""What goes to `llama-server` and comes back: a prompt with frames, sampling, and streamed events.

`POST /completion` takes a prompt as one string in which a marker stands for each frame, anywhere, also inside
an open thought; the chat endpoint would close the thought. The server puts vision start, the frame's tokens
and vision end where the marker is, so these marks are left out of the text. The string is tokenised whole and
its special tokens are parsed, so nobody but this package may spell one: `pieces.safe_texts`.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from act2see.agent.reasoners.base import Sampling
from act2see.agent.reasoners.follow import Chunk
from act2see.agent.reasoners.pieces import safe_texts
from act2see.agent.rollout import Rollout

VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
# llama-server's order would apply the temperature last, to what top-k and top-p have left.
_SAMPLERS = ("penalties", "temperature", "top_k", "top_p", "min_p")
_SEEDS = 2**32 - 1  # the largest value means "random"


def prompt_text(rollout: Rollout, marker: str) -> str:
    """Return the rollout as one string, with `marker` for each frame.

    Args:
        rollout: The rollout.
        marker: The string that the server replaces by a frame. Text that contains it is changed.
    """
    texts = safe_texts(rollout.pieces)
    last = len(texts) - 1
    stripped = []
    for number, text in enumerate(texts):
        if number > 0:
            text = text.removeprefix(VISION_END)
        if number < last:
            text = text.removesuffix(VISION_START)
        stripped.append(text.replace(marker, f"{marker[0]} {marker[1:]}"))
    return marker.join(stripped)


def prompt(rollout: Rollout, frames: Sequence[bytes], marker: str) -> str | dict[str, Any]:
    """Return the `prompt` of a request.

    Args:
        rollout: The rollout.
        frames: Its frames in order, each as PNG.
        marker: The string that the server replaces by a frame.
    """
    text = prompt_text(rollout, marker)
    data = [base64.b64encode(frame).decode() for frame in frames]
    return {"prompt_string": text, "multimodal_data": data} if data else text


FIELDS = ("content", "stop", "stop_type", "stopping_word", "tokens_predicted", "tokens_evaluated", "timings")
"""The fields wanted of the last event. The server would send the prompt back, too."""


def sampling_fields(sampling: Sampling, context: int) -> dict[str, Any]:
    """Return the fields that decide how tokens are drawn.

    Each is set, because the server's defaults (top-k 40, min-p 0.05) are not those of a `Sampling`. The
    server's penalties count the prompt, too, of which the presence penalty should know nothing.

    Args:
        sampling: How tokens are drawn.
        context: How many tokens back the penalties look.
    """
    return {
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": 0.0,
        "repeat_last_n": context,
        "seed": sampling.seed % _SEEDS,
        "samplers": list(_SAMPLERS),
    }


def chunk_of(data: dict[str, Any]) -> Chunk:
    """Return a streamed event as a chunk.

    The server leaves a stop string out of the text and names it; a rollout keeps it.
    """
    text = data.get("content") or ""
    prompt, decoded = data.get("tokens_evaluated") or 0, data.get("tokens_predicted") or 0
    if not data.get("stop"):
        # The last token's event comes before the one that names the stop string: until that has come, the
        # text must not look as if it had reached its limit.
        return Chunk(text, prompt=prompt, decoded=max(0, decoded - 1))
    stopped_at = data.get("stopping_word") if data.get("stop_type") == "word" else None
    return Chunk(
        text + (stopped_at or ""),
        "length" if data.get("stop_type") == "limit" else "stop",
        stopped_at,
        prompt=prompt,
        cached=(data.get("timings") or {}).get("cache_n") or 0,
        decoded=decoded,
    )
