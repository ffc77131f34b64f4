"""README and the other pages: their commands and options exist, their links work, README's code runs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import act2see
from act2see.cli.app import app
from act2see.graphs.config import PRESETS
from act2see.micro.questions import make_item
from act2see.micro.world import write_clip

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "AGENTS.md"]
PAGES += sorted((ROOT / "docs").glob("*.md"))


def shown_commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of each `act2see` command in a page's code blocks, without its comment."""
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["act2see"]:
                yield words[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_exist(page: Path) -> None:
    for words in shown_commands(page):
        command: Any = typer.main.get_command(app)
        given = list(words)
        while given and given[0] in getattr(command, "commands", {}):
            command = command.commands[given.pop(0)]
        assert not getattr(command, "commands", None) or not given or given[0].startswith("-"), words
        if command.name in ("sft", "vllm"):
            continue  # these accept options that Typer does not list
        known = {"--help", "-h"}
        for parameter in command.params:
            known.update(parameter.opts, parameter.secondary_opts)
        assert {word for word in given if word.startswith("--")} <= known, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_anchors_exist(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for link, image in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", text):
        target, _, anchor = (link or image).partition("#")
        if "://" in target:
            continue
        linked = page.parent / target if target else page
        assert linked.exists(), target
        if anchor and linked.suffix == ".md":
            assert anchor in anchors(linked)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M):
        words = re.sub(r"[^\w -]", "", heading.lower())
        found.add(words.replace(" ", "-"))
    return found


def test_readme_lists_all_extras_and_presets() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([\w-]+)`", row)}
    assert {name for name, packages in extras.items() if packages} - {"dev"} <= named
    assert set(PRESETS) <= named
    assert any(p.startswith("jupyterlab") for p in extras["notebook"])


def test_code_of_embed_it_runs(tmp_path: Path) -> None:
    write_clip(make_item("blink", 3, "test").clip, tmp_path / "blink.mp4")
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Embed it")[2]
    [code] = re.findall(r"```python\n(.*?)```", section.partition("\n## ")[0], re.S)
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(act2see.__file__).parents[1]),
        "ACT2SEE_CACHE": str(tmp_path / "cache"),
    }
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()
    assert not run.stderr
