"""The page against forged requests: they read no file, cause no hang and no 500, and get one-line errors."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.graphs.doubles import Scripted, clip_in
from tests.serve.endless import assert_heads_are_bounded
from tests.serve.page_runs import SCRIPT, runs_in

from act2see.errors import Act2SeeError
from act2see.serve.ui.catalog import CatalogVideo, VideoCatalog, uploaded_file
from act2see.serve.ui.server import Site
from act2see.tools.video.folders import Folders

pytest.importorskip("gradio", reason="the page needs Gradio: pip install 'act2see[ui]'")
from tests.serve.page_client import Client, file_at, page_client

SECRET = "the secret of this machine"
NO_UPLOAD = "was not uploaded here"


@pytest.fixture
def inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Gradio's upload folder, for this test only."""
    folder = tmp_path / ".inbox"
    folder.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    return folder


@pytest.fixture
def page(tmp_path: Path, inbox: Path) -> Iterator[Client]:
    config, runs = runs_in(tmp_path, Scripted(*SCRIPT))
    sample = CatalogVideo("sample", clip_in(tmp_path), "Which?", ("a", "b"))
    with page_client(Site({"mine": config}, VideoCatalog(tmp_path / "uploads", [sample]), runs)) as client:
        yield client


def form(page: Client, **changed: Any) -> tuple[int, list[Any]]:
    """Return the id of the event that asks, and its values: run, conversation, form."""
    video = next(
        c["props"]["value"] for c in page.config["components"] if c["props"].get("elem_id") == "clip"
    )
    values = {
        "key": video,
        "question": "Which?",
        "options": "a\nb",
        "config": "mine",
        "tools": [],
        "calls": 4,
        "tokens": 600,
        "seed": 0,
    }
    assert changed.keys() <= values.keys()
    inputs = ("clip", "question", "options", "config", "tools", "calls", "tokens", "seed")
    return page.function(*inputs), [None, None, *(values | changed).values()]


def test_heads_are_bounded(page: Client) -> None:
    assert_heads_are_bounded(str(page.http.base_url))


def test_paths_are_refused_as_uploads_without_hanging(page: Client, inbox: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(Path(clip_in(tmp_path)).read_bytes())
    os.mkfifo(inbox / "fifo.mp4")
    (inbox / "link.mp4").symlink_to(secret)
    (inbox / "away").symlink_to(tmp_path)
    (inbox / "folder.mp4").mkdir()
    beside = tmp_path / ".inbox-not"
    beside.mkdir()
    (beside / "x.mp4").write_bytes(secret.read_bytes())
    paths: list[Any] = [
        secret,
        "/etc/passwd",
        "/dev/zero",
        "/dev/stdin",
        "/proc/self/environ",
        "/nowhere",
        *(
            inbox / name
            for name in ("fifo.mp4", "link.mp4", "away/secret.mp4", "folder.mp4", "none.mp4", "../secret.mp4")
        ),
        f"{inbox}/./../secret.mp4",
        beside / "x.mp4",
        inbox,
        "",
        ".",
        "x" * 5000,
        f"{inbox}/a\0b",
        f"{inbox}/\ud800",
        "http://127.0.0.1:9/x.mp4",
        "https://example.org/x.mp4",
        "file:///etc/passwd",
        f"{secret}#t=1,2",
    ]
    upload = page.function("upload")
    for path in paths:
        for more in ({}, {"url": str(secret), "is_stream": True, "orig_name": "x.mp4", "size": 1}):
            assert NO_UPLOAD in page.outcome(upload, [file_at(str(path), **more)]), path
    assert secret.exists()
    assert not (tmp_path / "uploads").exists()
    # The answer does not reveal whether a path exists.
    assert page.outcome(upload, [file_at("/etc/passwd")]) == page.outcome(
        upload, [file_at("/etc/no-such-file")]
    )
    assert NO_UPLOAD in page.outcome(upload, [{"path": str(secret)}])


def test_controls_refuse_paths_and_values_of_other_types(page: Client, tmp_path: Path) -> None:
    # Gradio would open a path in any value of any event.
    hostile: list[Any] = [
        file_at("/dev/zero"),
        [file_at("/dev/zero")],
        {"a": {"b": [file_at("/dev/zero")]}},
        {"value": file_at("/etc/passwd"), "__type__": "update"},
        {"__type__": "state", "id": 1},
        {"path": 1},
        {"path": ["/dev/zero"], "meta": {"_type": "gradio.FileData"}},
        [[[]]],
        [1, None],
        {},
    ]
    for event in page.config["dependencies"]:
        for value in hostile if event["inputs"] else ():
            outcome = page.outcome(event["id"], [value] * len(event["inputs"]), event_data=value)
            assert re.search(f"{NO_UPLOAD}|no control of the page sends|unknown event", outcome), (
                event["id"],
                value,
            )


def test_an_uploaded_video_is_stored_once(page: Client, tmp_path: Path) -> None:
    video = Path(clip_in(tmp_path)).read_bytes()
    [path] = page.upload("mine.mp4", video).json()
    outcome = page.outcome(page.function("upload"), [file_at(path)])
    assert "upload: mine.mp4" in outcome
    assert "36 frames" in outcome
    assert not Path(path).exists()
    [kept] = (tmp_path / "uploads").glob("*/mine.mp4")
    assert kept.read_bytes() == video
    # The file was moved, so it cannot be stored twice.
    assert NO_UPLOAD in page.outcome(page.function("upload"), [file_at(path)])
    [words] = page.upload("words.mp4", b"only words").json()
    assert "is not a video" in page.outcome(page.function("upload"), [file_at(words)])
    assert not Path(words).exists()


def test_odd_names_of_uploads_are_cleaned_or_refused(page: Client, inbox: Path, tmp_path: Path) -> None:
    video = Path(clip_in(tmp_path)).read_bytes()
    names = [
        "a\0b.mp4",
        "\ud800.mp4",
        "../../up.mp4",
        "/etc/x.mp4",
        "\n\r.mp4",
        "\u202etxt.mp4",
        "é" * 300,
        "\u4e00" * 300,
        "",
        ".",
    ]
    for name in (*names, b"\xff\xfe.mp4", b"\xed\xa0\x80.mp4"):
        answer = page.upload(name, video)
        assert answer.status_code in (200, 400, 413), (name, answer.text)
        for path in answer.json() if answer.status_code == 200 else ():
            assert os.path.realpath(path).startswith(f"{inbox}/")
            assert "It is now selected" in page.outcome(page.function("upload"), [file_at(path)]), name
    kept = [p.name for p in (tmp_path / "uploads").glob("*/*")]
    assert len(kept) >= 5
    assert all(re.fullmatch(r"[\w .()+,\[\]-]+", name) for name in kept)


def test_invalid_upload_forms_are_refused(page: Client) -> None:
    forms = [
        (b"", "multipart/form-data; boundary=b"),
        (b"", "multipart/form-data"),
        (b"no form", "multipart/form-data; boundary=b"),
        (
            b'--b\r\nContent-Disposition: form-data; name="files"\r\n\r\nx\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
        ),
        (b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n", "multipart/form-data; boundary=b"),
        (b"--b\r\n\r\nx\r\n--b--\r\n", "multipart/form-data; boundary=b"),
        (b"{}", "application/json"),
        (b"", ""),
        (
            b'--b\r\nContent-Disposition: form-data; name="files"; filename="x"\r\n\r\nx\r\n--b--\r\n',
            "multipart/form-data; boundary=b; charset=no",
        ),
    ]
    for body, kind in forms:
        answer = page.form(body, kind)
        assert answer.status_code == 400 or answer.json() == [] or "charset" in kind, body


def test_a_forged_form_is_refused_in_one_line(page: Client) -> None:
    forged: list[tuple[dict[str, Any], str]] = [
        ({"key": "/etc/passwd"}, "this video is no longer available"),
        ({"key": None}, "no video is selected"),
        ({"key": ["x"]}, "this video is no longer available"),
        ({"key": 7}, "this video is no longer available"),
        ({"question": None}, "the question is empty"),
        ({"question": 7}, "the question is empty"),
        ({"question": " \n"}, "the question is empty"),
        ({"options": ["a"]}, "the options are not text"),
        ({"options": 3}, "the options are not text"),
        ({"config": "paper"}, "unknown configuration"),
        ({"config": "../mine.yaml"}, "unknown configuration"),
        ({"config": None}, "unknown configuration"),
        ({"config": ["mine"]}, "unknown configuration"),
        ({"tools": ["ocr"]}, "mine does not have all the selected tools"),
        ({"tools": "retrieve"}, "all the selected tools"),
        ({"tools": None}, "all the selected tools"),
        ({"calls": -1}, "'Maximum calls' must be a whole number from 0"),
        ({"calls": 1e300}, "'Maximum calls' must be a whole number"),
        ({"calls": 10**400}, "'Maximum calls' must be a whole number"),
        ({"calls": "4"}, "'Maximum calls' must be a whole number"),
        ({"calls": True}, "'Maximum calls' must be a whole number"),
        ({"calls": 0.5}, "'Maximum calls' must be a whole number"),
        ({"calls": float("nan")}, "no control of the page sends"),
        ({"calls": float("inf")}, "no control of the page sends"),
        ({"tokens": 0}, "'Maximum tokens' must be a whole number from 1"),
        ({"tokens": -(10**30)}, "'Maximum tokens' must be a whole number"),
        ({"tokens": ["1"]}, "'Maximum tokens' must be a whole number"),
        ({"seed": 2**63}, "'Seed' must be a whole number"),
        ({"seed": -(2**64)}, "'Seed' must be a whole number"),
        ({"seed": 1e19}, "'Seed' must be a whole number"),
    ]
    for changed, message in forged:
        outcome = page.outcome(*form(page, **changed))
        assert message in outcome.replace("&#x27;", "'"), ascii(changed)
        assert "Traceback" not in outcome


def test_invalid_unicode_in_a_question_is_replaced(page: Client, tmp_path: Path) -> None:
    outcome = page.outcome(
        *form(page, question="Which\0 \ud800?", options="a\0\n\udfff", seed=5.0, calls=None)
    )
    assert "Answered" in outcome
    [saved] = (tmp_path / "runs").glob("*/trace.json")
    question = json.loads(saved.read_bytes())["question"]
    assert question["text"] == "Which\N{REPLACEMENT CHARACTER} \N{REPLACEMENT CHARACTER}?"
    assert question["options"] == ["a\N{REPLACEMENT CHARACTER}", "\N{REPLACEMENT CHARACTER}"]


def test_runs_cannot_be_named_by_a_path(page: Client, tmp_path: Path) -> None:
    assert "There are no runs yet" in page.outcome(page.function("past"), [None])
    assert "Answered" in page.outcome(*form(page))
    [run] = [p.name for p in (tmp_path / "runs").iterdir()]
    for event in page.config["dependencies"]:
        for id in (
            None,
            "../runs",
            f"{run}/",
            f"../runs/{run}",
            "\0",
            "\ud800",
            "x" * 9000,
            "/",
            ".",
            3,
            True,
            ["x"],
            1e300,
            -5,
        ):
            outcome = page.outcome(event["id"], [id] * len(event["inputs"]))
            assert "the server failed" not in outcome, (event, id)
            assert SECRET not in outcome
    for id in ("..%2f..%2f", f"{run}%00", "%ff", "%ed%a0%80", quote("../" + run, safe=""), "."):
        for what in ("trace.json", "trace.html"):
            assert page.http.get(f"/runs/{id}/{what}").status_code == 404, id
        assert page.http.get(f"/clips/{id}").status_code == 404, id


def test_other_requests_that_gradio_answers_are_refused(page: Client, tmp_path: Path, inbox: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text(SECRET)
    [path] = page.upload("state.json", b"[]").json()
    api = "/gradio_api"
    gets = [
        *(
            f"{api}/file={p}"
            for p in (secret, "/etc/passwd", "/dev/zero", path, "https://example.org/", "http://127.0.0.1:9/")
        ),
        *(f"{api}/file/{p}" for p in ("etc/passwd", path)),
        f"{api}/proxy=https://example.hf.space/",
        f"{api}/stream/a/b/c/playlist.m3u8",
        f"{api}/custom_component/a/client/b/c.js",
        f"{api}/component_server",
        f"{api}/call/asked/1",
        f"{api}/runs",
        f"{api}/deep_link",
        f"{api}/vibe-code",
        f"{api}/queue/status",
        f"{api}/openapi.json",
        "/monitoring",
        "/monitoring/summary",
        "/svelte/x",
        "/pwa_icon/../../x",
        "/docs",
        "/openapi.json",
        "/assets/..%2f..%2f..%2froutes.py",
        "/static/..%2f..%2froutes.py",
        "/assets/%00",
        "/static/%ff",
        f"/assets/{'x' * 5000}",
    ]
    for url in gets:
        answer = page.http.get(url)
        assert answer.status_code in (400, 403, 404), (url, answer.status_code)
        assert SECRET not in answer.text
    upload = page.function("upload")
    body = {"data": [file_at("/etc/passwd")], "fn_index": upload, "session_hash": "s"}
    for url in (
        "run/predict",
        "api/predict",
        "call/uploaded",
        "call/v2/uploaded",
        "component_server",
        "process_recording",
        "cancel",
        "vibe-edit",
    ):
        assert page.http.post(f"{api}/{url}", json=body).status_code == 404, url
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "POST"):
        assert page.http.request(method, "/").status_code in (404, 405), method
    # A saved state in the address is not read.
    for link in ("x", "../" + Path(path).parent.name, "\0"):
        assert page.http.get("/", params={"deep_link": link}).status_code == 200
        assert page.http.get("/config", params={"deep_link": link, "page": link}).status_code == 200


def test_invalid_events_are_refused(page: Client) -> None:
    bodies = [
        b"",
        b"no json",
        b"[]",
        b"null",
        b'{"data": 3}',
        b'{"data": []}',
        b'{"data": [], "fn_index": 99, "session_hash": "s"}',
        b'{"data": [], "fn_index": -1, "session_hash": "s"}',
        b'{"data": [], "fn_index": "0", "session_hash": "s"}',
        b'{"data": [], "fn_index": true, "session_hash": "s"}',
        b'{"data": [], "fn_index": 1e300, "session_hash": "s"}',
        b'{"data": [], "fn_index": 0}',
        b'{"data": [], "fn_index": 0, "session_hash": ["s"]}',
        b'{"data": [], "fn_index": 0, "session_hash": "../s"}',
        b'{"data": [], "fn_index": 0, "session_hash": "\\ud800"}',
        b'{"data": [' + b"[" * 100_000 + b"]" * 100_000 + b'], "fn_index": 0, "session_hash": "s"}',
        b'{"data": [' + b"9" * 10_000 + b'], "fn_index": 0, "session_hash": "s"}',
        b"\xff\xfe{}",
        b'{"data": ["\xff"], "fn_index": 0, "session_hash": "s"}',
    ]
    for body in bodies:
        answer = page.http.post(
            "/gradio_api/queue/join", content=body, headers={"content-type": "application/json"}
        )
        assert answer.status_code == 400, body[:60]
        assert "reload the page" in answer.json()["detail"]


def test_an_unknown_session_gets_session_not_found(page: Client, caplog: pytest.LogCaptureFixture) -> None:
    answer = page.http.get("/gradio_api/queue/data", params={"session_hash": "nobody"})
    assert "session_not_found" in answer.text
    assert not caplog.records
    assert page.http.get("/gradio_api/queue/data").status_code == 422
    assert page.http.get("/gradio_api/upload_progress", params={"upload_id": "x\0\u4e00"}).status_code == 404


def test_wrong_numbers_of_values_and_large_requests_are_refused(page: Client) -> None:
    function, values = form(page)
    for data in ([], values[:3], [None] * 5000):
        assert "reload the page" in page.outcome(function, data)
    assert page.join(function, ["x" * (2 << 20)]).status_code == 413
    assert "Answered" in page.outcome(function, values)


def test_requests_of_other_hosts_and_origins_are_refused(page: Client) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:7860", ""):
        for url in (
            "/",
            "/config",
            "/runs/x/trace.json",
            "/clips/x",
            "/gradio_api/queue/data?session_hash=s",
        ):
            assert page.http.get(url, headers={"host": host}).status_code == 421, (host, url)
    own = str(page.http.base_url).rstrip("/")
    function, values = form(page)
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        body = {"data": values, "fn_index": function, "session_hash": "s"}
        assert (
            page.http.post("/gradio_api/queue/join", json=body, headers={"origin": origin}).status_code == 403
        )
    assert page.http.get("/", headers={"origin": own}).status_code == 200


def test_added_hosts_are_allowed(tmp_path: Path) -> None:
    config, runs = runs_in(tmp_path, Scripted(*SCRIPT))
    with page_client(
        Site({"mine": config}, VideoCatalog(tmp_path / "uploads"), runs, hosts=("video.example",))
    ) as page:
        assert page.http.get("/", headers={"host": "video.example"}).status_code == 200
        assert page.http.get("/", headers={"host": "other.example"}).status_code == 421


def test_unexpected_errors_are_logged_under_the_id_that_the_page_shows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(VideoCatalog):
        """Fails after the page has been opened."""

        def videos(self) -> dict[str, CatalogVideo]:
            if (tmp_path / "broken").exists():
                raise RuntimeError(SECRET)
            return super().videos()

    config, runs = runs_in(tmp_path, Scripted(*SCRIPT))
    with page_client(
        Site({"mine": config}, Broken(tmp_path / "uploads", [CatalogVideo("c", clip_in(tmp_path))]), runs)
    ) as page:
        function, values = form(page)
        (tmp_path / "broken").touch()
        picked = page.function("clip", "question")
        answers = [
            page.outcome(function, values),
            page.outcome(picked, [None] * 4),
            page.outcome(page.load(), []),
            page.http.get("/clips/x").text,
        ]
        assert '"interactive":true' in answers[2]  # the other controls are enabled
        (tmp_path / "runs").write_text("no folder")
        listed = page.outcome(page.function("past"), [None])
        assert re.search(
            r"cannot list the runs in .* \(Not a directory\): choose another folder with --runs", listed
        )
    for answer in answers:
        [id] = set(re.findall(r"error (\w{12})\b", answer))
        assert SECRET not in answer
        assert any(id in r.getMessage() and r.exc_info for r in caplog.records)


def test_files_with_odd_names_are_listed_and_do_not_hide_others(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    content = Path(clip_in(tmp_path)).read_bytes()
    for name in (b"good.mp4", b"\xff\xfe.mp4", b"\xed\xa0\x80.mp4", b"a\nb.mp4"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(content)
    os.mkfifo(folder / "pipe.mp4")
    gone = CatalogVideo("gone", str(tmp_path / "gone.mp4"))
    catalog = VideoCatalog(tmp_path / "uploads", [gone], Folders([folder]))
    (tmp_path / "uploads" / "x").mkdir(parents=True)
    (tmp_path / "uploads" / "x" / "gone.mp4").symlink_to("/nowhere")
    Path(os.fsdecode(os.fsencode(tmp_path / "uploads" / "x") + b"/\xff.mp4")).write_bytes(content)
    config, runs = runs_in(tmp_path, Scripted(*SCRIPT))
    labels = [video.label for video in catalog.videos().values()]
    # Names in a folder that are not UTF-8 are left out, because a question cannot name such a video.
    assert sorted(labels) == sorted(["gone", "good.mp4", r"a\nb.mp4", r"upload: \xff.mp4"])
    with page_client(Site({"mine": config}, catalog, runs)) as page:
        for key, video in catalog.videos().items():
            answer = page.http.get(f"/clips/{key}")
            assert answer.content == content or (video is gone and answer.status_code == 404), video
        [good] = [key for key, video in catalog.videos().items() if video.label == "good.mp4"]
        assert "Answered" in page.outcome(*form(page, key=good))
        [run] = (tmp_path / "runs").iterdir()
        run.rename(os.fsdecode(os.fsencode(tmp_path / "runs") + b"/\xffrun"))
        (tmp_path / "runs" / "odd").mkdir()
        (tmp_path / "runs" / "odd" / "trace.json").write_bytes(b'{"schema_version": 1, "id": "\\ud800"}')
        [summary] = runs.list_runs()
        assert summary.id == r"\xffrun"
        assert summary.id.replace("\\", "\\\\") in page.outcome(page.function("past"), [None])
        assert page.http.get(f"/runs/{quote(summary.id)}/trace.json").status_code == 200
        assert page.http.get(f"/runs/{quote(summary.id)}/trace.html").status_code == 200


def test_paths_outside_the_upload_folder_are_not_touched(
    inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    real = os.path.realpath
    monkeypatch.setattr(os.path, "realpath", lambda path: looked.append(str(path)) or real(path))
    for path in ("/net/far/x.mp4", f"{inbox}/../x.mp4", "x.mp4"):
        with pytest.raises(Act2SeeError, match=NO_UPLOAD):
            uploaded_file(path)
    assert set(looked) == {str(inbox)}


def test_only_uploaded_files_are_accepted(tmp_path: Path, inbox: Path) -> None:
    catalog = VideoCatalog(tmp_path / "uploads")
    video = Path(clip_in(tmp_path))
    for path in (str(video), "/dev/zero", "", f"{inbox}/a\0", f"{inbox}/\ud800"):
        with pytest.raises(Act2SeeError, match=NO_UPLOAD):
            catalog.add_upload(path)
    assert video.exists()
    (inbox / "ok.mp4").write_bytes(video.read_bytes())
    stored, _ = catalog.add_upload(str(inbox / "ok.mp4"))
    assert Path(stored.path).exists()
