"""The page without a browser: the list of runs, uploads, and the files that the server sends."""

from __future__ import annotations

import datetime
import os
import re
from pathlib import Path

import pytest
from tests.graphs.doubles import Scripted, clip_in
from tests.serve.page_runs import SCRIPT, ask, runs_in

from act2see.cli.ui import ui
from act2see.errors import ConfigError, TraceError, VideoError
from act2see.graphs.state import AskContext
from act2see.serve.ui.catalog import CatalogVideo, VideoCatalog
from act2see.serve.ui.page import comparison, run_label
from act2see.serve.ui.runs import RunSummary
from act2see.serve.ui.server import Site, build_app, listen
from act2see.tools.video.folders import Folders
from act2see.trace.trace import Trace

HOSTILE = """<img src=x onerror="hit()"> <script>hit()</script> &amp; ${hit()} {{hit}}"""


async def test_runs_are_listed_newest_first_without_unreadable_ones(tmp_path: Path) -> None:
    config, runs = runs_in(tmp_path, Scripted(*SCRIPT))
    assert runs.list_runs() == []
    first = await ask(tmp_path, runs, config, "First?")
    second = await ask(tmp_path, runs, config, "Second?", context=AskContext(tools=()))
    os.utime(tmp_path / "runs" / first.id / "trace.json", (1, 1))
    broken = tmp_path / "runs" / "broken"
    broken.mkdir()
    (broken / "trace.json").write_text("{}")
    assert [p.question for p in runs.list_runs()] == ["Second?", "First?"]
    with pytest.raises(TraceError, match="schema version"):
        runs.load("broken")
    for id in ("../runs/broken", "..", "", ".", f"{first.id}/..", "uploads"):
        with pytest.raises(TraceError, match="unknown run"):
            runs.load(id)
    page = comparison((second.id, first.id), runs, {config.hash: "mine"})
    assert re.search(
        r'class="differs"><th scope="row">Tools</th><td>none</td><td>retrieve, generate</td>', page
    )
    assert "<td>mine</td><td>mine</td>" in page


def test_an_upload_must_be_a_video_and_gets_a_harmless_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = VideoCatalog(tmp_path / "uploads")
    sent = tmp_path / "in"
    sent.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(sent))
    name = """a'b"><img src=x onerror=hit()>#t=1,2 …; $(x).mp4"""
    Path(clip_in(tmp_path)).replace(sent / name)
    video, info = catalog.add_upload(str(sent / name))
    assert info.frames == 36
    assert not (sent / name).exists()
    assert re.fullmatch(r"[\w .()+,\[\]-]+\.mp4", Path(video.path).name)
    assert catalog.videos() == {video.key: video}
    for name, content, why in [
        ("x.mp4", b"words", "is not a video"),
        ("empty.mp4", b"", "is empty"),
        ("<b>.mp4", b"<html>", "_b_.mp4 is not"),
    ]:
        (sent / name).write_bytes(content)
        with pytest.raises(VideoError, match=why) as caught:
            catalog.add_upload(str(sent / name))
        assert str(tmp_path) not in str(caught.value)
        assert list(sent.iterdir()) == []
    assert len(catalog.videos()) == 1


def test_only_videos_in_the_folders_are_offered(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    secret = outside / "secret.mp4"
    secret.write_bytes(Path(clip_in(inside)).read_bytes())
    (inside / "link.mp4").symlink_to(secret)
    (inside / "notes.txt").write_text("not a video")
    sample = CatalogVideo("sample", str(secret), "Q?", ("a",))
    catalog = VideoCatalog(tmp_path / "uploads", [sample], Folders([inside]))
    assert [video.label for video in catalog.videos().values()] == ["sample", "clip.mp4"]
    assert not any("/" in key for key in catalog.videos())


async def test_the_server_sends_runs_and_videos_by_key_only(tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    from httpx import ASGITransport, AsyncClient

    config, runs = runs_in(
        tmp_path,
        Scripted(f"{HOSTILE}<retrieve>{HOSTILE}</retrieve>", f"{HOSTILE}</think><answer>{HOSTILE}</answer>"),
    )
    trace = await ask(tmp_path, runs, config, HOSTILE)
    sample = CatalogVideo("c", clip_in(tmp_path))
    page = tmp_path / "page.html"
    page.write_text("<script>hit()</script>")
    odd = CatalogVideo("odd", str(page))
    app = build_app(Site({"mine": config}, VideoCatalog(tmp_path / "uploads", [sample, odd]), runs))
    async with AsyncClient(transport=ASGITransport(app), base_url="http://127.0.0.1") as client:
        json = await client.get(f"/runs/{trace.id}/trace.json")
        assert Trace.from_json(json.text) == trace
        html = await client.get(f"/runs/{trace.id}/trace.html")
        assert "<script>" not in html.text
        assert "<img" not in html.text
        assert "&lt;img src=x onerror=" in html.text
        assert "default-src 'self'" in html.headers["content-security-policy"]
        part = await client.get(f"/clips/{sample.key}", headers={"range": "bytes=0-99"})
        assert part.status_code == 206
        assert len(part.content) == 100
        assert part.headers["content-type"] == "video/mp4"
        assert (await client.get(f"/clips/{odd.key}")).headers["content-type"] == "video/mp4"
        for url in (
            "/clips/nothing",
            "/clips/..%2Fpage.html",
            "/runs/..%2F..%2Fpage/trace.html",
            "/runs/nothing/trace.json",
        ):
            answer = await client.get(url)
            assert answer.status_code == 404, url


def test_a_run_label_is_short_plain_text() -> None:
    summary = RunSummary("id", datetime.datetime(2026, 1, 2, 3, 4), HOSTILE, HOSTILE, (), "h")
    assert (
        run_label(summary, {"h": "mine"})
        == f"2026-01-02 03:04:00 · mine · no tools · “{HOSTILE[:30]}” · {HOSTILE[:69]}…"
    )


def test_an_invalid_host_is_refused_before_the_page_starts(tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    with pytest.raises(ConfigError, match="is not a host name"):
        ui(runs=tmp_path, allow_host=["https://video.example/"])
    assert list(tmp_path.iterdir()) == []


def test_a_taken_port_is_an_error_and_the_default_is_the_next_free_port() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"127.0.0.1:{port} .*--port"):
            listen("127.0.0.1", port)
    with listen("127.0.0.1", None) as a, listen("127.0.0.1", None) as b:
        assert a.getsockname()[1] != b.getsockname()[1]
