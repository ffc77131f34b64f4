"""Helpers of the command line's tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

import act2see
from act2see.graphs.parts import Parts

Run = Callable[..., Result]
"""Runs the command line with these arguments; `code` is the expected exit code."""
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


def write_footage(path: Path) -> Path:
    """Write a clip that shows no board, and return its path."""
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt = 192, 108, "yuv420p"
        pixels = np.random.default_rng(0).integers(0, 255, (27, 48, 3), np.uint8).repeat(4, 0).repeat(4, 1)
        for _ in range(24):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path
