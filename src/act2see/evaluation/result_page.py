"""One run as a page of Markdown: the score, and what stands beside it. `act2see eval --page` writes it.

`act2see report` compares runs and shows their wrong answers; this page is the short one that is kept with a
project. Its cells are those of the report, so the two never say different things.
"""

from __future__ import annotations

from act2see.errors import BenchmarkError
from act2see.evaluation.records import RunRecord
from act2see.evaluation.reporting import describe_run
from act2see.tools.runtime.markdown import escape_markdown, markdown_table

MARK = b"Written by act2see:"
"""What every page has near its start: a file without it is not replaced."""


def make_page(run: RunRecord, command: str) -> str:
    """Return the page of a finished run.

    Args:
        run: The run.
        command: The command that wrote it.

    Raises:
        BenchmarkError: The run is not finished.
    """
    if run.score is None:
        raise BenchmarkError("a run that is not finished has no score: run the same command again")
    title = f"{run.setting.benchmark}: {run.score.headline:.1f} % {run.score.headline_name}"
    parts = [
        f"# {escape_markdown(title)}\n",
        f"{MARK.decode()} `{command}`\n",
        markdown_table(("", ""), describe_run(run)),
    ]
    if run.baselines:
        rows = [(b.name, f"{b.headline:.1f} %", b.n) for b in run.baselines]
        parts += ["## Without the video\n", markdown_table(("always the same rule", "score", "n"), rows)]
    groups = [
        (f, v, share) for f, values in run.score.by.items() if len(values) > 1 for v, share in values.items()
    ]
    if groups:
        parts += ["## By kind of question\n", markdown_table(("", "", "accuracy (95 % interval)"), groups)]
    return "\n".join(parts)
