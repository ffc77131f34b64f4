"""Tool plugins: find a tool by name, create it from its options, and check it before a question is asked.

A tool has a short name (entry-point group `act2see.tools`). A local config file may use a dotted path
instead, `package.module:Class`, whose module is searched beside the file first
(`tools/runtime/local_modules.py`). Only the tools that a config names are imported, so a broken package
affects only the configs that use it.

A tool of another package runs as an `IsolatedTool`, in an event loop and a thread of its own. If it blocks,
in `async` code or not, it blocks only itself, and the time limit of its call still holds. A thread cannot be
killed: a blocked one is abandoned, and the next call gets a new one. Our own tools do not block, and run in
the caller's loop.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import weakref
from collections.abc import Mapping
from concurrent.futures import Future
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import anyio
from pydantic import BaseModel, ValidationError

from act2see.errors import Act2SeeError, ConfigError, ToolError
from act2see.tools.base import FrameTool, NeedsIndex, Resources, ToolContext, ToolResult
from act2see.tools.runtime.forks import Lock, renew_after_fork
from act2see.tools.runtime.local_modules import import_beside, plain_names
from act2see.tools.runtime.text import explain_problem, first_line

GROUP = "act2see.tools"
_CLEAN_UP = 1.0  # seconds within which a cancelled call should end
_ALIVE_TIMEOUT = 1.0  # seconds within which a loop that is not blocked runs a callback


def find_tool(name: str, *, dotted: bool = True, folder: str | None = None) -> Any:
    """Return the tool class of a name.

    Args:
        name: A short name or a dotted path.
        dotted: Whether a dotted path is allowed, as for names from a local file.
        folder: The folder to search first for the module of a dotted path: that of the config file.

    Raises:
        ConfigError: The tool does not exist, is offered twice, or cannot be imported.
    """
    if ":" not in name:
        return _find_entry_point(name)
    if not dotted:
        raise ConfigError(
            f"tool {name!r}: a dotted path is allowed in a local config file only; "
            f"register an entry point in {GROUP!r}"
        )
    module, _, attribute = name.partition(":")
    try:
        return getattr(import_beside(module, folder), attribute)
    except (Exception, SystemExit) as e:  # importing runs the module, which may raise anything
        problem = plain_names(first_line(e))
        if folder and isinstance(e, ModuleNotFoundError):
            problem += f" (searched {folder} first)"
        raise ConfigError(f"tool {name!r} cannot be imported: {problem}") from e


def _find_entry_point(name: str) -> Any:
    # By name and value, because one distribution can be found twice on `sys.path`.
    known = {(entry.name, entry.value): entry for entry in entry_points(group=GROUP)}
    found = [entry for entry in known.values() if entry.name == name]
    if not found:
        names = sorted({entry.name for entry in known.values()})
        near = get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"there is no tool {name!r}{hint} (known: {', '.join(names) or 'none, is act2see installed?'})"
        )
    if len(found) > 1:
        offers = " and ".join(_describe_entry(entry) for entry in found)
        raise ConfigError(
            f"tool {name!r} is offered twice: by {offers}; uninstall one, or name the one you mean: "
            'use: "package.module:Class"'
        )
    try:
        return found[0].load()
    except Exception as e:
        raise ConfigError(
            f"tool {name!r} of {_describe_entry(found[0])} cannot be imported: {first_line(e)}; "
            "reinstall that package, or leave the tool out"
        ) from e


def chosen_tool(
    name: str, tag: str, options: Mapping[str, Any], folder: str | None = None
) -> tuple[type[Any], BaseModel]:
    """Return the class of a tool, and its validated options.

    Args:
        name: A short name or a dotted path.
        tag: The tool's tag in the config.
        options: The tool's options in the config.
        folder: The folder to search first for the module of a dotted path.

    Raises:
        ConfigError: The class or the options are wrong.
    """
    kind = find_tool(name, folder=folder)
    schema = getattr(kind, "Options", None)
    if not (isinstance(kind, type) and isinstance(schema, type) and issubclass(schema, BaseModel)):
        raise ConfigError(
            f"tools.{tag}: {name!r} is not a tool: a tool is a class with a nested pydantic model `Options`"
        )
    try:
        return kind, schema(**options)
    except ValidationError as e:
        raise ConfigError(f"tools.{tag}.options: {explain_problem(e, schema.model_fields)}") from e


def make_tool(
    name: str, tag: str, options: Mapping[str, Any], resources: Resources, folder: str | None = None
) -> FrameTool:
    """Create a tool, and check it.

    Args:
        name: A short name or a dotted path.
        tag: The tool's tag in the config.
        options: The tool's options in the config.
        resources: The objects that tools share.
        folder: The folder to search first for the module of a dotted path.

    Returns:
        The tool; as an `IsolatedTool` if it is of another package.

    Raises:
        ConfigError: The class, its options or the created tool are wrong.
    """
    kind, given = chosen_tool(name, tag, options, folder)
    try:
        made: Any = kind(tag, given, resources)
    except Act2SeeError:
        raise
    except Exception as e:
        raise ConfigError(
            f"tools.{tag}: {name!r} cannot be set up: {type(e).__name__}: {first_line(e)}"
        ) from e
    # Reading `version` of the object may load a model, so the class is checked first.
    missing = [a for a in ("usage", "version") if not hasattr(kind, a) and not hasattr(made, a)]
    if not callable(getattr(made, "call", None)):
        missing.append("call")
    if missing:
        raise ConfigError(f"tools.{tag}: {name!r} is not a tool: it has no `{missing[0]}`")
    if not isinstance(made.usage, str) or not made.usage.strip():
        raise ConfigError(f"tools.{tag}: `usage` of {name!r} must say in one line what the tool is for")
    tool: FrameTool = made if kind.__module__.startswith("act2see.") else IsolatedTool(tag, made)
    return tool


class IsolatedTool:
    """A tool in an event loop and a thread of its own. Its `call` may be `async def` or a plain `def`."""

    def __init__(self, tag: str, tool: Any) -> None:
        self.tag = tag
        self.tool = tool
        self.usage: str = tool.usage
        if isinstance(tool, NeedsIndex):
            self.index_of = tool.index_of
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = Lock()
        renew_after_fork(self)

    @property
    def version(self) -> str:
        return str(self.tool.version)

    def renew(self) -> None:
        """In a forked child, start a new loop at the next call. The tool itself is not replaced."""
        self._loop = None

    async def call(self, query: str, context: ToolContext) -> ToolResult:
        """Call the tool. If this is cancelled, the call is cancelled, and its clean-up has ended.

        A call that does not end within `_CLEAN_UP` seconds after that is left.
        """
        loop = await self._usable_loop()
        ended: Future[None] = Future()
        running = asyncio.run_coroutine_threadsafe(self._call_until(ended, query, context), loop)
        try:
            return await asyncio.wrap_future(running)
        except asyncio.CancelledError:
            # The clean-up runs in the tool's thread: a process that ends now could end in the middle of it.
            with anyio.move_on_after(_CLEAN_UP, shield=True):
                await asyncio.wait([asyncio.wrap_future(ended)])
            raise

    async def _call_until(self, ended: Future[None], query: str, context: ToolContext) -> ToolResult:
        try:
            return await self._call(query, context)
        finally:
            ended.set_result(None)

    async def _call(self, query: str, context: ToolContext) -> ToolResult:
        try:
            result: Any = self.tool.call(query, context)
            returned: ToolResult = await result if inspect.isawaitable(result) else result
            return returned  # possibly of another type: `checked_result` checks it
        except (SystemExit, KeyboardInterrupt) as e:
            # It would end the loop's thread, and the caller would wait forever.
            raise ToolError(f"the tool {self.tag!r} tried to end the process ({type(e).__name__})") from e
        except asyncio.CancelledError as e:
            task = asyncio.current_task()
            if task is None or task.cancelling():  # the caller cancelled this call
                raise
            raise ToolError(f"the tool {self.tag!r} failed: it cancelled itself") from e

    async def _usable_loop(self) -> asyncio.AbstractEventLoop:
        """Return the tool's loop; a new one if the old one is blocked."""
        old = self._loop
        if old is not None:
            alive: Future[bool] = Future()
            old.call_soon_threadsafe(alive.set_result, True)
            done, _ = await asyncio.wait([asyncio.wrap_future(alive)], timeout=_ALIVE_TIMEOUT)
            if done:
                return old
        with self._lock:
            if self._loop is old or self._loop is None:
                self._loop = asyncio.new_event_loop()
                name = f"act2see-{self.tag}"
                threading.Thread(target=_run, args=(self._loop,), name=name, daemon=True).start()
                # The old loop ends once it is no longer blocked, the new one when the tool is collected.
                weakref.finalize(self, _stop, self._loop).atexit = False
                if old is not None:
                    _stop(old)
            return self._loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop until it is stopped, cancel its tasks, and close it."""
    try:
        loop.run_forever()
        if tasks := asyncio.all_tasks(loop):
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    finally:
        loop.close()


def _stop(loop: asyncio.AbstractEventLoop) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(loop.stop)


def _describe_entry(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version} ({entry.value})" if entry.dist else entry.value
