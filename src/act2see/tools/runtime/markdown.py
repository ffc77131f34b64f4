"""Tables in Markdown, for reports, cards and benchmark summaries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a table with a final newline. In a cell, `|` is escaped and a line break becomes a space."""
    lines = [_row(head), "|" + "---|" * len(head)]
    lines += [_row(row) for row in rows]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[object]) -> str:
    texts = [" ".join(str(cell).split("\n")).replace("|", "\\|") for cell in cells]
    return "| " + " | ".join(texts) + " |"
