"""The terminal: lines break between words, control tags are hidden, help fits, Tab completes."""

from __future__ import annotations

import io
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from tests.cli.helpers import SOURCES, environment
from tests.cli.test_cli import Place, place  # noqa: F401
from typer.testing import CliRunner

from act2see.cli.app import app
from act2see.cli.output import log_handler, program
from act2see.tools.frames import FrameRef, Retrieved
from act2see.trace.events import AnswerEvent, CallEvent, FramesEvent, IndexEvent, TokenEvent, ViewEvent
from act2see.trace.record import Call, Frames, Video
from act2see.trace.terminal import LOADING, ChainPrinter
from act2see.trace.trace import Trace

VIDEO = Video(path="clip.mp4", digest="d", seconds=6.0, width=192, height=192, frames=72, fps=12)
FRAME = FrameRef(
    digest="0" * 32, seconds=1.7, width=192, height=192, provenance=Retrieved(query="ring", score=0.41)
)
TEXT = (
    "<think>\nThe cross stands in the northwest, the ring beside it. <retrieve>the ring blinks</retrieve>",
    "Now it is somewhere else: averyveryverylongwordthatdoesnotfitintoanylinewhatever and on. "
    "<|im_start|>Übergrößenträger ユニコードの文字には空白がないので どこで切ってもよい。</think>\n"
    "<answer>B, because of what was seen</answer>",
)


def shown(width: int, *, terminal: bool = True, size: int = 3, loads: bool = False) -> str:
    """Print a chain of thought whose text arrives in pieces of this size, and return the output."""
    file = io.StringIO()
    console = Console(
        file=file,
        width=width,
        force_terminal=terminal,
        color_system=None,
        highlight=False,
        legacy_windows=False,
    )
    chain = ChainPrinter(console, loads=loads)
    chain.event(ViewEvent(run="r", video=VIDEO, frames=()))
    for n, text in enumerate(TEXT):
        for i in range(0, len(text), size):
            chain.event(TokenEvent(run="r", text=text[i : i + size]))
        if n == 0:
            chain.event(CallEvent(run="r", call=Call(text="", tag="retrieve", query="the ring blinks")))
            chain.event(FramesEvent(run="r", frames=Frames(tag="retrieve", frames=(FRAME,))))
    chain.event(AnswerEvent(run="r", answer="B"))
    return file.getvalue()


def cells(line: str) -> int:
    from rich.cells import cell_len

    return cell_len(line)


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("width", [20, 40, 79])
def test_lines_break_between_words_at_the_terminal_width(width: int, size: int) -> None:
    text = shown(width, size=size)
    assert max(cells(line) for line in text.splitlines()) <= width
    words = "The cross stands northwest, beside somewhere else: and on. Übergrößenträger"
    assert set(words.split()) <= set(text.split())
    assert shown(width, size=size) == shown(width, size=2)


def test_lines_do_not_break_without_a_terminal() -> None:
    text = shown(40, terminal=False)
    assert (
        "The cross stands in the northwest, the ring beside it. <retrieve>the ring blinks</retrieve>"
        in text.splitlines()
    )


@pytest.mark.parametrize("terminal", [True, False])
def test_control_tags_are_hidden_and_calls_are_printed(terminal: bool) -> None:
    text = " ".join(shown(200, terminal=terminal).split())
    for tag in ("think>", "answer>", "<|im_start|>", "because of what was seen"):
        assert tag not in text
    assert "<retrieve>the ring blinks</retrieve>" in text
    assert "=> 1.7 s, score 0.41" in text
    assert not shown(200, terminal=terminal).splitlines()[1].isspace()


@pytest.mark.parametrize("terminal", [True, False])
def test_the_progress_of_an_index_is_one_line_that_the_frames_replace(terminal: bool) -> None:
    file = io.StringIO()
    chain = ChainPrinter(Console(file=file, width=79, force_terminal=terminal, color_system=None))
    chain.event(TokenEvent(run="r", text="Look. <retrieve>a ring</retrieve>"))
    chain.event(CallEvent(run="r", call=Call(text="", tag="retrieve", query="a ring")))
    for done in (1200, 1232):
        chain.event(IndexEvent(run="r", done=done, of=5400))
    chain.event(FramesEvent(run="r", frames=Frames(tag="retrieve", note="none")))
    call, rest = file.getvalue().split("\n", 1)
    assert call == "Look. <retrieve>a ring</retrieve>"
    first, second = (f"indexing {done} of 5,400 frames ...\r\x1b[2K" for done in ("1,200", "1,232"))
    assert rest == (f"{first}{second}" if terminal else "") + "  => none\n"


def test_loading_note_is_printed_and_erased() -> None:
    assert f"{LOADING}\r\x1b[2KThe cross" in shown(79, loads=True)
    assert LOADING not in shown(79, terminal=False, loads=True)


def test_prose_breaks_between_words_and_paths_do_not_break() -> None:
    code = """
from act2see.trace.record import Question
from act2see.trace.terminal import question_lines
from act2see.cli.output import say
say(question_lines(Question(text="Where does the triangle stand when the circle blinks?")), prose=True)
say("a/long/path/that/stays/one/line/so/that/it/can/be/copied")
"""
    lines = [line.strip() for line in in_terminal(30, "-c", code).splitlines()]
    path = "a/long/path/that/stays/one/line/so/that/it/can/be/copied"
    assert lines == ["Where does the triangle stand", "when the circle blinks?", path]


def in_terminal(width: int, *arguments: str) -> str:
    """Run Python in a terminal of this width, and return what it prints."""
    pty = pytest.importorskip("pty", reason="needs pseudo-terminals")
    import fcntl
    import struct
    import termios

    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    environment |= {"PYTHONPATH": SOURCES, "TERM": "xterm", "NO_COLOR": "1"}
    with subprocess.Popen(
        [sys.executable, *arguments], stdin=its, stdout=its, stderr=its, env=environment
    ) as process:
        os.close(its)
        said = b"".join(iter(lambda: _read(ours), b""))
    os.close(ours)
    assert process.returncode == 0, said
    return re.sub(r"\x1b\[[0-9;]*m", "", said.decode())


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # on Linux: the other end is closed
        return b""


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, sub in getattr(command, "commands", {}).items():
        yield from commands(sub, (*path, name))


@pytest.mark.parametrize("width", [40, 80, 200])
def test_help_fits_any_width(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for path in commands(typer.main.get_command(app)):
        said = CliRunner().invoke(app, [*path, "--help"]).output
        assert "Usage:" in said
        assert max(len(line) for line in said.splitlines()) <= width, path
        assert not re.search(r"…|<(bool|int|float|str|path)", said), path
    said = CliRunner().invoke(app, ["corpus", "build", "--help"]).output
    assert "--ground-truth-in-prompt" in said
    assert "google_genai:gemini-flash-latest" in "".join(said.split()) or width == 40


def test_usage_errors_are_one_line() -> None:
    for line in ("ask --nosuch", "nosuch", "ask x y --seed z", "find x", "micro clip --family z"):
        result = CliRunner().invoke(app, line.split())
        assert result.exit_code == 2
        assert len(result.stderr.strip().splitlines()) == 1, result.stderr
        assert re.match(r"error: .*; see act2see.* --help$", result.stderr.strip())


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("act2see ask --preset pa", ["paper", "paper-24gb"]),
        ("act2see config show la", ["laptop", "laptop-transformers"]),
        ("act2see micro clip --family o", ["observe"]),
        ("act2see tra", ["trace"]),
        ("act2see ask --resume ", []),
        ("act2see ask --tools ", ["retrieve", "generate"]),
        ("act2see ask --tools r", ["retrieve"]),
        ("act2see ask --tools retrieve,", ["retrieve,generate"]),
        ("act2see ask --config mine.yaml --tools z", ["zoom"]),
        ("act2see ask --config missing.yaml --tools ", []),
        ("act2see ask --approve g", ["generate"]),
        ("act2see trace fork run --at 1 --tool g", ["generate"]),
    ],
)
def test_tab_completes(tmp_path: Path, words: str, offered: list[str]) -> None:
    (tmp_path / "mine.yaml").write_text("preset: micro\ntools: {zoom: {use: zoom}}\n")
    typed = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    run = subprocess.run(
        [sys.executable, "-m", "act2see"],
        cwd=tmp_path,
        env=environment(tmp_path / "cache", _ACT2SEE_COMPLETE="complete_bash", **typed),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.split() == offered, run.stderr


def test_tab_completes_saved_runs(place: Place) -> None:  # noqa: F811
    from act2see.cli.complete import run_ids

    run = Trace.from_json(place.ask("--json").stdout).id
    assert run in run_ids()


def test_program_is_named_as_the_shell_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / ".venv" / "bin" / "act2see"
    script.parent.mkdir(parents=True)
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.setenv("PATH", "/nowhere")
    assert program() == ".venv/bin/act2see"
    monkeypatch.setenv("PATH", str(script.parent))
    assert program() == "act2see"
    monkeypatch.setattr(sys, "argv", [f"{SOURCES}/act2see/__main__.py"])
    assert program() == f"{sys.executable} -m act2see"


def test_a_warning_is_one_line_like_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    log, other = logging.Logger("act2see.tools.video"), logging.Logger("elsewhere")
    for logger in (log, other):
        logger.addHandler(log_handler(verbose=False))
    for _ in range(2):
        log.warning("%s is cut off at 2 s:\nthe last 1 s are missing", "a\x1b[2J\u202eb.mp4")
    log.warning("another")
    other.warning("a\x1b[2Jb")
    assert capsys.readouterr().err.splitlines() == [
        "warning: a[2Jb.mp4 is cut off at 2 s: the last 1 s are missing",
        "warning: another",
        "elsewhere: a[2Jb",
    ]
