"""The commands of README and docs/tools.md run in a shell, with the files that the text describes.

`act2see` is a fork of a process that has imported the model libraries (`preloaded`); scripts start anew. As
with an installed command, Python does not search the working folder.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.preloaded import preloaded

ROOT = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="the documentation's commands are for a POSIX shell"),
    pytest.mark.timeout(600),  # each command is a process that loads models
]


@dataclass(frozen=True)
class Shell:
    folder: Path
    environment: dict[str, str]

    def run(self, commands: str, folder: Path | None = None) -> str:
        """Run commands, all of which must succeed, and return their output."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=folder or self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with preloaded(tmp_path_factory.mktemp("preloaded") / "bin", os.environ) as path:
        (path.parent / "python").symlink_to(sys.executable)
        yield path


@pytest.fixture
def shell(tmp_path: Path, command: Path) -> Shell:
    folder = tmp_path / "here"
    folder.mkdir()
    path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    given = {
        "PATH": path,
        "PYTHONSAFEPATH": "1",
        "NO_COLOR": "1",
        "COLUMNS": "200",
        "ACT2SEE_CACHE": str(tmp_path / "cache"),
    }
    return Shell(folder, {**os.environ, **given})


def blocks(file: str, kind: str, heading: str | None = None) -> list[str]:
    """Return the code blocks of a Markdown file, or of one section of it."""
    text = (ROOT / file).read_text(encoding="utf-8")
    if heading:
        [text] = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.S | re.M)
    return re.findall(rf"```{kind}\n(.*?)```", text, re.S)


def python(shell: Shell, code: str, folder: Path | None = None) -> str:
    """Run a script in the folder, from which it can import, and return its output."""
    file = (folder or shell.folder) / "script.py"
    file.write_text(code)
    return shell.run(f'exec "{sys.executable}" script.py', folder)


def middle() -> str:
    """Return the tool that docs/tools.md writes."""
    [code] = [b for b in blocks("docs/tools.md", "python") if "class Middle" in b]
    return code


def test_readme_use(shell: Shell) -> None:
    [commands] = blocks("README.md", "bash", "Use")
    # Leave out `act2see ui`, which serves until it is stopped.
    ending = [line for line in commands.splitlines() if not line.startswith("act2see ui")]
    assert "Answer: northwest" in shell.run("\n".join(ending))
    assert (shell.folder / "run" / "trace.json").is_file()
    assert list(shell.folder.glob("fork-*.json"))
    [code] = blocks("README.md", "python", "Use")
    assert python(shell, f"{code}\nprint(repr(trace.answer), len(trace.calls))").strip().endswith(" 1")


def test_readme_swap_a_part(shell: Shell) -> None:
    [text] = blocks("README.md", "yaml", "Swap a part")
    (shell.folder / "mine.yaml").write_text(text)
    # A tool can be any class: write that of docs/tools.md to the files that the configuration names.
    for tool in yaml.safe_load(text)["tools"].values():
        module, dotted, name = tool["use"].partition(":")
        if dotted:
            file = shell.folder / f"{module.replace('.', '/')}.py"
            file.parent.mkdir(exist_ok=True)
            file.write_text(middle().replace("Middle", name))
    elsewhere = shell.folder.parent / "elsewhere"
    elsewhere.mkdir()
    mine = shell.folder / "mine.yaml"
    assert shell.run(f"act2see config check {mine}", elsewhere).startswith("ok: ")
    asked = f'act2see ask blink.mp4 "Where is the triangle when the circle blinks?" --config {mine}'
    made = "act2see micro clip --family blink --seed 3 --out blink.mp4"
    assert "Answer: northwest" in shell.run(f"{made}\n{asked}", elsewhere)
    assert sorted(f.name for f in shell.folder.iterdir() if f.suffix == ".yaml") == ["mine.yaml"]


def test_docs_tools_write_one(shell: Shell) -> None:
    [settings] = blocks("docs/tools.md", "yaml", "Write one")
    [commands] = blocks("docs/tools.md", "bash", "Write one")
    (shell.folder / "middle.py").write_text(middle())
    (shell.folder / "mine.yaml").write_text(settings)
    output = shell.run(commands)
    assert "ok: mine.yaml (micro, tools: retrieve, generate, middle)" in output
    assert "Answer: northwest" in output
    assert "<middle>" in output
    [forked] = shell.folder.glob("fork-*.json")
    assert '"kind":"taken"' in forked.read_text()
    # A server in another folder finds the tool, too, and does not confuse it with another of its name.
    other = shell.folder.parent / "other"
    other.mkdir()
    (other / "middle.py").write_text(middle().replace("the frame in the middle of the video", "another"))
    (other / "mine.yaml").write_text(settings)
    code = f"""
import asyncio, sys
from act2see import load_config
from act2see.graphs.parts import build_parts
from act2see.serve.langgraph.graphs import act2see

paths = list(sys.path)
served = asyncio.run(act2see())
print("middle" in served.nodes)
files = ({str(shell.folder / "mine.yaml")!r}, {str(other / "mine.yaml")!r})
print([build_parts(load_config(file)).tools["middle"].usage for file in files])
print(sys.path == paths, "middle" in sys.modules)
"""
    shell.environment["ACT2SEE_CONFIG"] = str(shell.folder / "mine.yaml")
    place = shell.folder.parent / "place"
    place.mkdir()
    assert python(shell, code, place).splitlines() == [
        "True",
        "['the frame in the middle of the video', 'another']",
        "True False",
    ]


def test_docs_tools_configurations(shell: Shell) -> None:
    (shell.folder / "middle.py").write_text(middle())
    found = blocks("docs/tools.md", "yaml")
    for n, text in enumerate(found):
        (shell.folder / f"{n}.yaml").write_text(text)
    assert len(found) >= 4
    names = [f"{n}.yaml" for n in range(len(found))]
    output = shell.run("\n".join(f"act2see config check {name}" for name in names))
    checked = [line.partition(" (")[0] for line in output.splitlines()]
    assert checked == [f"ok: {name}" for name in names]
