"""The public names: the documents import nothing else, and each name is documented."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import act2see

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(act2see.__file__).parent
NAMES = sorted(set(act2see.__all__) - {"__version__"})
DEEP = re.compile(r"^\s*(?:from|import) act2see\.[\w.]+.*", re.MULTILINE)


def test_every_public_name_has_a_module() -> None:
    assert set(act2see.__all__) == {*act2see._HOMES, "__version__"}
    assert act2see.__version__
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = act2see.no_such_name


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_resolves_and_is_documented(name: str) -> None:
    value = getattr(act2see, name)
    text = vars(value).get("__doc__") if isinstance(value, type) else value.__doc__
    assert text
    # Without a docstring, a dataclass has its signature as one.
    assert not text.startswith(f"{value.__name__}(")


def test_type_checkers_see_the_same_public_names() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    seen = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("act2see."):
            for alias in node.names:
                renamed = f"{node.module}:{alias.name}"
                seen[alias.asname or alias.name] = renamed if alias.asname else node.module
    assert seen == act2see._HOMES
    assert (PACKAGE / "py.typed").is_file()


def test_errors_are_all_public() -> None:
    errors = vars(import_module("act2see.errors")).values()
    kinds = {e.__name__ for e in errors if isinstance(e, type) and issubclass(e, act2see.Act2SeeError)}
    assert kinds <= set(act2see.__all__)


def code_of_documents() -> Iterator[tuple[str, str]]:
    """Yield the name and the code of each document: Python blocks of Markdown, code cells of notebooks."""
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = path.read_text(encoding="utf-8")
        yield path.name, "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        yield path.name, "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def test_documents_import_only_public_names() -> None:
    documents = dict(code_of_documents())
    assert "from act2see import" in documents["README.md"]
    deep = {name: found for name, code in documents.items() if (found := DEEP.findall(code))}
    assert not deep
