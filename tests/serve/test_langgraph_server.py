"""`langgraph dev` with the repository's `langgraph.json`, started from the command line and used by clients.

All tests share one server. It starts in an empty folder, offline, and may open videos in one folder only.
"""

from __future__ import annotations

import ast
import asyncio
import json
import os
import random
import re
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.messages import HumanMessage
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

if not find_spec("langgraph_api") or not find_spec("langgraph_cli"):
    pytest.skip("the LangGraph server is not installed: langgraph-cli[inmem]", allow_module_level=True)

from langgraph.pregel.remote import RemoteGraph
from langgraph_sdk import get_client, get_sync_client
from langgraph_sdk.client import SyncLangGraphClient
from mcp import Client
from mcp.types import CallToolResult, Tool
from PIL import Image
from tests.serve.langgraph_process import CONFIG, ROOT, langgraph_server

from act2see.errors import VideoError
from act2see.graphs.compose import as_node, as_tool, as_worker
from act2see.graphs.parts import cached_parts
from act2see.graphs.state import AskContext
from act2see.micro.draws import draw_board
from act2see.micro.questions import make_item
from act2see.micro.world import render, write_clip
from act2see.serve.langgraph.graphs import served_config
from act2see.tools.frames import Supplied
from act2see.trace.events import read_event
from act2see.trace.record import Frames
from act2see.trace.trace import Trace

ITEM = make_item("blink", 0, "test")  # the blink is not in view, so one retrieve is needed
# The first test waits for the server, and the first question for its models.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    clip = write_clip(ITEM.clip, tmp_path_factory.mktemp("videos") / "clip.mp4")
    return {"video": str(clip), "question": ITEM.text, "options": list(ITEM.options)}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, asked: dict[str, Any]) -> Iterator[str]:
    with langgraph_server(tmp_path_factory.mktemp("server"), os.path.dirname(asked["video"])) as address:
        yield address


@pytest.fixture
def client(url: str) -> Iterator[SyncLangGraphClient]:
    with get_sync_client(url=url, timeout=200) as client:
        yield client


def test_a_run_streams_thought_and_frames(client: SyncLangGraphClient, asked: dict[str, Any]) -> None:
    thread = client.threads.create()["thread_id"]
    parts = list(client.runs.stream(thread, "act2see", input=asked, stream_mode=["custom", "values"]))
    events = [event for part in parts if part.event == "custom" and (event := read_event(part.data))]
    assert [e.type for e in events if e.type != "token"] == ["view", "call", "frames", "answer"]
    assert sum(e.type == "token" for e in events) > 20
    final = [part.data for part in parts if part.event == "values"][-1]
    trace = Trace.model_validate(final["trace"])
    assert trace.choice == ITEM.answer
    assert "".join(e.text for e in events if e.type == "token") == trace.text
    assert trace.id == thread

    history = client.threads.get_history(thread)
    assert [h["next"] for h in reversed(history)] == [
        ["__start__"],
        ["view"],
        ["reason"],
        ["retrieve"],
        ["reason"],
        ["answer"],
        [],
    ]
    assert max(len(json.dumps(h["values"])) for h in history) < 20_000


def test_adapters_accept_a_remote_graph(url: str, client: SyncLangGraphClient, asked: dict[str, Any]) -> None:
    remote = RemoteGraph("act2see", sync_client=client)
    message = as_tool(remote).invoke({"type": "tool_call", "id": "1", "name": "ask_video", "args": asked})
    assert message.status == "success"
    assert Trace.model_validate(message.artifact).choice == ITEM.answer
    gone = as_tool(remote).invoke(
        {"type": "tool_call", "id": "1", "name": "ask_video", "args": {**asked, "video": "none.mp4"}}
    )
    assert gone.status == "error"
    assert "may be opened: there is no file of that name" in gone.content

    async def asynchronously() -> tuple[str, dict[str, Any]]:
        async with get_client(url=url) as client:
            there = RemoteGraph("act2see", client=client)
            worker = as_worker(there, context=AskContext(tools=(), seed=3))
            said = await worker.ainvoke(
                {"messages": [HumanMessage(asked["question"])], "video": asked["video"]}
            )
            return said["trace"]["versions"], await as_node(there).ainvoke(asked)

    versions, update = asyncio.run(asynchronously())
    assert (versions["seed"], versions["tools"]) == (3, {})
    assert Trace.model_validate(update["trace"]).choice == ITEM.answer


async def test_a_parents_configurable_does_not_reach_the_server(url: str, asked: dict[str, Any]) -> None:
    class State(TypedDict, total=False):
        video: str
        question: str
        options: list[str]
        answer: str
        trace: dict[str, Any]

    theirs: Any = {"configurable": {"temperature": 0.9, "max_tokens": 1, "seed": 9, "thread_id": "mine"}}
    async with get_client(url=url) as client:
        parent = StateGraph(State)
        parent.add_node("see", as_node(RemoteGraph("act2see", client=client), context=AskContext(seed=3)))
        parent.add_edge(START, "see")
        result = await parent.compile().ainvoke(asked, theirs)
    assert Trace.model_validate(result["trace"]).choice == ITEM.answer
    assert result["trace"]["versions"]["seed"] == 3


def test_a_thread_and_a_remote_worker_know_the_earlier_turns(
    client: SyncLangGraphClient, asked: dict[str, Any]
) -> None:
    thread = client.threads.create()["thread_id"]
    told = [{"question": asked["question"], "answer": ITEM.answer}]
    for earlier in ([], told):
        result: Any = client.runs.wait(thread, "act2see", input=asked)
        assert result["trace"]["question"].get("earlier", []) == earlier
    result = client.runs.wait(thread, "act2see", input=asked, context={"earlier": []})
    assert "earlier" not in result["trace"]["question"]
    worker = as_worker(RemoteGraph("act2see", sync_client=client))
    state: Any = {"messages": [], "video": asked["video"], "options": asked["options"]}
    for earlier in ([], told):
        state = worker.invoke({**state, "messages": [*state["messages"], HumanMessage(asked["question"])]})
        assert state["trace"]["question"].get("earlier", []) == earlier


def test_settings_in_configurable_need_the_key_act2see(
    client: SyncLangGraphClient, asked: dict[str, Any]
) -> None:
    class State(TypedDict, total=False):
        video: str
        question: str
        options: list[str]
        answer: str
        trace: dict[str, Any]

    theirs: Any = {"configurable": {"temperature": 0.9, "max_tokens": 1, "seed": "abc", "model": "theirs"}}
    parent = StateGraph(State)
    parent.add_node("see", RemoteGraph("act2see", sync_client=client))
    parent.add_edge(START, "see")
    assert Trace.model_validate(parent.compile().invoke(asked, theirs)["trace"]).choice == ITEM.answer
    assert (
        Trace.model_validate(client.runs.wait(None, "act2see", input=asked, config=theirs)["trace"]).choice
        == ITEM.answer
    )  # type: ignore[call-overload,index]
    assistant = client.assistants.create("act2see", config=theirs)["assistant_id"]
    assert Trace.model_validate(client.runs.wait(None, assistant, input=asked)["trace"]).choice == ITEM.answer  # type: ignore[call-overload,index]
    ours: Any = {"configurable": {"act2see": {"seed": 9}}}
    assert client.runs.wait(None, "act2see", input=asked, config=ours)["trace"]["versions"]["seed"] == 9  # type: ignore[call-overload,index]


def test_an_interrupted_run_continues_to_the_same_answer(
    client: SyncLangGraphClient, asked: dict[str, Any]
) -> None:
    thread = client.threads.create()["thread_id"]
    client.runs.wait(thread, "act2see", input=asked, interrupt_before=["retrieve"])
    state: Any = client.threads.get_state(thread)
    assert state["next"] == ["retrieve"]
    assert [s["kind"] for s in state["values"]["segments"]] == ["text", "call"]
    result: Any = client.runs.wait(thread, "act2see", input=None)
    assert Trace.model_validate(result["trace"]).choice == ITEM.answer
    # The same thread answers another question with other settings.
    again: Any = client.runs.wait(thread, "act2see", input=asked, context={"tools": []})
    assert again["trace"]["versions"]["tools"] == {}
    assert all(s["kind"] != "call" for s in again["trace"]["segments"])


class Parent(TypedDict, total=False):
    video: str
    question: str
    options: list[str]
    answer: str
    trace: dict[str, Any]


def test_the_remote_graph_is_a_node_of_a_local_one(
    client: SyncLangGraphClient, asked: dict[str, Any]
) -> None:
    graph = StateGraph(Parent)
    graph.add_node("see", RemoteGraph("act2see", sync_client=client))
    graph.add_edge(START, "see")
    graph.add_edge("see", END)
    tokens, final = "", None
    for _, mode, data in graph.compile().stream(asked, stream_mode=["custom", "values"], subgraphs=True):
        if mode == "custom" and (event := read_event(data)) and event.type == "token":
            tokens += event.text
        elif mode == "values":
            final = data
    assert final
    trace = Trace.model_validate(final["trace"])
    assert trace.choice == ITEM.answer
    assert tokens == trace.text


def test_mcp_lists_the_graph_with_its_small_schema_and_answers(url: str, asked: dict[str, Any]) -> None:
    async def call() -> tuple[list[Tool], CallToolResult]:
        async with Client(f"{url}/mcp") as c:
            return (await c.list_tools()).tools, await c.call_tool("act2see", asked)

    tools, result = asyncio.run(call())
    (tool,) = [t for t in tools if t.name == "act2see"]
    assert set(tool.input_schema["properties"]) == {"video", "question", "options"}
    assert tool.input_schema["required"] == ["video", "question"]
    assert "question about a video" in (tool.description or "")
    assert not result.is_error
    (content,) = result.content
    assert content.type == "text"
    assert Trace.model_validate(ast.literal_eval(content.text)["trace"]).choice == ITEM.answer


def test_a_video_outside_the_folders_is_refused_with_a_message(
    client: SyncLangGraphClient, url: str, asked: dict[str, Any]
) -> None:
    def said(video: str) -> str:
        result: Any = client.runs.wait(None, "act2see", input={**asked, "video": video}, raise_error=False)
        return str(result["__error__"]["message"])

    for video in (
        "/etc/passwd",
        "/no/such/file",
        f"{asked['video']}/../../log",
        "http://127.0.0.1/clip.mp4",
        "clip.mp4",
    ):
        assert said(video).startswith("only videos in"), video
    assert "there is no file" in said(asked["video"].replace("clip", "none"))

    async def over_mcp() -> CallToolResult:
        async with Client(f"{url}/mcp") as c:
            return await c.call_tool("act2see", {**asked, "video": "/etc/passwd"})

    assert asyncio.run(over_mcp()).is_error


def test_supplied_pictures_must_be_in_the_folders(client: SyncLangGraphClient, asked: dict[str, Any]) -> None:
    # The error must not reveal which files exist outside, and a pipe must not block other requests.
    folder = Path(asked["video"]).parent
    Image.fromarray(render(draw_board(random.Random(0)))).save(folder / "mine.png")
    Image.new("RGB", (40, 30), "red").save(folder.parent / "outside.png")
    (folder / "link.png").symlink_to(folder.parent / "outside.png")
    os.mkfifo(folder / "pipe.png")
    thread = client.threads.create()["thread_id"]
    client.runs.wait(thread, "act2see", input=asked, context={"approve": ["retrieve"]})
    said = set()
    outside = (
        "/etc/passwd",
        "/no/such/file.png",
        f"{folder.parent}/outside.png",
        "../outside.png",
        "/dev/zero",
        "/proc/self/environ",
    )
    for frame in (
        *outside,
        f"{folder}/link.png",
        f"{folder}/pipe.png",
        f"{folder}/none.png",
        str(folder),
        "http://127.0.0.1/a.png",
    ):
        decision = {"resume": {"type": "supply", "frame": frame}}
        result: Any = client.runs.wait(thread, "act2see", command=decision, raise_error=False)
        said.add(result["__error__"]["message"])
    assert len(said) == 1, said
    message = said.pop()
    assert f"only pictures in {folder} may be opened: there is no picture of that name" in message
    result = client.runs.wait(
        thread, "act2see", command={"resume": {"type": "supply", "frame": f"{folder}/mine.png"}}
    )
    while "__interrupt__" in result:  # the model may want to look again
        result = client.runs.wait(thread, "act2see", command={"resume": {"type": "refuse"}})
    frames = next(s for s in Trace.model_validate(result["trace"]).segments if isinstance(s, Frames))
    assert frames.frames[0].provenance == Supplied(
        by="a person", query=frames.frames[0].provenance.query, file="mine.png"
    )  # type: ignore[union-attr]


def test_other_hosts_and_origins_are_refused(url: str) -> None:
    def asked(method: str, path: str, **headers: str) -> httpx.Response:
        given = {"connection": "close", **{k.replace("_", "-"): v for k, v in headers.items()}}
        return httpx.request(
            method, f"{url}{path}", headers=given, content=b"{}" if method == "POST" else None
        )

    preflight = {"access_control_request_method": "POST", "access_control_request_headers": "content-type"}
    for path in ("/ok", "/info", "/docs", "/threads/search", "/mcp"):
        method = "POST" if path in ("/threads/search", "/mcp") else "GET"
        assert asked(method, path, host="rebound.example").status_code == 421, path
        for origin in ("https://evil.example", "null", "http://localhost:3000"):
            for reply in (
                asked(method, path, origin=origin),
                asked("OPTIONS", path, origin=origin, **preflight),
            ):
                assert reply.status_code == 403, path
                assert reply.json()["error"]["code"] == "origin_not_allowed"
                assert "access-control-allow-origin" not in reply.headers
        assert asked(method, path).status_code < 500
        assert asked(method, path, origin=url).status_code < 500
    assert asked("POST", "/threads/search", origin=url, content_type="application/json").status_code == 200
    assert asked("GET", "/info", host="studio.example.org").status_code == 200
    for reply in (
        asked("GET", "/info", origin="https://studio.example.org"),
        asked("OPTIONS", "/info", origin="https://studio.example.org", **preflight),
    ):
        assert reply.status_code == 200
        assert reply.headers.get_list("access-control-allow-origin") == ["https://studio.example.org"]


def test_invalid_unicode_is_refused_or_replaced(
    url: str, client: SyncLangGraphClient, asked: dict[str, Any]
) -> None:
    assistants = ("act2see", "long_video", "assistant")
    for name in assistants:
        for odd in (r"a\ud800b", r"a\u0000b"):
            given = {
                **asked,
                "question": "ODD",
                "options": ["ODD", "x"],
                "video": "ODD",
                "messages": [{"role": "user", "content": "In ODD.mp4, ODD?"}],
            }
            body = json.dumps({"assistant_id": name, "input": given}).replace("ODD", odd)
            reply = httpx.post(
                f"{url}/runs/wait",
                content=body,
                headers={"content-type": "application/json", "connection": "close"},
                timeout=200,
            )
            assert reply.status_code < 500, (name, odd, reply.text)
    reply = httpx.post(
        f"{url}/threads",
        content=rb'{"metadata": {"a": "\ud800"}}',
        headers={"content-type": "application/json", "connection": "close"},
    )
    assert reply.status_code < 500
    folder = os.fsencode(os.path.dirname(asked["video"]))
    shutil.copy(asked["video"], folder + b"/caf\xe9.mp4")
    messages: Any = client.runs.wait(
        None,
        "assistant",
        input={"messages": [{"role": "user", "content": "In which clip does the circle blink?"}]},
    )
    assert any("Skipped caf\\udce9.mp4: its name is not UTF-8" in m["content"] for m in messages["messages"])


def test_without_folders_only_the_working_directory_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ACT2SEE_FOLDERS", raising=False)
    (tmp_path / "mine.yaml").write_text(f"preset: micro\ncache: {tmp_path}/cache\n")
    monkeypatch.setenv("ACT2SEE_CONFIG", str(tmp_path / "mine.yaml"))
    monkeypatch.chdir(tmp_path)
    finder = cached_parts(served_config.__wrapped__()).resources.finder
    inside = write_clip(ITEM.clip, tmp_path / "clip.mp4")
    assert finder.library.probe(str(inside)).info.seconds > 1
    with pytest.raises(VideoError, match=f"only videos in {tmp_path} may be opened"):
        finder.library.probe("/etc/passwd")


def test_long_videos_and_the_assistant_are_served(client: SyncLangGraphClient, asked: dict[str, Any]) -> None:
    result: Any = client.runs.wait(None, "long_video", input=asked, context={"seconds": 4.0})
    assert len(result["parts"]) == len(result["traces"]) > 1
    assert result["answer"] in asked["options"]  # parts of four seconds are too short for micro to be right
    error: Any = client.runs.wait(
        None, "long_video", input={**asked, "video": "/etc/passwd"}, raise_error=False
    )
    assert error["__error__"]["message"].startswith("only videos in")
    question = {"role": "user", "content": f"In clip.mp4, {ITEM.text[0].lower()}{ITEM.text[1:]}"}
    messages: Any = client.runs.wait(None, "assistant", input={"messages": [question]})
    assert [m["type"] for m in messages["messages"]] == ["human", "ai", "tool", "ai"]
    assert f"Answer: {ITEM.answer}" in messages["messages"][-1]["content"]


def test_the_examples_of_docs_serve_md_work(url: str, asked: dict[str, Any]) -> None:
    text = (ROOT / "docs/serve.md").read_text(encoding="utf-8").replace("http://127.0.0.1:2024", url)
    names: dict[str, Any] = {"asked": asked}
    for block in re.findall(r"```python\n(.*?)```", text, re.S):
        exec(re.sub(r"^given = \{.*?^\}$", "given = asked", block, flags=re.M | re.S), names)
    names["client"].close()
    assert names["answer"] == names["result"]["answer"] == names["remote"]
    assert names["waiting"]["next"] == ["retrieve"]
    assert len(names["states"]) > 7
    assert names["said"].startswith(f"{{'answer': {names['answer']!r}")


def test_each_graph_of_langgraph_json_can_be_imported_and_has_a_description() -> None:
    from importlib import import_module

    for name, graph in json.loads(CONFIG.read_text())["graphs"].items():
        module, _, factory = graph["path"].partition(":")
        assert callable(getattr(import_module(module), factory)), name
        assert graph["description"], name
