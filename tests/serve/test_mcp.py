"""The MCP server: results, progress and errors, in one process and with a scripted model."""

from __future__ import annotations

import asyncio
import base64
import re
import threading
from io import BytesIO
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("mcp", reason="the MCP package is not installed")

from mcp import Client
from mcp.types import CallToolResult
from tests.graphs.doubles import NoEncoder, Scripted, Shows, clip_in, parts_in

from act2see.agent.reasoners.base import Delta
from act2see.graphs.config import Config
from act2see.graphs.parts import Parts
from act2see.serve.mcp.progress import progress
from act2see.serve.mcp.server import PICTURES, build_server
from act2see.tools.base import ToolContext, ToolResult
from act2see.tools.frames import Generated
from act2see.tools.video.folders import Folders
from act2see.trace.folder import KeptTraces

LOOK = "I look. <retrieve>the circle</retrieve>"
IMAGINE = "And <generate>it in blue</generate>"
DONE = "So.</think>\n<answer>B</answer>"


class Imagines(Shows):
    """Returns `many` frames that are marked as imagined."""

    many = 1

    async def call(self, query: str, context: ToolContext) -> ToolResult:
        (ref,) = (await super().call(query, context)).frames
        made = Generated(prompt=query, anchor=ref, seed=1, strength=0.3, model="m", faithfulness=0.5)
        return ToolResult((ref.model_copy(update={"provenance": made}),) * self.many)


def connect(folder: Path, videos: Path, config: Config, parts: Parts) -> Client:
    """Return a client of a server for one folder of videos. Traces are saved in `folder`."""
    traces = KeptTraces(folder / "traces")
    return Client(build_server(config, Folders([videos]), parts=parts, traces=traces))


def client(folder: Path, *lines: str, many: int = 1, **fails: Exception) -> Client:
    """Return a client of a server. Its model writes these lines, its `generate` returns `many` frames."""
    config, parts = parts_in(folder, Scripted(*lines), **fails)
    imagines = Imagines("generate", parts.resources, fails=fails.get("generate"))
    imagines.many = many
    parts.tools["generate"] = imagines  # type: ignore[index]
    (folder / "videos").mkdir(exist_ok=True)
    clip_in(folder / "videos")
    return connect(folder, folder / "videos", config, parts)


def texts(result: CallToolResult) -> list[str]:
    return [c.text for c in result.content if c.type == "text"]


def error_text(result: CallToolResult) -> str:
    assert result.is_error
    (text,) = texts(result)
    return text


async def test_ask_video_returns_frames_and_marks_imagined_ones(tmp_path: Path) -> None:
    said: list[str] = []

    async def on_progress(_: float, __: float | None, message: str | None) -> None:
        said.append(message or "")

    async with client(tmp_path, LOOK, IMAGINE, DONE) as c:
        result = await c.call_tool(
            "ask_video",
            {"video": "clip.mp4", "question": "?", "options": ["red", "blue"]},
            progress_callback=on_progress,
        )
        assert [b.type for b in result.content] == ["text", "text", "image", "text", "image"]
        answer, real, imagined = texts(result)
        assert answer.startswith("Answer: B (blue)")
        assert real == 'A real frame at 0.3 s, found for "the circle" (score 0.90)'
        assert imagined == 'NOT IN THE VIDEO: imagined from the frame at 0.3 s: "it in blue"'
        pictures = [
            Image.open(BytesIO(base64.b64decode(b.data))) for b in result.content if b.type == "image"
        ]
        assert pictures[0].size == (192, 192)
        assert pictures[1].size[0] > 192  # its border
        marks = [b.meta["act2see/frame"]["how"] for b in result.content if b.type == "image" and b.meta]
        assert marks == ["retrieved", "imagined"]
        found = result.structured_content
        assert (found["answer"], found["choice"]) == ("B", "blue")
        facts = [(f["how"], f["imagined"], f["query"], f["score"]) for f in found["frames"]]
        assert facts == [("retrieved", False, "the circle", 0.9), ("imagined", True, "it in blue", 0.5)]

        shown = await c.call_tool("show_trace", {"id": found["trace"]})
        kinds = "".join(b.type[0] for b in shown.content)
        assert kinds == "tttt" + "i" + "ttt" + "i" + "tt"  # text and images
        assert shown.structured_content["text"] == LOOK + IMAGINE + DONE
        assert "- red\n- blue\nIn view at the start: frames at 0.0, 1.0, 2.0 s." in texts(shown)[0]
    assert said[0] == "opening clip.mp4"
    assert "retrieve: the circle" in said
    assert said.index("retrieve: the circle") < said.index(real) < said.index(imagined)


async def test_user_errors_reveal_nothing_outside_the_folders(tmp_path: Path) -> None:
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(b"x")
    async with client(tmp_path, DONE) as c:
        (tmp_path / "videos" / "link.mp4").symlink_to(secret)
        (tmp_path / "videos" / "text.mp4").write_text("no video")
        said = {
            error_text(await c.call_tool(tool, {"video": name, "question": "?", "query": "?"}))
            for tool in ("ask_video", "find_frames")
            for name in (
                str(secret),
                str(tmp_path / "none.mp4"),
                "../secret.mp4",
                "../none.mp4",
                "link.mp4",
                "/etc/passwd",
            )
        }
        assert {s.partition(": ")[2].partition(":")[0] for s in said} == {
            f"only videos in {tmp_path / 'videos'} may be opened"
        }
        assert "URLs" in error_text(
            await c.call_tool("ask_video", {"video": "http://127.0.0.1:1/a.mp4", "question": "?"})
        )
        assert "the question is empty" in error_text(
            await c.call_tool("ask_video", {"video": "clip.mp4", "question": " "})
        )
        assert "the query is empty" in error_text(
            await c.call_tool("find_frames", {"video": "clip.mp4", "query": " "})
        )
        assert "is not a video" in error_text(
            await c.call_tool("ask_video", {"video": "text.mp4", "question": "?"})
        )
        assert "question" in error_text(await c.call_tool("ask_video", {"video": "clip.mp4"}))
        assert "less than or equal to 16" in error_text(
            await c.call_tool("find_frames", {"video": "clip.mp4", "query": "x", "k": 10_000})
        )
        for tool, arguments in (
            ("ask_video", {"video": "clip.mp4", "question": "x" * 8_001}),
            ("ask_video", {"video": "clip.mp4", "question": "?", "options": ["x" * 2_001]}),
            ("ask_video", {"video": "clip.mp4", "question": "?", "options": ["x"] * 27}),
            ("find_frames", {"video": "clip.mp4", "query": "x" * 8_001}),
            ("show_trace", {"id": "x" * 201}),
        ):
            refused = error_text(await c.call_tool(tool, arguments))
            assert "should have at most" in refused
            assert len(refused) < 1_000
        assert "there is no trace" in error_text(await c.call_tool("show_trace", {"id": "../../secret"}))
        listed = await c.call_tool("list_videos", {})
        assert listed.structured_content == {"videos": ["clip.mp4", "text.mp4"]}


async def test_an_unexpected_error_is_logged_under_an_id_and_not_revealed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Breaks(Scripted):
        async def stream(self, request: Any) -> Any:
            raise KeyError("a secret of the server")
            yield

    config, parts = parts_in(tmp_path, Breaks())
    clip_in(tmp_path)
    async with connect(tmp_path, tmp_path, config, parts) as c:
        said = error_text(await c.call_tool("ask_video", {"video": "clip.mp4", "question": "?"}))
    failure = r"the server failed: its log has the details under error ([0-9a-f]{12})"
    id = re.fullmatch(f"Error executing tool ask_video: {failure}", said)
    assert id
    (record,) = [r for r in caplog.records if id[1] in r.getMessage()]
    assert record.exc_info
    assert "a secret of the server" in caplog.text


async def test_an_answer_is_returned_if_its_trace_cannot_be_saved(tmp_path: Path) -> None:
    (tmp_path / "traces").write_text("a file where the folder should be")
    async with client(tmp_path, DONE) as c:
        result = await c.call_tool("ask_video", {"video": "clip.mp4", "question": "?"})
    assert not result.is_error
    assert result.structured_content["answer"] == "B"
    assert "it could not be saved" in texts(result)[0]


class Writes(Scripted):
    """Writes forever, and signals its start and its end."""

    def __init__(self) -> None:
        super().__init__()
        self.started, self.ended = asyncio.Event(), asyncio.Event()

    async def stream(self, request: Any) -> Any:
        try:
            while True:
                yield Delta("word ")
                self.started.set()
                await asyncio.sleep(0.001)
        finally:
            self.ended.set()


async def test_cancelling_ask_video_ends_the_reasoner(tmp_path: Path) -> None:
    writes = Writes()
    config, parts = parts_in(tmp_path, writes)
    clip_in(tmp_path)
    async with connect(tmp_path, tmp_path, config, parts) as c:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(c.call_tool, "ask_video", {"video": "clip.mp4", "question": "?"})
                await writes.started.wait()
                scope.cancel()
        await writes.ended.wait()
        assert (await c.call_tool("list_videos", {})).structured_content == {"videos": ["clip.mp4"]}
    assert not (tmp_path / "traces").exists()


class SlowEncoder(NoEncoder):
    """Encodes a batch when the test allows it."""

    def __init__(self) -> None:
        self.allowed = threading.Semaphore(0)
        self.asked = asyncio.Event()
        self.loop = asyncio.get_running_loop()

    def frames(self, pixels: Any) -> Any:
        self.loop.call_soon_threadsafe(self.asked.set)
        self.allowed.acquire()
        return np.zeros((len(pixels), 1, 4), np.float16)


async def test_cancelling_find_frames_stops_its_index(tmp_path: Path) -> None:
    config, parts = parts_in(tmp_path, Scripted(DONE))
    finder, encoder = parts.resources.finder, SlowEncoder()
    finder.encoder, finder.batch = encoder, 1  # type: ignore[assignment]
    clip_in(tmp_path)
    async with connect(tmp_path, tmp_path, config, parts) as c:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(c.call_tool, "find_frames", {"video": "clip.mp4", "query": "x"})
                await encoder.asked.wait()
                scope.cancel()
        assert (await c.call_tool("list_videos", {})).structured_content == {"videos": ["clip.mp4"]}
        building = [t for t in threading.enumerate() if t.name == "act2see-index"]
        encoder.allowed.release(100)
        for thread in building:
            await asyncio.to_thread(thread.join)
    assert 1 <= finder.encoded < 9
    assert not list((tmp_path / "cache" / "indexes").glob("*fps"))


async def test_show_trace_refuses_traces_of_other_folders(tmp_path: Path) -> None:
    async with client(tmp_path, DONE) as c:
        asked = await c.call_tool("ask_video", {"video": "clip.mp4", "question": "?"})
        id = asked.structured_content["trace"]
    (tmp_path / "other").mkdir()
    config, parts = parts_in(tmp_path, Scripted(DONE))
    async with connect(tmp_path, tmp_path / "other", config, parts) as c:
        assert f"there is no trace {id!r}" in error_text(await c.call_tool("show_trace", {"id": id}))
        assert texts(await c.call_tool("list_videos", {})) == [f"There is no video in {tmp_path / 'other'}."]


async def test_pictures_are_limited_and_missing_ones_are_reported(tmp_path: Path) -> None:
    async with client(tmp_path, IMAGINE, "Or <generate>it in red</generate>", DONE, many=PICTURES) as c:
        result = await c.call_tool("ask_video", {"video": "clip.mp4", "question": "?"})
        assert sum(b.type == "image" for b in result.content) == PICTURES
        assert texts(result)[-1] == f"({PICTURES} more are not shown)"
        assert len(result.structured_content["frames"]) == 2 * PICTURES
        for png in (tmp_path / "frames").rglob("*.png"):
            png.unlink()
    async with client(tmp_path, DONE) as c:
        shown = await c.call_tool("show_trace", {"id": result.structured_content["trace"]})
        assert not shown.is_error
        assert "(its picture was removed from the frame store)" in texts(shown)


async def test_progress_repeats_after_silence_and_sends_the_last_message() -> None:
    heard: list[tuple[float, str | None]] = []

    async def report(progress: float, total: float | None = None, message: str | None = None) -> None:
        heard.append((progress, message))

    async with progress(report, silence=0.05) as say:
        await asyncio.to_thread(say, "loading")
        await asyncio.sleep(0.3)
        say("ready")
    assert [n for n, _ in heard] == list(range(1, len(heard) + 1))
    assert heard[0][1] == "loading"
    assert heard[1][1] == "loading (0 s)"
    assert heard[-1][1] == "ready"
