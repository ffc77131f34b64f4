"""One answer from the parts of a long video, by a rule: which parts have found something, and what they say.

Most parts of an hour do not show what is asked about, and a model that is asked all the same often answers.
So each part gets a verdict first, by what happened in it and not by how sure it sounds:

- *silent*: no answer, or the video was refused; *failed*: the part could not be asked;
- *absent*: it says that it does not see it (`says_absent`), or it searched and no search returned a frame;
- *faint*: its best real frame fits the query worse than the encoder's "no match", or much worse than the best
  part's does: it lies below `margin` of the way from "no match" to the best;
- *found*: all others.

The best real frame of a part is one that a search returned. A part that searched for nothing took what is
asked to be in view: its initial frames are compared with the query that most other parts searched for. Scores
of one encoder for one query can be compared across parts. If no part searched, there is nothing to compare,
and words decide. Imagined frames prove nothing and have no score.

Then the parts of the best verdict have one vote each. The answer with the most votes wins; among equals that
of the best score, then that of the earlier part. So one part that found a blink wins against 400 that
guessed. Only *found* parts make it an answer. Without one, nothing was found; if there are options, the guess
stands, marked as one.
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
# An answer speaks of the video, the end of a thought of the model itself: there, "it is not on the left" says
# nothing of the kind.
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
    """What one part came to."""

    part: int
    """Its number, from 0."""
    start: float
    """Seconds of the whole video, as is `stop`."""
    stop: float
    video: str
    """The path to open for the part."""
    verdict: Verdict
    answer: str = ""
    score: float | None = None
    """That of its best real frame."""
    error: str = ""


class Evidence(Record):
    """A part that the answer rests on."""

    part: int
    start: float
    stop: float
    answer: str
    score: float | None
    frames: tuple[dict[str, Any], ...]
    """Of each frame: its digest, its seconds of the whole video, whether it is imagined."""
    text: str
    """The same for people."""


def says_absent(trace: Trace) -> bool:
    """Whether a trace says that the video does not show what was asked, or that it guesses."""
    answer = trace.choice or trace.answer or ""
    thought = "".join(s.text for s in trace.segments if isinstance(s, Text) and s.author == "model")
    conclusion = thought.rsplit("</think>", 1)[0][-_CONCLUSION:]
    return bool(_ANSWERED_ABSENT.search(answer) or _THOUGHT_ABSENT.search(conclusion))


def searches(trace: Trace) -> list[tuple[str, tuple[FrameRef, ...]]]:
    """The queries that searched for real frames, with the frames that came back.

    A search that found nothing has a curve all the same.
    """
    found = []
    for call, reply in trace.looks:
        if reply is None or any(frame.imagined for frame in reply.frames):
            continue
        if reply.curve or any(isinstance(frame.provenance, Retrieved) for frame in reply.frames):
            found.append((call.query, reply.frames))
    return found


def commonest_query(traces: Sequence[Trace]) -> str | None:
    """The query that most parts searched for; the earliest among equals."""
    count = Counter[str]()
    for trace in traces:
        queries = dict.fromkeys(query for query, _ in searches(trace))
        count.update(queries.keys())
    return count.most_common(1)[0][0] if count else None


def best_frame(trace: Trace, query: str | None, similarity: Similarity) -> tuple[FrameRef, float] | None:
    """The real frame that speaks most for a part, with its score.

    Args:
        trace: The part's trace.
        query: The query that most parts searched for, for a part that searched for nothing.
        similarity: Scores a frame for a query.
    """
    scored: list[tuple[FrameRef, float]] = []
    if searched := searches(trace):
        for _, frames in searched:
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
        failed: The errors of the others.
        paths: The path to open for each part.
        similarity: Scores a frame for a query.
        no_match: The score below which a frame does not fit a query.
        margin: How near the best part's score another part's must come, as a share of the way from
            `no_match`.

    Returns:
        A report on each part, and the best real frame of each part that has one.
    """
    query = commonest_query(list(traces.values()))
    verdicts: dict[int, Verdict] = dict.fromkeys(failed, "failed")
    best: dict[int, tuple[FrameRef, float]] = {}
    for number, trace in traces.items():
        verdicts[number] = _verdict_by_words(trace)
        if verdicts[number] == "found" and (frame := best_frame(trace, query, similarity)):
            best[number] = frame
    top = max((score for _, score in best.values()), default=no_match)
    needed = no_match + margin * max(0.0, top - no_match)
    for number, (_, score) in best.items():
        if score < needed:
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

    Returns:
        The answer, whether it was found, and the parts that gave it, best first.
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
    winner = max(votes, key=lambda answer: (votes[answer], scores[answer]))  # the earliest among equals
    winners = [report for report in voters if answer_of(report) == winner]
    winners.sort(key=lambda report: (-(report.score or 0.0), report.part))
    return winners[0].answer, found, [report.part for report in winners]


def _voters(reports: Sequence[PartReport]) -> tuple[Verdict, list[PartReport]]:
    """The best verdict that a part with an answer has, and these parts."""
    verdicts: tuple[Verdict, ...] = ("found", "faint", "absent")
    for verdict in verdicts:
        voters = [report for report in reports if report.verdict == verdict and report.answer]
        if voters:
            return verdict, voters
    return "silent", []


def evidence_of(report: PartReport, trace: Trace, best: FrameRef | None) -> Evidence:
    """What a part's answer rests on, in seconds of the whole video.

    Args:
        report: The report on the part.
        trace: Its trace.
        best: Its best real frame, if there is one.
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
    """The trace of a part that begins at `start`, with times of the whole video.

    It is for reading: its video is the part's, so it cannot be forked or replayed.
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
    """The frame, and those that it was made from, `start` seconds later."""
    update: dict[str, Any] = {"seconds": round(frame.seconds + start, 4)}
    match frame.provenance:
        case Generated(anchor=anchor):
            update["provenance"] = frame.provenance.model_copy(update={"anchor": _shift(anchor, start)})
        case Cropped(source=source):
            update["provenance"] = frame.provenance.model_copy(update={"source": _shift(source, start)})
    return frame.model_copy(update=update)


def _verdict_by_words(trace: Trace) -> Verdict:
    """The verdict before scores are compared."""
    if trace.refused or not (trace.answer or "").strip():
        return "silent"
    searched = searches(trace)
    if says_absent(trace) or (searched and not any(frames for _, frames in searched)):
        return "absent"
    return "found"
