"""Saved runs: a cache that cannot be written, and a model's server that has moved."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.agent.openai_server import Reply, openai_server, says
from tests.cli.helpers import assert_one_line_error
from typer.testing import CliRunner

from act2see.cli.app import app
from act2see.micro.questions import make_item
from act2see.micro.world import write_clip


def ask(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("ACT2SEE_CACHE", str(cache))
    clip = write_clip(make_item("blink", 0, seconds=6).clip, tmp_path / "clip.mp4", 48)
    result = CliRunner().invoke(app, ["ask", str(clip), "Which?", "-o", "a"])
    assert result.exit_code == 2, result.output
    return result


@pytest.mark.parametrize("below", ["", "runs/more"])
def test_a_cache_that_cannot_be_created_is_one_error(
    tmp_path: Path, below: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file")
    result = ask(tmp_path, blocked / below, monkeypatch)
    assert_one_line_error(
        result, "cannot write to the cache", "set ACT2SEE_CACHE to a folder that you can write to"
    )


@pytest.mark.parametrize(
    ("readonly", "says"), [("", "it is read-only"), ("runs.sqlite", "runs.sqlite is read-only")]
)
def test_a_cache_that_is_read_only_is_one_error(
    tmp_path: Path, readonly: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "runs.sqlite").touch()
    access = os.access
    # Root may write whatever the permissions say.
    monkeypatch.setattr(
        os, "access", lambda path, mode: Path(path) != cache / readonly and access(path, mode)
    )
    result = ask(tmp_path, cache, monkeypatch)
    assert_one_line_error(result, "cannot write to the cache", says, "set ACT2SEE_CACHE to a folder")


def test_a_damaged_file_of_runs_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "runs.sqlite").write_text("no database, and longer than a header of SQLite" * 100)
    result = ask(tmp_path, cache, monkeypatch)
    assert_one_line_error(result, "runs.sqlite cannot be used", "the file is damaged; move it away")


def test_a_run_moves_to_another_address_of_its_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("langchain_openai", reason="needs the chat extra")
    monkeypatch.setenv("ACT2SEE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "400")
    clip = write_clip(make_item("blink", 0, seconds=6).clip, tmp_path / "clip.mp4", 48)
    file = tmp_path / "chat.yaml"

    def run(*words: object, code: int) -> Any:
        result = CliRunner().invoke(app, ["ask", *map(str, words)])
        assert result.exit_code == code, result.output
        return result

    with (
        openai_server(says("Look. <retrieve>the ring</retrieve>"), Reply(status=401)) as old,
        openai_server(says("</think><answer>red</answer>")) as new,
    ):
        options = {"base_url": old.url, "api_key": "none", "max_retries": 0}
        reasoner = {"use": "chat", "weights": "openai:m", "options": options}
        file.write_text(json.dumps({"preset": "micro", "view": {"guard": None}, "reasoner": reasoner}))
        waits = run(clip, "Which?", "--config", file, "--approve", "retrieve", code=3)
        id = waits.stderr.split("--resume ")[1].split()[0]
        failed = run("--resume", id, "--refuse", code=2).stderr.strip().splitlines()[-1]
        assert failed.endswith(f"; if the server has moved: act2see ask --resume {id} --url URL")
        assert_one_line_error(run("--resume", id, "--url", "there", code=2), "write http://there")
        told = json.loads(run("--resume", id, "--url", new.url, "--json", code=0).stdout)
        assert told["answer"] == "red"
    assert (len(old.requests), len(new.requests)) == (2, 1)
    assert_one_line_error(run(clip, "Which?", "--url", new.url, code=2), "--url is for a saved run")
