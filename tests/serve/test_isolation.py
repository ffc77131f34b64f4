"""Servers decode the files of others in a child process, unless the configuration says otherwise."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from tests.tools.videos import write_video

from act2see.graphs import parts
from act2see.graphs.config import load_config
from act2see.graphs.parts import build_resources, cached_parts, for_server
from act2see.serve.langgraph import graphs
from act2see.serve.ui import runs
from act2see.serve.ui.catalog import VideoCatalog
from act2see.tools.video.folders import FencedLibrary
from act2see.tools.video.isolation.video import shared_decoders


@pytest.mark.parametrize(
    ("chosen", "library", "server"),
    [("auto", False, True), ("always", True, True), ("never", False, False)],
)
def test_auto_means_in_servers(tmp_path: Path, chosen: str, library: bool, server: bool) -> None:
    config = load_config("micro", cache=str(tmp_path), video={"isolate": chosen})
    assert build_resources(config).finder.library.isolate is library
    assert build_resources(for_server(config)).finder.library.isolate is server
    assert config.hash == for_server(config).hash == load_config("micro").hash


def test_a_system_without_limits_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(parts, "can_isolate", lambda: False)
    config = load_config("micro")
    with caplog.at_level(logging.WARNING):
        assert for_server(config) is config
    assert "files of others are decoded in this process" in caplog.text


def test_the_langgraph_server_isolates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACT2SEE_FOLDERS", str(tmp_path))
    monkeypatch.setenv("ACT2SEE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ACT2SEE_CONFIG", raising=False)
    config = graphs.served_config.__wrapped__()
    library = cached_parts(config).resources.finder.library
    assert isinstance(library, FencedLibrary)
    assert library.isolate
    clip = write_video(tmp_path / "clip.mp4", [0.0, 0.1, 0.2])
    assert library.probe(str(clip)).info.frames == 3
    assert shared_decoders().pids


def test_the_page_isolates_runs_and_uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACT2SEE_CACHE", str(tmp_path / "cache"))
    config = load_config("micro")
    _, frames = runs.open_graph(config)
    served = cached_parts(for_server(config)).resources
    assert served.store is frames
    assert served.finder.library.isolate
    assert VideoCatalog(tmp_path).isolate
    assert not VideoCatalog(tmp_path, isolate=False).isolate
