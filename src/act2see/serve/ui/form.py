"""Reads the form. A browser can send anything: a form is a valid question, or refused in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from act2see.errors import ConfigError, QuestionError, VideoError
from act2see.graphs.config import Config
from act2see.graphs.state import AskContext
from act2see.serve.ui.catalog import CatalogVideo
from act2see.serve.ui.runs import Asked

_SEED = 2**63  # seeds are 64-bit numbers with a sign
_MOST = 10**9


def read_form(
    clips: Mapping[str, CatalogVideo],
    configs: Mapping[str, Config],
    key: Any,
    question: Any,
    options: Any,
    name: Any,
    tools: Any,
    calls: Any,
    tokens: Any,
    seed: Any,
) -> Asked:
    """Return the question that a form asks.

    Args:
        clips: The available videos, by key.
        configs: The available configurations, by name.
        key, question, options, name, tools, calls, tokens, seed: The values of the form's controls, of any
            type. For a number that is None (an empty control) the configuration's own is used.

    Raises:
        VideoError, QuestionError, ConfigError: A value is not one that the form offers.
    """
    clip = clips.get(key) if isinstance(key, str) else None
    if clip is None:
        if not key:
            raise VideoError("no video is selected: pick one, or upload one")
        raise VideoError("this video is no longer available: pick another one")
    if not isinstance(question, str) or not question.strip():
        raise QuestionError("the question is empty: ask something about the video")
    if options is not None and not isinstance(options, str):
        raise QuestionError("the options are not text: write one per line")
    config = configs.get(name) if isinstance(name, str) else None
    if config is None:
        raise ConfigError(f"there is no such configuration: pick one of {', '.join(configs)}")
    if not isinstance(tools, list) or any(not isinstance(t, str) or t not in config.tools for t in tools):
        raise ConfigError(
            f"{name} does not have all the selected tools: its tools are {', '.join(config.tools) or 'none'}"
        )
    return Asked(
        config,
        clip.path,
        question,
        tuple(line.strip() for line in (options or "").splitlines() if line.strip()),
        AskContext(
            tools=tuple(tools),
            max_calls=_whole("Maximum calls", calls, 0, _MOST),
            max_tokens=_whole("Maximum tokens", tokens, 1, _MOST),
            seed=_whole("Seed", seed, -_SEED, _SEED - 1),
        ),
    )


def _whole(label: str, value: Any, minimum: int, maximum: int) -> int | None:
    """Return a whole number, which a browser may send as 4 or 4.0, or None for an empty control.

    Raises:
        QuestionError: The value is not a whole number from `minimum` to `maximum`.
    """
    if value is None:
        return None
    number = int(value) if isinstance(value, float) and value.is_integer() else value
    if type(number) is not int or not minimum <= number <= maximum:
        raise QuestionError(f"{label!r} must be a whole number from {minimum} to {maximum}, or empty")
    return number
