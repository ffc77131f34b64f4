"""The command line: output, files and exit codes.

The graph, its finder, the index and the checkpoints are real. The reasoner is scripted, the tools show frames
by number and the encoder recognizes colours, so no weights are needed. Tests that need weights are skipped if
the checkout has none.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langgraph.checkpoint.memory import InMemorySaver
from numpy.typing import NDArray
from tests.cli.helpers import SOURCES, assert_one_line_error, use_parts
from typer.testing import CliRunner

import act2see
from act2see.agent.parser import StopReason
from act2see.agent.reasoners.base import Delta, Done, Reasoner, Request
from act2see.cli.app import app
from act2see.errors import StoreError
from act2see.graphs import parts as graph_parts
from act2see.graphs.ask import create_act2see
from act2see.graphs.config import load_config
from act2see.graphs.run import aask, aresume, ask
from act2see.micro.questions import make_item
from act2see.micro.world import COLOURS, write_clip
from act2see.tools.base import ToolContext, ToolResult
from act2see.tools.frames import Generated, Retrieved
from act2see.tools.search.finder import Finder
from act2see.tools.video.library import VideoLibrary
from act2see.trace.record import Turn
from act2see.trace.trace import Trace

WEIGHTS = Path(act2see.__file__).parent / "micro" / "weights"
needs_weights = pytest.mark.skipif(
    not (WEIGHTS / "vlm").is_dir(), reason="the micro weights are not in this checkout"
)
QUESTION = "What colour is the [bold]ring[/bold]?"
TURNS = (
    "I look. <retrieve>the ring</retrieve>",
    "I see \x1b[31mred[/red]. <generate>the ring, tipped</generate>",
    "So it is blue.</think>\n<answer>B</answer>",
)
COMMANDS = [
    [],
    ["ask"],
    ["index"],
    ["find"],
    ["calibrate"],
    ["trace"],
    ["trace", "show"],
    ["trace", "html"],
    ["trace", "export"],
    ["trace", "diff"],
    ["trace", "fork"],
    ["trace", "replay"],
    ["mcp"],
    ["ui"],
    ["config"],
    ["config", "show"],
    ["config", "check"],
    ["micro"],
    ["micro", "clip"],
    ["micro", "clips"],
    ["micro", "train"],
    ["micro", "test"],
    ["doctor"],
    ["download"],
    ["gc"],
    ["demo"],
]


class Scripted(Reasoner):
    """Writes the next turn, by the number of frames shown so far. It can be interrupted once."""

    name = "scripted"
    interrupt_at: int | None = None

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        turn = str(request.rollout).count("</frame>")
        if turn == self.interrupt_at:
            self.interrupt_at = None
            signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(60)
        text = TURNS[turn]
        for n, character in enumerate(text, start=1):
            yield Delta(character)
            if request.until(character):
                yield Done(StopReason.UNTIL, prefilled=1, decoded=n)
                return
        yield Done(StopReason.EOS, prefilled=1, decoded=len(text))


@dataclass
class Show:
    """A tool that retrieves frame 20, or imagines frame 21 from it."""

    tag: str
    library: VideoLibrary
    usage: str = "a frame"
    version: str = "1"

    async def call(self, query: str, context: ToolContext) -> ToolResult:
        real, other = self.library.pictures(context.video, [20, 21])
        if self.tag == "retrieve":
            return ToolResult(
                frames=(real.model_copy(update={"provenance": Retrieved(query=query, score=0.41)}),)
            )
        made = Generated(
            prompt=query, anchor=real, seed=1, strength=0.3, model="m", faithfulness=0.52, anchor_score=0.33
        )
        return ToolResult(frames=(other.model_copy(update={"provenance": made}),))


class Colours:
    """An encoder that describes frames by their mean colour, and phrases by the names of colours in them."""

    id, size, no_match = "colours", 16, 0.2

    def frames(self, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.float16]:
        mean = np.stack([p.reshape(-1, 3).mean(0) for p in pixels])
        return (mean / np.linalg.norm(mean, axis=1, keepdims=True))[:, None].astype(np.float16)

    def phrases(self, texts: Sequence[str]) -> NDArray[np.float32]:
        named = np.stack(
            [sum((np.array(rgb) for c, rgb in COLOURS.items() if c in t), np.ones(3)) for t in texts]
        )
        return (named / np.linalg.norm(named, axis=1, keepdims=True)).astype(np.float32)


@dataclass
class Place:
    """A folder with a clip and a configuration. The models are doubles."""

    folder: Path
    clip: str
    config: str
    reasoner: Scripted

    def run(self, *args: str | Path, code: int = 0) -> Any:
        result = CliRunner().invoke(app, [str(a) for a in args])
        assert result.exit_code == code, result.output
        return result

    def ask(self, *args: str | Path, code: int = 0) -> Any:
        options = [word for o in ("red", "blue") for word in ("--option", o)]
        return self.run("ask", self.clip, QUESTION, *options, "--config", self.config, *args, code=code)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    cache = tmp_path / "cache"
    monkeypatch.setenv("ACT2SEE_CACHE", str(cache))
    monkeypatch.setenv("NO_COLOR", "1")
    weights = tmp_path / "weights"
    weights.mkdir()
    file = tmp_path / "my.yaml"
    file.write_text(
        f"reasoner: {{weights: {weights}, prompt: short}}\n"
        f"encoder: {{weights: {weights}}}\n"
        "tools:\n"
        "  retrieve: {use: retrieve}\n"
        f"  generate: {{use: generate, options: {{weights: {weights}}}}}\n"
    )
    config = load_config(file)
    made = graph_parts.build_parts(config)
    library = made.resources.finder.library
    resources = replace(made.resources, finder=Finder(library, Colours(), cache))
    reasoner = Scripted()
    doubled = replace(
        made, reasoner=reasoner, resources=resources, tools={t: Show(t, library) for t in config.tools}
    )
    use_parts(monkeypatch, doubled)
    monkeypatch.setattr(graph_parts, "build_resources", lambda *_: resources)
    clip = write_clip(make_item("blink", 0, "test", seconds=6).clip, tmp_path / "clip.mp4")
    return Place(tmp_path, str(clip), str(file), reasoner)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_help_is_fast_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, time\nstarted = time.process_time()\nsys.argv = ['act2see', '--help']\n"
        "from act2see.cli import main\ntry:\n    main()\nexcept SystemExit as e:\n    assert not e.code\n"
        "print(time.process_time() - started, 'torch' in sys.modules, 'pydantic' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    seconds, torch, pydantic = run.stdout.splitlines()[-1].split()
    assert float(seconds) < 0.5
    assert (torch, pydantic) == ("False", "False")


def test_version_and_help_on_an_ascii_terminal() -> None:
    code = "import sys\nsys.argv = ['act2see', *sys.argv[1:]]\nfrom act2see.cli import main\nmain()"
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONPATH": SOURCES}
    for argument in ("--version", "--help"):
        run = subprocess.run(
            [sys.executable, "-c", code, argument], capture_output=True, env=environment, check=True
        )
        assert run.stdout.decode("ascii").strip()
        assert not run.stderr


def test_ask_prints_the_chain_and_the_answer(place: Place) -> None:
    shown = place.ask().stdout
    assert "<retrieve>the ring</retrieve>" in shown
    assert "=> 1.7 s, score 0.41" in shown
    assert "=> imagined from 1.7 s, score 0.52 (its anchor 0.33)" in shown
    assert "Answer: B. blue" in shown
    assert "I see [31mred[/red]." in shown  # escape sequence removed, markup not interpreted
    assert "\x1b" not in shown


def test_ask_json_prints_only_the_trace(place: Place) -> None:
    trace = Trace.from_json(place.ask("--json").stdout)
    assert (trace.answer, trace.choice, trace.video.path) == ("B", "blue", place.clip)
    assert [c.tag for c in trace.calls] == ["retrieve", "generate"]


def test_ask_settings_reach_the_run(place: Place) -> None:
    trace = Trace.from_json(
        place.ask("--json", "--tools", "retrieve", "--seed", "7", "--max-calls", "1").stdout
    )
    assert (set(trace.versions.tools), trace.versions.seed) == ({"retrieve"}, 7)
    assert sum(c.outcome == "ok" for c in trace.calls) == 1
    assert Trace.from_json(place.ask("--json", "--no-tools").stdout).versions.tools == {}


def test_ask_saves_a_complete_folder_or_nothing(place: Place) -> None:
    folder, page = place.folder / "saved", place.folder / "page.html"
    place.ask("--save", folder, "--html", page)
    trace = Trace.load(folder)
    names = {p.stem.rpartition("-")[2] for p in (folder / "frames").glob("*.png")}
    assert names == {f.digest for f in trace.shown}
    assert "no picture" not in (folder / "trace.html").read_text()
    assert page.read_text() == (folder / "trace.html").read_text()
    place.ask("--save", folder)  # a folder of a former run is replaced
    assert not [p.name for p in place.folder.iterdir() if p.name.startswith(".")]
    taken = place.folder / "taken"
    taken.mkdir()
    (taken / "thesis.txt").touch()
    assert_one_line_error(place.ask("--save", taken, code=2), "not empty")
    assert [p.name for p in taken.iterdir()] == ["thesis.txt"]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Handle Ctrl-C as in a terminal, even in a shell's background job, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_interrupted_run_resumes_with_its_own_settings(place: Place) -> None:
    whole = Trace.from_json(place.ask("--json", "--seed", "3").stdout)
    place.reasoner.interrupt_at = 1
    stopped = place.ask("--seed", "3", code=130)
    assert "So it is blue" not in stopped.stdout
    hint = stopped.stderr.strip().splitlines()[-1]
    assert hint.startswith("resume with: act2see ask --resume ")
    run = hint.split()[-1]
    assert f"run {run}" in stopped.stdout
    resumed = place.run("ask", "--resume", run).stdout
    assert "<retrieve>the ring</retrieve>" in resumed  # the beginning of the chain
    assert "Answer: B. blue" in resumed
    # The run has finished, so resuming it returns its answer at once.
    again = Trace.from_json(place.run("ask", "--resume", run, "--json").stdout)
    assert (again.text, again.shown, again.versions) == (whole.text, whole.shown, whole.versions)


@pytest.mark.parametrize(
    "words",
    [
        ["--seed", "0"],
        ["--max-calls", "0"],
        ["--option", "red"],
        ["--preset", "micro"],
        ["--config", "my.yaml"],
        ["--tools", "retrieve"],
        ["--no-tools"],
        ["--approve", "generate"],
    ],
    ids=" ".join,
)
def test_resumed_run_takes_no_new_settings(place: Place, words: list[str]) -> None:
    result = place.run("ask", "--resume", "anybody", *words, code=2)
    assert_one_line_error(result, "keeps its question and its settings", f"without {words[0]}")


def test_resumed_run_takes_no_new_video(place: Place) -> None:
    assert_one_line_error(place.run("ask", place.clip, "--resume", "anybody", code=2), "without VIDEO")


@pytest.mark.usefixtures("interruptible")
async def test_sync_ask_works_in_a_running_loop_and_can_be_interrupted(place: Place) -> None:
    graph = create_act2see(load_config(place.config))
    events: list[str] = []
    trace = ask(graph, place.clip, QUESTION, ["red", "blue"], on_event=lambda e: events.append(e.type))
    assert trace.choice == "blue"
    assert (events[0], events[-1], set(events)) == (
        "view",
        "answer",
        {"view", "token", "call", "frames", "answer"},
    )

    class Endless(Scripted):
        async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            await asyncio.sleep(60)
            yield Done(StopReason.EOS)

    config = load_config(place.config)
    stuck = create_act2see(config, parts=replace(graph_parts.cached_parts(config), reasoner=Endless()))
    # Pytest's event loop has replaced the handler. Restore it, as in a notebook's kernel.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        ask(stuck, place.clip, QUESTION)


async def test_resuming_needs_a_saved_run(place: Place) -> None:
    graph = create_act2see(load_config(place.config), checkpointer=InMemorySaver())
    with pytest.raises(StoreError, match="no saved run 'nobody'"):
        await aresume(graph, "nobody")
    trace = await aask(graph, place.clip, QUESTION, thread_id="somebody")
    assert await aresume(graph, "somebody") == trace


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["ask", "no.mp4", "What?", "--config", "CONFIG"], ["no.mp4", "check the path"]),
        (["ask", "FOLDER", "What?", "--config", "CONFIG"], ["is a folder"]),
        (["ask", "CONFIG", "What?", "--config", "CONFIG"], ["is not a video"]),
        (["ask", "CLIP", " ", "--config", "CONFIG"], ["the question is empty"]),
        (["ask", "CLIP"], ["ask a question"]),
        (["ask", "", "What?"], ["name a video"]),
        (["ask", "CLIP", "What?", "--config", "CONFIG", "--option", "a", "--option", "A"], ["given twice"]),
        (["ask", "CLIP", "What?", "--config", "CONFIG", "--tools", "zoom"], ["'zoom'", "retrieve, generate"]),
        (
            ["ask", "CLIP", "What?", "--config", "CONFIG", "--tools", "zoom", "--no-tools"],
            ["cannot be combined"],
        ),
        (["ask", "CLIP", "What?", "--preset", "micr"], ["did you mean 'micro'?"]),
        (["ask", "CLIP", "What?", "--preset", "micro", "--config", "CONFIG"], ["cannot be combined"]),
        (["ask", "--resume", "nobody"], ["no saved run 'nobody'"]),
        (["ask", "--resume", "nobody", "--json", "--save", "FOLDER/new"], ["no saved run 'nobody'"]),
        (["find", "CLIP", " ", "--config", "CONFIG"], ["the query is empty"]),
        (["index", "no.mp4", "--config", "CONFIG"], ["no.mp4"]),
        (["trace", "show", "no.json"], ["no.json"]),
        (["trace", "show", "CONFIG"], ["is not JSON"]),
        (["config", "check", "no.yaml"], ["no.yaml"]),
        (["config", "show", "papr"], ["did you mean the preset 'paper'?"]),
        (["doctor", "--preset", "papr"], ["did you mean 'paper'?"]),
        (["micro", "clip", "--out", "clip.avi"], ["MP4"]),
        (["micro", "test", "--out", "report.pdf"], [".json or .md"]),
        (["micro", "train", "--stage", "bass", "--out", "FOLDER/w"], ["no stage 'bass'"]),
    ],
    ids=lambda x: " ".join(x),
)
def test_errors_are_one_line(place: Place, args: list[str], words: list[str]) -> None:
    named = {"CONFIG": place.config, "CLIP": place.clip, "FOLDER": str(place.folder)}
    given = [named.get(a, a.replace("FOLDER", str(place.folder))) for a in args]
    assert_one_line_error(place.run(*given, code=2), *words)


def test_config_show_and_check(place: Place) -> None:
    shown = place.run("config", "show").stdout
    copy = place.folder / "copy.yaml"
    copy.write_text(shown)
    assert load_config(copy) == load_config("micro")
    assert place.run("config", "check", place.config).stdout.startswith("ok: ")
    copy.write_text("preset: micro\nbugdet: {calls: 1}\n")
    assert_one_line_error(place.run("config", "check", copy, code=2), "did you mean 'budget'?")


def test_index_and_find(place: Place) -> None:
    first = place.run("index", place.clip, "--config", place.config).stdout
    assert "18 frames" in first
    assert "nothing to do" not in first
    assert "nothing to do" in place.run("index", place.clip, "--config", place.config).stdout
    folder, page = place.folder / "found", place.folder / "found.html"
    shown = place.run(
        "find",
        place.clip,
        "a red [b]shape[/b]",
        "--top",
        "3",
        "--out",
        folder,
        "--html",
        page,
        "--config",
        place.config,
    ).stdout
    assert "a red [b]shape[/b]" in shown
    assert len(list(folder.glob("*.png"))) == 3
    assert "no picture" not in page.read_text()
    assert place.run("find", place.clip, "red", "--segments", "--config", place.config).stdout
    told = json.loads(
        place.run("find", place.clip, "red", "-n", "2", "--json", "--config", place.config).stdout
    )
    assert (told["query"], told["refused"], len(told["frames"])) == ("red", None, 2)
    for hit in told["frames"]:
        assert set(hit) == {"seconds", "score", "frame", "match"}
        assert hit["match"] == (hit["score"] >= told["threshold"])


def test_trace_show_html_and_export(place: Place) -> None:
    folder = place.folder / "saved"
    asked = place.ask("--save", folder).stdout
    shown = place.run("trace", "show", folder).stdout
    assert asked.splitlines()[-3:] == shown.splitlines()[-3:]
    assert "[bold]ring[/bold]" in shown
    told = json.loads(place.run("trace", "show", folder, "--json").stdout)
    assert (told["answer"], told["choice"]) == ("B", "blue")
    page, lines, text, copy = (place.folder / n for n in ("t.html", "t.jsonl", "t.md", "copy"))
    place.run("trace", "html", folder, "--out", page)
    assert "no picture" not in page.read_text()
    place.run("trace", "export", folder, folder, "--out", lines)
    assert [json.loads(x)["id"] for x in lines.read_text().splitlines()] == [Trace.load(folder).id] * 2
    place.run("trace", "export", folder, "--out", text)
    assert "**Answer:** B (blue)" in text.read_text()
    assert "- imagined from 1.7 s" in text.read_text()
    place.run("trace", "export", folder / "trace.json", "--out", copy)
    assert Trace.load(copy) == Trace.load(folder)
    assert_one_line_error(place.run("trace", "export", folder, folder, "--out", text, code=2), "one trace")
    trace = Trace.load(folder)
    turn = Turn(question="What is [b]there[/b]?", answer="a ring")
    follow_up = trace.question.model_copy(update={"earlier": (turn,)})
    told = trace.model_copy(update={"question": follow_up}).save(place.folder / "told.json")
    shown = place.run("trace", "show", told).stdout
    assert shown.startswith("Earlier: What is [b]there[/b]? a ring\n")
    place.run("trace", "export", told, "--out", text)
    assert "Earlier: What is \\[b\\]there\\[/b\\]? a ring\n" in text.read_text()


def test_micro_clip(place: Place) -> None:
    path = place.folder / "clips" / "both.mp4"
    shown = place.run("micro", "clip", "--family", "both", "--seed", "1", "--out", path).stdout
    item = make_item("both", 1, "test")
    assert item.text in shown
    assert f"answer: {item.correct}. {item.answer}" in shown
    assert [p.name for p in path.parent.iterdir()] == ["both.mp4"]


@pytest.mark.parametrize("gpu", [("a GPU", 85e9), ("no CUDA device", None)])
def test_doctor_suggests_the_next_command(
    place: Place, monkeypatch: pytest.MonkeyPatch, gpu: tuple[str, float | None]
) -> None:
    result = place.run("doctor", "--config", place.config, code=1)
    assert "incomplete" in result.stdout
    monkeypatch.setattr(
        "act2see.graphs.machine.device_memory", lambda device: gpu if device == "cuda" else ("CPU", 200e9)
    )
    paper = place.run("doctor", "--preset", "paper", code=1).stdout
    assert "about 17.5 GB" in " ".join(paper.split())
    # Weights that do not fit the machine are not suggested for download.
    assert ("act2see download --preset paper" in paper) == (gpu[1] is not None)
    assert ("act2see doctor --preset paper-24gb" in paper) == (gpu[1] is None)


@needs_weights
def test_doctor_finds_the_default_ready(place: Place) -> None:
    assert "act2see demo" in place.run("doctor").stdout
