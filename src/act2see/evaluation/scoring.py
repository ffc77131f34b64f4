"""Scores: one for each sample, by the rules of its benchmark, and a table of them.

Every sample of a suite has an outcome, and outcomes are counted: nothing is dropped from a denominator but
questions without a video, and those only where the suite was loaded so. The headline is what the
benchmark's authors report: accuracy; for ViTIB the unweighted mean over its tasks; for EgoNormia both
answers right; for Video-MME-v2 the score of its groups of four.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import Field

from act2see.errors import BenchmarkError
from act2see.evaluation.benchmarks import Suite
from act2see.evaluation.judging import Judge, judge_answer, judge_chain
from act2see.evaluation.quantities import Quantity, read_quantity
from act2see.evaluation.reading import Reading
from act2see.evaluation.regions import measure_box_iou, measure_time_iou, read_box, read_intervals
from act2see.evaluation.replies import Replies, Reply, read_reply
from act2see.evaluation.samples import Sample
from act2see.evaluation.statistics import Share, measure_share
from act2see.tools.frames import Record
from act2see.trace.options import LETTERS

TIME_IOU, BOX_IOU = 0.7, 0.5
"""An interval or a box is right if its IoU is larger."""
Outcome = Literal[
    "right", "partly", "wrong", "unanswered", "several", "unreadable", "refused", "no video", "unjudged"
]
_NOT_GROUPS = {"group", "group_type", "group_structure"}
_GROUPED = "video-mme-v2"


class Scored(Record):
    """The score of one sample."""

    id: str
    score: float
    """From 0 to 1."""
    outcome: Outcome
    groups: dict[str, str] = Field(default_factory=dict)
    measures: dict[str, float] = Field(default_factory=dict)
    """Parts of the score: action and justification, recall and precision."""


class Score(Record):
    """The scores of a benchmark, with what a reader needs to believe them."""

    benchmark: str
    headline: float
    """In percent."""
    headline_name: str
    accuracy: Share
    by: dict[str, dict[str, Share]]
    """Field of groups -> its value -> the accuracy there."""
    outcomes: dict[str, int]
    measures: dict[str, float]
    """Means over the samples that have them, in percent."""
    left_out: int
    """Questions without a video that do not count."""
    judge: str | None = None
    malformed: int = 0
    """Replies of the judge that were no valid JSON."""
    items: tuple[Scored, ...] = ()


async def score_suite(
    suite: Suite, replies: Replies, judge: Judge | None = None, *, chains: bool = False
) -> Score:
    """Score the replies to a suite.

    Args:
        suite: The samples.
        replies: A reply for each id; a sample without one is unanswered.
        judge: Judges free answers.
        chains: Whether it also judges the chains.

    Raises:
        BenchmarkError: A reply belongs to no sample, or a judge is needed.
    """
    known = {sample.id for sample in (*suite.samples, *suite.absent)}
    if strange := sorted(set(replies) - known):
        raise BenchmarkError(
            f"{len(strange)} replies are to no question of {suite.benchmark}, such as {strange[0]!r}"
        )
    free = sum(sample.kind == "text" for sample in suite.samples)
    if judge is None and (free or chains):
        raise BenchmarkError(f"{suite.benchmark} needs a judge ({free} free answers): name a chat model")
    items, malformed = [], 0
    for sample in suite.samples:
        item, bad = await score_reply(sample, replies.get(sample.id, Reply()), judge, chains)
        items.append(item)
        malformed += bad
    if suite.missing == "wrong":
        items += [_make(sample, 0.0, "no video") for sample in suite.absent]
    left_out = len(suite.absent) if suite.missing == "leave out" else 0
    return summarise(suite.benchmark, items, left_out, judge.name if judge else None, malformed)


def _make(sample: Sample, score: float, outcome: Outcome, **measures: float) -> Scored:
    return Scored(id=sample.id, score=score, outcome=outcome, groups=sample.groups, measures=measures)


async def score_reply(
    sample: Sample, reply: Reply, judge: Judge | None = None, chains: bool = False
) -> tuple[Scored, int]:
    """Score a reply, with a judge where the sample needs one. The number of its malformed replies comes with
    the score.
    """
    if sample.kind != "text" and not (chains and sample.chain):
        return score_sample(sample, reply), 0
    assert judge is not None
    malformed = 0
    if sample.kind == "text" and reply.body and reply.body.strip() and not reply.refused:
        verdict = await judge_answer(judge, sample, reply.body)
        malformed += verdict.malformed
        outcome: Outcome = "unjudged" if verdict.right is None else "right" if verdict.right else "wrong"
        item = _make(sample, float(verdict.right or 0), outcome)
    else:
        item = score_sample(sample, reply)
    if not chains or not sample.chain:
        return item, malformed
    chain = await judge_chain(judge, sample, reply.chain)
    parts = {"recall": chain.recall, "precision": chain.precision, "unjudged chains": float(chain.unjudged)}
    measures = {name: value for name, value in parts.items() if value is not None}
    return item.model_copy(update={"measures": item.measures | measures}), malformed + chain.malformed


def score_sample(sample: Sample, reply: Reply) -> Scored:
    """Score a reply without a judge."""
    if reply.refused:
        return _make(
            sample,
            0.0,
            "refused",
            **({"action": 0.0, "justification": 0.0, "both": 0.0} if sample.then else {}),
        )
    reading = read_reply(reply.body, sample.options, reply.order, sample.kind)
    if sample.then is not None:
        return _score_two(sample, reply, reading)
    if reading.fault:
        return _make(sample, 0.0, reading.fault)
    score = _compare(sample, reading)
    return _make(sample, score, "right" if score == 1 else "partly" if score > 0 else "wrong")


def _compare(sample: Sample, reading: Reading) -> float:
    value = reading.value
    if sample.kind == "choice":
        return float(value == sample.right)
    if sample.kind == "choices":
        return float(value == frozenset(LETTERS.index(letter) for letter in sample.answer))
    if sample.kind == "interval" and isinstance(value, tuple):
        return float(measure_time_iou(value, read_intervals(sample.answer) or ()) > TIME_IOU)  # type: ignore[arg-type]
    if sample.kind == "box" and isinstance(value, tuple) and (right := read_box(sample.answer)):
        return float(measure_box_iou(value, right) > BOX_IOU)  # type: ignore[arg-type]
    quantity = read_quantity(sample.answer)
    if not isinstance(value, Quantity) or quantity is None:
        return 0.0
    return float(value.agrees(quantity)) if sample.kind == "number" else measure_size(value, quantity)


def measure_size(given: Quantity, right: Quantity) -> float:
    """Return the mean relative accuracy of an estimate: the share of the thresholds 50 % to 95 % that it
    meets.
    """
    if given.kind and right.kind and given.kind != right.kind:
        return 0.0
    same = bool(given.kind and right.kind)
    a, b = (given.value, right.value) if same else (given.value / given.scale, right.value / right.scale)
    error = abs(a - b) / abs(b) if b else float(a != b)
    return sum(error < 1 - (50 + 5 * step) / 100 - 1e-9 or error == 0 for step in range(10)) / 10


def _score_two(sample: Sample, reply: Reply, first: Reading) -> Scored:
    """EgoNormia: the behaviour and its justification; right if both are."""
    assert sample.then is not None
    second = read_reply(reply.then, sample.then.options, reply.then_order)
    action = float(first.value == sample.right)
    reason = float(second.value == LETTERS.index(sample.then.answer))
    measures = {"action": action, "justification": reason, "both": action * reason}
    if reply.sensible is not None:
        value = read_reply(reply.sensible, sample.options, reply.order, "choices").value
        given = value if isinstance(value, frozenset) else frozenset()
        wanted = frozenset(LETTERS.index(letter) for letter in sample.sensible)
        measures["sensible"] = len(given & wanted) / len(given | wanted) if given | wanted else 1.0
    both = action * reason
    return _make(sample, both, first.fault or second.fault or ("right" if both else "wrong"), **measures)


def summarise(
    benchmark: str, items: Sequence[Scored], left_out: int = 0, judge: str | None = None, malformed: int = 0
) -> Score:
    """Return the table of scored samples."""
    by: dict[str, dict[str, Share]] = {}
    for field in sorted({field for item in items for field in item.groups} - _NOT_GROUPS):
        values = sorted({item.groups[field] for item in items if field in item.groups})
        by[field] = {
            value: _share(item for item in items if item.groups.get(field) == value) for value in values
        }
    accuracy = _share(items)
    measures = {
        name: 100 * sum(given) / len(given)
        for name in sorted({name for item in items for name in item.measures})
        if (given := [item.measures[name] for item in items if name in item.measures])
        and name != "unjudged chains"
    }
    if "recall" in measures or "precision" in measures:
        recall, precision = measures.get("recall", 0.0), measures.get("precision", 0.0)
        measures["f1"] = 2 * recall * precision / (recall + precision) if recall + precision else 0.0
    headline, name = 100 * accuracy.share, "accuracy"
    if benchmark == "vitib" and by.get("task"):
        tasks = by["task"].values()
        headline, name = 100 * sum(task.share for task in tasks) / len(tasks), "mean over tasks"
    elif benchmark == "egonormia":
        name = "behaviour and justification"
    elif benchmark == _GROUPED:
        headline, name = score_groups(items), "score of groups"
    outcomes = Counter(item.outcome for item in items)
    unjudged = sum(item.measures.get("unjudged chains", 0.0) for item in items)
    counted = {str(outcome): n for outcome, n in sorted(outcomes.items())}
    if unjudged:
        counted["unjudged chains"] = int(unjudged)
    return Score(
        benchmark=benchmark,
        headline=headline,
        headline_name=name,
        accuracy=accuracy,
        by=by,
        outcomes=counted,
        measures=measures,
        left_out=left_out,
        judge=judge,
        malformed=malformed,
        items=tuple(items),
    )


def _share(items: Iterable[Scored]) -> Share:
    return measure_share([item.score for item in items])


def merge_epochs(items: Sequence[Scored]) -> Scored:
    """Return one score of several answers to a question: their mean."""
    if len(items) == 1:
        return items[0]
    score = sum(item.score for item in items) / len(items)
    measures = {
        name: sum(item.measures.get(name, 0.0) for item in items) / len(items)
        for name in sorted({name for item in items for name in item.measures})
    }
    outcomes = Counter(item.outcome for item in items)
    outcome = outcomes.most_common(1)[0][0] if len(outcomes) == 1 or not 0 < score < 1 else "partly"
    return items[0].model_copy(update={"score": score, "outcome": outcome, "measures": measures})


def score_groups(items: Sequence[Scored]) -> float:
    """Return Video-MME-v2's score, in percent: the mean over its groups of four questions.

    A group of relevance has (right / 4)². One of logic counts only what is right from its beginning. An
    answer that cannot be read is wrong here; the released scorer takes it for right in the order, and
    subtracts it in the sum.

    Raises:
        BenchmarkError: A group is not whole.
    """
    groups: dict[str, list[Scored]] = {}
    for item in items:
        groups.setdefault(item.groups["group"], []).append(item)
    scores = []
    for name, group in groups.items():
        if len(group) != 4:
            raise BenchmarkError(
                f"group {name} has {len(group)} questions, not 4: groups are scored as a whole"
            )
        right = [item.score == 1 for item in group]
        if group[-1].groups["group_type"] == "relevance":
            scores.append(sum(right) ** 2 / 16)
        else:
            scores.append(_score_chain(right, group[-1].groups.get("group_structure", "")))
    return 100 * sum(scores) / len(scores) if scores else 0.0


def _score_chain(right: list[bool], structure: str) -> float:
    reached = next((n for n, is_right in enumerate(right) if not is_right), 4)
    try:
        shape = ast.literal_eval(structure)
    except (ValueError, SyntaxError):
        shape = None
    if shape == [1, 2, 3, 4]:
        return (0, 1, 4, 9, 16)[reached] / 16
    if shape == [1, [2, 3], 4]:  # the second and third question depend on the first alone
        return (0, 1, 4, 7, 12)[reached + (reached == 1 and right[2])] / 12
    if shape == [[1, 2], 3, 4]:
        return (0, 1, 2, 5, 10)[reached + (reached == 0 and right[1])] / 10
    raise BenchmarkError(f"group_structure {structure!r} is unknown: the file is of another version")
