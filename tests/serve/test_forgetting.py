"""What the LangGraph server's storage in memory keeps of a deleted thread: nothing. Things are counted."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from uuid import uuid4

import pytest

if not find_spec("langgraph_runtime_inmem"):
    pytest.skip("the LangGraph server is not installed: langgraph-cli[inmem]", allow_module_level=True)

from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph_runtime_inmem.inmem_stream import Message, StreamManager

from act2see.serve.langgraph.repairs import forget_state, forget_streams


def test_a_deleted_thread_leaves_no_streams_and_others_stay() -> None:
    async def use() -> None:
        manager, threads = StreamManager(), [uuid4() for _ in range(3)]
        for thread in threads:
            for topic in (b"run:control", b"run:stream"):
                await manager.put(uuid4(), thread, Message(topic, b"x"), resumable=True)
            await manager.put_thread(thread, Message(b"thread", b"x"))
        reader = await manager.add_queue(uuid4(), threads[1])
        for thread in threads[:2]:
            forget_streams(manager, str(thread))
        kept = {name: set(value) for name, value in vars(manager).items() if value}
        assert kept.pop("queues") == {threads[1], threads[2]}  # somebody still reads one of them
        assert set(kept) >= {"control_keys", "message_stores"}
        assert all(value == {threads[2]} for value in kept.values())
        assert reader.empty()

    asyncio.run(use())


def test_a_deleted_thread_leaves_no_values_and_no_writes() -> None:
    saver = InMemorySaver()
    for thread in ("a", "b"):
        checkpoint = {**empty_checkpoint(), "channel_values": {"x": 1}, "channel_versions": {"x": 1}}
        config = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
        config = saver.put(config, checkpoint, {}, {"x": 1})  # type: ignore[arg-type]
        saver.put_writes(config, [("x", 2)], "task")
    forget_state(saver, "a")
    assert {key[0] for key in saver.blobs} == {"b"}
    assert {key[0] for key in saver.writes} == {"b"}
