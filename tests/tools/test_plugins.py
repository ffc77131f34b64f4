"""Tools of other packages: valid and broken entry points, and the threads in which tools run."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from act2see.errors import ConfigError
from act2see.graphs.config import load_config
from act2see.graphs.needs import needed_weights
from act2see.graphs.parts import build_parts
from act2see.tools.base import NeedsIndex, ToolContext, ToolResult, as_langchain_tool
from act2see.tools.clip import ClipTool
from act2see.tools.ocr import Ocr
from act2see.tools.plugins import IsolatedTool, find_tool
from act2see.tools.video.store import FrameStore
from act2see.tools.zoom import Zoom

Install = Callable[..., None]
PLUGIN = """
from act2see.tools.base import ToolOptions, ToolResult

class Ours:
    class Options(ToolOptions):
        usage: str = "nothing"
    version = "ours 1"
    def __init__(self, tag, options, resources):
        self.usage = options.usage
    def call(self, query, context):
        return ToolResult(note=query)
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Write a package as pip installs it: one module and its entry points."""

    def make(package: str, code: str = PLUGIN, **tools: str) -> None:
        folder = tmp_path / package
        info = folder / f"{package}-1.2.dist-info"
        info.mkdir(parents=True)
        (folder / f"{package}.py").write_text(code, encoding="utf-8")
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n", encoding="utf-8"
        )
        points = "".join(f"{name} = {value}\n" for name, value in tools.items())
        (info / "entry_points.txt").write_text(f"[act2see.tools]\n{points}", encoding="utf-8")
        monkeypatch.syspath_prepend(str(folder))

    return make


def test_the_shipped_tools_have_names() -> None:
    assert [find_tool(n) for n in ("zoom", "clip", "ocr")] == [Zoom, ClipTool, Ocr]


def test_another_packages_tool_is_found_by_name(install: Install, tmp_path: Path) -> None:
    install("plugin_whole", ours="plugin_whole:Ours")
    parts = build_parts(load_config("micro", cache=str(tmp_path), tools={"mine": {"use": "ours"}}))
    assert list(parts.tools) == ["retrieve", "generate", "mine"]
    assert parts.tools["mine"].version == "ours 1"


@pytest.mark.parametrize(
    ("code", "value", "says"),
    [
        ("import no_such_module", "plugin_bad:Ours", "No module named 'no_such_module'"),
        ("raise OSError('no licence')", "plugin_bad:Ours", "no licence"),
        ("", "plugin_bad:Ours", "has no attribute 'Ours'"),
        ("", "plugin_gone:Ours", "No module named 'plugin_gone'"),
    ],
)
def test_a_broken_entry_point_is_named_and_the_rest_works(
    install: Install, tmp_path: Path, code: str, value: str, says: str
) -> None:
    install("plugin_bad", code, broken=value)
    install("plugin_good", ours="plugin_good:Ours")
    build_parts(load_config("micro", cache=str(tmp_path), tools={"mine": {"use": "ours"}}))
    config = load_config(
        "micro", cache=str(tmp_path), tools={"mine": {"use": "ours"}, "look": {"use": "broken"}}
    )
    with pytest.raises(ConfigError) as e:
        build_parts(config)
    assert str(e.value).startswith(f"tool 'broken' of plugin_bad 1.2 ({value}) cannot be imported: ")
    assert says in str(e.value)
    # `doctor` reports it.
    needed = {n.part: n for n in needed_weights(config)}
    assert list(needed) == ["reasoner", "encoder", "generate", "look"]
    assert says in needed["look"].problem
    assert needed["generate"].folder


def test_a_name_offered_by_two_packages_is_an_error(install: Install) -> None:
    install("plugin_one", ours="plugin_one:Ours")
    install("plugin_two", ours="plugin_two:Ours")
    with pytest.raises(ConfigError, match="tool 'ours' is offered twice: by ") as e:
        find_tool("ours")
    for package in ("plugin_one 1.2 (plugin_one:Ours)", "plugin_two 1.2 (plugin_two:Ours)"):
        assert package in str(e.value)
    assert find_tool("plugin_one:Ours").version == "ours 1"
    with pytest.raises(
        ConfigError,
        match=r"there is no tool 'our'; did you mean 'ours'\? \(known: .*generate.*, ours, .*retrieve",
    ):
        find_tool("our")


def test_a_dotted_path_is_only_for_local_files() -> None:
    with pytest.raises(ConfigError, match="a dotted path is allowed in a local config file only"):
        find_tool("os:system", dotted=False)


class Where:
    """Records the thread it ran in, and waits if the query says so."""

    usage = "where"
    version = "where 1"

    def __init__(self) -> None:
        self.loops: list[asyncio.AbstractEventLoop] = []
        self.began, self.cancelled = threading.Event(), threading.Event()

    async def call(self, query: str, context: ToolContext) -> ToolResult:
        self.loops.append(asyncio.get_running_loop())
        self.began.set()
        if query == "wait":
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return ToolResult(note=f"{threading.current_thread().name} {SAID.get()}")


SAID: ContextVar[str] = ContextVar("said", default="nothing")
CONTEXT = ToolContext("clip.mp4")


async def test_a_tool_has_a_thread_and_keeps_its_loop() -> None:
    tool = Where()
    apart = IsolatedTool("where", tool)
    SAID.set("something")
    assert [(await apart.call("x", CONTEXT)).note for _ in range(2)] == ["act2see-where something"] * 2
    assert len(set(tool.loops)) == 1
    assert tool.loops[0] is not asyncio.get_running_loop()
    assert (apart.tag, apart.usage, apart.version) == ("where", "where", "where 1")


async def test_a_cancelled_call_is_cancelled_in_its_thread() -> None:
    tool = Where()
    apart = IsolatedTool("where", tool)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(apart.call("wait", CONTEXT), 0.2)
    assert await asyncio.to_thread(tool.cancelled.wait, 10)
    assert (await apart.call("x", CONTEXT)).note


class Tidy:
    usage = version = "tidy"

    def __init__(self) -> None:
        self.began, self.tidied = threading.Event(), threading.Event()

    async def call(self, query: str, context: ToolContext) -> ToolResult:
        self.began.set()
        try:
            return await asyncio.Event().wait()  # type: ignore[return-value]
        finally:
            await asyncio.sleep(0.05)
            self.tidied.set()


async def test_a_cancelled_call_has_cleaned_up() -> None:
    tool = Tidy()
    running = asyncio.ensure_future(IsolatedTool("tidy", tool).call("x", CONTEXT))
    assert await asyncio.to_thread(tool.began.wait, 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert tool.tidied.is_set()


async def test_calls_run_at_the_same_time() -> None:
    apart = IsolatedTool("where", Where())
    long = asyncio.ensure_future(apart.call("wait", CONTEXT))
    assert await asyncio.to_thread(apart.tool.began.wait, 10)
    assert (await apart.call("x", CONTEXT)).note
    assert not long.done()
    long.cancel()
    assert await asyncio.to_thread(apart.tool.cancelled.wait, 10)


async def test_a_call_cancelled_before_its_start_does_not_disturb_the_next() -> None:
    apart = IsolatedTool("where", Where())
    assert (await apart.call("x", CONTEXT)).note
    for _ in range(3):
        early = asyncio.ensure_future(apart.call("x", CONTEXT))
        await asyncio.sleep(0)
        early.cancel()
        with pytest.raises(asyncio.CancelledError):
            await early
    assert (await apart.call("x", CONTEXT)).note


def test_the_thread_ends_with_the_tool() -> None:
    def threads() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name == "act2see-ends"]

    apart: Any = IsolatedTool("ends", Where())
    asyncio.run(apart.call("x", CONTEXT))
    assert threads()
    del apart
    deadline = time.monotonic() + 20
    while threads() and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.02)
    assert not threads()


async def test_as_langchain_tool_returns_frames_and_note(tmp_path: Path) -> None:
    store = FrameStore(tmp_path)
    import numpy as np

    ref = store.ref(np.zeros((9, 9, 3), np.uint8), 1.5)

    class Both(Where):
        tag = "both"

        async def call(self, query: str, context: ToolContext) -> ToolResult:
            return ToolResult((ref,) if query == "x" else (), "It reads EXIT.")

    tool = as_langchain_tool(Both(), store)
    message = await tool.ainvoke(
        {"type": "tool_call", "id": "1", "name": "both", "args": {"video": "clip.mp4", "query": "x"}}
    )
    assert message.content == f"frame at 1.5 s (pixels: {ref.digest}); It reads EXIT."
    assert message.artifact == [ref]
    assert await tool.ainvoke({"video": "clip.mp4", "query": "y"}) == "It reads EXIT."


def test_an_isolated_tool_says_that_it_needs_an_index(tmp_path: Path) -> None:
    finder = build_parts(load_config("micro", cache=str(tmp_path))).resources.finder

    class Searches:
        usage, version, index_of = "searches", "1", finder

    apart = IsolatedTool("searches", Searches())
    assert isinstance(apart, NeedsIndex)
    assert apart.index_of is finder
    del Searches.index_of
    assert not isinstance(IsolatedTool("none", Searches()), NeedsIndex)
