"""Blind baselines: what one scores without the video. A benchmark's number means little without them.

They answer what the run asked: where options were shuffled, they see the order that the seed drew, and where
a question was asked several times, they answer it as often.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from act2see.errors import BenchmarkError
from act2see.evaluation.benchmarks import Suite, keep_samples
from act2see.evaluation.replies import Reply, show_options, shuffle_order
from act2see.evaluation.samples import Sample
from act2see.evaluation.scoring import Score, Scored, merge_epochs, score_sample, summarise
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


def answer_blindly(sample: Sample, rule: _Rule, seed: int | None = None) -> Reply:
    """Return the reply of a baseline to options in the order of a seed."""
    order = shuffle_order(sample.options, sample.id, seed)
    body = LETTERS[rule(show_options(sample.options, order))]
    if sample.then is None:
        return Reply(body=body, order=order)
    then_order = shuffle_order(sample.then.options, f"{sample.id} then", seed)
    then = LETTERS[rule(show_options(sample.then.options, then_order))]
    return Reply(body=body, order=order, then=then, then_order=then_order)


def score_baselines(suite: Suite, seeds: Sequence[int | None] = (None,)) -> dict[str, Score]:
    """Score each baseline on the questions with options, whether or not their video is here.

    Args:
        suite: The questions.
        seeds: The seeds that the order of options was drawn from, one for each time that a question was
            asked; None for the order of the file.

    Raises:
        BenchmarkError: No question has options.
    """
    choices = keep_samples(suite, lambda sample: sample.kind == "choice")
    samples = (*choices.samples, *choices.absent)
    if not samples:
        raise BenchmarkError(f"{suite.benchmark} has no question with options, so no blind baseline")
    scores = {}
    for name, rule in list_baselines(choices).items():
        asked = [merge_epochs([_score_blindly(sample, rule, seed) for seed in seeds]) for sample in samples]
        scores[name] = summarise(suite.benchmark, asked)
    return scores


def _score_blindly(sample: Sample, rule: _Rule, seed: int | None) -> Scored:
    """Score a baseline. A letter needs no reader, which would take most of the time of a large benchmark."""
    if sample.then is not None:
        return score_sample(sample, answer_blindly(sample, rule, seed))
    order = shuffle_order(sample.options, sample.id, seed)
    is_right = order[rule(show_options(sample.options, order))] == sample.right
    return Scored(
        id=sample.id,
        score=float(is_right),
        outcome="right" if is_right else "wrong",
        groups=sample.groups,
    )
