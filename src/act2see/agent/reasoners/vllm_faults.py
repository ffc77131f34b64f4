"""What vLLM says where a rollout meets one of its limits, in process and over HTTP, and what is to be done
about it."""

from __future__ import annotations

import re

from act2see.errors import ContextError, ReasonerError, SetupError

_PARAMETER = re.compile(r" \(parameter=.*\)$")


def bare(said: str) -> str:
    """What vLLM says, without the parameter that it names behind it."""
    return _PARAMETER.sub("", said)


def limit_error(said: str, name: str, frames: int) -> ReasonerError | None:
    """What to do about a limit of the engine that a rollout with so many frames has met, told from its
    words."""
    low, first = said.lower(), said.partition(", which")[0][:160].rstrip(".")
    if "may be provided in one prompt" in low:
        return SetupError(
            f"{name}: {first}, and this rollout has {frames}: start the server with `act2see serve vllm`, which sets "
            "--limit-mm-per-prompt from the config, or lower view.max_frames"
        )
    # The last is what it says of a prompt that fills its context to the last token.
    if any(
        words in low
        for words in (
            "context length",
            "max_model_len",
            "maximum model length",
            "max_tokens must be at least 1",
        )
    ):
        return ContextError(
            f"the rollout with {frames} frames is longer than {name} takes ({first}): show fewer initial frames "
            "(view.max_frames), smaller ones (view.max_side), or start the server with a larger --max-model-len"
        )
    return None
