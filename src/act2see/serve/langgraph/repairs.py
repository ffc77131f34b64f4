"""What this server does to its process before it listens, because no setting does it.

The LangGraph server is started by another program, so the limits on heads are set in uvicorn itself. Its
storage in memory, that of `langgraph dev`, has four faults that are mended here:

- The search for threads by `values` fails with 500 as soon as one thread has no state yet: that thread
  matches nothing, and the others are searched.
- Of a deleted thread it keeps the values of the state, which are most of a thread's memory, and what its
  streams have left. They go with the thread.
- A command on a thread without a state goes to None. It is refused before its run begins.
- It compares the `end_time` of a cron, which JSON can only send as text, with a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import wraps
from importlib import import_module
from typing import Any
from uuid import UUID

from act2see.serve.heads import bound_every_head

_STREAMS = ("queues", "control_keys", "control_queues", "message_stores", "thread_streams")


def repair_server() -> None:
    """Bound the heads of requests, and mend the storage in memory."""
    bound_every_head()
    with suppress(ImportError):  # another storage than that of `langgraph dev`
        ops = import_module("langgraph_runtime_inmem.ops")
        _let_nothing_be_searched(ops)
        _forget_deleted_threads(ops, import_module("langgraph_runtime_inmem.inmem_stream"))
        _refuse_commands_to_nothing(ops)
        _read_end_times(ops)


def _let_nothing_be_searched(ops: Any) -> None:
    contains = getattr(ops, "is_jsonb_contained", None)
    if contains is None or hasattr(contains, "__wrapped__"):
        return

    @wraps(contains)
    def is_contained(superset: Any, subset: Any) -> bool:
        return isinstance(superset, dict) and bool(contains(superset, subset))

    ops.is_jsonb_contained = is_contained


def _forget_deleted_threads(ops: Any, streams: Any) -> None:
    delete = getattr(ops, "_delete_checkpoints_for_thread", None)
    if delete is None or hasattr(delete, "__wrapped__"):
        return

    @wraps(delete)
    async def delete_all(thread_id: str | UUID, conn: Any, run_id: str | UUID | None = None) -> None:
        saver = ops.Checkpointer()
        writes = saver.writes
        await delete(thread_id, conn, run_id)
        # The server replaces the writes of one saver, although all savers share them.
        saver.writes = writes
        if run_id is None:
            forget_state(saver, str(thread_id))
            forget_streams(streams.get_stream_manager(), thread_id)

    ops._delete_checkpoints_for_thread = delete_all


def forget_state(saver: Any, thread_id: str) -> None:
    """Delete what a saver in memory keeps of a thread: values and pending writes."""
    for kept in (saver.writes, saver.blobs):
        for key in [key for key in list(kept) if key[0] == thread_id]:
            kept.pop(key, None)


def forget_streams(manager: Any, thread_id: str | UUID) -> None:
    """Delete what a deleted thread's streams have left, except queues that somebody still reads."""
    thread = UUID(str(thread_id))
    for name in _STREAMS:
        kept = getattr(manager, name, None)
        if isinstance(kept, dict) and not (
            name.endswith(("queues", "streams")) and _is_read(kept.get(thread))
        ):
            kept.pop(thread, None)


def _is_read(queues: Any) -> bool:
    """Whether a list of queues, or one of the lists of each run, has a queue."""
    return any(queues.values()) if isinstance(queues, Mapping) else bool(queues)


def _refuse_commands_to_nothing(ops: Any) -> None:
    put = getattr(getattr(ops, "Runs", None), "put", None)
    if put is None or hasattr(put, "__wrapped__"):
        return

    @wraps(put)
    async def put_possible(conn: Any, assistant_id: Any, kwargs: Any, *args: Any, **named: Any) -> Any:
        command, thread = kwargs.get("command") or {}, named.get("thread_id")
        goes = command.get("goto") or kwargs.get("input")
        if command and not goes and thread and not _has_begun(ops, conn, UUID(str(thread))):
            from starlette.exceptions import HTTPException

            raise HTTPException(
                422, "command: the thread has no state yet; send an input, or name a node in goto"
            )
        return await put(conn, assistant_id, kwargs, *args, **named)

    ops.Runs.put = staticmethod(put_possible)


def _has_begun(ops: Any, conn: Any, thread: UUID) -> bool:
    """Whether a thread has a state, or a run that may give it one."""
    config = import_module("langgraph_api.config")

    if config.USE_CUSTOM_CHECKPOINTER or ops.Checkpointer().storage.get(str(thread)):
        return True
    waiting = ("pending", "running")
    return any(run["thread_id"] == thread and run["status"] in waiting for run in conn.store["runs"])


def _read_end_times(ops: Any) -> None:
    for name in ("put", "update"):
        method = getattr(getattr(ops, "Crons", None), name, None)
        if method is not None and not hasattr(method, "__wrapped__"):
            setattr(ops.Crons, name, staticmethod(_with_end_time(method)))


def _with_end_time(method: Any) -> Any:
    @wraps(method)
    async def with_end_time(*args: Any, **named: Any) -> Any:
        end = named.get("end_time")
        if isinstance(end, str):
            read = datetime.fromisoformat(end)
            named["end_time"] = read if read.tzinfo else read.replace(tzinfo=UTC)
        return await method(*args, **named)

    return with_end_time
