"""Run time of the notebooks: from the first import to the first answer, and from top to bottom.

The quickstart's cells are run one after another in a fresh kernel with an empty cache, as a reader runs them,
up to the end of the cell that first calls `ask`. The kernel's start is not counted. Then each notebook is run
as a whole (quick: only the quickstart). CPU time is reported too, since other work on the machine hardly
affects it.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import Goal, Skipped, at_most, reported, require_weights

GOAL_FIRST, GOAL_WHOLE = 15.0, 120.0
FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
SPENT = "import resource; r = resource.getrusage(resource.RUSAGE_SELF); print(r.ru_utime + r.ru_stime)"


def time_notebook(path: Path, cache: str) -> dict[str, float]:
    """Run a notebook; return wall and CPU seconds of the kernel up to the first answer and in all."""
    import nbformat
    from nbclient import NotebookClient

    notebook: Any = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": cache}}
    )
    probe = nbformat.v4.new_code_cell(SPENT)  # type: ignore[no-untyped-call]
    result: dict[str, float] = {}

    def spent() -> float:
        probe.outputs = []
        client.execute_cell(probe, -1)
        return float(probe.outputs[0]["text"])

    with client.setup_kernel(env={**os.environ, "ACT2SEE_CACHE": cache}):
        before, seconds = spent(), 0.0
        for index, cell in enumerate(notebook.cells):
            if cell.cell_type != "code":
                continue
            started = time.perf_counter()
            client.execute_cell(cell, index)
            seconds += time.perf_counter() - started
            if "ask(" in cell.source and "first" not in result:
                result |= {"first": seconds, "processor, first": spent() - before}
        return result | {"whole": seconds, "processor, whole": spent() - before}


def run(quick: bool = False) -> dict[str, Any]:
    """Measure the quickstart after a run that fills the disk cache, and then every notebook (unless quick).

    Raises:
        Skipped: If nbclient or the micro weights are missing.
    """
    try:
        import nbclient
    except ImportError as e:
        raise Skipped("notebooks need nbclient: pip install -e '.[dev]'") from e
    require_weights("vlm", "encoder", "generator")
    figures: dict[str, dict[str, float]] = {}
    paths = sorted(FOLDER.glob("*.ipynb"))
    for path in [*paths[:1], *(paths[:1] if quick else paths)]:
        with tempfile.TemporaryDirectory() as cache:
            figures[path.stem] = time_notebook(path, cache)
    quickstart = figures[paths[0].stem]
    longest = max(figures, key=lambda name: figures[name]["whole"])
    goals: dict[str, Goal] = {
        "seconds from a notebook's import to its first answer": at_most(quickstart["first"], GOAL_FIRST),
        "of the processor, to the first answer": reported(quickstart["processor, first"]),
        f"seconds of the longest notebook ({longest})": at_most(figures[longest]["whole"], GOAL_WHOLE),
        "of the processor, the longest notebook": reported(figures[longest]["processor, whole"]),
    }
    rounded = {name: {k: round(v, 2) for k, v in values.items()} for name, values in figures.items()}
    return {"goals": goals, "notebooks": rounded, "nbclient": nbclient.__version__}
