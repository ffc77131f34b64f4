"""`act2see mcp` as a separate process, used over stdin and stdout as by a desktop assistant."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="the MCP package is not installed")

from mcp import Client, StdioServerParameters

from act2see.micro.questions import make_item
from act2see.micro.world import write_clip

LOUD = """
import os, sys
from act2see.tools.retrieve import Retrieve

class Loud(Retrieve):
    async def call(self, query, context):
        print("this must not reach the client")
        os.write(1, b"nor this\\n")
        return await super().call(query, context)
"""


@pytest.mark.timeout(300)
async def test_a_session_with_the_shipped_models(tmp_path: Path) -> None:
    # The question needs both tools. One of them prints to stdout, which must not reach the client.
    item = make_item("both", 1, "test")
    (tmp_path / "videos").mkdir()
    write_clip(item.clip, tmp_path / "videos" / "clip.mp4")
    (tmp_path / "loud.py").write_text(LOUD)
    (tmp_path / "loud.yaml").write_text(
        'preset: micro\ntools: {retrieve: {use: "loud:Loud"}}\nbudget: {seconds: 3600}\n'
    )
    environment = {
        "ACT2SEE_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }
    arguments = [
        "-m",
        "act2see",
        "mcp",
        "--folder",
        str(tmp_path / "videos"),
        "--config",
        str(tmp_path / "loud.yaml"),
    ]
    unread: list[Exception] = []

    async def listen(message: Any) -> None:
        if isinstance(message, Exception):
            unread.append(message)

    server = StdioServerParameters(command=sys.executable, args=arguments, env=environment)
    async with Client(server, message_handler=listen) as c:
        tools = {t.name: t for t in (await c.list_tools()).tools}
        assert set(tools) == {"ask_video", "find_frames", "show_trace", "list_videos"}
        assert set(tools["ask_video"].input_schema["properties"]) == {"video", "question", "options"}
        assert "The board world only" in (c.instructions or "")
        result = await c.call_tool(
            "ask_video", {"video": "clip.mp4", "question": item.text, "options": list(item.options)}
        )
        found = result.structured_content
        assert found["choice"] == item.answer
        assert [f["how"] for f in found["frames"]] == ["retrieved", "imagined"]
        frames = await c.call_tool(
            "find_frames", {"video": "clip.mp4", "query": found["frames"][0]["query"], "k": 2}
        )
        assert frames.structured_content["match"]
        assert frames.structured_content["frames"][0]["seconds"] == found["frames"][0]["seconds"]
        assert sum(b.type == "image" for b in frames.content) == 2
        shown = await c.call_tool("show_trace", {"id": found["trace"]})
        assert shown.structured_content["choice"] == item.answer
        assert (await c.call_tool("ask_video", {"video": "/etc/passwd", "question": "?"})).is_error
    assert unread == []


# The first call waits in the event loop, the second in a thread that cannot be stopped.
SLOW = """
import asyncio, os, threading
from pathlib import Path
from act2see.tools.retrieve import Retrieve

def note(event):
    with open(os.environ["EVENTS"], "a") as file:
        print(event, file=file)

class Slow(Retrieve):
    async def call(self, query, context):
        events = Path(os.environ["EVENTS"])
        again = events.exists() and "started" in events.read_text()
        note("started")
        try:
            if again:
                await asyncio.to_thread(threading.Event().wait)
            else:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            note("cancelled")
            raise
        finally:
            note("ended")
"""


class Server:
    """A process of `act2see mcp`, to which tests send single messages over pipes."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        command = [sys.executable, "-m", "act2see", "mcp", *arguments]
        settings = {
            **os.environ,
            "ACT2SEE_CACHE": str(folder / "cache"),
            "OMP_NUM_THREADS": "1",
            **environment,
        }
        self.log = folder / "log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=settings, text=True
            )
        answer = self.ask(
            "initialize",
            {
                "protocolVersion": "2025-06-18",
                "capabilities": {},
                "clientInfo": {"name": "test", "version": "0"},
            },
            1,
        )
        self.hello: dict[str, Any] = answer["result"]
        self.send("notifications/initialized", {})

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                with suppress(BrokenPipeError):  # closing flushes unsent data
                    pipe.close()

    def send(self, method: str, params: dict[str, Any], id: int | None = None) -> None:
        message = {"jsonrpc": "2.0", "method": method, "params": params, **({} if id is None else {"id": id})}
        self.write(json.dumps(message))

    def write(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def read(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, method: str, params: dict[str, Any], id: int) -> dict[str, Any]:
        """Send a request and return its answer. Fail if the next answer is for another request."""
        self.send(method, params, id)
        answer = self.read()
        assert answer["id"] == id, answer
        return answer

    def call(self, tool: str, arguments: dict[str, Any], id: int) -> dict[str, Any]:
        result: dict[str, Any] = self.ask("tools/call", {"name": tool, "arguments": arguments}, id)["result"]
        return result


@pytest.mark.timeout(300)
def test_a_cancelled_call_ends_and_the_server_ends_after_stdin(
    tmp_path: Path,
) -> None:
    item = make_item("blink", 0, "test")
    (tmp_path / "videos").mkdir()
    write_clip(item.clip, tmp_path / "videos" / "clip.mp4")
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "slow.yaml").write_text(
        'preset: micro\ntools: {retrieve: {use: "slow:Slow", timeout: 3600}}\nbudget: {seconds: 3600}\n'
    )
    events = tmp_path / "events"
    arguments = ["--folder", str(tmp_path / "videos"), "--config", str(tmp_path / "slow.yaml")]
    asked = {"video": "clip.mp4", "question": item.text, "options": list(item.options)}
    with Server(
        tmp_path, *arguments, EVENTS=str(events), PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    ) as server:
        server.send("tools/call", {"name": "ask_video", "arguments": asked}, 2)
        wait_for(events, ["started"], server)
        server.send("notifications/cancelled", {"requestId": 2, "reason": "the user pressed stop"})
        wait_for(events, ["started", "cancelled", "ended"], server)
        assert server.call("list_videos", {}, 3)["structuredContent"] == {"videos": ["clip.mp4"]}
        server.send("tools/call", {"name": "ask_video", "arguments": asked}, 4)
        wait_for(events, ["started", "cancelled", "ended", "started"], server)
        assert server.process.stdin
        server.process.stdin.close()
        assert server.process.wait(60) == 0
    assert events.read_text().split() == ["started", "cancelled", "ended"] * 2
    assert not (tmp_path / "cache" / "traces").exists()


@pytest.mark.timeout(300)
def test_a_closed_stdout_ends_the_server_without_a_traceback(tmp_path: Path) -> None:
    with Server(tmp_path, "--folder", str(tmp_path)) as server:
        assert server.call("list_videos", {}, 3)["structuredContent"] == {"videos": []}
        assert server.process.stdin
        assert server.process.stdout
        server.process.stdout.close()
        server.send("tools/list", {}, 2)
        server.process.stdin.close()
        assert server.process.wait(60) == 0
        assert "Traceback" not in server.log.read_text()


@pytest.mark.timeout(300)
def test_stdout_has_only_protocol_messages_also_for_surrogates_and_invalid_lines(tmp_path: Path) -> None:
    videos = os.fsencode(tmp_path) + b"/videos"
    os.mkdir(videos)
    for name in (b"clip.mp4", b"caf\xe9.mp4"):
        with open(videos + b"/" + name, "wb") as file:
            file.write(b"no video")
    params = '{"name": "NAME", "arguments": ARGUMENTS}'
    call = f'{{"jsonrpc": "2.0", "id": ID, "method": "tools/call", "params": {params}}}'
    with Server(tmp_path, "--folder", os.fsdecode(videos)) as server:
        assert server.hello["serverInfo"]["name"] == "act2see"
        assert len(server.ask("tools/list", {}, 12)["result"]["tools"]) == 4
        listed = server.call("list_videos", {}, 2)
        assert listed["structuredContent"] == {"videos": ["clip.mp4"]}
        assert "caf\\udce9.mp4 is not listed because its name is not UTF-8" in listed["content"][0]["text"]
        for id, name, arguments in (
            (3, "ask_video", r'{"video": "a\ud800.mp4", "question": "?"}'),
            (4, "ask_video", r'{"video": "clip.mp4", "question": "a\udfff"}'),
            (5, "find_frames", r'{"video": "clip.mp4", "query": "\ud83d"}'),
            (6, "show_trace", r'{"id": "\ud800"}'),
            (7, "no\\ud800", "{}"),
        ):
            server.write(call.replace("ID", str(id), 1).replace("NAME", name).replace("ARGUMENTS", arguments))
            answer = server.read()
            assert (answer["id"], answer["error"]["code"]) == (id, -32600)
            assert "Unicode" in answer["error"]["message"]
        for line in ("no JSON", "[" * 50_000, "\0"):
            server.write(line)
            assert server.read()["error"]["code"] == -32700
        for line in (
            "",
            r'{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "\ud800"}}',
        ):
            server.write(line)  # not answered
        for wrong in ("1.5", "null", "true", "{}", "[]"):
            server.write(f'{{"jsonrpc": "2.0", "id": {wrong}, "method": "ping"}}')
            answer = server.read()
            assert (answer["id"], answer["error"]["code"]) == (None, -32600)
        for id, name, arguments in (
            (8, "ask_video", {"video": "a\0.mp4", "question": "?"}),
            (9, "find_frames", {"video": "clip.mp4\0", "query": "x"}),
            (10, "show_trace", {"id": "a\0b"}),
        ):
            result = server.call(name, arguments, id)
            assert result["isError"]
            assert re.search("only videos in|there is no trace", result["content"][0]["text"])
        assert server.call("list_videos", {}, 11)["structuredContent"] == {"videos": ["clip.mp4"]}
        assert server.process.stdin
        assert server.process.stdout
        server.process.stdin.close()
        assert server.process.stdout.read() == ""
        assert server.process.wait(60) == 0


def test_a_folder_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/\xff"
    os.mkdir(folder)
    command = [sys.executable, "-m", "act2see", "mcp", "--folder", os.fsdecode(folder)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 2
    assert "is not UTF-8 text" in run.stderr


def wait_for(events: Path, expected: list[str], server: Server) -> None:
    while not events.exists() or events.read_text().split() != expected:
        assert server.process.poll() is None, server.log.read_text()
        time.sleep(0.02)


def test_a_missing_folder_is_an_error_before_serving(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from act2see.cli.app import app

    run = CliRunner().invoke(app, ["mcp", "--folder", str(tmp_path / "none")])
    assert run.exit_code == 2
    assert "there is no folder" in run.stderr
