"""A judge: any chat model that says whether a free answer is right, and which steps of a chain are.

Published scores of one benchmark move from 39.7 to 64.9 with the judge, so its name stands in every result.
A judge answers in JSON. Anything else is asked again; if that does not help, the answer counts as not
judged and as wrong, and stays in the denominator.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from act2see.evaluation.samples import Sample
from act2see.tools.runtime.outside import quote_tags
from act2see.tools.runtime.plain_json import parse_json

_TRIES = 3
_OBJECT = re.compile(r"[\[{].*[\]}]", re.DOTALL)
_KINDS = ("video", "logic", "background")
_ANSWER = """Decide whether two answers to a question about a video mean the same.
The words may differ, and so may units: 0.5 m is 50 cm. A vaguer or a different answer is not the same.
Question: {question}
Right answer: {right}
Given answer: {given}
Write only JSON: {{"same": true}} or {{"same": false}}."""
_RECALL = """Decide for each reference step if the given reasoning contains or entails it, in all details.
Question: {question}
Right answer: {right}
Given reasoning: {given}
Reference steps:
{steps}
A step's kind is "video" (what is seen, and when), "logic" (one conclusion) or "background" (a review).
Write only a JSON list with one entry for each reference step, in order:
[{{"kind": "video", "judgment": "matched"}}, ...]; the judgment is "matched" or "unmatched"."""
_PRECISION = """Split the given reasoning into steps. Decide for each whether it agrees with the reference.
Times may differ by 3 seconds. A step that does not help is "redundant"; one that contradicts is "wrong".
Question: {question}
Given reasoning: {given}
Reference steps:
{steps}
A step's kind is "video" (what is seen, and when), "logic" (one conclusion) or "background" (a review).
Write only a JSON list: [{{"kind": "logic", "judgment": "matched"}}, ...]; the judgment is "matched",
"wrong" or "redundant"."""


class Judge(Protocol):
    """What judges."""

    name: str
    """Model and version, for the table."""

    async def ask(self, prompt: str) -> str:
        """Return the reply to a prompt."""


class ChatJudge:
    """A chat model of LangChain as judge."""

    def __init__(self, model: Any, name: str | None = None) -> None:
        self.model = model
        given = (getattr(model, field, None) for field in ("model_name", "model"))
        self.name = name or next((str(value) for value in given if value), type(model).__name__)

    async def ask(self, prompt: str) -> str:
        """Return the text of the model's reply."""
        return str((await self.model.ainvoke(prompt)).text)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge said about one reply."""

    right: bool | None
    """None if the judge never gave valid JSON."""
    malformed: int
    """How many of its replies were not valid."""


@dataclass(frozen=True, slots=True)
class ChainVerdict:
    """Recall and precision of a chain; None without steps to count. A part that was not judged is 0."""

    recall: float | None
    precision: float | None
    unjudged: int
    malformed: int


async def judge_answer(judge: Judge, sample: Sample, body: str) -> Verdict:
    """Return whether a free answer means the right one."""
    prompt = _ANSWER.format(question=quote_tags(sample.question), right=sample.answer, given=quote_tags(body))
    data, malformed = await _ask(judge, prompt, _is_verdict)
    return Verdict(None if data is None else bool(data["same"]), malformed)


async def judge_chain(judge: Judge, sample: Sample, chain: str) -> ChainVerdict:
    """Return the recall and the precision of a chain. Steps of background count for neither."""
    if not chain.strip():
        return ChainVerdict(0.0, 0.0, 0, 0)
    steps = "\n".join(f"- {step}" for step in sample.chain)
    fields = {"question": sample.question, "right": sample.answer, "given": quote_tags(chain), "steps": steps}
    recall, bad = await _ask(judge, _RECALL.format(**fields), _has_steps("unmatched", len(sample.chain)))
    precision, worse = await _ask(judge, _PRECISION.format(**fields), _has_steps("wrong", None))
    return ChainVerdict(
        _share(recall, "unmatched"),
        _share(precision, "wrong"),
        (recall is None) + (precision is None),
        bad + worse,
    )


async def _ask(judge: Judge, prompt: str, is_valid: Any) -> tuple[Any, int]:
    """Ask until the reply is valid JSON; None after the last try. The number of invalid replies comes with
    it.
    """
    for malformed in range(_TRIES):
        found = _OBJECT.search(await judge.ask(prompt))
        try:
            data = parse_json(found[0]) if found else None
        except ValueError:
            data = None
        if data is not None and is_valid(data):
            return data, malformed
    return None, _TRIES


def _is_verdict(data: Any) -> bool:
    return isinstance(data, dict) and isinstance(data.get("same"), bool)


def _has_steps(other: Literal["unmatched", "wrong"], count: int | None) -> Any:
    allowed = ("matched", other) if other == "unmatched" else ("matched", other, "redundant")

    def is_valid(data: Any) -> bool:
        if not isinstance(data, list) or (count is not None and len(data) != count):
            return False
        return all(
            isinstance(step, dict) and step.get("kind") in _KINDS and step.get("judgment") in allowed
            for step in data
        )

    return is_valid


def _share(steps: list[dict[str, str]] | None, other: str) -> float | None:
    if steps is None:
        return 0.0
    counted = [step["judgment"] for step in steps if step["kind"] != "background"]
    matched, missed = counted.count("matched"), counted.count(other)
    return matched / (matched + missed) if matched + missed else None
