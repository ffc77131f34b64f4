"""The prompt that a trace was made with, put together again for training: what its tools say of
themselves."""

from __future__ import annotations

from collections.abc import Mapping

from act2see.agent.prompt import Prompt
from act2see.errors import CorpusError
from act2see.tools.plugins import find_tool
from act2see.trace.trace import Trace


def prompt_of(trace: Trace, style: str, usages: Mapping[str, str]) -> Prompt:
    """The prompt of the run: its own tools, each with the line that `usages` or else the tool's defaults give
    it.

    Raises `CorpusError` where neither says what a tool is for, and the style needs it.
    """
    lines = {tag: usages.get(tag) for tag in trace.versions.tools}
    return Prompt(
        {tag: line or ("" if style == "short" else _usage(tag)) for tag, line in lines.items()}, style
    )


def _usage(tag: str) -> str:
    field = find_tool(tag).Options.model_fields.get("usage")
    if field is None or not isinstance(field.default, str):
        raise CorpusError(
            f"nothing says what the tool {tag!r} is for: give the config that the traces were made with, or for an export "
            "`usages` of the corpus's `meta`, in act2see.json"
        )
    return str(field.default)
