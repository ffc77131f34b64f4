"""python notebooks/execute.py [NAME ...]: execute the notebooks and keep what they show.

Kept is what a reader needs, and nothing that differs from run to run without saying anything: no time stamps,
no state of widgets (their static page stays), no progress bars. A notebook that complains on stderr, that
shows a folder of this machine, or that grows past 600 KB is not written.
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
    """The notebook with its outputs, in a kernel of its own, started in a folder of its own."""
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
        shown = [
            o
            for o in cell.get("outputs", [])
            if not (WIDGET in o.get("data", {}) and "text/html" not in o.data)
        ]
        if cell.cell_type == "code":
            cell.outputs = shown
        for output in shown:
            data = output.get("data", {})
            data.pop(WIDGET, None)
            if "text/html" in data and len(data.get("text/plain", "")) > 1_000:
                data["text/plain"] = f"{data['text/plain'].partition('(')[0]}(…)"
    return notebook


def faults(text: str) -> list[str]:
    """What is wrong with a notebook as it would be written; none where it may be."""
    import nbformat

    said = [o for c in nbformat.reads(text, as_version=4).cells for o in c.get("outputs", [])]
    found = [
        f"stderr: {o.text.strip()[:200]}" for o in said if o.output_type == "stream" and o.name == "stderr"
    ]
    found += [f"an error: {o.ename}: {o.evalue[:200]}" for o in said if o.output_type == "error"]
    places = {tempfile.gettempdir(), str(Path.home()), str(HERE.parent)} - {"/"}
    found += [
        f"a folder of this machine: {m[0]}"
        for m in re.finditer("|".join(rf"{re.escape(p)}/\S{{0,40}}" for p in places), text)
    ]
    return found + (
        [f"{len(text.encode()):,} bytes, and {LIMIT:,} are allowed"] if len(text.encode()) > LIMIT else []
    )


def main(names: list[str]) -> int:
    import nbformat

    bad = 0
    for path in sorted(p for p in HERE.glob("*.ipynb") if not names or any(n in p.name for n in names)):
        started = time.perf_counter()
        text = nbformat.writes(execute(path)) + "\n"
        wrong = faults(text)
        bad += bool(wrong)
        if not wrong:
            path.write_text(text, encoding="utf-8")
        print(
            path.name,
            f"{time.perf_counter() - started:.0f} s,",
            f"{len(text) / 1e3:.0f} kB",
            *wrong,
            sep="  ",
        )
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
