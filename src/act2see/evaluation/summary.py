"""The table of a run, as lines of text: the score, and what a reader needs in order to believe it."""

from __future__ import annotations

from collections.abc import Iterator

from act2see.evaluation.records import RunRecord
from act2see.evaluation.statistics import Share

_VALUES = 12  # values of a group that are listed
_MISSING = 10  # missing videos that are listed
_GROUPS = 6


def describe(run: RunRecord) -> list[str]:
    """Return the lines of a run's table."""
    return [*_describe_score(run), *_describe_baselines(run), *_describe_cost(run), *_describe_origin(run)]


def _describe_score(run: RunRecord) -> Iterator[str]:
    setting, score = run.setting, run.score
    asked = (
        f"{run.totals.questions:,} answers" if setting.epochs > 1 else f"{run.totals.questions:,} questions"
    )
    if score is None:
        yield f"{setting.benchmark}, {setting.arm}: not finished"
        return
    part = f" of {run.of:,}" if run.limit is not None else ""
    yield f"{setting.benchmark}, {setting.arm}: {score.headline:.1f} % {score.headline_name} ({asked}{part})"
    yield f"  accuracy: {score.accuracy}"
    for field, values in list(score.by.items())[:_GROUPS]:
        if len(values) > 1:
            yield f"  by {field}: {_list_shares(values)}"
    for name, value in score.measures.items():
        yield f"  {name}: {value:.1f} %"
    counts = ", ".join(f"{status} {n:,}" for status, n in run.totals.statuses.items())
    yield f"  answers: {counts}"
    if score.judge:
        yield f"  judge: {score.judge}, {score.malformed:,} of its replies were no valid JSON"


def _list_shares(values: dict[str, Share]) -> str:
    listed = [f"{name} {100 * share.share:.1f} (n = {share.n})" for name, share in values.items()]
    more = f" and {len(listed) - _VALUES} more" if len(listed) > _VALUES else ""
    return ", ".join(listed[:_VALUES]) + more


def _describe_baselines(run: RunRecord) -> Iterator[str]:
    if run.baselines:
        ranked = sorted(run.baselines, key=lambda baseline: -baseline.headline)
        yield f"  without the video: {', '.join(f'{b.name} {b.headline:.1f} %' for b in ranked)}"
    else:
        yield "  without the video: no question has options"
    missing = run.missing
    if missing.questions:
        counted = "count as wrong" if missing.choice == "wrong" else "are left out"
        yield f"  {missing.questions:,} questions {counted}: {len(missing.videos):,} videos are missing"
        rest = len(missing.videos) - _MISSING
        yield f"    {', '.join(missing.videos[:_MISSING])}{f' and {rest:,} more' if rest > 0 else ''}"
    if run.problems:
        yield f"  {len(run.problems):,} problems of the file: {run.problems[0]}"


def _describe_cost(run: RunRecord) -> Iterator[str]:
    budgets, totals = run.budgets, run.totals
    start = f"{budgets.frames} frames" if budgets.frames else f"{budgets.fps:g} frame(s) a second"
    yield (
        f"  may use: {start}, at most {budgets.max_frames} of {budgets.max_side} px; {budgets.calls} calls, "
        f"{budgets.tokens:,} + {budgets.answer_tokens:,} tokens, {budgets.seconds:g} s"
    )
    n = max(1, totals.questions - totals.statuses.get("missing", 0))
    calls = totals.calls
    aside = f", {totals.aside / n:.1f} for captions" if totals.aside else ""
    yield (
        f"  used, a question: {totals.tokens / n:.1f} tokens, {totals.read / n:.1f} read{aside}, "
        f"{totals.frames / n:.1f} frames, "
        f"{totals.seconds / n:.2f} s, {calls.all / n:.2f} calls (retrieve {calls.retrieve / n:.2f}, "
        f"generate {calls.generate / n:.2f}); calls not run {totals.refused_calls:,}, "
        f"answers forced {totals.forced:,}"
    )


def _describe_origin(run: RunRecord) -> Iterator[str]:
    setting = run.setting
    shuffled = "options shuffled" if setting.shuffled else "options as in the file"
    epochs = f", {setting.epochs} times" if setting.epochs > 1 else ""
    yield f"  config {setting.config}, seed {setting.seed}{epochs}, {shuffled}"
    noted = "".join(f"; {note}" for note in run.notes)
    yield f"  act2see {run.act2see}, commit {run.commit or 'unknown'}{noted}"
    yield f"  weights: {', '.join(f'{part} {name}' for part, name in run.weights.items())}"
    yield f"  {run.machine}, {run.started}"
