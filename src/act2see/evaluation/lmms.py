"""Act2See as a model of lmms-eval: `python -m lmms_eval --model act2see --model_args preset=micro --tasks T`.

lmms-eval finds `list_models` through its entry points (`lmms_eval.models`) and loads the class of
`lmms_model`, which needs lmms-eval; this module does not. A task of lmms-eval gives one text, in which a
choice has its options as lines. The graph takes the question and the options apart, so they are read out
here. What follows the options says how to write the answer, and is left out: our prompt says it too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from act2see.errors import ConfigError, QuestionError
from act2see.tools.video.window import Window
from act2see.trace.options import LETTERS

INSTALL = "pip install --no-deps lmms-eval"
_OPTION = re.compile(r"\s*\(?([A-Z])(?:\)|\.|:)\s*(\S.*)")


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of lmms-eval, as the graph takes it."""

    video: str
    text: str
    options: tuple[str, ...] = ()


def list_models() -> Any:
    """Return what lmms-eval's entry point wants: one model, `act2see`, for tasks of both of its kinds."""
    try:
        from lmms_eval.models.registry_v2 import ModelManifest
    except ModuleNotFoundError as e:
        raise missing_lmms() from e
    return ModelManifest(model_id="act2see", chat_class_path="act2see.evaluation.lmms_model.Act2See")


def missing_lmms() -> ConfigError:
    """Return the error for an environment without lmms-eval."""
    return ConfigError(f"this needs lmms-eval: {INSTALL} (docs/evaluation.md says what else it imports)")


def read_messages(messages: Sequence[Any]) -> Asked:
    """Return the question of a task's messages: its one video, its text, and the options in it.

    Args:
        messages: Messages of lmms-eval's `ChatMessages`. All of them are read as one text.

    Raises:
        QuestionError: There is not one video, there are pictures or sounds, or there is no question.
    """
    parts = [part for message in messages for part in message.content]
    videos = [part for part in parts if part.type == "video"]
    others = sorted({part.type for part in parts} - {"video", "text"})
    if others or len(videos) != 1 or not isinstance(videos[0].url, str):
        found = ", ".join([f"{len(videos)} videos", *others])
        raise QuestionError(f"act2see answers questions about one video file; this task gives {found}")
    start, end = videos[0].start_time, videos[0].end_time
    video = videos[0].url
    if start is not None or end is not None:
        video = str(Window(video, start or 0.0, math.inf if end is None else end))
    text, options = split_options("\n".join(part.text for part in parts if part.type == "text"))
    if not text:
        raise QuestionError("the task gives no question: only options, or nothing")
    return Asked(video, text, options)


def split_options(text: str) -> tuple[str, tuple[str, ...]]:
    """Return the question and the options of a text: lines one after the other from `A.`, `(A)` or `A:`.

    A text without two such lines is all question. Of several such lists the last is meant, since an example
    comes before the question.
    """
    lines = text.strip().split("\n")
    found: tuple[int, list[str]] = (len(lines), [])
    for n in range(len(lines)):
        options: list[str] = []
        for line in lines[n:]:
            match = _OPTION.fullmatch(line)
            if not line.strip() and options:
                continue
            if match is None or len(options) == len(LETTERS) or match[1] != LETTERS[len(options)]:
                break
            options.append(match[2].strip())
        if len(options) > 1:
            found = (n, options)
    return "\n".join(lines[: found[0]]).strip(), tuple(found[1])
