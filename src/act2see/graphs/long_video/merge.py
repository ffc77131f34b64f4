"""One answer from the parts of a long video: which parts have found something, and what they say.

Most parts of an hour do not show what is asked about, and a model that is asked all the same often answers.
So parts are sorted first, by what happened in them and not by how sure they sound:

- *silent*: no answer, or the video was refused; *failed*: the part could not be asked;
- *absent*: it says that it does not see it (`says_absent`), or looked for it and no search came back with a
  frame;
- *faint*: its best real frame fits what was looked for worse than the encoder's "no match", or much worse
  than the best part's does: it lies below `margin` of the way from "no match" to the best;
- *found*: all others.

The best real frame of a part is one that a search returned. For a part that looked for nothing, since it took
what is asked to be in view, its initial frames are held against the query that most other parts looked for:
scores of one encoder for one query can be compared across parts. Where no part looked for anything there is
nothing to compare, and words decide. Imagined frames prove nothing and have no score.

Then the parts of the best sort that there is have one vote each; the answer with most votes wins, and among
equals that of the best score, then of the earlier part. So one part that found a blink wins against 400 that
guessed. Only *found* parts make it an answer: where there is none and no options, nothing was found; with
options the guess stands, marked as one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from act2see.graphs.compose import evidence, references
from act2see.tools.frames import Cropped, FrameRef, Generated, Record, Retrieved
from act2see.tools.video.parts import Span
from act2see.trace.record import Text
from act2see.trace.trace import Trace

Verdict = Literal["found", "faint", "absent", "silent", "failed"]
Similarity = Callable[[FrameRef, str], float]

NOTHING = "Nothing in the video shows this."
# Said of the video in an answer, and of oneself at the end of a thought: there, "it is not on the left" says
# nothing of the kind.
_ANSWERED = re.compile(
    r"\b(?:not|never|no longer|isn't|aren't|doesn't|don't|didn't)\b.{0,30}\b(?:visible|shown?|seen?|present|appears?|there|occurs?|"
    r"happens?|possible|sure|clear|known?|tell|determined?)\b|\bno\b.{0,30}\b(?:visible|shown|seen|present|evidence|sign|such)\b|"
    r"\b(?:cannot|can't|could not|couldn't|unable to)\b|^\W*(?:unknown|none|nothing|unclear|n/?a)\W*$",
    re.IGNORECASE | re.DOTALL,
)
_THOUGHT = re.compile(
    r"\bI (?:cannot|can't|could not|couldn't|do not|don't|did not|didn't) (?:\w+ )?(?:see|find|tell|know|look|notice|determine)\b|"
    r"\b(?:my|a|only) guess\b|\bI(?: must| have to|'ll| will)? guess\b",
    re.IGNORECASE,
)
_END = 200  # characters of a thought in which it concludes


class PartReport(Record):
    """What one part came to. Times are those of the whole video; `score` is that of its best real frame."""

    part: int
    start: float
    stop: float
    video: str
    verdict: Verdict
    answer: str = ""
    score: float | None = None
    error: str = ""


class Evidence(Record):
    """A part that the answer rests on. `frames`: digest, seconds of the whole video, whether imagined; `text`
    is for people."""

    part: int
    start: float
    stop: float
    answer: str
    score: float | None
    frames: tuple[dict[str, Any], ...]
    text: str


def says_absent(trace: Trace) -> bool:
    """Whether a trace says that the video does not show what was asked, or that it guesses."""
    answer = trace.choice or trace.answer or ""
    thought = "".join(s.text for s in trace.segments if isinstance(s, Text) and s.author == "model")
    return bool(_ANSWERED.search(answer) or _THOUGHT.search(thought.rsplit("</think>", 1)[0][-_END:]))


def searches(trace: Trace) -> list[tuple[str, tuple[FrameRef, ...]]]:
    """The queries by which real frames were looked for, with what came back. What came of nothing has a curve
    all the same."""
    asked = [(c.query, f) for c, f in trace.looks if f and not any(r.imagined for r in f.frames)]
    return [
        (q, f.frames)
        for q, f in asked
        if f.curve or any(isinstance(r.provenance, Retrieved) for r in f.frames)
    ]


def looked_for(traces: Sequence[Trace]) -> str | None:
    """The query that most parts looked for real frames with; the earliest among equals."""
    count = Counter(q for t in traces for q in dict.fromkeys(q for q, _ in searches(t)))
    return count.most_common(1)[0][0] if count else None


def best_frame(trace: Trace, query: str | None, similarity: Similarity) -> tuple[FrameRef, float] | None:
    """The real frame that speaks most for a part, as above, with its score."""
    if asked := searches(trace):
        found = [
            (f, f.provenance.score)
            for _, frames in asked
            for f in frames
            if isinstance(f.provenance, Retrieved)
        ]
    else:
        found = [(f, similarity(f, query)) for f in trace.initial] if query else []
    return max(found, key=lambda pair: pair[1], default=None)


def judge(
    parts: Sequence[Span],
    traces: Mapping[int, Trace],
    failed: Mapping[int, str],
    paths: Sequence[str],
    *,
    similarity: Similarity,
    no_match: float,
    margin: float,
) -> tuple[list[PartReport], dict[int, FrameRef]]:
    """A report on each part, and the frame that speaks most for it where there is one."""
    query = looked_for(list(traces.values()))
    verdicts: dict[int, Verdict] = {
        **{n: "failed" for n in failed},
        **{n: _by_words(t) for n, t in traces.items()},
    }
    best = {
        n: b for n, t in traces.items() if verdicts[n] == "found" and (b := best_frame(t, query, similarity))
    }
    top = max((score for _, score in best.values()), default=no_match)
    needed = no_match + margin * max(0.0, top - no_match)
    reports = []
    for n, part in enumerate(parts):
        verdict = verdicts[n]
        if verdict == "found" and n in best and best[n][1] < needed:
            verdict = "faint"
        trace = traces.get(n)
        reports.append(
            PartReport(
                part=n,
                start=part.start,
                stop=part.stop,
                video=paths[n],
                verdict=verdict,
                answer=((trace.answer or "") if trace else "").strip(),
                score=round(best[n][1], 4) if n in best else None,
                error=failed.get(n, ""),
            )
        )
    return reports, {n: frame for n, (frame, _) in best.items()}


def vote(reports: Sequence[PartReport], traces: Mapping[int, Trace]) -> tuple[str, bool, list[int]]:
    """The answer, whether it was found, and the parts that gave it, best first."""
    for verdict in ("found", "faint", "absent"):
        voters = [r for r in reports if r.verdict == verdict and r.answer]
        if voters:
            break
    else:
        return NOTHING, False, []
    found = verdict == "found"
    if not found and not traces[voters[0].part].question.options:
        return NOTHING, False, []

    def said(r: PartReport) -> str:
        return (traces[r.part].choice or r.answer).casefold().strip(" .")

    votes = Counter(said(r) for r in voters)
    best = {s: max(r.score or 0.0 for r in voters if said(r) == s) for s in votes}
    winner = max(votes, key=lambda s: (votes[s], best[s]))  # the first, and so the earliest, among equals
    ranked = sorted((r for r in voters if said(r) == winner), key=lambda r: (-(r.score or 0.0), r.part))
    return ranked[0].answer, found, [r.part for r in ranked]


def evidence_of(report: PartReport, trace: Trace, best: FrameRef | None) -> Evidence:
    """What a part's answer rests on, in seconds of the whole video."""
    whole = in_whole(trace, report.start)
    frames = list(references(whole)["frames"])
    if best and best in trace.initial:
        frames.insert(
            0, {"digest": best.digest, "seconds": _later(best, report.start).seconds, "imagined": False}
        )
    return Evidence(
        part=report.part,
        start=report.start,
        stop=report.stop,
        answer=report.answer,
        score=report.score,
        frames=tuple(frames),
        text=evidence(whole),
    )


def in_whole(trace: Trace, start: float) -> Trace:
    """A part's trace with its frames where they stand in the whole video; to read, not to fork or replay."""
    segments = []
    for s in trace.segments:
        if s.kind == "frames":
            curve = s.curve.model_copy(update={"start": s.curve.start + start}) if s.curve else None
            s = s.model_copy(update={"frames": tuple(_later(f, start) for f in s.frames), "curve": curve})
        segments.append(s)
    return trace.model_copy(
        update={"initial": tuple(_later(f, start) for f in trace.initial), "segments": tuple(segments)}
    )


def _later(frame: FrameRef, start: float) -> FrameRef:
    update: dict[str, Any] = {"seconds": round(frame.seconds + start, 4)}
    match frame.provenance:
        case Generated(anchor=anchor):
            update["provenance"] = frame.provenance.model_copy(update={"anchor": _later(anchor, start)})
        case Cropped(source=source):
            update["provenance"] = frame.provenance.model_copy(update={"source": _later(source, start)})
    return frame.model_copy(update=update)


def _by_words(trace: Trace) -> Verdict:
    if trace.refused or not (trace.answer or "").strip():
        return "silent"
    asked = searches(trace)
    return "absent" if says_absent(trace) or (asked and not any(frames for _, frames in asked)) else "found"
