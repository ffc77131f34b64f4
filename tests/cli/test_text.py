"""What comes in is text, or is refused in a line before any work; what goes out is not lost to an
encoding."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.agent.openai_server import openai_server, says
from tests.agent.test_chat import reasoner, write
from tests.cli.test_cli import Place, one_line_error, place  # noqa: F401

import act2see
from act2see.cli.app import app
from act2see.errors import ConfigError, TraceError
from act2see.graphs.config import load_config
from act2see.trace.trace import Trace

SOURCES = str(Path(act2see.__file__).parents[1])
HALF = "Wh\udce9re?"  # what Python makes of a byte that is not UTF-8


@pytest.mark.parametrize("spoilt", [HALF, "\udcff", "a\ud800b", "a\0b"])
@pytest.mark.parametrize(
    "line",
    [
        ["ask", "CLIP", "X"],
        ["ask", "X", "What?"],
        ["ask", "CLIP", "What?", "--option", "X"],
        ["ask", "CLIP", "What?", "--save", "X"],
        ["ask", "CLIP", "What?", "--html", "X.html"],
        ["ask", "CLIP", "What?", "--config", "X"],
        ["ask", "--resume", "X"],
        ["find", "CLIP", "X"],
        ["find", "CLIP", "red", "--out", "X"],
        ["index", "X"],
        ["trace", "show", "X"],
        ["micro", "clip", "--out", "X.mp4"],
    ],
    ids=" ".join,
)
def test_a_word_that_is_no_text_is_refused(place: Place, line: list[str], spoilt: str) -> None:  # noqa: F811
    given = [place.clip if word == "CLIP" else word.replace("X", spoilt) for word in line]
    one_line_error(place.run(*given, code=2), "is not text in UTF-8")


def test_bytes_of_the_command_line_are_refused_and_not_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "act2see", "ask", b"caf\xe9.mp4", "What?"]
    run = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": SOURCES}, capture_output=True, cwd=tmp_path, check=False
    )
    assert run.returncode == 2
    assert run.stderr.decode().startswith("error: 'caf?.mp4' is not text in UTF-8")
    assert len(run.stderr.splitlines()) == 1


@pytest.mark.parametrize("value", ['"a\\ud800b"', '"a\\0b"'])
@pytest.mark.parametrize("key", ["name", "cache", "reasoner: {weights", "tools: {x: {use"])
def test_a_config_that_holds_no_text_is_refused(tmp_path: Path, key: str, value: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"preset: micro\n{key}: {value}{'}' * key.count('{')}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.yaml: .* holds a NUL or a lone surrogate"):
        load_config(file)


def test_a_config_in_another_encoding_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes("preset: micro\nname: Käse\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(file)


def test_an_alias_that_stands_for_itself_ends(tmp_path: Path) -> None:
    bomb = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]
    file = tmp_path / "mine.yaml"
    file.write_text("\n".join(["name: &n [*n]", *bomb]), encoding="utf-8")
    with pytest.raises(ConfigError):
        load_config(file)


def test_an_answer_survives_a_terminal_that_lacks_its_characters(place: Place) -> None:  # noqa: F811
    video = place.folder / "Käse 你好.mp4"
    shutil.copyfile(place.clip, video)
    code = "import sys; sys.argv[0] = 'act2see'; from act2see.cli import main; main()"
    environment = {
        **os.environ,
        "PYTHONPATH": SOURCES,
        "PYTHONIOENCODING": "ascii",
        "ACT2SEE_CACHE": str(place.folder / "cache"),
    }
    ask = [
        sys.executable,
        "-c",
        code,
        "ask",
        str(video),
        "Où est 你好?",
        "--option",
        "là",
        "--option",
        "ici",
        "--no-tools",
    ]
    run = subprocess.run([*ask, "--json"], env=environment, capture_output=True, check=True)
    data = json.loads(run.stdout.decode("ascii"))
    assert data["options"] == ["là", "ici"]
    assert Trace.from_json(run.stdout).question.text == "Où est 你好?"
    folder = place.folder / "saved"
    run = subprocess.run([*ask, "--save", str(folder)], env=environment, capture_output=True, check=True)
    assert b"Answer: " in run.stdout
    assert Trace.load(folder).video.path == str(video)


def test_an_answer_is_kept_where_nobody_reads_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    def closed(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("act2see.cli.ask.print_json", closed)
    folder = place.folder / "saved"
    from typer.testing import CliRunner

    CliRunner().invoke(
        app, ["ask", place.clip, "What?", "--config", place.config, "--json", "--save", str(folder)]
    )
    assert Trace.load(folder).answer == "B"


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (("A \ud83d", "\ude00."), "A 😀."),
        (("A \ud83d",), "A \ufffd"),
        (("\ude00 B",), "\ufffd B"),
        (("\ud83d", "", "\ude00"), "😀"),
    ],
)
async def test_a_character_that_a_server_split_is_put_together(pieces: tuple[str, ...], text: str) -> None:
    pytest.importorskip("langchain_openai", reason="needs the chat extra")
    with openai_server(says(*pieces)) as server:
        said = (await write(reasoner(server)))[0]
    assert said == text
    said.encode()


@pytest.mark.parametrize("json_too", [False, True])
def test_a_reader_that_leaves_ends_the_run_without_a_word(place: Place, json_too: bool) -> None:  # noqa: F811
    ask = [
        sys.executable,
        "-m",
        "act2see",
        "ask",
        place.clip,
        "What?",
        "--no-tools",
        *(["--json"] if json_too else []),
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": SOURCES,
        "ACT2SEE_CACHE": str(place.folder / "cache"),
        "PYTHONUNBUFFERED": "1",
    }
    with subprocess.Popen(ask, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        complaints = process.stderr.read().decode()
    assert process.returncode == 1
    assert "Traceback" not in complaints


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("json_too", [False, True])
def test_an_output_that_cannot_be_written_is_told_in_a_line(place: Place, json_too: bool) -> None:  # noqa: F811
    ask = [
        sys.executable,
        "-m",
        "act2see",
        "ask",
        place.clip,
        "What?",
        "--no-tools",
        *(["--json"] if json_too else []),
    ]
    environment = {**os.environ, "PYTHONPATH": SOURCES, "ACT2SEE_CACHE": str(place.folder / "cache")}
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            ask, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == [
        done.stderr.splitlines()[-1]
    ]
    assert "No space left on device" in done.stderr


def test_a_video_named_as_a_trace_is_told_in_a_line(place: Place) -> None:  # noqa: F811
    with pytest.raises(TraceError, match="is no trace: name the folder"):
        Trace.load(place.clip)
