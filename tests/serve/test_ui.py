"""The page without a browser: the history, uploads, and what the server hands out."""

from __future__ import annotations

import datetime
import os
import re
from pathlib import Path

import pytest
from tests.graphs.doubles import Scripted, clip_in
from tests.serve.page_runs import SCRIPT, asked, runs_in

from act2see.cli.ui import ui
from act2see.errors import ConfigError, TraceError, VideoError
from act2see.graphs.state import AskContext
from act2see.serve.ui.catalog import CatalogVideo, VideoCatalog
from act2see.serve.ui.page import compared, label
from act2see.serve.ui.runs import Past
from act2see.serve.ui.server import Site, build_app, listen
from act2see.tools.video.folders import Folders
from act2see.trace.trace import Trace

HOSTILE = """<img src=x onerror="hit()"> <script>hit()</script> &amp; ${hit()} {{hit}}"""


async def test_the_history_is_newest_first_and_leaves_out_what_cannot_be_read(tmp_path: Path) -> None:
    config, runs = runs_in(tmp_path, Scripted(*SCRIPT))
    assert runs.past() == []
    first = await asked(tmp_path, runs, config, "First?")
    second = await asked(tmp_path, runs, config, "Second?", context=AskContext(tools=()))
    os.utime(tmp_path / "runs" / first.id / "trace.json", (1, 1))
    broken = tmp_path / "runs" / "broken"
    broken.mkdir()
    (broken / "trace.json").write_text("{}")
    assert [p.question for p in runs.past()] == ["Second?", "First?"]
    with pytest.raises(TraceError, match="schema version"):
        runs.load("broken")
    for id in ("../runs/broken", "..", "", ".", f"{first.id}/..", "uploads"):
        with pytest.raises(TraceError, match="there is no run"):
            runs.load(id)
    page = compared((second.id, first.id), runs, {config.hash: "mine"})
    assert re.search(
        r'class="differs"><th scope="row">Tools</th><td>none</td><td>retrieve, generate</td>', page
    )
    assert "<td>mine</td><td>mine</td>" in page


def test_an_upload_is_opened_first_and_its_name_is_harmless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = VideoCatalog(tmp_path / "uploads")
    sent = tmp_path / "in"
    sent.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(sent))
    name = """a'b"><img src=x onerror=hit()>#t=1,2 …; $(x).mp4"""
    Path(clip_in(tmp_path)).replace(sent / name)
    clip, info = catalog.take(str(sent / name))
    assert info.frames == 36
    assert not (sent / name).exists()
    assert re.fullmatch(r"[\w .()+,\[\]-]+\.mp4", Path(clip.path).name)
    assert catalog.clips() == {clip.key: clip}
    for name, content, why in [
        ("x.mp4", b"words", "is not a video"),
        ("empty.mp4", b"", "is empty"),
        ("<b>.mp4", b"<html>", "_b_.mp4 is not"),
    ]:
        (sent / name).write_bytes(content)
        with pytest.raises(VideoError, match=why) as caught:
            catalog.take(str(sent / name))
        assert str(tmp_path) not in str(caught.value)
        assert list(sent.iterdir()) == []
    assert len(catalog.clips()) == 1


def test_only_videos_in_the_folders_are_offered(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    secret = outside / "secret.mp4"
    secret.write_bytes(Path(clip_in(inside)).read_bytes())
    (inside / "link.mp4").symlink_to(secret)
    (inside / "notes.txt").write_text("no video")
    sample = CatalogVideo("sample", str(secret), "Q?", ("a",))
    catalog = VideoCatalog(tmp_path / "uploads", [sample], Folders([inside]))
    assert [c.label for c in catalog.clips().values()] == ["sample", "clip.mp4"]
    assert not any("/" in key for key in catalog.clips())


async def test_the_server_hands_out_runs_and_clips_by_key_alone(tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    from httpx import ASGITransport, AsyncClient

    config, runs = runs_in(
        tmp_path,
        Scripted(f"{HOSTILE}<retrieve>{HOSTILE}</retrieve>", f"{HOSTILE}</think><answer>{HOSTILE}</answer>"),
    )
    trace = await asked(tmp_path, runs, config, HOSTILE)
    clip = CatalogVideo("c", clip_in(tmp_path))
    page = tmp_path / "page.html"
    page.write_text("<script>hit()</script>")
    odd = CatalogVideo("odd", str(page))
    app = build_app(Site({"mine": config}, VideoCatalog(tmp_path / "uploads", [clip, odd]), runs))
    async with AsyncClient(transport=ASGITransport(app), base_url="http://127.0.0.1") as client:
        json = await client.get(f"/runs/{trace.id}/trace.json")
        assert Trace.from_json(json.text) == trace
        html = await client.get(f"/runs/{trace.id}/trace.html")
        assert "<script>" not in html.text
        assert "<img" not in html.text
        assert "&lt;img src=x onerror=" in html.text
        assert "default-src 'self'" in html.headers["content-security-policy"]
        video = await client.get(f"/clips/{clip.key}", headers={"range": "bytes=0-99"})
        assert (video.status_code, len(video.content), video.headers["content-type"]) == (
            206,
            100,
            "video/mp4",
        )
        assert (await client.get(f"/clips/{odd.key}")).headers["content-type"] == "video/mp4"
        for url in (
            "/clips/nothing",
            "/clips/..%2Fpage.html",
            "/runs/..%2F..%2Fpage/trace.html",
            "/runs/nothing/trace.json",
        ):
            answer = await client.get(url)
            assert answer.status_code == 404, url


def test_a_line_of_the_history_is_text_and_short() -> None:
    past = Past("id", datetime.datetime(2026, 1, 2, 3, 4), HOSTILE, HOSTILE, (), "h")
    assert (
        label(past, {"h": "mine"})
        == f"2026-01-02 03:04:00 · mine · no tools · “{HOSTILE[:30]}” · {HOSTILE[:69]}…"
    )


def test_a_host_that_is_no_name_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    with pytest.raises(ConfigError, match="is no host name"):
        ui(runs=tmp_path, allow_host=["https://video.example/"])
    assert list(tmp_path.iterdir()) == []


def test_a_taken_port_is_said_and_the_next_free_one_found() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"127.0.0.1:{port} .*--port"):
            listen("127.0.0.1", port)
    with listen("127.0.0.1", None) as a, listen("127.0.0.1", None) as b:
        assert a.getsockname()[1] != b.getsockname()[1]
