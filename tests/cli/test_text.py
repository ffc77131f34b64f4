"""Input that is not text is rejected in one line before any work; output survives any encoding."""

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
from tests.cli.helpers import SOURCES, assert_one_line_error, environment
from tests.cli.test_cli import Place, place  # noqa: F401

from act2see.cli.app import app
from act2see.cli.output import print_json
from act2see.errors import ConfigError, TraceError
from act2see.graphs.config import load_config
from act2see.trace.trace import Trace

NOT_UTF8 = "Wh\udce9re?"  # Python's reading of a byte that is not UTF-8


@pytest.mark.parametrize("spoilt", [NOT_UTF8, "\udcff", "a\ud800b", "a\0b"])
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
def test_argument_that_is_not_text_is_rejected(place: Place, line: list[str], spoilt: str) -> None:  # noqa: F811
    given = [place.clip if word == "CLIP" else word.replace("X", spoilt) for word in line]
    assert_one_line_error(place.run(*given, code=2), "is not UTF-8 text")


def test_bytes_on_the_command_line_are_rejected_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "act2see", "ask", b"caf\xe9.mp4", "What?"]
    run = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": SOURCES}, capture_output=True, cwd=tmp_path, check=False
    )
    assert run.returncode == 2
    assert run.stderr.decode().startswith("error: 'caf?.mp4' is not UTF-8 text")
    assert len(run.stderr.splitlines()) == 1


@pytest.mark.parametrize("value", ['"a\\ud800b"', '"a\\0b"'])
@pytest.mark.parametrize("key", ["name", "cache", "reasoner: {weights", "tools: {x: {use"])
def test_config_value_that_is_not_text_is_rejected(tmp_path: Path, key: str, value: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"preset: micro\n{key}: {value}{'}' * key.count('{')}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.yaml: .* holds a NUL or a lone surrogate"):
        load_config(file)


def test_config_in_another_encoding_is_rejected(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes("preset: micro\nname: Käse\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(file)


def test_recursive_yaml_aliases_are_rejected(tmp_path: Path) -> None:
    bomb = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]
    file = tmp_path / "mine.yaml"
    file.write_text("\n".join(["name: &n [*n]", *bomb]), encoding="utf-8")
    with pytest.raises(ConfigError):
        load_config(file)


def test_answer_survives_an_ascii_terminal(place: Place) -> None:  # noqa: F811
    video = place.folder / "Käse 你好.mp4"
    shutil.copyfile(place.clip, video)
    code = "import sys; sys.argv[0] = 'act2see'; from act2see.cli import main; main()"
    ascii_only = environment(place.folder / "cache", PYTHONIOENCODING="ascii")
    question = ["Où est 你好?", "--option", "là", "--option", "ici"]
    ask = [sys.executable, "-c", code, "ask", str(video), *question, "--no-tools"]
    run = subprocess.run([*ask, "--json"], env=ascii_only, capture_output=True, check=True)
    data = json.loads(run.stdout.decode("ascii"))
    assert data["options"] == ["là", "ici"]
    assert Trace.from_json(run.stdout).question.text == "Où est 你好?"
    folder = place.folder / "saved"
    run = subprocess.run([*ask, "--save", str(folder)], env=ascii_only, capture_output=True, check=True)
    assert b"Answer: " in run.stdout
    assert Trace.load(folder).video.path == str(video)


def test_answer_is_saved_if_stdout_is_closed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
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
async def test_surrogates_that_a_server_split_are_joined(pieces: tuple[str, ...], text: str) -> None:
    pytest.importorskip("langchain_openai", reason="needs the chat extra")
    with openai_server(says(*pieces)) as server:
        said = (await write(reasoner(server)))[0]
    assert said == text
    said.encode()


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
def test_closed_stdout_ends_the_run_without_a_traceback(place: Place, options: list[str]) -> None:  # noqa: F811
    ask = [sys.executable, "-m", "act2see", "ask", place.clip, "What?", "--no-tools", *options]
    unbuffered = environment(place.folder / "cache", PYTHONUNBUFFERED="1")
    with subprocess.Popen(ask, env=unbuffered, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        complaints = process.stderr.read().decode()
    assert process.returncode == 1
    assert "Traceback" not in complaints


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
def test_full_disk_behind_stdout_is_a_one_line_error(place: Place, options: list[str]) -> None:  # noqa: F811
    ask = [sys.executable, "-m", "act2see", "ask", place.clip, "What?", "--no-tools", *options]
    variables = environment(place.folder / "cache")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(ask, env=variables, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert [line for line in lines if line.startswith("error: ")] == [lines[-1]]
    assert "No space left on device" in done.stderr


def test_video_instead_of_a_trace_is_reported(place: Place) -> None:  # noqa: F811
    with pytest.raises(TraceError, match="is not a trace: name the folder"):
        Trace.load(place.clip)


def test_json_escapes_what_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    data = {"answer": "\u202egpj.exe \x9b1m\x7f\x1b\0 אבא\u200f"}
    print_json(json.dumps(data, ensure_ascii=False, indent=1))
    printed = capsys.readouterr().out
    assert printed.isascii() is False
    assert "אבא\u200f" in printed
    assert "\\u202egpj.exe \\u009b1m\\u007f\\u001b\\u0000" in printed
    assert json.loads(printed) == data
