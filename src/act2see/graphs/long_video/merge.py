"""Merging the parts of a long video into one answer, by a rule.

Most parts of an hour of video do not show what the question is about, and a model often answers all the same.
So each part first gets a verdict, which depends on its trace and not on how certain its answer sounds:

- *failed*: the part could not be asked.
- *silent*: the part has no answer, or the video was refused.
- *absent*: the model says that it does not see it (`says_absent`), or no search returned a frame.
- *faint*: the score of the part's best real frame is below the threshold. The threshold lies between the
  encoder's "no match" and the best part's score, at the fraction `margin` of the way.
- *found*: all other parts.

The best real frame of a part is one that a search returned. If the model did not search, it considered the
answer to be in view: then the part's initial frames are scored for the query of most other parts. Scores of
one encoder for one query can be compared between parts. If no part searched, there are no scores, and the
wording decides. Imagined frames prove nothing and have no score.

Then each part of the best verdict has one vote. The answer with the most votes wins, then the one with the
best score, then the one of the earliest part. So one part that found a blink wins against 400 that guessed.
If no part is *found*, the result is `NOTHING`, or a guess, marked as one, if the question has options.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from act2see.graphs.evidence import evidence, references
from act2see.tools.frames import Cropped, FrameRef, Generated, Record, Retrieved
from act2see.tools.video.parts import Span
from act2see.trace.record import Frames, Segment, Text
from act2see.trace.trace import Trace

Verdict = Literal["found", "faint", "absent", "silent", "failed"]
Similarity = Callable[[FrameRef, str], float]

NOTHING = "Nothing in the video shows this."
# In an answer, "not visible" means that the video does not show it. A thought also contains sentences such as
# "it is not visible on the left", so there only statements about the model itself count.
_ANSWERED_ABSENT = re.compile(
    r"\b(?:not|never|no longer|isn't|aren't|doesn't|don't|didn't)\b.{0,30}"
    r"\b(?:visible|shown?|seen?|present|appears?|there|occurs?|happens?|possible|sure|clear|known?|tell"
    r"|determined?)\b"
    r"|\bno\b.{0,30}\b(?:visible|shown|seen|present|evidence|sign|such)\b"
    r"|\b(?:cannot|can't|could not|couldn't|unable to)\b"
    r"|^\W*(?:unknown|none|nothing|unclear|n/?a)\W*$",
    re.IGNORECASE | re.DOTALL,
)
_THOUGHT_ABSENT = re.compile(
    r"\bI (?:cannot|can't|could not|couldn't|do not|don't|did not|didn't) (?:\w+ )?"
    r"(?:see|find|tell|know|look|notice|determine)\b"
    r"|\b(?:my|a|only) guess\b|\bI(?: must| have to|'ll| will)? guess\b",
    re.IGNORECASE,
)
_CONCLUSION = 200  # characters at the end of a thought


class PartReport(Record):
    """The report on one part."""

    part: int
    """The part's number, from 0."""
    start: float
    """The start of the part, in seconds of the whole video."""
    stop: float
    """The end of the part, in seconds of the whole video."""
    video: str
    """The path to open for the part."""
    verdict: Verdict
    answer: str = ""
    score: float | None = None
    """The score of the part's best real frame."""
    error: str = ""
    """The message of the error, if the part failed."""


class Evidence(Record):
    """A part that supports the answer."""

    part: int
    """The part's number, from 0."""
    start: float
    """The start of the part, in seconds of the whole video."""
    stop: float
    """The end of the part, in seconds of the whole video."""
    answer: str
    score: float | None
    """The score of the part's best real frame."""
    frames: tuple[dict[str, Any], ...]
    """For each frame: its digest, its time in seconds of the whole video, and whether it is imagined."""
    text: str
    """The answer and the frames as text."""


def says_absent(trace: Trace) -> bool:
    """Whether the model says that the video does not show it, or that it guesses."""
    answer = trace.choice or trace.answer or ""
    thought = "".join(s.text for s in trace.segments if isinstance(s, Text) and s.author == "model")
    conclusion = thought.rsplit("</think>", 1)[0][-_CONCLUSION:]
    return bool(_ANSWERED_ABSENT.search(answer) or _THOUGHT_ABSENT.search(conclusion))


def list_searches(trace: Trace) -> list[tuple[str, tuple[FrameRef, ...]]]:
    """Return the queries that searched for real frames, each with the frames that it found."""
    searches = []
    for call, reply in trace.looks:
        if reply is None or any(frame.imagined for frame in reply.frames):
            continue
        # A search that found nothing still has a curve.
        if reply.curve or any(isinstance(frame.provenance, Retrieved) for frame in reply.frames):
            searches.append((call.query, reply.frames))
    return searches


def most_common_query(traces: Sequence[Trace]) -> str | None:
    """Return the query that most parts searched for; in a tie, the one that occurs first."""
    counts = Counter[str]()
    for trace in traces:
        queries = dict.fromkeys(query for query, _ in list_searches(trace))
        counts.update(queries.keys())
    return counts.most_common(1)[0][0] if counts else None


def best_frame(trace: Trace, query: str | None, similarity: Similarity) -> tuple[FrameRef, float] | None:
    """Return the real frame of a part that has the best score, and the score; None if no frame has one.

    Args:
        trace: The part's trace.
        query: The query for the initial frames, used if the part did not search.
        similarity: Scores a frame for a query.
    """
    scored: list[tuple[FrameRef, float]] = []
    if searches := list_searches(trace):
        for _, frames in searches:
            for frame in frames:
                if isinstance(frame.provenance, Retrieved):
                    scored.append((frame, frame.provenance.score))
    elif query:
        scored = [(frame, similarity(frame, query)) for frame in trace.initial]
    return max(scored, key=lambda pair: pair[1], default=None)


def judge(
    spans: Sequence[Span],
    traces: Mapping[int, Trace],
    failed: Mapping[int, str],
    paths: Sequence[str],
    *,
    similarity: Similarity,
    no_match: float,
    margin: float,
) -> tuple[list[PartReport], dict[int, FrameRef]]:
    """Give each part its verdict.

    Args:
        spans: The parts.
        traces: The traces of the parts that could be asked, by number.
        failed: The errors of the others, by number.
        paths: The path to open for each part.
        similarity: Scores a frame for a query.
        no_match: The score below which a frame does not fit a query.
        margin: The threshold for *found*, as a fraction of the way from `no_match` to the best part's score.

    Returns:
        A report on each part, and the best real frame of each part that has one, by number.
    """
    query = most_common_query(list(traces.values()))
    verdicts: dict[int, Verdict] = dict.fromkeys(failed, "failed")
    best: dict[int, tuple[FrameRef, float]] = {}
    for number, trace in traces.items():
        verdicts[number] = _judge_words(trace)
        if verdicts[number] == "found" and (frame := best_frame(trace, query, similarity)):
            best[number] = frame
    top = max((score for _, score in best.values()), default=no_match)
    threshold = no_match + margin * max(0.0, top - no_match)
    for number, (_, score) in best.items():
        if score < threshold:
            verdicts[number] = "faint"
    reports = []
    for number, span in enumerate(spans):
        answer = traces[number].answer if number in traces else None
        report = PartReport(
            part=number,
            start=span.start,
            stop=span.stop,
            video=paths[number],
            verdict=verdicts[number],
            answer=(answer or "").strip(),
            score=round(best[number][1], 4) if number in best else None,
            error=failed.get(number, ""),
        )
        reports.append(report)
    return reports, {number: frame for number, (frame, _) in best.items()}


def vote(reports: Sequence[PartReport], traces: Mapping[int, Trace]) -> tuple[str, bool, list[int]]:
    """Let the parts of the best verdict vote.

    Args:
        reports: The report on each part.
        traces: The traces of the parts that could be asked, by number.

    Returns:
        The answer, whether it was found, and the numbers of the parts that gave it, best score first.
    """
    verdict, voters = _voters(reports)
    if not voters:
        return NOTHING, False, []
    found = verdict == "found"
    if not found and not traces[voters[0].part].question.options:
        return NOTHING, False, []

    def answer_of(report: PartReport) -> str:
        return (traces[report.part].choice or report.answer).casefold().strip(" .")

    votes = Counter(map(answer_of, voters))
    scores: dict[str, float] = {}
    for report in voters:
        answer = answer_of(report)
        scores[answer] = max(scores.get(answer, -math.inf), report.score or 0.0)
    # `max` returns the first of equals, and `votes` is in the order of the parts.
    winner = max(votes, key=lambda answer: (votes[answer], scores[answer]))
    winners = [report for report in voters if answer_of(report) == winner]
    winners.sort(key=lambda report: (-(report.score or 0.0), report.part))
    return winners[0].answer, found, [report.part for report in winners]


def _voters(reports: Sequence[PartReport]) -> tuple[Verdict, list[PartReport]]:
    """Return the best verdict among the parts with an answer, and the parts with this verdict."""
    verdicts: tuple[Verdict, ...] = ("found", "faint", "absent")
    for verdict in verdicts:
        voters = [report for report in reports if report.verdict == verdict and report.answer]
        if voters:
            return verdict, voters
    return "silent", []


def evidence_of(report: PartReport, trace: Trace, best: FrameRef | None) -> Evidence:
    """Return the evidence of a part, with times in seconds of the whole video.

    Args:
        report: The report on the part.
        trace: The part's trace.
        best: The part's best real frame, if it has one.
    """
    whole = in_whole_video(trace, report.start)
    frames = list(references(whole)["frames"])
    if best and best in trace.initial:
        seconds = _shift(best, report.start).seconds
        frames.insert(0, {"digest": best.digest, "seconds": seconds, "imagined": False})
    return Evidence(
        part=report.part,
        start=report.start,
        stop=report.stop,
        answer=report.answer,
        score=report.score,
        frames=tuple(frames),
        text=evidence(whole),
    )


def in_whole_video(trace: Trace, start: float) -> Trace:
    """Return the trace of a part that starts at `start` seconds, with times of the whole video.

    The result is for display only. It cannot be forked or replayed, since its video is still the part.
    """
    segments: list[Segment] = []
    for segment in trace.segments:
        segments.append(_shift_frames(segment, start) if isinstance(segment, Frames) else segment)
    initial = tuple(_shift(frame, start) for frame in trace.initial)
    return trace.model_copy(update={"initial": initial, "segments": tuple(segments)})


def _shift_frames(segment: Frames, start: float) -> Frames:
    curve = segment.curve
    if curve:
        curve = curve.model_copy(update={"start": curve.start + start})
    frames = tuple(_shift(frame, start) for frame in segment.frames)
    return segment.model_copy(update={"frames": frames, "curve": curve})


def _shift(frame: FrameRef, start: float) -> FrameRef:
    """Return the frame with its time, and the times of the frames that it was made from, `start` s later."""
    update: dict[str, Any] = {"seconds": round(frame.seconds + start, 4)}
    match frame.provenance:
        case Generated(anchor=anchor):
            update["provenance"] = frame.provenance.model_copy(update={"anchor": _shift(anchor, start)})
        case Cropped(source=source):
            update["provenance"] = frame.provenance.model_copy(update={"source": _shift(source, start)})
    return frame.model_copy(update=update)


def _judge_words(trace: Trace) -> Verdict:
    """Return the verdict that a part has before scores are compared."""
    if trace.refused or not (trace.answer or "").strip():
        return "silent"
    searches = list_searches(trace)
    found_nothing = bool(searches) and not any(frames for _, frames in searches)
    if says_absent(trace) or found_nothing:
        return "absent"
    return "found"
