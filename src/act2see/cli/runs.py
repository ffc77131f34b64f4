"""Runs that survive Ctrl-C and a killed process: every step is saved in one SQLite file in the cache folder.

A run keeps the configuration and the settings that it began with beside its first step, so that its id alone
is enough to go on: `act2see ask --resume ID`. The file is always that of the default cache, for the same
reason.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from act2see.errors import StoreError
from act2see.graphs.config import Config, load_config
from act2see.graphs.state import AskContext
from act2see.tools.video.store import default_cache

if TYPE_CHECKING:
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    from act2see.graphs.ask import Graph

T = TypeVar("T")
_KEY = "act2see_run"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run begins with, apart from its question."""

    config: Config
    context: AskContext


def runs_file() -> Path:
    return default_cache() / "runs.sqlite"


@asynccontextmanager
async def saved_runs() -> AsyncIterator[AsyncSqliteSaver]:
    """The saver. Raises `StoreError` where the file cannot be used."""
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    path = runs_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        async with AsyncSqliteSaver.from_conn_string(str(path)) as saver:
            yield saver
    except (sqlite3.Error, FileExistsError, PermissionError, NotADirectoryError) as e:
        raise StoreError(
            f"the saved runs {path} cannot be used ({e}): delete the file, or set ACT2SEE_CACHE to another folder"
        ) from e


def graph_of(settings: Settings, saver: AsyncSqliteSaver) -> Graph:
    """The graph of a run, which saves its settings with each step."""
    from act2see.graphs.ask import create_act2see

    graph = create_act2see(settings.config, checkpointer=saver)
    kept = json.dumps({"config": settings.config.model_dump(), "context": asdict(settings.context)})
    return graph.with_config({"metadata": {_KEY: kept}})


async def settings_of(run: str, saver: AsyncSqliteSaver) -> Settings:
    """The settings of a saved run. Raises `StoreError` for an unknown id."""
    saved = await saver.aget_tuple({"configurable": {"thread_id": run}})
    metadata: Any = saved.metadata if saved else {}
    if _KEY not in metadata:
        raise StoreError(
            f"there is no saved run {run!r} in {runs_file()}: check the id, or ask the question again"
        )
    kept = json.loads(metadata[_KEY])
    tools = kept["context"]["tools"]
    context = AskContext(**{**kept["context"], "tools": tuple(tools) if tools is not None else None})
    return Settings(load_config(kept["config"]), context)


def saved_ids(run: str | None = None) -> list[str]:
    """The ids of the latest saved runs, or of this one, if it is saved. Never fails, and waits for nobody."""
    newest = "SELECT thread_id FROM checkpoints WHERE checkpoint_ns = '' AND ? IN ('', thread_id) GROUP BY thread_id"
    with (
        suppress(sqlite3.Error, OSError),
        closing(sqlite3.connect(f"{runs_file().absolute().as_uri()}?mode=ro", uri=True, timeout=0.5)) as file,
    ):
        return [
            str(id)
            for (id,) in file.execute(f"{newest} ORDER BY MAX(checkpoint_id) DESC LIMIT 30", (run or "",))
        ]
    return []


def not_waited_for(work: Callable[[], T]) -> T:
    """The result of `work`, done in a thread that Ctrl-C does not wait for: for libraries that would wait for
    threads of theirs."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as e:
            done.set_exception(e)

    threading.Thread(target=run, daemon=True).start()
    return done.result()


def run_until_done(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, except that Ctrl-C does not wait for the threads in which models work."""
    runner = asyncio.Runner()
    handler = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if main and callable(handler):
        # asyncio cancels the work at the first Ctrl-C, but only in place of Python's own handler.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        result = runner.run(work)
    except KeyboardInterrupt:
        runner.get_loop().close()
        raise
    except BaseException:
        runner.close()
        raise
    finally:
        if main and callable(handler):
            signal.signal(signal.SIGINT, handler)
    runner.close()
    return result
