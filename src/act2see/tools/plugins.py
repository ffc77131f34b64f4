"""Where tools come from: found by name, made from their options, checked before a question is asked.

A name is a short one (entry-point group `act2see.tools`) or, in a local config file, a dotted path
`package.module:Class`; its module is looked for beside the file first (`tools/runtime/local_modules.py`).
Only the tools that a config names are imported, so a broken package harms nobody who does not use it.

A tool of another package is an `IsolatedTool`, in an event loop and a thread of its own. If it blocks there,
in `async` code or not, it blocks only itself, and the time limit of its call holds. The thread cannot be
killed: it runs to its end, if there is one, and the next call gets another. Our own tools do not block, and
need none of this.
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

from pydantic import BaseModel, ValidationError

from act2see.errors import Act2SeeError, ConfigError, ToolError
from act2see.tools.base import FrameTool, Resources, ToolContext, ToolResult
from act2see.tools.runtime.forks import Lock, renew_after_fork
from act2see.tools.runtime.local_modules import import_beside, plain_names
from act2see.tools.runtime.text import explain_problem, first_line

GROUP = "act2see.tools"
_ANSWERS = 1.0  # seconds within which a loop that is not blocked does something


def find_tool(name: str, *, dotted: bool = True, folder: str | None = None) -> Any:
    """The tool class of a name.

    Args:
        name: A short name or a dotted path.
        dotted: Whether a dotted path is allowed: only for names from a local file.
        folder: Where the module of a dotted path is looked for first, the folder of the config file.

    Raises:
        ConfigError: There is no such tool, it is offered twice, or it cannot be imported.
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
        missing = folder and isinstance(e, ModuleNotFoundError)
        looked = f"; {folder} was looked in first" if missing else ""
        raise ConfigError(f"tool {name!r} cannot be imported: {plain_names(first_line(e))}{looked}") from e


def _find_entry_point(name: str) -> Any:
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
        offers = " and ".join(_offer(entry) for entry in found)
        raise ConfigError(
            f"tool {name!r} is offered twice: by {offers}; uninstall one, or name the one you mean: "
            'use: "package.module:Class"'
        )
    try:
        return found[0].load()
    except Exception as e:
        raise ConfigError(
            f"tool {name!r} of {_offer(found[0])} cannot be imported: {first_line(e)}; "
            "install that package anew, or leave the tool out"
        ) from e


def chosen_tool(
    name: str, tag: str, options: Mapping[str, Any], folder: str | None = None
) -> tuple[type[Any], BaseModel]:
    """The class of a tool, and its options.

    Args:
        name: A short name or a dotted path.
        tag: The tag that the config gives it.
        options: The options that the config gives it.
        folder: Where the module of a dotted path is looked for first.

    Raises:
        ConfigError: The class or the options are wrong.
    """
    kind = find_tool(name, folder=folder)
    schema = getattr(kind, "Options", None)
    if not (isinstance(kind, type) and isinstance(schema, type) and issubclass(schema, BaseModel)):
        raise ConfigError(
            f"tools.{tag}: {name!r} is no tool: a tool is a class with `Options`, a pydantic model, in it"
        )
    try:
        return kind, schema(**options)
    except ValidationError as e:
        raise ConfigError(f"tools.{tag}.options: {explain_problem(e, schema.model_fields)}") from e


def make_tool(
    name: str, tag: str, options: Mapping[str, Any], resources: Resources, folder: str | None = None
) -> FrameTool:
    """Make a tool, and check it.

    Args:
        name: A short name or a dotted path.
        tag: The tag that the config gives it.
        options: The options that the config gives it.
        resources: What tools share.
        folder: Where the module of a dotted path is looked for first.

    Raises:
        ConfigError: The class, the options or the tool are wrong.
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
    # Reading `version` of the object may load a model, so the class is asked first.
    missing = [a for a in ("usage", "version") if not hasattr(kind, a) and not hasattr(made, a)]
    if not callable(getattr(made, "call", None)):
        missing.append("call")
    if missing:
        raise ConfigError(f"tools.{tag}: {name!r} is no tool: it has no `{missing[0]}`")
    if not isinstance(made.usage, str) or not made.usage.strip():
        raise ConfigError(f"tools.{tag}: the `usage` of {name!r} must say in a line what the tool is for")
    tool: FrameTool = made if kind.__module__.startswith("act2see.") else IsolatedTool(tag, made)
    return tool


class IsolatedTool:
    """A tool in an event loop and a thread of its own. Its `call` may be `async def` or a plain `def`."""

    def __init__(self, tag: str, tool: Any) -> None:
        self.tag, self.tool = tag, tool
        self.usage: str = tool.usage
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = Lock()
        renew_after_fork(self)

    @property
    def version(self) -> str:
        return str(self.tool.version)

    def renew(self) -> None:
        """In a forked child: a loop of its own. The tool itself is as it was."""
        self._loop = None

    async def call(self, query: str, context: ToolContext) -> ToolResult:
        loop = await self._home()
        running = asyncio.run_coroutine_threadsafe(self._call(query, context), loop)
        return await asyncio.wrap_future(running)  # cancelling this cancels the call

    async def _call(self, query: str, context: ToolContext) -> ToolResult:
        try:
            result: Any = self.tool.call(query, context)
            returned: ToolResult = await result if inspect.isawaitable(result) else result
            return returned  # of any type: `checked_result` checks it
        except (SystemExit, KeyboardInterrupt) as e:
            # It would end the loop's thread, and the caller would wait forever.
            raise ToolError(f"the tool {self.tag!r} tried to end the process ({type(e).__name__})") from e
        except asyncio.CancelledError as e:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise ToolError(f"the tool {self.tag!r} gave up: something in it was cancelled") from e

    async def _home(self) -> asyncio.AbstractEventLoop:
        """The tool's loop; a new one if the old one is blocked."""
        old = self._loop
        if old is not None:
            awake: Future[bool] = Future()
            old.call_soon_threadsafe(awake.set_result, True)
            done, _ = await asyncio.wait([asyncio.wrap_future(awake)], timeout=_ANSWERS)
            if done:
                return old
        with self._lock:
            if self._loop is old or self._loop is None:
                self._loop = asyncio.new_event_loop()
                name = f"act2see-{self.tag}"
                threading.Thread(target=_run, args=(self._loop,), name=name, daemon=True).start()
                # The old one ends once it is no longer blocked, the new one when the tool is collected.
                weakref.finalize(self, _stop, self._loop).atexit = False
                if old is not None:
                    _stop(old)
            return self._loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
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


def _offer(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version} ({entry.value})" if entry.dist else entry.value
