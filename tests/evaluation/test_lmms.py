"""Act2See as a model of lmms-eval, and our score of Video-MME beside theirs.

What needs lmms-eval itself is skipped where it is not installed: it wants an older `av` than we do, so it
lives in an environment of its own (docs/evaluation.md).
"""

from __future__ import annotations

import asyncio
import importlib.util
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

import pytest

from act2see.errors import ConfigError, QuestionError
from act2see.evaluation.lmms import Asked, list_models, read_messages, split_options
from act2see.evaluation.replies import Reply
from act2see.evaluation.samples import Sample
from act2see.evaluation.scoring import score_reply

INSTALLED = importlib.util.find_spec("lmms_eval") is not None
needs_lmms = pytest.mark.skipif(not INSTALLED, reason="lmms-eval is not installed")
OPTIONS = ("To cook.", "To paint.", "To sing.", "To sleep.")


@dataclass
class Part:
    type: str
    text: str = ""
    url: Any = None
    start_time: float | None = None
    end_time: float | None = None


@dataclass
class Message:
    content: list[Part]


def test_the_text_of_video_mme_is_taken_apart() -> None:
    text = (
        "Select the best answer.\nWhat does he do?\nA. To cook.\nB. To paint.\nC. To sing.\nD. To sleep.\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert split_options(text) == ("Select the best answer.\nWhat does he do?", OPTIONS)


@pytest.mark.parametrize(
    ("text", "question", "options"),
    [
        ("Which?\n(A) red\n(B) blue", "Which?", ("red", "blue")),
        ("Which?\n\nA: red\n\nB: blue\n", "Which?", ("red", "blue")),
        ("Why does she wave?", "Why does she wave?", ()),
        ("A. Dürer painted what?", "A. Dürer painted what?", ()),  # one such line is no choice
        ("One?\nA. x\nB. y\nTwo?\nA. p\nB. q", "One?\nA. x\nB. y\nTwo?", ("p", "q")),
        ("Which?\nA. red\nC. blue", "Which?\nA. red\nC. blue", ()),
    ],
)
def test_options_are_lines_from_a(text: str, question: str, options: tuple[str, ...]) -> None:
    assert split_options(text) == (question, options)


def test_a_part_of_a_video_is_asked_about() -> None:
    video = Part("video", url="clip.mp4", start_time=2.0, end_time=8.0)
    asked = read_messages([Message([video, Part("text", text="Which?\nA. red\nB. blue")])])
    assert asked == Asked("clip.mp4#t=2,8", "Which?", ("red", "blue"))


@pytest.mark.parametrize(
    "parts", [[], [Part("image", url=1)], [Part("video", url="a"), Part("video", url="b")]]
)
def test_a_task_without_one_video_is_refused(parts: list[Part]) -> None:
    with pytest.raises(QuestionError, match="one video file"):
        read_messages([Message([*parts, Part("text", text="Which?")])])


def test_the_entry_point_is_ours() -> None:
    found = [point for point in entry_points(group="lmms_eval.models") if point.name == "act2see"]
    if not found:
        pytest.skip("this installation of act2see is older than the entry point: install it again")
    assert found[0].load() is list_models


@pytest.mark.skipif(INSTALLED, reason="lmms-eval is installed")
def test_the_error_without_lmms_eval_names_the_command() -> None:
    with pytest.raises(ConfigError, match="pip install --no-deps lmms-eval"):
        list_models()


@needs_lmms
def test_lmms_eval_finds_the_model() -> None:
    from lmms_eval.models import get_model

    model = get_model("act2see")
    assert model.__name__ == "Act2See"
    assert not model.is_simple


BODIES = [
    *(form.format(letter) for letter in "ABCD" for form in ("{}", "({})", "{}.", "{})", "{}:", "({}) ")),
    *(f"{letter}. {option}" for letter, option in zip("ABCD", OPTIONS, strict=True)),
    *(f"({letter}) {option}" for letter, option in zip("ABCD", OPTIONS, strict=True)),
    "The answer is B.",
    "The best answer is (C).",
    "Answer: D",
    "",
    "\n A \n",
]
"""Answers as models write them in `<answer>`, which both read."""


@needs_lmms
def test_our_score_of_video_mme_is_theirs() -> None:
    from lmms_eval.tasks.videomme.utils import videomme_aggregate_results, videomme_process_results

    theirs, ours = [], []
    for number, body in enumerate(BODIES):
        truth = "ABCD"[number % 4]
        record = {
            "question_id": str(number),
            "videoID": "v",
            "duration": ("short", "medium", "long")[number % 3],
            "domain": "Knowledge",
            "sub_category": "Law",
            "task_type": "Action Reasoning",
            "answer": truth,
        }
        result = videomme_process_results(record, [body])["videomme_perception_score"]
        theirs.append(result)
        sample = Sample(
            id=str(number), benchmark="video-mme", video="v", question="?", options=OPTIONS, answer=truth
        )
        scored, _ = asyncio.run(score_reply(sample, Reply(body=body)))
        ours.append(scored.score)
        assert scored.score == result["score"], body
    assert 0 < sum(ours) < len(ours)
    assert videomme_aggregate_results(theirs) == pytest.approx(100 * sum(ours) / len(ours))
