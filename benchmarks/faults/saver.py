"""Faults of the checkpointer: errors of SQLite at each of its calls, a full database, and a damaged file.

A full database is a real one: SQLite is allowed so many pages and no more.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from types import FunctionType
from typing import Any

from benchmarks.faults.parts import Fails
from benchmarks.faults.trial import Fault, Reached, nothing
from benchmarks.interruptions import Saver

_ERRORS: dict[str, Callable[[], Exception]] = {
    "disk full": partial(sqlite3.OperationalError, "database or disk is full"),
    "I/O error": partial(sqlite3.OperationalError, "disk I/O error"),
    "locked": partial(sqlite3.OperationalError, "database is locked"),
    "read-only": partial(sqlite3.OperationalError, "attempt to write a readonly database"),
    "damaged": partial(sqlite3.DatabaseError, "database disk image is malformed"),
    "ENOSPC": partial(OSError, errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "connection reset": partial(ConnectionResetError, errno.ECONNRESET, os.strerror(errno.ECONNRESET)),
}
_CALLS = {"aput": 6, "aput_writes": 6, "aget_tuple": 1}
"""The saver's methods, and how many of their calls fail."""


def saver_faults() -> Iterator[Fault]:
    """Yield faults of both checkpointers."""
    kinds: tuple[Saver, ...] = ("sqlite", "memory")
    for kind in kinds:
        for name, make in _ERRORS.items():
            for method, times in _CALLS.items():
                for at in range(1, times + 1):
                    for lasting in (False, True):
                        wrap = partial(_failing, method=method, make=make, at=at, lasting=lasting)
                        where = f"{kind}: {method} {at}{' and on' * lasting}"
                        yield Fault("saver", name, where, nothing, saver=kind, wraps_saver=wrap)
    for pages in (*range(1, 16), 20, 24, 28, 32):
        yield Fault(
            "saver", "full database", f"{pages} pages more", nothing, wraps_saver=partial(_full, pages=pages)
        )


def _failing(
    saver: Any, reached: Reached, method: str, make: Callable[[], Exception], at: int, lasting: bool
) -> Any:
    """Return a checkpointer like the given one, one of whose methods fails."""
    fails = Fails(make, at, lasting, reached)

    class Failing(type(saver)):  # type: ignore[misc]
        pass

    real = getattr(type(saver), method)

    async def call(self: Any, *arguments: Any, **options: Any) -> Any:
        _fail(fails)
        return await real(self, *arguments, **options)

    # As if the saver itself had raised it.
    inside = FunctionType(
        call.__code__, {**globals(), "__name__": "langgraph.checkpoint.failing"}, closure=call.__closure__
    )
    setattr(Failing, method, inside)
    failing = object.__new__(Failing)
    failing.__dict__ = saver.__dict__
    return failing


def _fail(fails: Fails) -> None:
    fails()


def _full(saver: Any, reached: Reached, pages: int) -> Any:
    """Let the database grow by so many pages before its first write."""
    real_put, real_writes = type(saver).aput, type(saver).aput_writes

    class Full(type(saver)):  # type: ignore[misc]
        limited = False

        async def _limit(self) -> None:
            if not self.limited:
                self.limited = True
                await self.setup()
                async with self.conn.execute("PRAGMA page_count") as rows:
                    [count] = await rows.fetchone()
                async with self.conn.execute(f"PRAGMA max_page_count={count + pages}") as rows:
                    await rows.fetchall()
                reached()

        async def aput(self, *arguments: Any, **options: Any) -> Any:
            await self._limit()
            return await real_put(self, *arguments, **options)

        async def aput_writes(self, *arguments: Any, **options: Any) -> Any:
            await self._limit()
            return await real_writes(self, *arguments, **options)

    full = object.__new__(Full)
    full.__dict__ = saver.__dict__
    return full
