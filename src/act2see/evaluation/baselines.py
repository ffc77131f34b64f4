"""Blind baselines: what one scores without the video. A benchmark's number means little without them."""

from __future__ import annotations

from collections.abc import Callable

from act2see.errors import BenchmarkError
from act2see.evaluation.benchmarks import Suite, keep_samples
from act2see.evaluation.replies import Reply
from act2see.evaluation.samples import Sample
from act2see.evaluation.scoring import Score, Scored, score_sample, summarise
from act2see.trace.options import LETTERS

_Rule = Callable[[tuple[str, ...]], int]


def _longest(options: tuple[str, ...]) -> int:
    return max(range(len(options)), key=lambda place: len(options[place]))


def _shortest(options: tuple[str, ...]) -> int:
    return min(range(len(options)), key=lambda place: len(options[place]))


def list_baselines(suite: Suite) -> dict[str, _Rule]:
    """Return the baselines of a suite: the longest, the shortest, and each letter always. Ties go to the
    first.
    """
    counts = [len(sample.options) for sample in (*suite.samples, *suite.absent) if sample.kind == "choice"]
    rules: dict[str, _Rule] = {"longest": _longest, "shortest": _shortest}
    for place in range(min(counts, default=0)):
        rules[f"always {LETTERS[place]}"] = lambda options, place=place: place  # type: ignore[misc]
    return rules


def answer_blindly(sample: Sample, rule: _Rule) -> Reply:
    """Return the reply of a baseline."""
    then = None if sample.then is None else LETTERS[rule(sample.then.options)]
    return Reply(body=LETTERS[rule(sample.options)], then=then)


def score_baselines(suite: Suite) -> dict[str, Score]:
    """Score each baseline on the questions with options, whether or not their video is here.

    Raises:
        BenchmarkError: No question has options.
    """
    choices = keep_samples(suite, lambda sample: sample.kind == "choice")
    samples = (*choices.samples, *choices.absent)
    if not samples:
        raise BenchmarkError(f"{suite.benchmark} has no question with options, so no blind baseline")
    return {
        name: summarise(suite.benchmark, [_score_blindly(sample, rule) for sample in samples])
        for name, rule in list_baselines(choices).items()
    }


def _score_blindly(sample: Sample, rule: _Rule) -> Scored:
    """Score a baseline. A letter needs no reader, which would take most of the time of a large benchmark."""
    if sample.then is not None:
        return score_sample(sample, answer_blindly(sample, rule))
    is_right = rule(sample.options) == sample.right
    return Scored(
        id=sample.id,
        score=float(is_right),
        outcome="right" if is_right else "wrong",
        groups=sample.groups,
    )
