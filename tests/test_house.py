"""Rules that no linter checks: files stay small, and starting up is cheap.

import-linter (`make lint`) checks the order of the packages' imports, and that no imports form a circle.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "act2see"

MAX_LINES = 400
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

# Paths on one person's machine and a folder beside the checkout, which do not exist in another clone.
LOCAL = re.compile(rb"(?<![\w./-])/(?:work|root|home/\w+|Users/\w+)(?![\w-])|\.\./shared\b")


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_files_stay_small() -> None:
    too_long = {}
    for path in modules():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > MAX_LINES:
            too_long[str(path.relative_to(ROOT))] = lines
    assert not too_long, f"split files of more than {MAX_LINES} lines by subject"


@pytest.mark.parametrize(
    "start",
    [
        "import act2see",
        "import act2see.cli",
        "from act2see.cli import main\nsys.argv = ['act2see', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass",
    ],
    ids=["package", "cli", "help"],
)
def test_starting_up_imports_nothing_heavy(start: str) -> None:
    listed = "print('\\n' + ' '.join({name.split('.')[0] for name in sys.modules}))"
    code = f"import sys\n{start}\n{listed}"
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
