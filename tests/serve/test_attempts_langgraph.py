"""Attempts through every door of the LangGraph server: input, context, config, state, resume values, names.

One process of `langgraph dev` serves all attempts. None of them reaches a model, so they take little time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest

if not find_spec("langgraph_api") or not find_spec("langgraph_cli"):
    pytest.skip("the LangGraph server is not installed: langgraph-cli[inmem]", allow_module_level=True)

from tests.serve.attempts import KEY, LISTS, OUTSIDE, Secrets, assert_reveals_nothing
from tests.serve.endless import assert_heads_are_bounded
from tests.serve.langgraph_process import langgraph_server

from act2see.micro.questions import make_item
from act2see.micro.world import write_clip

pytestmark = pytest.mark.timeout(300)  # the first test waits for the server

CLIP = "@in/clip.mp4"
FENCE = r"only videos in \S+ may be opened: there is no file of that name; give the absolute path"
SECRET_INFO = {
    "path": "@out/secret.mp4",
    "digest": "0" * 32,
    "seconds": 6.0,
    "width": 192,
    "height": 192,
    "frames": 72,
    "fps": 12.0,
}
CALL = {"kind": "call", "tag": "retrieve", "query": "a ring", "text": "<retrieve>a ring</retrieve>"}
WAITING = {
    "id": "r",
    "asked": {"question": "?", "options": [], "earlier": []},
    "info": {**SECRET_INFO, "path": CLIP},
    "initial": [],
    "segments": [CALL],
    "loops": [],
    "node_seconds": {},
    "versions": {},
}
"""A run that waits for a decision about a call."""


@dataclass(frozen=True)
class Door:
    """A running server, and a thread in it whose run waits for a person."""

    http: httpx.Client
    secrets: Secrets
    waiting: str

    def send(self, method: str, path: str, body: Any = None) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        placed = self.secrets.place(content.decode("latin-1")).encode("latin-1")
        headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        reply = self.http.request(method, path, content=placed, headers=headers)
        assert reply.status_code < 500, reply.text
        assert_reveals_nothing(reply.text)
        return reply

    def refusal(self, reply: httpx.Response) -> str:
        """Return the message of a refusal by status, or of a run that failed. It must be one line."""
        data = reply.json()
        if reply.status_code == 200:
            message = str(data["__error__"]["message"])
        else:
            assert 400 <= reply.status_code < 500
            message = str(data["detail"])
        assert "\n" not in message
        return message

    def thread(self, **state: Any) -> str:
        """Return a new thread of the graph `act2see`, with a state."""
        made = self.send("POST", "/threads", {"metadata": {"graph_id": "act2see"}})
        thread = str(made.json()["thread_id"])
        if state:
            self.send("POST", f"/threads/{thread}/state", {"values": state, "as_node": "view"})
        return thread

    def refusals(self, runs: list[dict[str, Any]]) -> list[str]:
        """Send runs at the same time, since one may wait a second, and return their refusals."""
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(lambda sent: self.refusal(self.run(**sent)), runs))

    def run(self, where: str = "", **sent: Any) -> httpx.Response:
        return self.send("POST", f"{where}/runs/wait", {"assistant_id": "act2see", **sent})


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    folder = tmp_path_factory.mktemp("attempts")
    served = folder / "served"
    served.mkdir()
    clip = write_clip(make_item("blink", 0, "test").clip, served / "clip.mp4")
    secrets = Secrets.around(
        served, Path(write_clip(make_item("both", 1, "test").clip, folder / "other.mp4"))
    )
    server = tmp_path_factory.mktemp("server")
    with (
        langgraph_server(server, clip.parent, OPERATOR_KEY=KEY) as url,
        httpx.Client(base_url=url, timeout=100) as http,
    ):
        made = Door(http, secrets, "")
        waiting = made.thread(**WAITING)
        started = made.run(f"/threads/{waiting}", command={"goto": "approve"})
        assert started.json()["__interrupt__"][0]["value"]["tag"] == "retrieve"
        yield Door(http, secrets, waiting)
        secrets.assert_unread()  # by any of the attempts


def test_names_of_videos_lead_nowhere(door: Door) -> None:
    runs: list[dict[str, Any]] = []
    for n, name in enumerate(OUTSIDE):
        graph = "long_video" if n % 4 == 0 else "act2see"  # both ask the same fence
        runs.append({"assistant_id": graph, "input": {"video": name, "question": "?"}})
    for sent, message in zip(runs, door.refusals(runs), strict=True):
        assert re.match(FENCE, message), sent


def test_lists_of_files_are_not_followed(door: Door) -> None:
    runs: list[dict[str, Any]] = []
    for graph in ("act2see", "long_video"):
        runs += [{"assistant_id": graph, "input": {"video": name, "question": "?"}} for name in LISTS]
    for sent, message in zip(runs, door.refusals(runs), strict=True):
        assert message.endswith("is a playlist, not a video: give the video file itself"), sent


@pytest.mark.parametrize("video", ["@out/secret.mp4", "@in/list.mp4"])
def test_words_to_the_assistant_open_nothing(door: Door, video: str) -> None:
    said = {"messages": [{"role": "user", "content": f"In {video}, which shape blinks?"}]}
    reply = door.run(assistant_id="assistant", input=said)
    answers = [m["content"] for m in reply.json()["messages"] if m["type"] == "tool"]
    assert answers
    assert all(re.search("may be opened|is a playlist", answer) for answer in answers)


INPUTS: list[tuple[Any, str]] = [
    (
        {"video": ["/etc/passwd"], "question": "?"},
        "'video' must be the path of a file and is of type list",
    ),
    ({"video": {"path": "@out/secret.mp4"}, "question": "?"}, "'video' must be the path of a file"),
    (
        {"video": {"lc": 1, "type": "constructor", "id": ["io", "open"], "kwargs": {}}, "question": "?"},
        "'video' must be",
    ),
    ({"question": "?"}, "'video' must be the path of a file and is missing"),
    ({"video": CLIP}, "the question is empty"),
    ({"video": CLIP, "question": ["?"]}, "'question' must be text"),
    ({"video": CLIP, "question": "x" * 9_000}, "the question has 9000 characters; at most 8000"),
    ({"video": CLIP, "question": "?", "options": "abc"}, "'options' must be a list of texts"),
    ({"video": CLIP, "question": "?", "options": [{"a": 1}]}, "'options' must be a list of texts"),
    ({"video": CLIP, "question": "?", "options": ["x" * 9_000]}, "an option has 9000 characters"),
    ({"video": CLIP, "question": "?", "options": [str(n) for n in range(99)]}, "there are 99 options"),
]


def test_inputs_of_other_types_are_refused(door: Door) -> None:
    runs = [{"input": sent} for sent, _ in INPUTS]
    for (sent, says), message in zip(INPUTS, door.refusals(runs), strict=True):
        assert message.startswith(says), sent


CONTEXTS: list[tuple[dict[str, Any], str]] = [
    ({"video": "@out/secret.mp4"}, "a run has no setting 'video'"),
    ({"tools": "retrieve"}, "the run's setting 'tools' cannot be 'retrieve'"),
    ({"seed": "/etc/passwd"}, "the run's setting 'seed' cannot be"),
    ({"max_tokens": 0}, "the run's setting 'max_tokens'"),
    ({"max_seconds": "inf"}, "the run's setting 'max_seconds'"),
    ({"temperature": 1e39}, "the run's setting 'temperature'"),
    ({"seconds": -1}, "the run's setting 'seconds'"),
    ({"earlier": [{"question": "?", "answer": "!", "path": "/etc/passwd"}]}, "the run's setting 'earlier'"),
    ({"earlier": [["?", "!"]] * 500}, "the run's setting 'earlier'"),
    ({"approve": {"retrieve": 1}}, "the run's setting 'approve'"),
]


@pytest.mark.parametrize("way", ["context", "configurable", "saved", "batch", "cron", "mcp"])
@pytest.mark.parametrize(("settings", "says"), CONTEXTS)
def test_settings_are_checked_on_every_way(door: Door, way: str, settings: Any, says: str) -> None:
    run = {"assistant_id": "act2see", "input": {"video": CLIP, "question": "?"}}
    call = {"name": "act2see", "arguments": run["input"], "context": settings}
    path, body = {
        "context": ("/runs/wait", {**run, "context": settings}),
        "configurable": ("/runs/wait", {**run, "config": {"configurable": {"act2see": settings}}}),
        "saved": ("/assistants", {"graph_id": "act2see", "context": settings}),
        "batch": ("/runs/batch", [{**run, "context": settings}]),
        "cron": ("/runs/crons", {**run, "context": settings, "schedule": "0 0 1 1 *"}),
        "mcp": ("/mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}),
    }[way]
    reply = door.send("POST", path, body)
    assert reply.status_code == 422
    assert door.refusal(reply).startswith(says)


@pytest.mark.parametrize("graph", ["long_video", "assistant"])
def test_settings_of_a_saved_assistant_are_checked_before_a_file_is_opened(door: Door, graph: str) -> None:
    saved = door.send("POST", "/assistants", {"graph_id": graph}).json()["assistant_id"]
    asked = {
        "video": "@out/secret.mp4",
        "question": "?",
        "messages": [{"role": "user", "content": "What blinks?"}],
    }
    reply = door.run(assistant_id=saved, input=asked, context={"seed": "x"})
    assert door.refusal(reply).startswith("the run's setting 'seed' cannot be 'x'")


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        ({"config": {"configurable": {"checkpoint_ns": 3}}}, "config.configurable.checkpoint_ns: "),
        ({"config": {"configurable": {"checkpoint_map": 3}}}, "config.configurable.checkpoint_map: "),
        ({"config": {"configurable": {"checkpoint_id": ["x"]}}}, "config.configurable.checkpoint_id: "),
        ({"config": {"configurable": {"act2see": [1]}}}, "the run's settings under 'act2see' must be"),
        ({"config": {"recursion_limit": -1}}, "config.recursion_limit: "),
        ({"config": {"recursion_limit": 10**12}}, "config.recursion_limit: "),
        ({"config": {"max_concurrency": -1}}, "config.max_concurrency: "),
        ({"config": {"callbacks": ["x"]}}, "config.callbacks: "),
        ({"config": {"metadata": "x"}}, "config.metadata: "),
        ({"config": {"run_name": ["x"]}}, "config.run_name: "),
        ({"config": {"run_id": "../x"}}, "config.run_id: "),
        ({"config": {"tags": ["x"] * 1000}}, "config.tags: "),
        ({"config": {"other": 1}}, "config.other: "),
        ({"checkpoint_id": 3}, "checkpoint_id: "),
        ({"checkpoint": {"__pregel_runtime": 1}}, "checkpoint.__pregel_runtime: "),
        ({"checkpoint": {"checkpoint_map": 3}}, "checkpoint.checkpoint_map: "),
        ({"command": {"resume": None}}, "command.resume: it is empty"),
        ({"command": {"update": 5}}, "command.update"),
        ({"command": 5}, "command: "),
        ({"input": None, "command": {"update": {"trace": 5}}}, "command.goto: name the node"),
        ({"input": None, "command": {"update": {}, "goto": []}}, "command.goto: name the node"),
        ({"after_seconds": 1e12}, "after_seconds: Input should be less than or equal to 31622400"),
        ({"after_seconds": 1e300}, "after_seconds: "),
        ({"after_seconds": -1e300}, "after_seconds: "),
        (
            {"input": None, "command": {"goto": {"node": "view", "input": 5}}},
            "command.goto: the input of a node",
        ),
        ({"interrupt_before": 5}, "interrupt_before"),
        ({"interrupt_after": [5]}, "interrupt_after"),
    ],
)
def test_configs_and_checkpoints_of_other_types_are_refused(door: Door, sent: Any, says: str) -> None:
    reply = door.run(**{"input": {"video": CLIP, "question": "?"}, **sent})
    assert reply.status_code == 422
    assert door.refusal(reply).startswith(says)


CRON = {"assistant_id": "act2see", "schedule": "0 0 1 1 *", "input": {}}


@pytest.mark.parametrize(
    ("path", "sent", "says"),
    [
        ("/runs/crons", {"schedule": "0 0 1 1 *"}, "assistant_id: it is missing"),
        ("/runs/crons", {"assistant_id": "act2see"}, "schedule: it is missing"),
        ("/runs/crons", {**CRON, "end_time": "x"}, "end_time: "),
        ("/runs/crons", {**CRON, "timezone": "x" * 3000}, "timezone: "),
        ("/threads/@new/runs/crons", {"schedule": "0 0 1 1 *"}, "assistant_id: it is missing"),
        ("/store/items/search", {}, "namespace_prefix: it is missing, or no list"),
        ("/store/items/search", {"namespace_prefix": None}, "namespace_prefix: it is missing"),
        ("/store/namespaces", {"limit": 1e300}, "limit: "),
        ("/store/namespaces", {"offset": 1e300}, "offset: "),
        ("/threads/@new/history", {"before": {"checkpoint_ns": ""}}, "before.checkpoint_id: it is missing"),
        ("/threads/@new/history", {"before": {"a": 1}}, "before.checkpoint_id: it is missing"),
        *(
            ("/threads/@new/runs/wait", {"assistant_id": "act2see", "command": command}, says)
            for command, says in [
                ({"update": {}}, "command: it is empty"),
                ({"goto": []}, "command: it is empty"),
                ({"graph": "x"}, "command: it is empty"),
                ({"update": {"trace": 5}}, "command: the thread has no state yet"),
                ({"update": [["a", 1]]}, "command: the thread has no state yet"),
                ({"resume": {"type": "accept"}}, "command: the thread has no state yet"),
                ({"resume": 1}, "command: the thread has no state yet"),
            ]
        ),
    ],
)
def test_what_the_server_would_fail_on_is_refused(door: Door, path: str, sent: Any, says: str) -> None:
    """Each was a 500, or a run that ended with an error of LangGraph's own."""
    reply = door.send("POST", path.replace("@new", door.thread()), sent)
    assert reply.status_code == 422
    assert door.refusal(reply).startswith(says)


def test_a_cron_ends_at_its_end_time(door: Door) -> None:
    for end, read in (
        ("2099-01-01", "2099-01-01T00:00:00+00:00"),
        ("2099-01-01T00:00:00Z", "2099-01-01T00:00:00+00:00"),
    ):
        made = door.send("POST", "/runs/crons", {**CRON, "end_time": end}).json()
        assert made["end_time"] == read
        door.send("DELETE", f"/runs/crons/{made['cron_id']}")


def test_states_before_a_checkpoint_are_found(door: Door) -> None:
    thread = door.thread(**WAITING)
    [only] = door.send("POST", f"/threads/{thread}/history", {}).json()
    sent = {"before": only["checkpoint"]}
    assert door.send("POST", f"/threads/{thread}/history", sent).json() == []


def test_a_deleted_thread_leaves_nothing(door: Door) -> None:
    thread = door.thread(**WAITING)
    storage = f"/threads/{thread}/storage"
    assert door.send("GET", storage).json()["channel_values"]["count"] > 0
    assert door.send("DELETE", f"/threads/{thread}").status_code == 204
    door.send("POST", "/threads", {"thread_id": thread})  # only of a thread that is there the size is told
    assert door.send("GET", storage).json()["total_bytes"] == 0


def test_names_of_the_server_are_removed(door: Door) -> None:
    theirs = {
        "__pregel_runtime": {"store": 1},
        "__pregel_send": "x",
        "langgraph_auth_user": {"identity": "root"},
    }
    for sent in ({"config": {"configurable": {**theirs, "mine": 1}}}, {"context": theirs}):
        saved = door.send("POST", "/assistants", {"graph_id": "act2see", **sent}).json()
        assert set(saved["config"].get("configurable", {})) <= {"mine"}
        reply = door.run(input={"video": "@out/secret.mp4", "question": "?"}, **sent)
        assert re.match(FENCE, door.refusal(reply))
    params = {"assistant_id": "act2see", "config": {"configurable": {"checkpoint_ns": 3}}}
    command = {"id": 1, "method": "run.start", "params": params}
    assert door.send("POST", f"/threads/{door.thread()}/commands", command).status_code == 422


def test_threads_are_searched_by_any_values(door: Door) -> None:
    thread = door.thread()  # without a state
    assert thread in {found["thread_id"] for found in door.send("POST", "/threads/search", {}).json()}
    for value in ([], {}, [1], None, 5):
        for path in ("search", "count"):
            reply = door.send("POST", f"/threads/{path}", {"values": {"a": value}})
            assert (reply.status_code, reply.json()) == (200, [] if path == "search" else 0)
    for values in ([], 5, "x"):
        assert door.send("POST", "/threads/search", {"values": values}).status_code == 422


def test_heads_are_bounded(door: Door) -> None:
    assert_heads_are_bounded(str(door.http.base_url))


def test_messages_of_a_socket_are_checked_too(door: Door) -> None:
    sync = pytest.importorskip("websockets.sync.client", reason="a WebSocket's client is not installed")
    from websockets.exceptions import ConnectionClosed

    address = str(door.http.base_url).replace("http", "ws").rstrip("/")
    params = {"assistant_id": "act2see", "config": {"configurable": {"checkpoint_ns": 3}}}
    for message in (json.dumps({"id": 1, "method": "run.start", "params": params}), "[" * 5000):
        with sync.connect(f"{address}/threads/{door.thread()}/stream/events") as socket:
            socket.send(message)
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(timeout=60)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (
            b'{"assistant_id": "act2see", "a": ' + b"9" * 5000 + b', "config": {"configurable": {"__x": 1}}}',
            "64 bits",
        ),
        (b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}", "nested more than 100 deep"),
        (b'{"assistant_id": "act2see", "context": {"seed": NaN}}', "'seed' cannot be 'nan'"),
        (b'{"config": {}, "config": {"configurable": {"checkpoint_ns": 3}}}', "checkpoint_ns"),
        ('{"assistant_id": "act2see"}'.encode("utf-16"), "Invalid JSON"),
        (b"\xff", "not JSON"),
        (b"{", "not JSON"),
        (b"", "Invalid JSON"),
    ],
)
def test_bodies_that_two_parsers_read_differently_are_refused(door: Door, body: bytes, says: str) -> None:
    reply = door.send("POST", "/runs/wait", body)
    assert reply.status_code == 422
    assert says in door.refusal(reply)


DECISIONS: list[tuple[Any, str]] = [
    ("/etc/passwd", "must hold keys and values"),
    ([1], "must hold keys and values"),
    ({"type": "open"}, "type: "),
    ({"type": "accept", "path": "@out/secret.mp4"}, "path: "),
    ({"type": "supply", "frame": ["@out/secret.mp4"]}, "frame: "),
    ({"type": "supply", "frame": "x.png", "seconds": 1}, "needs either 'frame'"),
    ({"type": "supply", "seconds": 1e308}, "the video lasts 6.0 s"),
    ({"type": "supply", "seconds": "nan"}, "seconds: "),
    ({"type": "replace", "query": "x" * 5000}, "query: "),
    ({"type": "refuse", "reason": "x" * 5000}, "reason: "),
    ({"type": "accept", "by": "x" * 500}, "by: "),
    ({"type": "refuse", "reason": "a\0b"}, "null character"),
    *(({"type": "supply", "frame": name}, "only pictures in|null character") for name in OUTSIDE[::4]),
    *(({"type": "supply", "frame": name}, "is not a PNG|cannot be read|picture") for name in (CLIP, *LISTS)),
]


def test_decisions_outside_the_schema_leave_the_run_waiting(door: Door) -> None:
    runs = []
    for decision, _ in DECISIONS:
        copied = door.send("POST", f"/threads/{door.waiting}/copy", b"").json()["thread_id"]
        runs.append({"where": f"/threads/{copied}", "command": {"resume": decision}})
    for (decision, says), message in zip(DECISIONS, door.refusals(runs), strict=True):
        assert re.search(says, message), decision
        assert "the run still waits" in message


STATES: list[tuple[dict[str, Any], Any, str]] = [
    ({"segments": 7}, "", "an update of the state must be a list"),
    ({"loops": "x"}, "", "an update of the state must be a list"),
    ({"node_seconds": 3}, "", "an update of node_seconds must hold"),
    ({"node_seconds": {"a": "x"}}, "", "an update of node_seconds must hold"),
    ({"segments": ["x"]}, "retrieve", "the saved state of this run is damaged (segments.1: "),
    ({"info": 3}, "retrieve", "the saved state of this run is damaged (video: "),
    ({"info": SECRET_INFO}, "retrieve", "only videos in"),
    ({"asked": {"question": 1}}, "approve", "the saved state of this run is damaged"),
    ({"initial": [{"digest": 3}]}, "answer", "the saved state of this run is damaged (initial.0."),
    ({"segments": [None]}, "approve", "the saved state of this run has no call"),
    ({"segments": [None]}, "retrieve", "the saved state of this run has no call"),
    ({}, "answer", "the saved state of this run has no answer"),
    ({}, {"node": "view", "input": {"video": "@out/secret.mp4", "question": "?"}}, "only videos in"),
]


def test_states_that_a_client_writes_open_nothing(door: Door) -> None:
    runs: list[dict[str, Any]] = []
    expected = []
    for values, goto, says in STATES:
        thread = door.thread(**WAITING)
        reply = door.send("POST", f"/threads/{thread}/state", {"values": values, "as_node": "view"})
        if goto:
            runs.append({"where": f"/threads/{thread}", "command": {"goto": goto}})
            expected.append(says)
        else:
            assert reply.status_code == 422
            assert door.refusal(reply).startswith(says)
    update = {"goto": "retrieve", "update": {"info": SECRET_INFO}}
    runs.append({"where": f"/threads/{door.thread(**WAITING)}", "command": update})
    expected.append("only videos in")
    for sent, says, message in zip(runs, expected, door.refusals(runs), strict=True):
        assert message.startswith(says), sent


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/ui/..%2f..%2f..%2fetc/passwd", 404),
        ("POST", "/ui/act2see", 404),
        ("GET", "/threads/..%2f..%2fetc%2fpasswd", 404),
        ("GET", "/threads/not-an-id/state", 422),
        ("GET", "/assistants/..%2f..%2f/schemas", 404),
        ("GET", "/assistants/x/subgraphs/..%2f..?recurse=1", 404),
        ("GET", "/store/items?namespace=..&key=../../etc/passwd", 422),
        ("GET", "/docs/..%2f..%2fetc%2fpasswd", 404),
        ("GET", "/internal/profile", 404),
        ("TRACE", "/runs/wait", 405),
    ],
)
def test_addresses_lead_to_no_file(door: Door, method: str, path: str, status: int) -> None:
    assert door.send(method, path, b"").status_code == status


@pytest.mark.parametrize(
    "arguments", [[1], {"video": 3, "question": {}}, {"video": "@out/secret.mp4", "question": "?"}]
)
def test_arguments_of_the_mcp_tool_open_nothing(door: Door, arguments: Any) -> None:
    call = {"name": "act2see", "arguments": arguments}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    result = door.send("POST", "/mcp", message).json()["result"]
    assert result["isError"]
    assert re.fullmatch(r"\w+", result["content"][0]["text"])  # the server returns the error's type alone
