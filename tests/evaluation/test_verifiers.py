"""The board as an environment of `verifiers`, run by its own `vf-eval` with a model of OpenAI's protocol.

Skipped where `verifiers` is not installed: it pins another `mcp` than we do, so it lives in an environment of
its own (docs/evaluation.md).
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

INSTALLED = importlib.util.find_spec("verifiers") is not None
needs_verifiers = pytest.mark.skipif(not INSTALLED, reason="verifiers is not installed")


@pytest.mark.skipif(INSTALLED, reason="verifiers is installed")
def test_the_error_without_verifiers_names_the_command() -> None:
    from act2see.errors import ConfigError

    with pytest.raises(ConfigError, match="pip install verifiers"):
        importlib.import_module("act2see.evaluation.verifiers")


class Model(BaseHTTPRequestHandler):
    """A model that retrieves what blinks, and then answers A in the right form."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append(request)  # type: ignore[attr-defined]
        if request["messages"][-1]["role"] == "tool":
            message: dict[str, Any] = {"content": "It is clear now. <answer>A</answer>"}
            reason = "stop"
        else:
            function = {"name": "retrieve", "arguments": '{"query": "the triangle blinks"}'}
            message = {"content": None, "tool_calls": [{"index": 0, "id": "1", "type": "function"}]}
            message["tool_calls"][0]["function"] = function
            reason = "tool_calls"
        message["role"] = "assistant"
        about = {"id": "1", "created": 0, "model": "double"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        if request.get("stream"):
            choice = {"index": 0, "delta": message, "finish_reason": reason}
            chunk = {**about, "object": "chat.completion.chunk", "choices": [choice], "usage": usage}
            kind, body = "text/event-stream", f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
        else:
            choice = {"index": 0, "message": message, "finish_reason": reason}
            kind = "application/json"
            body = json.dumps({**about, "object": "chat.completion", "choices": [choice], "usage": usage})
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def model() -> Iterator[Any]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    server.requests = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@needs_verifiers
@pytest.mark.timeout(400)
def test_vf_eval_rewards_answers_form_and_calls(model: Any, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("vf-eval")), "act2see-board", "-n", "2", "-m", "double"]
    command += [
        "--client.base-url",
        f"http://127.0.0.1:{model.server_port}/v1",
        "--client.api-key-var",
        "NONE",
    ]
    command += ["--env.agent.runtime.type", "subprocess", "--env.taskset.questions", "2", "-c", "1"]
    command += ["--no-push", "--no-rich", "-o", str(tmp_path), "--run.dir", "run"]
    env = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=tmp_path, timeout=390)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    lines = [json.loads(line) for line in (tmp_path / "run" / "traces.jsonl").read_text().splitlines()]
    traces = [trace for line in lines for trace in line.get("traces", [line])]
    assert len(traces) == 2, done.stdout[-3000:]
    for trace, right in zip(traces, (1, 0), strict=True):
        assert not trace.get("errors"), trace["errors"]
        rewards = {name: reward["score"] for name, reward in trace["rewards"].items()}
        assert rewards == {"right": right, "form": 1, "calls": 1}
        assert trace["metrics"]["retrieved"] == 1
        assert trace["metrics"]["generated"] == 0
    first, nothing, _, found = model.requests  # the first video has no triangle
    assert {tool["function"]["name"] for tool in first["tools"]} == {"retrieve", "generate"}
    assert nothing["messages"][-1]["content"].startswith("No match")
    text, picture = found["messages"][-1]["content"][-2:]
    assert text["text"].startswith("A real frame at")
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")
