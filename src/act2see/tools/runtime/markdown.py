"""Tables in Markdown, for reports, cards and benchmark summaries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from act2see.tools.runtime.text import drop_controls

_SIGNS = r"\`*_[]<>#"


def markdown_table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a table with a final newline. In a cell, `|` is escaped and a line break becomes a space."""
    lines = [_row(head), "|" + "---|" * len(head)]
    lines += [_row(row) for row in rows]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[object]) -> str:
    texts = [" ".join(str(cell).split("\n")).replace("|", "\\|") for cell in cells]
    return "| " + " | ".join(texts) + " |"


def escape_markdown(text: str, *, cell: bool = False) -> str:
    """Return a text on one line, with Markdown and HTML escaped, and without control characters.

    Args:
        text: Any text.
        cell: Whether it goes into `markdown_table`, which escapes `|` itself.
    """
    signs = _SIGNS if cell else f"{_SIGNS}|"
    line = " ".join(drop_controls(text).split())
    return "".join(f"\\{c}" if c in signs else c for c in line)
