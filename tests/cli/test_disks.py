"""Full and read-only disks: one line, whatever a library raises, and no advice to delete saved runs."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import sqlite3
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import typer
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import empty_checkpoint
from tests.cli.helpers import assert_one_line_error
from typer.testing import CliRunner

from act2see.cli.app import _Commands
from act2see.cli.runs import RUN_VERSION, Settings, saved_runs, settings_of
from act2see.errors import StoreError
from act2see.graphs.config import load_config
from act2see.graphs.state import AskContext


def readonly_database() -> None:
    raise sqlite3.OperationalError("attempt to write a readonly database")


def from_an_os_error() -> None:
    try:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "/mnt/x")
    except OSError as e:
        raise RuntimeError("serialization failed") from e


def without_a_cause() -> None:
    raise ValueError(f"Error in faiss::FileIOWriter: {os.strerror(errno.ENOSPC)}")


@pytest.mark.parametrize("fail", [readonly_database, from_an_os_error, without_a_cause])
def test_errors_of_libraries_are_one_line(fail: Callable[[], None]) -> None:
    app = typer.Typer(cls=_Commands)
    group = typer.Typer(cls=_Commands)
    group.command("write")(fail)
    group.command("other")(lambda: None)
    app.add_typer(group, name="group")
    result = CliRunner().invoke(app, ["group", "write"])
    assert result.exit_code == 2
    assert_one_line_error(result, "free some space, fix the permissions, or choose another location")


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (sqlite3.SQLITE_FULL, "free some space"),
        (sqlite3.SQLITE_IOERR, "keep the file"),
        (sqlite3.SQLITE_READONLY, "fix its permissions"),
        (sqlite3.SQLITE_IOERR | 3 << 8, "free some space"),  # SQLITE_IOERR_WRITE
        (sqlite3.SQLITE_BUSY, "try again"),
        (sqlite3.SQLITE_CORRUPT, "move it away"),
    ],
)
def test_no_advice_loses_saved_runs(
    code: int, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACT2SEE_CACHE", str(tmp_path))

    async def fail() -> None:
        async with saved_runs():
            error = sqlite3.OperationalError("what SQLite says")
            error.sqlite_errorcode = code
            raise error

    with pytest.raises(StoreError, match=advice) as caught:
        asyncio.run(fail())
    assert "delete" not in str(caught.value)


@pytest.mark.parametrize("saved", [{}, {"version": RUN_VERSION}])
def test_a_run_of_this_version_or_of_0_1_0_is_resumed(
    saved: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACT2SEE_CACHE", str(tmp_path))
    settings = asyncio.run(_saved_settings(saved))
    assert settings.config == load_config("micro")
    assert settings.context == AskContext(tools=("retrieve",))


def test_a_run_of_a_newer_version_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACT2SEE_CACHE", str(tmp_path))
    with pytest.raises(StoreError, match=r"has version 99 .* resume it with the act2see that saved it"):
        asyncio.run(_saved_settings({"version": 99}))


async def _saved_settings(saved: dict[str, int]) -> Settings:
    """Save a run as `graph_of` does, and return its settings."""
    context = asdict(AskContext(tools=("retrieve",)))
    kept = json.dumps({**saved, "config": load_config("micro").model_dump(), "context": context})
    config: RunnableConfig = {"configurable": {"thread_id": "a", "checkpoint_ns": ""}}
    metadata: Any = {"act2see_run": kept}
    async with saved_runs() as saver:
        await saver.aput(config, empty_checkpoint(), metadata, {})
        return await settings_of("a", saver)
