"""Ask a provider to limit the thinking that it does not show.

Only Gemini 2.5 takes a number of tokens that can be sent with any request (`thinking_budget`). Gemini 3 takes
a level, OpenAI an effort, and Anthropic a budget only together with other settings: those are left to the
`options` of the chat model. `budget.thinking_tokens` applies to all of them, between the turns.
"""

from __future__ import annotations

import re
from typing import Any

from act2see.agent.reasoners.chat.metadata import requested_model
from act2see.agent.reasoners.chat.setup import provider_of

LEAST = 512
"""The smallest budget that each Gemini 2.5 model accepts."""
_MOST = 24576  # the largest budget that each Gemini 2.5 model accepts
_TAKES_BUDGET = re.compile(r"gemini-2\.5-(?:pro|flash|flash-lite)(?:-\d+|-preview[\w-]*)?")
_OWN = ("thinking_budget", "thinking_level", "reasoning_effort", "thinking_config")


def thinking_settings(model: Any, limit: int | None) -> dict[str, int]:
    """Return the settings of a request that limit the hidden thinking; empty where there is no such setting.

    Args:
        model: A LangChain chat model. Options of its own about thinking come first.
        limit: The number of tokens that are left; None is no limit.
    """
    if limit is None or provider_of(model) != "google_genai":
        return {}
    if any(getattr(model, name, None) is not None for name in _OWN):
        return {}
    # Above the largest budget the model decides, as without a setting.
    if limit > _MOST or not _TAKES_BUDGET.fullmatch(requested_model(model)):
        return {}
    return {"thinking_budget": max(limit, LEAST)}
