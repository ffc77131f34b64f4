"""python notebooks/execute.py [NAME ...]: execute the notebooks and save them with their outputs.

Only outputs that a reader needs are saved: no time stamps, no widget state (the static page stays) and no
progress bars, which differ from run to run. A notebook is not written if it prints to stderr, contains a path
of this machine, or exceeds 600 KB.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
LIMIT = 600_000
WIDGET = "application/vnd.jupyter.widget-view+json"


def execute(path: Path) -> Any:
    """Execute a notebook in a new kernel, in an empty folder; return it with its outputs."""
    import nbformat
    from nbclient import NotebookClient

    notebook: Any = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "record_timing": False,
            "store_widget_state": False,
            "timeout": 600,
            "kernel_name": "python3",
        }
        NotebookClient(notebook, resources={"metadata": {"path": folder}}, **settings).execute()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not is_bare_widget(output)]
            for output in cell.outputs:
                shorten(output)
    return notebook


def is_bare_widget(output: Any) -> bool:
    """Return whether an output is a widget without a static page."""
    data = output.get("data", {})
    return WIDGET in data and "text/html" not in data


def shorten(output: Any) -> None:
    """Remove a widget's state, and a long text that repeats the HTML."""
    data = output.get("data", {})
    data.pop(WIDGET, None)
    if "text/html" in data and len(data.get("text/plain", "")) > 1_000:
        data["text/plain"] = f"{data['text/plain'].partition('(')[0]}(…)"


def faults(text: str) -> list[str]:
    """Return why the text of a notebook must not be written; an empty list if it may be."""
    import nbformat

    found = []
    for cell in nbformat.reads(text, as_version=4).cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stderr":
                found.append(f"stderr: {output.text.strip()[:200]}")
            if output.output_type == "error":
                found.append(f"error: {output.ename}: {output.evalue[:200]}")
    places = {tempfile.gettempdir(), str(Path.home()), str(HERE.parent)} - {"/"}
    paths = "|".join(rf"{re.escape(place)}/\S{{0,40}}" for place in places)
    found += [f"path of this machine: {match[0]}" for match in re.finditer(paths, text)]
    size = len(text.encode())
    if size > LIMIT:
        found.append(f"{size:,} bytes; at most {LIMIT:,} are allowed")
    return found


def main(names: list[str]) -> int:
    """Execute the notebooks whose names contain one of these; return the exit code."""
    import nbformat

    bad = 0
    for path in sorted(HERE.glob("*.ipynb")):
        if names and not any(name in path.name for name in names):
            continue
        started = time.perf_counter()
        text = nbformat.writes(execute(path)) + "\n"
        wrong = faults(text)
        bad += bool(wrong)
        if not wrong:
            path.write_text(text, encoding="utf-8")
        seconds = time.perf_counter() - started
        print(path.name, f"{seconds:.0f} s,", f"{len(text) / 1e3:.0f} kB", *wrong, sep="  ")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
