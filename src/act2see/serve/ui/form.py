"""Reads the form. A browser can send any values, so each form is validated or refused in one line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from act2see.errors import ConfigError, QuestionError, VideoError
from act2see.graphs.config import Config
from act2see.graphs.state import AskContext
from act2see.serve.ui.catalog import CatalogVideo
from act2see.serve.ui.runs import AskRequest
from act2see.trace.record import Turn

_SEED_LIMIT = 2**63  # seeds are signed 64-bit numbers
_MAX_BUDGET = 10**9


@dataclass(frozen=True, slots=True)
class Talk:
    """The conversation of one open page: the last turns about one video. The server keeps it."""

    key: str = ""
    """The key of the video."""
    turns: tuple[Turn, ...] = ()

    def about(self, key: Any) -> tuple[Turn, ...]:
        """Return the turns that a question about a video follows."""
        return self.turns if key == self.key else ()

    def asked(self, request: AskRequest, key: Any) -> AskRequest:
        """Return the question with the turns that it follows."""
        return replace(request, context=replace(request.context, earlier=self.about(key)))


def read_form(
    videos: Mapping[str, CatalogVideo],
    configs: Mapping[str, Config],
    key: Any,
    question: Any,
    options: Any,
    config_name: Any,
    tools: Any,
    calls: Any,
    tokens: Any,
    seed: Any,
) -> AskRequest:
    """Return the question that a form asks.

    Args:
        videos: The available videos, by key.
        configs: The available configurations, by name.
        key, question, options, config_name, tools, calls, tokens, seed: The values of the form's controls, of
            any type. For a number that is None (an empty control), the configuration's own is used.

    Raises:
        VideoError, QuestionError, ConfigError: The form does not offer one of the values.
    """
    video = videos.get(key) if isinstance(key, str) else None
    if video is None:
        if not key:
            raise VideoError("no video is selected: select or upload one")
        raise VideoError("this video is no longer available: select another one")
    if not isinstance(question, str) or not question.strip():
        raise QuestionError("the question is empty: ask something about the video")
    lines = _read_options(options)
    config = configs.get(config_name) if isinstance(config_name, str) else None
    if config is None:
        raise ConfigError(f"unknown configuration: choose one of {', '.join(configs)}")
    context = AskContext(
        tools=_read_tools(config_name, config, tools),
        max_calls=_read_number("Maximum calls", calls, 0, _MAX_BUDGET),
        max_tokens=_read_number("Maximum tokens", tokens, 1, _MAX_BUDGET),
        seed=_read_number("Seed", seed, -_SEED_LIMIT, _SEED_LIMIT - 1),
    )
    return AskRequest(config, video.path, question, lines, context)


def _read_options(options: Any) -> tuple[str, ...]:
    """Return the non-empty lines of the options.

    Raises:
        QuestionError: The options are not text.
    """
    if options is None:
        return ()
    if not isinstance(options, str):
        raise QuestionError("the options are not text: write one per line")
    lines = [line.strip() for line in options.splitlines()]
    return tuple(line for line in lines if line)


def _read_tools(config_name: str, config: Config, tools: Any) -> tuple[str, ...]:
    """Return the selected tools.

    Raises:
        ConfigError: The configuration does not have all of them.
    """
    available = list(config.tools)
    if not isinstance(tools, list) or any(tool not in available for tool in tools):
        raise ConfigError(
            f"{config_name} does not have all the selected tools: "
            f"its tools are {', '.join(available) or 'none'}"
        )
    return tuple(tools)


def _read_number(label: str, value: Any, minimum: int, maximum: int) -> int | None:
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
