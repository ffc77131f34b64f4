"""A chat model that writes the answer to a long video from the parts that found something.

The rule of `merge.py` decides which parts these are. The model must name the parts that support its answer,
and they become the evidence. If its reply cannot be used, the answer of the rule is returned.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from act2see.errors import ReasonerError
from act2see.graphs.long_video.merge import PartReport, evidence_of
from act2see.tools.frames import FrameRef
from act2see.tools.runtime.background import run_in_background
from act2see.tools.runtime.outside import quote_tags
from act2see.tools.video.parts import Span
from act2see.trace.options import LETTERS, choose
from act2see.trace.record import Question
from act2see.trace.trace import Trace

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

_MAX_PARTS = 40
"""The number of parts in the prompt, those with the best scores."""
_PROMPT = """\
The same question was asked about each part of a long video. Below are the answers of the parts that seem to \
have found something, with the frames that support them. Times are those of the whole video. Of {all} parts, \
{left} are not listed, because they show nothing that fits.

{earlier}Question: {question}
{options}
{parts}

Answer the question about the whole video from these parts alone. Imagined frames prove nothing. Reply with \
your answer inside <answer></answer>{letter}, and with the numbers of the parts that support it inside \
<parts></parts>, for instance <parts>3, 4</parts>."""


async def merge_by_chat(
    model: BaseChatModel,
    reports: Sequence[PartReport],
    traces: Mapping[int, Trace],
    best: Mapping[int, FrameRef],
    by_rule: tuple[str, list[int]],
) -> tuple[str, list[int]]:
    """Return the chat model's answer, and the numbers of the parts that support it.

    Args:
        model: The chat model.
        reports: The report on each part.
        traces: The traces of the parts that could be asked, by number.
        best: The best real frame of each part that has one, by number.
        by_rule: The answer and the parts to return if the model's reply cannot be used.

    Raises:
        ReasonerError: The model fails.
    """
    found = [report for report in reports if report.verdict == "found"]
    found.sort(key=_descending_score)
    listed = sorted(found[:_MAX_PARTS], key=lambda report: report.part)
    if not listed:
        return by_rule
    question = next(iter(traces.values())).question
    parts = [_describe(report, traces[report.part], best.get(report.part)) for report in listed]
    prompt = _PROMPT.format(
        all=len(reports),
        left=len(reports) - len(listed),
        earlier="".join(f"Asked before: {turn.line}\n" for turn in question.earlier),
        question=question.text,
        options="\n".join(f"{letter}. {o}" for letter, o in zip(LETTERS, question.options, strict=False)),
        parts="\n\n".join(parts),
        letter=" as the letter of the option only" if question.options else "",
    )
    try:
        message = await run_in_background(model.ainvoke(prompt))
    except Exception as e:  # each provider's package has its own errors
        problem = " ".join(str(e).split())[:300]
        raise ReasonerError(
            f"the chat model that merges the parts failed: {problem}; resume the run to try again (the parts "
            "are not asked again)"
        ) from e
    reply = message.text
    answer = _answer_in(reply, question)
    if answer is None:
        return by_rule
    known = {report.part for report in listed}
    relied = [number for number in _parts_in(reply) if number in known]
    return answer, relied or by_rule[1]


def _descending_score(report: PartReport) -> float:
    return -(report.score or 0.0)


def _describe(report: PartReport, trace: Trace, best: FrameRef | None) -> str:
    span = Span(report.start, report.stop)
    # A part's answer may quote a screen, and must not look like the tags that the reply is read by.
    return f"Part {report.part}, {span}\n{quote_tags(evidence_of(report, trace, best).text)}"


def _answer_in(reply: str, question: Question) -> str | None:
    """Return the answer in a reply; None if it is empty, or not one of the options."""
    found = re.search(r"<answer>(.*?)(?:</answer>|\Z)", reply, re.DOTALL)
    untagged = re.sub(r"<parts>.*?(</parts>|\Z)", "", reply, flags=re.DOTALL)
    answer = (found[1] if found else untagged).strip()
    if not answer or (question.options and choose(answer, question.options) is None):
        return None
    return answer


def _parts_in(reply: str) -> list[int]:
    """Return the numbers in `<parts>`, each once."""
    found = re.search(r"<parts>(.*?)(?:</parts>|\Z)", reply, re.DOTALL)
    numbers = re.findall(r"\d+", found[1]) if found else []
    return list(dict.fromkeys(map(int, numbers)))
