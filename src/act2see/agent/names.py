"""The names of tags, and the keys of calls."""

from __future__ import annotations

import re

RESERVED = {
    "think": "it marks the thought",
    "answer": "it marks the answer",
    "frame": "it holds what the tools return",
    "tool_call": "reasoning parsers end the thought on it",
}
"""Names that a tool must not have, each with the reason."""
NAME = re.compile(r"[a-z][a-z0-9_]*")
"""A name of a tag."""


def join_spaces(query: str) -> str:
    """Return a query on one line, with single spaces."""
    return " ".join(query.split())


def call_key(tag: str, query: str) -> tuple[str, str]:
    """Return a key that is equal for calls of one tool with the same query, spaces and case aside."""
    return tag, join_spaces(query).casefold()
