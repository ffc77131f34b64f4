"""The content of `act2see report`: tables of finished runs side by side, the same for each form of the page.

A column is a run. Every table says what its figures are, and no figure stands without its number of
questions. `report_pages` writes the content as HTML and as Markdown, `report_plots` draws it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from act2see.evaluation.comparing import LoadedRun, compare_pairs
from act2see.evaluation.diagnostics import Diagnostics, Group
from act2see.evaluation.paper import list_figures
from act2see.evaluation.records import RunRecord
from act2see.evaluation.statistics import Share
from act2see.trace.record import OUTCOMES

_GROUPS, _VALUES = 6, 12  # fields of groups, and values of each, that have a row


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of texts below a head."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report."""

    title: str
    about: str
    tables: tuple[Table, ...]


def make_sections(runs: Sequence[LoadedRun]) -> list[Section]:
    """Return the tables of a report. Parts without content are left out."""
    sections = [
        Section("Scores", _ABOUT_SCORES, (_tabulate(runs, _SCORES), *_by_group(runs))),
        Section("The paper", _ABOUT_PAPER, tuple(_paper(runs))),
        Section("The same questions", _ABOUT_PAIRS, tuple(_pairs(runs))),
        Section("Active perception", _ABOUT_CALLS, (*_diagnostics(runs), *_groups(runs))),
        Section("Asked again, with another return", _ABOUT_CHANGES, tuple(_changes(runs))),
        Section("Where the runs come from", "", (_tabulate(runs, _ORIGIN),)),
    ]
    return [section for section in sections if section.tables]


_ABOUT_SCORES = (
    "Intervals are 95 % (Wilson). All questions count, unless their video was left out on purpose."
)
_ABOUT_PAPER = "The paper's figures are of other models: compare the order and the distance, not the size."
_ABOUT_PAIRS = (
    "McNemar's exact test, two-sided, over the questions that both runs were asked. With several pairs, look "
    "at the corrected p (Holm)."
)
_ABOUT_CALLS = (
    "Recall: share of the needed calls that were made. Precision: share of the made calls that were needed. "
    "A frame is ignored if not one word was written between it and the next call or the answer. Accuracy by "
    "the number of calls is no effect of calls: questions that need more may be harder."
)
_ABOUT_CHANGES = (
    "The same questions with another return of the calls; times and marks stay as they were. Only questions "
    "whose answer the change can reach are asked, and compared. The same words: what was returned had no "
    "effect."
)


def show_share(share: Share | None) -> str:
    """Return a share as text: percent, interval and number."""
    return str(share) if share is not None and share.n else "-"


def _per(total: float, run: RunRecord) -> str:
    asked = run.totals.questions - run.totals.statuses.get("missing", 0)
    return f"{total / max(1, asked):,.2f}"


def _best_baseline(run: RunRecord) -> str:
    best = max(run.baselines, key=lambda baseline: baseline.headline, default=None)
    return f"{best.headline:.1f} % ({best.name})" if best else "-"


def _headline(run: RunRecord) -> str:
    return f"{run.score.headline:.1f} % {run.score.headline_name}" if run.score else "-"


def _budget(run: RunRecord) -> str:
    b = run.budgets
    start = f"{b.frames} frames" if b.frames else f"{b.fps:g} frames a second"
    return (
        f"{start} to {b.max_frames} of {b.max_side} px, {b.calls} calls, {b.tokens:,} tokens, {b.seconds:g} s"
    )


def _judge(run: RunRecord) -> str:
    if run.setting.judge is None:
        return "-"
    return f"{run.setting.judge}, {run.totals.judge_malformed:,} replies were no JSON"


def _settings(run: RunRecord) -> str:
    shuffled = "options shuffled" if run.setting.shuffled else "options as in the file"
    return (
        f"seed {run.setting.seed}, {run.setting.epochs} x, {shuffled}, missing videos: {run.missing.choice}"
    )


_Cell = Callable[[RunRecord], str]
_SCORES: dict[str, _Cell] = {
    "benchmark": lambda run: run.setting.benchmark,
    "way of working": lambda run: run.setting.arm,
    "questions": lambda run: f"{run.totals.questions:,} of {run.of:,}",
    "score": _headline,
    "accuracy": lambda run: show_share(run.score.accuracy if run.score else None),
    "best without the video": _best_baseline,
    **{
        status: lambda run, status=status: f"{run.totals.statuses.get(status, 0):,}"  # type: ignore[misc]
        for status in ("answered", "unanswered", "malformed", "refused", "missing", "failed")
    },
    "answers forced": lambda run: f"{run.totals.forced:,}",
    "may use": _budget,
    "tokens a question": lambda run: _per(run.totals.tokens, run),
    "tokens read": lambda run: _per(run.totals.read, run),
    "tokens of captions": lambda run: _per(run.totals.aside, run),
    "hidden tokens": lambda run: _per(run.totals.thinking, run),
    "frames a question": lambda run: _per(run.totals.frames, run),
    "calls a question": lambda run: _per(run.totals.calls.all, run),
    "seconds a question": lambda run: _per(run.totals.seconds, run),
    "judge": _judge,
}
_ORIGIN: dict[str, _Cell] = {
    "config": lambda run: run.setting.config,
    "asked": _settings,
    "act2see": lambda run: run.act2see,
    "commit": lambda run: run.commit or "unknown",
    "weights": lambda run: ", ".join(f"{part} {name}" for part, name in run.weights.items()),
    "machine": lambda run: run.machine,
    "started": lambda run: run.started,
    "questions' hash": lambda run: run.setting.digest,
    "problems of the file": lambda run: "; ".join(run.problems[:3]) or "-",
    "notes": lambda run: "; ".join(run.notes) or "-",
}


def describe_run(run: RunRecord) -> list[tuple[str, str]]:
    """Return all that a report says of one run: names and what stands beside them."""
    return [(name, cell(run)) for name, cell in {**_SCORES, **_ORIGIN}.items()]


def _tabulate(runs: Sequence[LoadedRun], cells: dict[str, _Cell]) -> Table:
    rows = tuple((name, *(cell(loaded.run) for loaded in runs)) for name, cell in cells.items())
    return Table(("", *(loaded.name for loaded in runs)), rows)


def _by_group(runs: Sequence[LoadedRun]) -> Iterator[Table]:
    scores = [loaded.run.score.by if loaded.run.score else {} for loaded in runs]
    fields = list(dict.fromkeys(field for score in scores for field in score))
    for field in fields[:_GROUPS]:
        values = list(dict.fromkeys(value for score in scores for value in score.get(field, {})))
        if len(values) > 1:
            rows = tuple(
                (value, *(show_share(score.get(field, {}).get(value)) for score in scores))
                for value in values[:_VALUES]
            )
            yield Table((field, *(loaded.name for loaded in runs)), rows, f"accuracy by {field}")


def _paper(runs: Sequence[LoadedRun]) -> Iterator[Table]:
    for benchmark in dict.fromkeys(loaded.run.setting.benchmark for loaded in runs):
        figures = list_figures(benchmark)
        if not figures:
            continue
        rows = [(figure.who, f"{figure.accuracy:.1f} %", figure.source) for figure in figures]
        for loaded in runs:
            if loaded.run.setting.benchmark == benchmark:
                part = f"{loaded.run.totals.questions:,} of {loaded.run.of:,} questions"
                rows.append((loaded.name, _headline(loaded.run), f"this report, {part}"))
        yield Table(("", "score", "source"), tuple(rows), benchmark)


def _pairs(runs: Sequence[LoadedRun]) -> Iterator[Table]:
    rows = []
    for pair in compare_pairs(runs):
        p = pair.paired
        counts = (pair.n, p.both, p.first_only, p.second_only, p.neither)
        rows.append(
            (f"{pair.first}, {pair.second}", *(f"{n:,}" for n in counts), show_p(p.p), show_p(pair.corrected))
        )
    if rows:
        head = ("runs", "questions", "both right", "only the first", "only the second", "neither", "p")
        yield Table((*head, "p, corrected"), tuple(rows))


def show_p(p: float) -> str:
    """Return a p value as text."""
    return f"{p:.2g}" if p >= 0.0001 else "< 0.0001"


def _diagnostics(runs: Sequence[LoadedRun]) -> Iterator[Table]:
    columns = [(loaded.name, loaded.diagnostics) for loaded in runs if loaded.diagnostics is not None]
    if columns:
        rows = tuple((name, *(cell(d) for _, d in columns)) for name, cell in _PERCEPTION.items())
        yield Table(("", *(name for name, _ in columns)), rows)


def _of(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({100 * part / whole:.1f} %)" if whole else "-"


def _refused(d: Diagnostics) -> str:
    listed = [f"{n:,} x {OUTCOMES[outcome]}" for outcome, n in d.seen.refused.items()]
    return "; ".join(listed) or "none"


def _traces(d: Diagnostics) -> str:
    gone = f", {d.seen.missing:,} are gone" if d.seen.missing else ""
    return f"{d.seen.traces:,}{gone}"


_PERCEPTION: dict[str, Callable[[Diagnostics], str]] = {
    "questions with a call": lambda d: show_share(d.called),
    "calls a question": lambda d: f"{d.calls:.2f}",
    "recall of calls": lambda d: show_share(d.recall),
    "precision of calls": lambda d: show_share(d.precision),
    "questions without need that had a call": lambda d: show_share(d.needless),
    "points of accuracy per 1,000 tokens": lambda d: "-" if d.points is None else f"{d.points:,.1f}",
    "accuracy with an imagined frame": lambda d: show_share(d.with_imagined),
    "accuracy without one": lambda d: show_share(d.without_imagined),
    "traces read": _traces,
    "returned frames that were ignored": lambda d: _of(d.seen.ignored, d.seen.returned),
    "returned frames that were in view already": lambda d: _of(d.seen.known, d.seen.returned),
    "imagined frames closer to the query than their anchor": lambda d: _of(d.seen.closer, d.seen.judged),
    "calls that were not run": _refused,
}


def _groups(runs: Sequence[LoadedRun]) -> Iterator[Table]:
    for loaded in runs:
        if (d := loaded.diagnostics) is None:
            continue
        if d.by_task:
            yield _list_groups(d.by_task, "type", f"{loaded.name}: by type of question")
        yield _list_groups(d.by_calls, "calls", f"{loaded.name}: by number of calls")


def _list_groups(groups: Sequence[Group], what: str, caption: str) -> Table:
    head = (what, "accuracy", "need a call", "had a call", "retrieve", "generate", "other", "tokens")
    rows = tuple(
        (
            group.name,
            show_share(group.accuracy),
            "-" if group.needed is None else f"{group.needed:.0%}",
            f"{group.called:.0%}",
            *(f"{calls:.2f}" for calls in (group.retrieve, group.generate, group.other)),
            f"{group.tokens:,.0f}",
        )
        for group in groups
    )
    return Table(head, rows, caption)


def _changes(runs: Sequence[LoadedRun]) -> Iterator[Table]:
    head = (
        "returned instead",
        "questions",
        "as asked for",
        "with this",
        "points lost",
        "p",
        "other answers",
    )
    for loaded in runs:
        rows = []
        for changed in loaded.changes:
            rate = changed.points_per_1000
            per = f"{rate:,.1f}" if changed.name == "tools-off" and rate is not None else "-"
            rows.append(
                (
                    changed.words,
                    f"{changed.n:,}",
                    f"{100 * changed.plain.share:.1f} %",
                    show_share(changed.changed),
                    f"{changed.points:.1f}",
                    show_p(changed.paired.p),
                    f"{changed.other_answers:,}",
                    f"{changed.same_words:,}",
                    per,
                )
            )
        if rows:
            yield Table((*head, "same words", "points per 1,000 more tokens"), tuple(rows), loaded.name)


def list_main(runs: Sequence[LoadedRun]) -> Iterator[str]:
    """Yield the main lines of a report for a terminal: scores, and whether runs differ."""
    for loaded in runs:
        share = show_share(loaded.run.score.accuracy if loaded.run.score else None)
        yield f"{loaded.name}: {_headline(loaded.run)}; accuracy {share}"
    for pair in compare_pairs(runs):
        p = pair.paired
        yield (
            f"{pair.first}, {pair.second}: {p.first_only:,} right only in the first, {p.second_only:,} only "
            f"in the second, of {pair.n:,} questions, p = {show_p(pair.corrected)}"
        )
