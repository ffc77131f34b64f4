"""A report as one HTML file and as Markdown, from the same tables.

The HTML page holds all that it shows, without scripts and without anything loaded from elsewhere; its content
security policy forbids both. Questions, answers and names come from files of others, so every text is
escaped. Wrong answers are shown with their traces, up to a number; of the others the files are linked.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from act2see.errors import StoreError
from act2see.evaluation.comparing import LoadedRun
from act2see.evaluation.records import QuestionRecord, load_trace
from act2see.evaluation.report_plots import draw_plots
from act2see.evaluation.reporting import Section, Table, make_sections
from act2see.tools.frames import FrameRef
from act2see.tools.runtime.files import check_file, write_text
from act2see.tools.runtime.markdown import escape_markdown, markdown_table
from act2see.tools.runtime.text import shorten_text
from act2see.tools.video.store import FrameSource, FrameStore, Pixels
from act2see.trace.markup import Html, el
from act2see.trace.options import LETTERS
from act2see.trace.page import article, page
from act2see.trace.pictures import Pictures

TRACES = 10
"""Failures of a run that are shown with their traces, unless another number is asked for."""
_LISTED = 200  # failures of a run that have a line
_LINE = 160  # characters of a question or an answer in a line
_MARK = "Report of act2see"
_FAILURES = "Questions that were not answered right"


@dataclass(frozen=True, slots=True)
class Failure:
    """A question that was not answered right."""

    record: QuestionRecord
    link: str
    """The address of its trace, relative to the report; empty if there is none."""


def write_report(runs: Sequence[LoadedRun], to: Path, traces: int = TRACES, *, force: bool = False) -> Path:
    """Write a report as an HTML file, and beside it as Markdown.

    Args:
        runs: Finished runs.
        to: The HTML file.
        traces: How many failures of a run are shown with their traces.
        force: Whether a file that is no report may be replaced.

    Returns:
        The Markdown file.

    Raises:
        StoreError: A file cannot be written, or exists and is no report.
    """
    if to.suffix != ".html":
        raise StoreError(
            f"a report cannot be written as {to.name}: name a .html file; the .md lies beside it"
        )
    twin = to.with_suffix(".md")
    check_file(to, b"<title>" + _MARK.encode(), force=force)
    check_file(twin, b"# " + _MARK.encode(), force=force)
    sections = make_sections(runs)
    failures = {loaded.name: _list_failures(loaded, to.parent) for loaded in runs}
    write_text(to, report_html(runs, sections, failures, traces))
    write_text(twin, report_markdown(runs, sections, failures))
    return twin


def _list_failures(loaded: LoadedRun, beside: Path) -> list[Failure]:
    return [Failure(record, _link(loaded, record, beside)) for record in loaded.failures]


def _link(loaded: LoadedRun, record: QuestionRecord, beside: Path) -> str:
    if record.trace is None or not (loaded.folder / record.trace).is_file():
        return ""
    # Quoted whole, so that a folder's name cannot be the scheme of an address.
    return quote(os.path.relpath(loaded.folder / record.trace, beside).replace(os.sep, "/"))


def _title(runs: Sequence[LoadedRun]) -> str:
    return f"{_MARK}: {', '.join(loaded.name for loaded in runs)}"


def report_html(
    runs: Sequence[LoadedRun],
    sections: Sequence[Section],
    failures: dict[str, list[Failure]],
    traces: int = TRACES,
) -> str:
    """Return a report as one HTML file. Its traces take their pictures from the stores of the runs."""
    pictures = Pictures(_source(runs))
    plots = draw_plots(runs)
    body = [el("header", el("p", _MARK, class_="eyebrow"), el("h1", ", ".join(run.name for run in runs)))]
    for section in sections:
        parts: list[Html] = [el("h2", section.title)]
        if section.about:
            parts.append(el("p", section.about, class_="note"))
        if section.title in plots:
            png, words = plots[section.title]
            address = f"data:image/png;base64,{base64.b64encode(png).decode()}"
            parts.append(el("img", src=address, alt=words))
        parts += [_html_table(table) for table in section.tables]
        body.append(el("section", parts))
    shown = [part for run in runs for part in _html_failures(run, failures[run.name], pictures, traces)]
    body.append(el("section", el("h2", _FAILURES), shown))
    return page(el("div", body, class_="report"), pictures, _title(runs), fragment=False)


def _html_table(table: Table) -> Html:
    rows = [
        el("tr", el("th", row[0], scope="row"), (el("td", cell, dir="auto") for cell in row[1:]))
        for row in table.rows
    ]
    head = el("tr", (el("th", cell, scope="col") if cell else el("td") for cell in table.head))
    caption = el("caption", table.caption) if table.caption else None
    return el("div", el("table", caption, el("thead", head), el("tbody", rows)), class_="wide")


def _html_failures(
    loaded: LoadedRun, failures: Sequence[Failure], pictures: Pictures, traces: int
) -> Iterator[Html]:
    yield el("h3", f"{loaded.name}: {len(failures):,} of {len(loaded.records):,}")
    left = traces
    for failure in failures[:_LISTED]:
        record = failure.record
        trace = load_trace(loaded.folder, record.trace) if left > 0 else None
        link = el("a", "trace", href=failure.link) if failure.link else "no trace"
        summary = el("b", record.id), " ", el("bdi", _question_line(record)), " ", el("bdi", _outcome(record))
        if trace is None:
            yield el("p", summary, " ", link, class_="failure")
            continue
        left -= 1
        yield el("details", el("summary", summary), el("p", link), article(trace, pictures, fragment=True))
    if len(failures) > _LISTED:
        yield el("p", f"and {len(failures) - _LISTED:,} more, in {loaded.folder / 'questions.jsonl'}")


def _question_line(record: QuestionRecord) -> str:
    options = "; ".join(f"{a}. {b}" for a, b in zip(LETTERS, record.options, strict=False))
    return shorten_text(f"{record.question} {options}".strip(), _LINE)


def _outcome(record: QuestionRecord) -> str:
    what = record.error or (record.answer if record.answer is not None else "")
    given = f"{record.outcome}: {shorten_text(what, _LINE)}" if what else record.outcome
    return f"({given}; right is {shorten_text(record.truth, _LINE)})"


def _source(runs: Sequence[LoadedRun]) -> FrameSource:
    """Return the pictures of the runs' own stores, then of the cache."""
    stores = [FrameStore()]
    for config in (loaded.run.config for loaded in runs):
        if store := config.get("store"):
            stores.append(FrameStore(str(store)))
        elif cache := config.get("cache"):
            stores.append(FrameStore(Path(str(cache)).expanduser() / "frames"))

    def pixels(frame: FrameRef) -> Pixels:
        for store in stores[1:]:
            if frame.digest in store:
                return store(frame)
        return stores[0](frame)

    return pixels


def report_markdown(
    runs: Sequence[LoadedRun], sections: Sequence[Section], failures: dict[str, list[Failure]]
) -> str:
    """Return a report as Markdown, with links to the traces."""
    parts = [f"# {escape_markdown(_title(runs))}\n"]
    for section in sections:
        parts.append(f"## {section.title}\n")
        if section.about:
            parts.append(f"{section.about}\n")
        for table in section.tables:
            if table.caption:
                parts.append(f"**{escape_markdown(table.caption)}**\n")
            rows = [[_cell(cell) for cell in row] for row in table.rows]
            parts.append(markdown_table([_cell(cell) for cell in table.head], rows))
    parts.append(f"## {_FAILURES}\n")
    for loaded in runs:
        listed = failures[loaded.name]
        parts.append(f"**{escape_markdown(loaded.name)}: {len(listed):,} of {len(loaded.records):,}**\n")
        rows = [_failure_row(failure) for failure in listed[:_LISTED]]
        if rows:
            parts.append(markdown_table(("question", "", "answer", "trace"), rows))
        if len(listed) > _LISTED:
            parts.append(f"and {len(listed) - _LISTED:,} more\n")
    return "\n".join(parts)


def _failure_row(failure: Failure) -> list[str]:
    record = failure.record
    link = f"[trace]({failure.link})" if failure.link else "none"
    return [_cell(record.id), _cell(_question_line(record)), _cell(_outcome(record)), link]


def _cell(text: str) -> str:
    return escape_markdown(text, cell=True)
