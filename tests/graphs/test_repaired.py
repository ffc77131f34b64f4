"""A run that an error has ended is resumed when the user has repaired its cause."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from act2see.errors import Act2SeeError, StoreError, VideoError
from act2see.graphs.ask import create_act2see
from act2see.graphs.run import aask, aresume, ask, resume
from act2see.micro.world import Board, Clip, Piece, write_clip
from tests.graphs.doubles import Scripted, clip_in, parts_in
from tests.graphs.parents import LINES

OPTIONS = ["blue", "red"]


@pytest.mark.parametrize(
    "error",
    [VideoError("the clip is gone"), StoreError("the store is full"), OSError(errno.ENOSPC, "full")],
)
def test_a_call_is_made_again_after_its_error_was_repaired(tmp_path: Path, error: Exception) -> None:
    config, parts = parts_in(tmp_path, Scripted(*LINES), generate=error)
    graph = create_act2see(config, parts=parts, checkpointer=InMemorySaver())
    kind = type(error) if isinstance(error, Act2SeeError) else StoreError
    with pytest.raises(kind):
        ask(graph, clip_in(tmp_path), "Which?", OPTIONS, thread_id="t")
    with pytest.raises(kind):  # not repaired yet
        resume(graph, "t")
    tool: Any = parts.tools["generate"]
    tool.fails = None
    trace = resume(graph, "t")
    assert trace.answer == "B"
    assert [call.tag for call in trace.calls] == ["retrieve", "generate"]
    assert all(call.outcome == "ok" for call in trace.calls)


async def test_a_full_database_is_a_named_error_and_the_run_is_resumed(tmp_path: Path) -> None:
    config, parts = parts_in(tmp_path, Scripted(*LINES))
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "runs.sqlite")) as saver:
        await saver.setup()
        await saver.conn.execute("PRAGMA max_page_count=12")
        graph = create_act2see(config, parts=parts, checkpointer=saver)
        with pytest.raises(StoreError, match="cannot be saved or read by AsyncSqliteSaver") as failed:
            await aask(graph, clip_in(tmp_path), "Which?", OPTIONS, thread_id="t")
        assert isinstance(failed.value.__cause__, sqlite3.OperationalError)
        await saver.conn.execute("PRAGMA max_page_count=100000")
        assert (await aresume(graph, "t")).answer == "B"


async def test_an_error_of_a_checkpointer_that_is_not_its_storage_stays(tmp_path: Path) -> None:
    class Wrong(InMemorySaver):
        async def aget_tuple(self, config: Any) -> Any:
            return await super().aget_tuple(None)  # type: ignore[arg-type]

    config, parts = parts_in(tmp_path, Scripted(*LINES))
    graph = create_act2see(config, parts=parts, checkpointer=Wrong())
    with pytest.raises(TypeError):
        await aask(graph, clip_in(tmp_path), "Which?", OPTIONS, thread_id="t")


class Replacing(Scripted):
    """Replaces the clip before its second turn."""

    def __init__(self, folder: Path, *lines: str) -> None:
        super().__init__(*lines)
        self.folder = folder

    async def stream(self, request: Any) -> AsyncIterator[Any]:  # type: ignore[override]
        if self.visits == 1:
            other = Board((Piece("square", "green", (0, 0)),))
            write_clip(Clip(36, ((0, other),)), self.folder / "new.mp4").replace(self.folder / "clip.mp4")
        async for item in super().stream(request):
            yield item


def test_frames_of_a_video_that_was_replaced_during_a_run_are_not_shown(tmp_path: Path) -> None:
    config, parts = parts_in(tmp_path, Replacing(tmp_path, *LINES))
    graph = create_act2see(config, parts=parts)
    with pytest.raises(VideoError, match="changed while it was read"):
        ask(graph, clip_in(tmp_path), "Which?", OPTIONS)
