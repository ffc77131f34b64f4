"""The committed notebooks: executed from top to bottom, small, and without traces of one machine.

`make notebooks` checks that they run.
"""

from __future__ import annotations

import runpy
import tempfile
from pathlib import Path
from typing import Any

import pytest

nbformat: Any = pytest.importorskip("nbformat", reason="reading notebooks needs nbformat")
FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
EXECUTE = runpy.run_path(str(FOLDER / "execute.py"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def text(request: pytest.FixtureRequest) -> str:
    return str(request.param.read_text(encoding="utf-8"))


def test_notebooks_are_numbered_from_one() -> None:
    numbers = [int(path.name.partition("_")[0]) for path in NOTEBOOKS]
    assert numbers
    assert numbers == list(range(1, len(numbers) + 1))


def test_notebook_was_executed_and_can_be_committed(text: str) -> None:
    assert EXECUTE["faults"](text) == []
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    cells = [c for c in notebook.cells if c.cell_type == "code"]
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
    assert sum(bool(c.outputs) for c in cells) >= len(cells) / 2
    assert all(c.metadata == {} for c in notebook.cells)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.cells[0].source.startswith("# ")
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for link in cell.source.split("](")[1:]:
                assert (FOLDER / link.partition(")")[0]).exists(), link


def test_faults_names_what_cannot_be_committed() -> None:
    v4 = nbformat.v4
    stream = v4.new_output("stream", name="stderr", text="UserWarning: x")
    place = v4.new_output("stream", name="stdout", text=f"{tempfile.gettempdir()}/a.mp4")
    raised = v4.new_output("error", ename="KeyError", evalue="x", traceback=[])
    notebook = v4.new_notebook(
        cells=[v4.new_code_cell("x", outputs=[stream, place, raised]), v4.new_markdown_cell("x" * 600_000)]
    )
    named = " ".join(EXECUTE["faults"](nbformat.writes(notebook)))
    for words in ("stderr: UserWarning", "KeyError", "path of this machine", "600,000 are allowed"):
        assert words in named
