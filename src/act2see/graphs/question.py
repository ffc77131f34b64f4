"""The question as it comes in, from people and from parent graphs: tidied, or an error that says what to do.

A parent graph that shares keys hands over whatever it keeps under them. So types are looked at here, and an
error names the key and the adapter for parents with a schema of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

from act2see.errors import QuestionError
from act2see.tools.runtime.text import clean_text

MAX_QUESTION = 8_000
MAX_OPTIONS = 26


def checked(state: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The question and its options, without characters that no trace can hold. Raises `QuestionError`, for
    the video's type too."""
    if not isinstance(state.get("video"), str | PathLike):
        raise _other("video", "the path of a file", state.get("video"))
    if not isinstance(given := state.get("question") or "", str):
        raise _other("question", "text", given)
    if not isinstance(listed := state.get("options") or [], list | tuple):
        raise _other("options", "a list of texts", listed)
    question, options = clean_text(given).strip(), [clean_text(str(o)).strip() for o in listed]
    if not question:
        raise QuestionError("the question is empty: ask something about the video")
    if len(question) > MAX_QUESTION:
        raise QuestionError(
            f"the question has {len(question)} characters and may have {MAX_QUESTION}: shorten it"
        )
    if len(options) > MAX_OPTIONS:
        raise QuestionError(
            f"there are {len(options)} options, and at most {MAX_OPTIONS} can be lettered: give fewer"
        )
    repeated = [o for i, o in enumerate(options) if o.casefold() in {x.casefold() for x in options[:i]}]
    if repeated or any(not o for o in options):
        raise QuestionError(
            f"the option {repeated[0]!r} is given twice" if repeated else "an option is empty"
        )
    return question, options


def _other(key: str, wanted: str, value: Any) -> QuestionError:
    found = "missing" if value is None else f"of type {type(value).__name__}"
    return QuestionError(
        f"{key!r} must be {wanted} and is {found}; where a parent graph keeps something else there, "
        f"use act2see.as_node(graph, {key}=...) as its node"
    )
