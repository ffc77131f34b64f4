"""Helpers of the command line's tests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import act2see
from act2see.graphs.parts import Parts

SOURCES = str(Path(act2see.__file__).parents[1])


def use_parts(monkeypatch: pytest.MonkeyPatch, parts: Parts) -> None:
    """Make all graphs and commands of this process use these models."""
    for module in ("ask", "parts"):
        monkeypatch.setattr(f"act2see.graphs.{module}.cached_parts", lambda config: parts)


def environment(cache: Path, **variables: str) -> dict[str, str]:
    """Return the environment of a process that runs this checkout's code with this cache folder."""
    return {**os.environ, "PYTHONPATH": SOURCES, "ACT2SEE_CACHE": str(cache), **variables}


def assert_one_line_error(result: Any, *words: str) -> None:
    """Assert that stderr is one line `error: ...` with these words."""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.output
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]
