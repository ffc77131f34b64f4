"""From an answered sample to its line in `questions.jsonl`, and from lines to their sums."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from act2see.evaluation.asking import Told, tell_apart
from act2see.evaluation.records import Calls, QuestionRecord, Totals, status_of
from act2see.evaluation.replies import Order, letter_in, show_options
from act2see.evaluation.samples import Sample
from act2see.evaluation.scoring import Scored
from act2see.tools.runtime.files import replacing_file
from act2see.trace.options import LETTERS
from act2see.trace.trace import Trace

_TASKS = ("task_type", "task", "type", "question type", "dimension", "second_head", "family", "kind")
"""What benchmarks call the type of a question, the most telling first."""
_UNSAFE = re.compile(r"[^0-9A-Za-z]+")


def trace_name(id: str, seed: int) -> str:
    """Return the id of a question's trace, which is also the name of its file."""
    digest = hashlib.blake2b(id.encode(), digest_size=4).hexdigest()
    return f"{_UNSAFE.sub('-', id)[:32].strip('-')}-{digest}-s{seed}".lstrip("-")


def digest_of(samples: Iterable[Sample]) -> str:
    """Return a hash of the questions and their answers, in whatever order, with or without their videos."""
    parts = sorted(f"{s.id}\n{s.question}\n{s.options}\n{s.answer}\n{s.then}\n{s.sensible}" for s in samples)
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()


def task_of(sample: Sample) -> str:
    """Return the type of a question; empty if the benchmark names none."""
    return next((sample.groups[name] for name in _TASKS if name in sample.groups), "")


def show_truth(sample: Sample, order: Order) -> str:
    """Return the right answer as the options were shown."""
    if sample.kind == "choice":
        return letter_in(order, sample.right)
    if sample.kind == "choices":
        return "".join(sorted(letter_in(order, LETTERS.index(letter)) for letter in sample.answer))
    return sample.answer


def make_record(
    sample: Sample,
    arm: str,
    seed: int,
    told: Told,
    scored: Scored,
    malformed: int,
    paths: Sequence[str],
) -> QuestionRecord:
    """Return the line of an answered question."""
    traces = told.traces
    calls = Counter(
        call.tag if call.tag in ("retrieve", "generate") else "other"
        for trace in traces
        for call in trace.calls
        if call.outcome == "ok"
    )
    loops = [loop for trace in traces for loop in trace.usage.loops]
    return QuestionRecord(
        **_about(sample, arm, seed, told.reply.order),
        answer=told.reply.body,
        correct=scored.score == 1,
        score=scored.score,
        status=status_of(scored.outcome),
        outcome=scored.outcome,
        measures=scored.measures,
        reply=told.reply.model_copy(update={"chain": ""}),
        tokens=sum(loop.decoded for loop in loops),
        read=sum(loop.prefilled for loop in loops),
        thinking=sum(loop.thinking for loop in loops),
        aside=told.aside,
        seconds=round(sum(trace.usage.seconds for trace in traces), 4),
        calls=Calls(**calls),
        refused_calls=sum(call.outcome != "ok" for trace in traces for call in trace.calls),
        frames=sum(len(trace.shown) for trace in traces),
        initial_frames=sum(len(trace.initial) for trace in traces),
        forced=any(trace.forced for trace in traces),
        judge_malformed=malformed,
        trace=paths[0] if paths else None,
        more_traces=tuple(paths[1:]),
    )


def save_trace(trace: Trace, path: Path) -> None:
    """Write a trace, whole or not at all. The disk may write it later: the line that names it says the same
    answer.
    """
    with replacing_file(path, durable=False) as new:
        new.write_text(trace.to_json() + "\n", encoding="utf-8")


def make_failed(sample: Sample, arm: str, seed: int, error: str, order: Order = ()) -> QuestionRecord:
    """Return the line of a question that cannot be asked."""
    about = _about(sample, arm, seed, order)
    return QuestionRecord(**about, correct=False, score=0.0, status="failed", outcome="failed", error=error)


def make_missing(sample: Sample, arm: str, seed: int, order: Order = ()) -> QuestionRecord:
    """Return the line of a question whose video is missing."""
    about = _about(sample, arm, seed, order)
    return QuestionRecord(**about, correct=False, score=0.0, status="missing", outcome="no video")


def _about(sample: Sample, arm: str, seed: int, order: Order) -> dict[str, Any]:
    return {
        "id": sample.id,
        "benchmark": sample.benchmark,
        "arm": arm,
        "seed": seed,
        "task": task_of(sample),
        "groups": sample.groups,
        "kind": sample.kind,
        "video": sample.clip,
        "question": sample.question,
        "options": tell_apart(show_options(sample.options, order)),
        "order": order,
        "truth": show_truth(sample, order),
        "needed": sample.needed,
    }


def add_up(records: Iterable[QuestionRecord]) -> Totals:
    """Return the sums over lines."""
    statuses: Counter[Any] = Counter()
    sums: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    seconds = 0.0
    for record in records:
        statuses[record.status] += 1
        for name in Calls.model_fields:
            calls[name] += getattr(record.calls, name)
        seconds += record.seconds
        for name in (
            "tokens",
            "read",
            "thinking",
            "aside",
            "refused_calls",
            "frames",
            "forced",
            "judge_malformed",
        ):
            sums[name] += int(getattr(record, name))
    return Totals(
        questions=sum(statuses.values()),
        statuses=dict(sorted(statuses.items())),
        seconds=round(seconds, 3),
        calls=Calls(**calls),
        **sums,
    )
