"""Markdown tables: every row has as many cells as the head, whatever is in them."""

from __future__ import annotations

from act2see.tools.runtime.markdown import markdown_table


def test_a_cell_cannot_end_its_row_or_its_table() -> None:
    table = markdown_table(("name", "n"), [("a|b\nc", 1), ("", 2.5)])
    assert table == "| name | n |\n|---|---|\n| a\\|b c | 1 |\n|  | 2.5 |\n"
