"""A client for local servers with OpenAI's protocol that send a model's thought apart from its reply.

LM Studio, MLX and others put the thought into a field of its own, which LangChain's client drops. A tool that
the model calls while it thinks would be lost with it.
"""

from __future__ import annotations

from typing import Any

from langchain_core.outputs import ChatGenerationChunk
from langchain_openai import ChatOpenAI

_FIELDS = ("reasoning_content", "reasoning")
"""The names of the field: that of DeepSeek's API, which most servers took over, and that of MLX."""


class LocalChatOpenAI(ChatOpenAI):
    """A `ChatOpenAI` that keeps the thought of each chunk, as `ChatOllama` does."""

    keeps_thought: bool = True
    """Whether chunks have the thought in `additional_kwargs["reasoning_content"]`."""

    def _convert_chunk_to_generation_chunk(
        self, chunk: dict[str, Any], *args: Any, **keywords: Any
    ) -> ChatGenerationChunk | None:
        made = super()._convert_chunk_to_generation_chunk(chunk, *args, **keywords)
        choices = chunk.get("choices") or [{}]
        delta = choices[0].get("delta") or {}
        thought = next((text for name in _FIELDS if isinstance(text := delta.get(name), str) and text), "")
        if made is not None and thought:
            made.message.additional_kwargs["reasoning_content"] = thought
        return made
