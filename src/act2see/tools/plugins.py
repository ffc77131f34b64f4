"""Where tools come from: found by name, made from their options, looked at before anything is asked.

A name is a short one (entry-point group `act2see.tools`) or, in a local config file, a dotted path
`package.module:Class`; its module is looked for beside the file first (`tools/runtime/local_modules.py`).
Nothing is imported but the tools that a config names, so a broken package stands in the way of nobody who
does not use it.

A tool of another package runs `IsolatedTool`: in an event loop and a thread of its own. One that blocks there, in
`async` code as in plain, blocks itself alone, and the time limit of its call holds. The thread cannot be
killed: it goes on to its end, if there is one, and the next call gets another. Our own tools know that they
must not block, and need none of this.
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

GROUP = "act2see.tools"
_ANSWERS = 1.0  # seconds within which a loop that is not blocked does something


def find_tool(name: str, *, dotted: bool = True, folder: str | None = None) -> Any:
    """The tool class of a short name or dotted path. `dotted=False` where the name comes from elsewhere than
    a local file.

    The module of a dotted path is looked for in `folder`, the config file's own, and then wherever Python
    looks.
    """
    if ":" in name:
        if not dotted:
            raise ConfigError(
                f"tool {name!r}: a dotted path is allowed in a local config file only; register an entry point in {GROUP!r}"
            )
        module, _, attribute = name.partition(":")
        try:
            return getattr(import_beside(module, folder), attribute)
        except (Exception, SystemExit) as e:  # importing runs the module, which may raise anything
            looked = (
                f"; {folder} was looked in first" if folder and isinstance(e, ModuleNotFoundError) else ""
            )
            raise ConfigError(
                f"tool {name!r} cannot be imported: {plain_names(_first_line(e))}{looked}"
            ) from e
    # None is loaded but the one that is asked for: a package that is broken stands in nobody else's way.
    known = {(e.name, e.value): e for e in entry_points(group=GROUP)}
    found = [e for e in known.values() if e.name == name]
    if not found:
        names = sorted({e.name for e in known.values()})
        near = get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"there is no tool {name!r}{hint} (known: {', '.join(names) or 'none, is act2see installed?'})"
        )
    if len(found) > 1:
        offers = " and ".join(_offer(e) for e in found)
        raise ConfigError(
            f'tool {name!r} is offered twice: by {offers}; uninstall one, or name the one you mean: use: "package.module:Class"'
        )
    try:
        return found[0].load()
    except Exception as e:
        raise ConfigError(
            f"tool {name!r} of {_offer(found[0])} cannot be imported: {_first_line(e)}; install that package anew, or leave the tool out"
        ) from e


def chosen_tool(
    name: str, tag: str, options: Mapping[str, Any], folder: str | None = None
) -> tuple[type[Any], BaseModel]:
    """The class of this name and its options for this tag. Raises `ConfigError` that says what is wrong with
    either."""
    kind = find_tool(name, folder=folder)
    schema = getattr(kind, "Options", None)
    if not (isinstance(kind, type) and isinstance(schema, type) and issubclass(schema, BaseModel)):
        raise ConfigError(
            f"tools.{tag}: {name!r} is no tool: a tool is a class with `Options`, a pydantic model, in it"
        )
    try:
        return kind, schema(**options)
    except ValidationError as e:
        raise ConfigError(f"tools.{tag}.options: {_explain(e, list(schema.model_fields))}") from e


def make_tool(
    name: str, tag: str, options: Mapping[str, Any], resources: Resources, folder: str | None = None
) -> FrameTool:
    """The tool of this name, made and looked at. Raises `ConfigError` that says what is wrong with it."""
    kind, given = chosen_tool(name, tag, options, folder)
    try:
        made: Any = kind(tag, given, resources)
    except Act2SeeError:
        raise
    except Exception as e:
        raise ConfigError(
            f"tools.{tag}: {name!r} cannot be set up: {type(e).__name__}: {_first_line(e)}"
        ) from e
    # A tool's version may be that of a model, which is not to be loaded yet: it is looked for in the class.
    lacks = [a for a in ("usage", "version") if not hasattr(kind, a) and not hasattr(made, a)]
    if lacks or not callable(getattr(made, "call", None)):
        raise ConfigError(f"tools.{tag}: {name!r} is no tool: it has no `{(lacks or ['call'])[0]}`")
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
        # Cancelled here, it is cancelled there; where that has no effect, nobody waits for it.
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._call(query, context), loop))

    async def _call(self, query: str, context: ToolContext) -> ToolResult:
        try:
            result: Any = self.tool.call(query, context)
            returned: ToolResult = await result if inspect.isawaitable(result) else result
            return returned  # or whatever else it is: `checked_result` looks
        except (SystemExit, KeyboardInterrupt) as e:
            # It would end the loop's thread, and whoever waits would wait for ever.
            raise ToolError(f"the tool {self.tag!r} tried to end the process ({type(e).__name__})") from e
        except asyncio.CancelledError as e:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise ToolError(f"the tool {self.tag!r} gave up: something in it was cancelled") from e

    async def _home(self) -> asyncio.AbstractEventLoop:
        """The tool's loop; a new one where the old one is blocked."""
        old = self._loop
        if old is not None:
            awake: Future[bool] = Future()
            old.call_soon_threadsafe(awake.set_result, True)
            if (await asyncio.wait([asyncio.wrap_future(awake)], timeout=_ANSWERS))[0]:
                return old
        with self._lock:
            if self._loop is old or self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(
                    target=_run, args=(self._loop,), name=f"act2see-{self.tag}", daemon=True
                ).start()
                # The old one ends when it comes to, the new one when the tool is gone.
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


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _explain(error: ValidationError, known: list[str]) -> str:
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] != "extra_forbidden":
        return f"{key}: {first['msg']} (got {first['input']!r})"
    near = get_close_matches(key, known, n=1)
    return f"unknown key {key!r}; " + (
        f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
    )
