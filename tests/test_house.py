"""The house rules that a machine can check: imports run one way, files stay small, starting up is cheap.

Every import counts, at the top of a file, inside a function or for type checking alone: a layer that knows
another only sometimes still knows it. The layers are those of CONTRIBUTING.md.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import act2see

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "act2see"

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "tools": {"errors"},
    "trace": {"errors", "tools"},
    "agent": {"errors", "tools", "trace"},
    "graphs": {"errors", "tools", "trace", "agent"},
    "training": {"errors", "tools", "trace", "agent", "graphs"},
    "evaluation": {"errors", "tools", "trace", "agent", "graphs"},
    "micro": {"errors", "tools", "trace", "agent", "graphs", "training"},
    "serve": {"errors", "tools", "trace", "agent", "graphs"},
    "cli": {"errors", "tools", "trace", "agent", "graphs", "training", "evaluation", "micro", "serve"},
    "__main__": {"cli"},
}
MAX_LINES = 470
HEAVY = {
    "torch",
    "transformers",
    "diffusers",
    "accelerate",
    "vllm",
    "faiss",
    "av",
    "decord",
    "langgraph",
    "langchain_core",
    "numpy",
    "PIL",
}

# Folders of one person's machine, and a folder beside the checkout, mean nothing to whoever clones the
# project.
LOCAL = re.compile(rb"(?<![\w./-])/(?:work|root|home/\w+|Users/\w+)(?![\w-])|\.\./shared\b")


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of what a file imports from act2see. A name of the public face counts as its
    home."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "act2see":
            names = [
                act2see._HOMES.get(a.name, f"act2see.{a.name}") for a in node.names if a.name != "__version__"
            ]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        yield from ((node.lineno, name) for name in names if name.startswith("act2see."))


def test_imports_run_one_way() -> None:
    wrong = []
    for path in modules():
        here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if here == "__init__":
            continue
        assert here in MAY_IMPORT, (
            f"{here} is a new layer: say here and in CONTRIBUTING.md what it may import"
        )
        for line, name in imported(path):
            there = name.split(".")[1]
            if there != here and there not in MAY_IMPORT[here]:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {here} must not import {name}")
    assert not wrong, "\n".join(wrong)


def test_no_relative_imports() -> None:
    """`imported` above reads absolute names only; ruff's TID252 says the same sooner."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in modules()}
    assert not [
        path
        for path, tree in trees.items()
        if any(isinstance(n, ast.ImportFrom) and n.level for n in ast.walk(tree))
    ]


def test_files_stay_small() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in modules()
    }
    assert not {path: n for path, n in lengths.items() if n > MAX_LINES}, (
        f"over {MAX_LINES} lines: split by subject"
    )


@pytest.mark.parametrize(
    "start",
    [
        "import act2see",
        "import act2see.cli",
        "from act2see.cli import main\nsys.argv = ['act2see', '--help']\ntry:\n    main()\nexcept SystemExit:\n    pass",
    ],
    ids=["package", "cli", "help"],
)
def test_starting_up_imports_nothing_heavy(start: str) -> None:
    code = f"import sys\n{start}\nprint('\\n' + ' '.join({{name.split('.')[0] for name in sys.modules}}))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert not HEAVY & set(run.stdout.splitlines()[-1].split())


def test_every_public_name_resolves() -> None:
    assert set(act2see.__all__) == {*act2see._HOMES, "__version__"}
    for name in act2see.__all__:
        assert getattr(act2see, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = act2see.no_such_name


def test_type_checkers_see_the_same_public_names() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    seen = {
        a.name: n.module
        for n in ast.walk(tree)
        if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("act2see.")
        for a in n.names
    }
    assert seen == act2see._HOMES


def test_links_lead_into_the_package() -> None:
    for name in ("agent", "tools", "graphs"):
        link = ROOT / name
        if link.is_symlink():
            assert link.resolve() == PACKAGE / name


def test_nothing_refers_to_one_machine() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    found = []
    for name in filter(None, listed.decode().split("\0")):
        path = ROOT / name
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        if b"\0" not in content:
            found += [f"{name}: {match.group().decode()}" for match in LOCAL.finditer(content)]
    assert not found, "\n".join(found)
