"""`act2see trace diff`, `replay` and `fork`: output, files and exit codes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.cli.helpers import assert_one_line_error, use_parts
from tests.graphs.doubles import clip_in, parts_in
from tests.graphs.test_fork import LINES, Seconds, Seer
from typer.testing import CliRunner

from act2see.cli.app import app
from act2see.graphs import parts as graph_parts
from act2see.graphs.config import load_config
from act2see.tools.video.store import FrameStore
from act2see.trace.record import Text
from act2see.trace.trace import Trace

Run = Callable[..., Any]
QUESTION = "[bold]When?[/bold]"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `act2see trace ...` with a scripted model. The folder `saved` holds the trace of one question."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("ACT2SEE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    config, parts = parts_in(tmp_path, Seer(*LINES))
    parts = replace(parts, tools={tag: Seconds(tag, parts.resources) for tag in ("retrieve", "generate")})
    (tmp_path / "my.yaml").write_text(config.to_yaml())
    use_parts(monkeypatch, parts)

    def act2see(*args: str | Path, code: int = 0) -> Any:
        result = CliRunner().invoke(app, [str(a) for a in args])
        assert result.exit_code == code, result.output
        return result

    act2see("ask", clip_in(tmp_path, 5), QUESTION, "--config", "my.yaml", "--save", "saved")
    return lambda *args, **how: act2see("trace", *args, **how)


def test_fork_prints_answer_and_differences_and_saves(run: Run, tmp_path: Path) -> None:
    shown = run(
        "fork", "saved", "--at", "2", "--query", "second 4", "--config", "my.yaml", "--out", "new.json"
    ).stdout
    old, new = Trace.load("saved"), Trace.load("new.json")
    assert (old.answer, new.answer) == ("2.0 seconds", "4.0 seconds")
    assert new.origin
    assert (new.origin.trace, new.origin.at) == (old.id, 2)
    assert QUESTION in shown
    assert "<retrieve>second 1</retrieve>" in shown  # the kept part of the chain
    assert f"Differences {old.id} -> {new.id}" in shown
    assert "They diverge at call 2." in shown
    assert "Answer: 2.0 seconds -> 4.0 seconds" in shown
    rows = [" ".join(line.split()) for line in shown.splitlines()]
    assert "= 1 <retrieve> second 1 1 <retrieve> second 1 1.0 s, the same" in rows
    assert "~ 2 <generate> second 2 2 <generate> second 4 2.0 s -> 4.0 s" in rows


def test_fork_saves_a_new_file_or_a_folder(run: Run, tmp_path: Path) -> None:
    for change in (["--drop"], ["--frame", "3.5"], ["--tool", "retrieve"]):
        run("fork", "saved/trace.json", "--at", "2", *change, "--config", "my.yaml")
    forks = [Trace.load(p) for p in tmp_path.glob("fork-*.json")]
    assert sorted(t.origin.change for t in forks if t.origin) == ["drop", "frame", "query"]
    Image.new("RGB", (64, 64), "red").save("red.png")
    run("fork", "saved", "--at", "1", "--frame", "red.png", "--config", "my.yaml", "--out", "folder")
    folder = Trace.load("folder")
    assert {p.stem.rpartition("-")[2] for p in Path("folder/frames").glob("*.png")} == {
        f.digest for f in folder.shown
    }


def test_replay_reports_whether_the_result_is_the_same(run: Run) -> None:
    shown = run("replay", "saved", "--config", "my.yaml").stdout
    assert "The same: every frame, every call, every word." in shown
    assert "Answer: 2.0 seconds, in both" in shown
    assert not list(Path().glob("*.json"))
    run("replay", "saved", "--config", "my.yaml", "--out", "again.json")
    assert "The same" in run("diff", "saved", "again.json").stdout


def test_diff_prints_text_or_json(run: Run) -> None:
    run("fork", "saved", "--at", "1", "--drop", "--config", "my.yaml", "--out", "new.json")
    shown = run("diff", "saved", "new.json").stdout
    assert "They diverge at the result of call 1." in shown
    assert "no note -> There is no such frame; go on without it." in shown
    data = json.loads(run("diff", "saved", "new.json", "--json").stdout)
    assert (data["parted"], data["calls"][0]["frames"][0]["kind"]) == (2, "removed")
    old = Trace.load("saved")
    old.model_copy(update={"segments": ()}).save("empty.json")
    shown = run("diff", "saved", "empty.json").stdout
    assert "They diverge before any call: 'Look. ' -> '(the end)'" in shown
    assert "Answer: 2.0 seconds -> none" in shown
    said = old.model_copy(update={"segments": (Text(text="Look [red]here"), *old.segments[1:])})
    said.save("said.json")
    shown = run("diff", "saved", "said.json").stdout
    assert "They diverge before any call: 'Look. ' -> 'Look [red]here'" in shown


def test_fork_takes_frames_from_the_saved_folder(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another machine there are the video and the folder of `--save`, and an empty store."""
    config = load_config("my.yaml")
    parts = graph_parts.cached_parts(config)
    elsewhere = replace(parts, resources=replace(parts.resources, store=FrameStore(tmp_path / "empty")))
    use_parts(monkeypatch, elsewhere)
    run("fork", "saved", "--at", "2", "--query", "second 4", "--config", "my.yaml")
    shutil.rmtree("saved/frames")
    elsewhere = replace(parts, resources=replace(parts.resources, store=FrameStore(tmp_path / "other")))
    use_parts(monkeypatch, elsewhere)
    monkeypatch.setenv("ACT2SEE_CACHE", str(tmp_path / "none"))
    assert_one_line_error(
        run("fork", "saved", "--at", "2", "--query", "second 4", "--config", "my.yaml", code=2),
        "6 of the 6 frames",
        "not in",
    )


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["fork", "saved"], ["--at N", "1 <retrieve> second 1; 2 <generate> second 2"]),
        (["fork", "saved", "--at", "5"], ["no call number 5", "1 <retrieve> second 1"]),
        (["fork", "saved", "--at", "1", "--tool", "zoom"], ["'zoom'", "retrieve, generate"]),
        (["fork", "saved", "--at", "1", "--drop", "--query", "x"], ["choose one of"]),
        (["fork", "saved", "--at", "1", "--frame", "no.png"], ["no.png"]),
        (["fork", "saved", "--at", "1", "--frame", "99"], ["no frame at 99 s"]),
        (["fork", "saved", "--at", "1", "--out", "new.avi"], [".avi"]),
        (["fork", "no.json", "--at", "1"], ["no.json"]),
        (["replay", "my.yaml"], ["is not JSON"]),
    ],
    ids=lambda x: " ".join(x),
)
def test_errors_are_one_line(run: Run, args: list[str], words: list[str]) -> None:
    assert_one_line_error(run(*args, "--config", "my.yaml", code=2), *words)


def test_diff_of_a_missing_file(run: Run) -> None:
    assert_one_line_error(run("diff", "saved", "no.json", code=2), "no.json")


def test_a_file_of_others_is_replaced_only_with_force(run: Run, tmp_path: Path) -> None:
    def ask(*args: object, code: int = 0) -> Any:
        words = ["ask", str(tmp_path / "clip.mp4"), "When?", "--config", "my.yaml", *map(str, args)]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == code, result.output
        return result

    lines = {
        "thesis.html": lambda file, *more, **how: run("html", "saved", "--out", file, *more, **how),
        "thesis.jsonl": lambda file, *more, **how: run("export", "saved", "--out", file, *more, **how),
        "thesis.md": lambda file, *more, **how: run("export", "saved", "--out", file, *more, **how),
        "thesis.json": lambda file, *more, **how: run(
            "fork", "saved", "--at", "1", "--drop", "--config", "my.yaml", "--out", file, *more, **how
        ),
        "page.html": lambda file, *more, **how: ask("--html", file, *more, **how),
    }
    for name, write in lines.items():
        file = tmp_path / name
        file.write_text("mine")
        assert_one_line_error(write(file, code=2), f"{name} was not written by this command", "add --force")
        assert file.read_text() == "mine"
        write(file, "--force")
        write(file)  # now it is one of this command
        assert file.read_text() != "mine"


def test_a_folder_with_other_files_is_not_replaced(run: Run, tmp_path: Path) -> None:
    (tmp_path / "saved" / "notes.txt").write_text("mine")
    result = CliRunner().invoke(
        app, ["ask", str(tmp_path / "clip.mp4"), "When?", "--config", "my.yaml", "--save", "saved"]
    )
    assert_one_line_error(result, "saved also contains notes.txt, which would be lost: name a new one")
    assert (tmp_path / "saved" / "notes.txt").read_text() == "mine"
