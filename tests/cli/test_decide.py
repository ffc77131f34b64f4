"""`act2see ask --resume ID` with a person's decision: the effect of each option, and the errors."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.cli.helpers import use_parts
from tests.graphs.doubles import BOARD, Scripted, Shows, clip_in, parts_in
from typer.testing import CliRunner

from act2see.cli.app import app
from act2see.micro.guard import BoardGuard
from act2see.micro.world import render
from act2see.tools.frames import Supplied
from act2see.trace.record import Frames
from act2see.trace.trace import Trace

LINES = "Imagine. <generate>it in blue</generate>", "So.</think>\n<answer>B</answer>"
WAITS = "a person must decide on <generate>it in blue</generate>"


@dataclass
class Place:
    """A clip and a configuration in which calls of `generate` wait for a person. The model is scripted."""

    clip: str
    generate: Shows
    reasoner: Scripted

    def ask(self, *args: str, code: int = 0) -> Any:
        result = CliRunner().invoke(app, ["ask", *args])
        assert result.exit_code == code, result.output
        return result

    def refused(self, *args: str, code: int = 2, label: str = "error: ") -> str:
        """Run with an error, and return its one line."""
        (line,) = self.ask(*args, code=code).stderr.strip().splitlines()
        assert line.startswith(label)
        return str(line.removeprefix(label))

    def waits(self, *args: str) -> str:
        """Ask a question that waits for a person, which is not an error, and return its one line."""
        return self.refused(*args, code=3, label="waiting: ")

    def wait(self) -> str:
        """Ask until the run waits for a decision about its call, and return its id."""
        said = self.waits(self.clip, "What?", "--option", "red", "--option", "blue", "--config", "my.yaml")
        head, _, options = said.partition(" with ")
        assert head.startswith(f"{WAITS}: act2see ask --resume ")
        assert options == "--accept, --replace QUERY, --supply FILE|SECONDS or --refuse"
        assert self.generate.queries == []
        return head.split()[-1]

    def decide(self, *decision: str) -> tuple[Trace, Frames]:
        trace = Trace.from_json(self.ask("--resume", self.wait(), *decision, "--json").stdout)
        assert (trace.answer, trace.choice) == ("B", "blue")
        return trace, next(s for s in trace.segments if isinstance(s, Frames))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("ACT2SEE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    reasoner = Scripted(*LINES)
    _, parts = parts_in(tmp_path, reasoner)
    use_parts(monkeypatch, parts)
    Path("my.yaml").write_text("preset: micro\nview: {guard: null}\ntools: {generate: {approve: true}}\n")
    generate: Any = parts.tools["generate"]
    return Place(clip_in(tmp_path), generate, reasoner)


def test_accept_calls_the_tool_and_prints_the_whole_chain(place: Place) -> None:
    shown = place.ask("--resume", place.wait(), "--accept").stdout
    assert "Imagine. <generate>it in blue</generate>" in shown
    assert "Answer: B. blue" in shown
    assert place.generate.queries == ["it in blue"]


def test_replace_changes_the_query_and_records_who_asked(place: Place) -> None:
    _, frames = place.decide("--replace", "it in green", "--by", "Ann")
    assert place.generate.queries == ["it in green"]
    assert frames.review
    assert (frames.review.decision, frames.review.query, frames.review.by) == (
        "replace",
        "it in green",
        "Ann",
    )


def test_supply_shows_a_picture_file(place: Place) -> None:
    Image.new("RGB", (64, 64), "blue").save("mine.png")
    _, frames = place.decide("--supply", "mine.png")
    assert frames.frames[0].provenance == Supplied(by="a person", query="it in blue", file="mine.png")
    assert place.generate.queries == []


def test_supply_shows_the_video_frame_at_a_time(place: Place) -> None:
    _, frames = place.decide("--supply", "1.5")
    assert (frames.frames[0].seconds, frames.frames[0].imagined) == (1.5, False)


def test_refuse_with_and_without_a_reason(place: Place) -> None:
    assert place.decide("--refuse")[1].note == "A person refused this call. Go on without it."
    _, frames = place.decide("--refuse", "--reason", "It costs too much.")
    assert frames.note == "A person refused this call: It costs too much. Go on without it."
    assert place.generate.queries == []


def test_resume_without_a_decision_reports_the_waiting_call(place: Place) -> None:
    run = place.wait()
    result = place.ask("--resume", run, code=3)
    assert "Imagine. <generate>it in blue</generate>" in result.stdout
    assert f"waiting: {WAITS}: act2see ask --resume {run} with --accept" in result.stderr
    assert place.ask("--resume", run, "--json", code=3).stdout == ""
    assert (place.generate.queries, place.reasoner.visits) == ([], 1)


def test_resumed_run_waits_at_the_next_call(place: Place) -> None:
    place.reasoner.lines = (LINES[0], "<generate>it in red</generate>", LINES[1])
    run = place.wait()
    assert (
        "must decide on <generate>it in red</generate>"
        in place.ask("--resume", run, "--accept", code=3).stderr
    )
    assert "Answer: B. blue" in place.ask("--resume", run, "--accept").stdout
    assert "is not waiting for a decision" in place.refused("--resume", run, "--accept", "--json")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--accept", "--refuse"], "--accept and --refuse cannot be combined"),
        (["--replace", "x", "--supply", "1.5"], "--replace and --supply cannot be combined"),
        (["--reason", "no"], "--reason and --by belong to a decision: add --accept"),
        (["--by", "Ann"], "--reason and --by belong to a decision"),
        (["--accept", "--reason", "x"], "--accept does not take --reason"),
        (["--replace", " "], "--replace needs QUERY"),
        (["--supply", "nowhere.png"], "nowhere.png cannot be read: No such file"),
        (["--supply", "my.yaml"], "it is not a PNG, JPEG or WebP"),
        (["--supply", "-1"], "SECONDS: Input should be greater"),
        (["--supply", "nan"], "SECONDS: Input should be a finite number"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_invalid_decision_is_reported_and_nothing_is_resumed(
    place: Place, options: list[str], says: str
) -> None:
    assert says in place.refused("--resume", "anybody", *options)
    assert place.reasoner.visits == 0


def test_a_decision_that_the_video_does_not_allow_is_reported_with_the_options(place: Place) -> None:
    run = place.wait()
    said = place.ask("--resume", run, "--supply", "99", code=2).stderr
    assert said.strip() == (
        "error: the decision cannot be used (SECONDS is 99, but the video lasts 3.0 s); the run still waits: "
        f"act2see ask --resume {run} with --accept, --replace QUERY, --supply FILE|SECONDS or --refuse"
    )
    assert "with --accept" in place.ask("--resume", run, "--answer", "yes", code=2).stderr
    assert "Answer: B. blue" in place.ask("--resume", run, "--supply", "2").stdout


def test_null_is_no_answer(place: Place) -> None:
    said = place.refused("--resume", place.wait(), "--answer", "null")
    assert "--answer null is no answer to a run; give a value, or" in said
    assert place.reasoner.visits == 1


def test_a_huge_picture_is_refused_by_its_header(place: Place) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for name, content in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")):
        data += struct.pack(">I", len(content)) + name + content
        data += struct.pack(">I", zlib.crc32(name + content))
    Path("huge.png").write_bytes(data)
    said = place.refused("--resume", place.wait(), "--supply", "huge.png")
    assert "huge.png cannot be read: it has more than 50,000,000 pixels; make it smaller" in said


def test_a_picture_that_the_guard_refuses_is_not_shown(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, parts = parts_in(tmp_path, place.reasoner)
    use_parts(monkeypatch, replace(parts, guard=BoardGuard()))
    run = place.wait()
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    Image.fromarray(noise).save("photo.png")
    result = place.ask("--resume", run, "--supply", "photo.png", code=2)
    assert "photo.png is refused, as a video of it would be: I cannot tell: this clip" in result.stderr
    assert f"act2see ask --resume {run} with --accept" in result.stderr
    assert place.reasoner.visits == 1
    Image.fromarray(render(BOARD)).save("board.png")
    assert "Answer: B. blue" in place.ask("--resume", run, "--supply", "board.png").stdout


def test_decision_needs_a_waiting_run(place: Place) -> None:
    assert "--refuse needs a waiting run: name it with --resume ID" in place.refused(
        place.clip, "What?", "--refuse"
    )
    assert "no saved run 'nobody'" in place.refused("--resume", "nobody", "--accept")


def test_approve_option_makes_a_tool_wait(place: Place) -> None:
    Path("my.yaml").write_text("preset: micro\nview: {guard: null}\n")
    said = place.waits(place.clip, "What?", "--config", "my.yaml", "--approve", "generate")
    run = said.partition(" with ")[0].split()[-1]
    assert Trace.from_json(place.ask("--resume", run, "--accept", "--json").stdout).answer == "B"
    assert place.generate.queries == ["it in blue"]
    assert "no tool 'zoom'" in place.refused(place.clip, "What?", "--config", "my.yaml", "--approve", "zoom")
