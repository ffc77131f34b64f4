"""Saved runs, which can be resumed after Ctrl-C or a killed process.

Each step of a run is saved in one SQLite file, with the configuration and the settings of the run. So the id
is enough to resume it: `act2see ask --resume ID`. For the same reason the file is always in the default cache
folder, whatever the configuration says.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from act2see.errors import ConfigError, StoreError
from act2see.graphs.config import Config, load_config
from act2see.graphs.state import AskContext
from act2see.tools.video.store import default_cache

if TYPE_CHECKING:
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    from act2see.graphs.ask import Graph

T = TypeVar("T")
_ADDRESSES = {"chat": "base_url", "llama-cpp": "url", "vllm-http": "url"}
"""The option of each kind of reasoner that has a server: its address."""
RUN_VERSION = 1
"""Version of what is saved with a run. act2see 0.1.0 wrote version 1 without naming it."""
_KEY = "act2see_run"  # in the metadata of a checkpoint


@dataclass(frozen=True, slots=True)
class Settings:
    """The configuration and settings of a run."""

    config: Config
    context: AskContext
    """Settings that differ from the configuration: tools, seed, budget."""


def runs_file() -> Path:
    """Return the path of the SQLite file."""
    return default_cache() / "runs.sqlite"


@asynccontextmanager
async def saved_runs() -> AsyncIterator[AsyncSqliteSaver]:
    """Open the checkpointer of the saved runs.

    Raises:
        StoreError: The cache cannot be written, or its file of runs cannot be used.
    """
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    path = runs_file()
    _check_writable(path)
    try:
        async with AsyncSqliteSaver.from_conn_string(str(path)) as saver:
            try:
                yield saver
            finally:
                # After Ctrl-C LangGraph still saves, in the background, that the node was cancelled.
                # A connection that closes in the middle of a write keeps the file locked for as long as
                # its cursor lives.
                async with saver.lock:
                    await saver.conn.close()
    except (sqlite3.Error, StoreError) as e:
        cause = e.__cause__ if isinstance(e, StoreError) else e
        if not isinstance(cause, sqlite3.Error):
            raise
        raise StoreError(f"the saved runs in {path} cannot be used ({cause}): {_advice(cause)}") from e


def _advice(error: sqlite3.Error) -> str:
    """Return what to do about an error. Only a damaged file is given up, and even that is kept."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest is a detail of the code
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return "the file is damaged; move it away, or set ACT2SEE_CACHE to another folder"
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return "another process is writing to it; try again"
    return "free some space and fix its permissions, or set ACT2SEE_CACHE to another folder; keep the file"


def _check_writable(path: Path) -> None:
    """Raise `StoreError` if a file in the cache cannot be written. Its folder is created."""
    problem = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        problem = e.strerror or str(e)
    else:
        # SQLite writes a journal beside the file, so both must be writable.
        if not os.access(path.parent, os.W_OK):
            problem = "it is read-only"
        elif path.exists() and not os.access(path, os.W_OK):
            problem = f"{path.name} is read-only"
    if problem:
        raise StoreError(
            f"cannot write to the cache {path.parent}: {problem}; set ACT2SEE_CACHE to a folder that you can "
            "write to"
        )


def graph_of(settings: Settings, saver: AsyncSqliteSaver) -> Graph:
    """Return the graph of a run. The graph saves the run's settings with each step."""
    from act2see.graphs.ask import create_act2see

    graph = create_act2see(settings.config, checkpointer=saver)
    config, context = settings.config.model_dump(), asdict(settings.context)
    kept = json.dumps({"version": RUN_VERSION, "config": config, "context": context})
    return graph.with_config({"metadata": {_KEY: kept}})


async def settings_of(run: str, saver: AsyncSqliteSaver) -> Settings:
    """Return the settings of a saved run.

    Raises:
        StoreError: The run does not exist, or a newer act2see saved it.
    """
    checkpoint = await saver.aget_tuple({"configurable": {"thread_id": run}})
    metadata: Any = checkpoint.metadata if checkpoint else {}
    if _KEY not in metadata:
        raise StoreError(
            f"there is no saved run {run!r} in {runs_file()}: check the id, or ask the question again"
        )
    saved_settings = json.loads(metadata[_KEY])
    version = saved_settings.get("version", 1)
    if version > RUN_VERSION:
        raise StoreError(
            f"the run {run!r} has version {version} and this act2see resumes versions up to {RUN_VERSION}: "
            "resume it with the act2see that saved it"
        )
    fields = saved_settings["context"]
    if fields["tools"] is not None:
        fields["tools"] = tuple(fields["tools"])
    return Settings(load_config(saved_settings["config"]), AskContext(**fields))


def has_server(settings: Settings) -> bool:
    """Return whether a run's model is on a server, which may have another address by now."""
    return settings.config.reasoner.use in _ADDRESSES


def move_server(settings: Settings, url: str) -> Settings:
    """Return the settings of a run with another address of its model's server. Nothing else changes.

    Raises:
        ConfigError: The run's model is on no server, or the address is none.
    """
    reasoner = settings.config.reasoner
    if reasoner.use not in _ADDRESSES:
        raise ConfigError(f"--url: the model of this run ({reasoner.use}) is on no server; leave it out")
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"--url: {url!r} does not begin with http:// or https://: write http://{url}")
    options = {**reasoner.options, _ADDRESSES[reasoner.use]: url}
    moved = reasoner.model_copy(update={"options": options})
    return replace(settings, config=settings.config.model_copy(update={"reasoner": moved}))


def saved_ids(run: str | None = None) -> list[str]:
    """Return the ids of the latest saved runs, or only this run's id if it is saved.

    Return no ids if the file cannot be read at once; this function never fails.
    """
    query = (
        "SELECT thread_id FROM checkpoints WHERE checkpoint_ns = '' AND ? IN ('', thread_id) "
        "GROUP BY thread_id ORDER BY MAX(checkpoint_id) DESC LIMIT 30"
    )
    file = f"{runs_file().absolute().as_uri()}?mode=ro"
    with (
        suppress(sqlite3.Error, OSError),
        closing(sqlite3.connect(file, uri=True, timeout=0.5)) as connection,
    ):
        return [str(id) for (id,) in connection.execute(query, (run or "",))]
    return []


def run_in_daemon(work: Callable[[], T]) -> T:
    """Run a function in a daemon thread and return its result.

    Ctrl-C then ends the process at once, even if the function waits for threads of its own.
    """
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as e:
            result.set_exception(e)

    threading.Thread(target=run, daemon=True).start()
    return result.result()


def run_until_done(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine like `asyncio.run`, but after Ctrl-C do not wait for threads in which models work."""
    runner = asyncio.Runner()
    handler = signal.getsignal(signal.SIGINT)
    replaces_handler = threading.current_thread() is threading.main_thread() and callable(handler)
    if replaces_handler:
        # asyncio cancels the work at Ctrl-C only if the handler is Python's default.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        result = runner.run(work)
    except KeyboardInterrupt:
        # Close only the loop: closing the runner would wait for threads.
        runner.get_loop().close()
        raise
    except BaseException:
        runner.close()
        raise
    finally:
        if replaces_handler:
            signal.signal(signal.SIGINT, handler)
    runner.close()
    return result
