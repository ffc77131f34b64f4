"""Pages of other origins, in a real Chromium, against every server that listens on a port.

A hostile page is opened from another host (`evil.example`), from another port of this machine, and from the
server's own port under another name (DNS rebinding: Chromium resolves `evil.example` to this machine). Each
tries what a page can: read and write by `fetch`, send a form, open a WebSocket, embed the address as a
picture, a video, a script and a frame. `act2see mcp` talks over pipes and has no port.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.graphs.doubles import Scripted, clip_in
from tests.serve.langgraph_process import langgraph_server
from tests.serve.page_runs import SCRIPT, runs_in
from tests.serve.test_openai_intake import Brief

from act2see.agent.reasoners.base import Request
from act2see.serve.openai.model import ServedModel
from act2see.serve.openai.rollout import RequestPictures
from act2see.serve.openai.server import build_app, serving
from act2see.serve.ui.catalog import CatalogVideo, VideoCatalog
from act2see.serve.ui.server import Site, served

pytest.importorskip("gradio", reason="the page needs Gradio: pip install 'act2see[ui]'")
sync_api = pytest.importorskip("playwright.sync_api", reason="driving a browser needs playwright")
if not find_spec("langgraph_api") or not find_spec("langgraph_cli"):
    pytest.skip("the LangGraph server is not installed: langgraph-cli[inmem]", allow_module_level=True)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium or Chrome on the PATH"),
    pytest.mark.timeout(300),  # a browser and three servers, on two shared cores
]

TRIES = """async ([base, reads, writes]) => {
  const seen = {};
  const note = async (name, work) => {
    try { seen[name] = await work(); } catch (e) { seen[name] = "failed"; }
  };
  const answer = async (url, options) => {
    const reply = await fetch(base + url, options);
    return reply.type === "opaque" ? "opaque" : `${reply.status} ${await reply.text()}`;
  };
  const embed = (tag, url) => new Promise((done) => {
    const element = document.createElement(tag);
    element.onload = element.onloadedmetadata = () => done("shown");
    element.onerror = () => done("failed");
    setTimeout(() => done("failed"), 5000);
    element.src = base + url;
    document.body.append(element);
  });
  for (const url of reads) {
    await note(`read ${url}`, () => answer(url, {}));
    await note(`read with cookies ${url}`, () => answer(url, {credentials: "include"}));
    for (const tag of ["img", "video", "script"]) await note(`${tag} ${url}`, () => embed(tag, url));
  }
  for (const [url, body] of writes) {
    const json = {"content-type": "application/json"};
    await note(`write ${url}`, () => answer(url, {method: "POST", headers: json, body}));
    await note(`write text ${url}`, () => answer(url, {method: "POST", body}));
    await note(`write opaque ${url}`, () => answer(url, {method: "POST", mode: "no-cors", body}));
    await note(`beacon ${url}`, async () => { navigator.sendBeacon(base + url, body); return "sent"; });
    await note(`delete ${url}`, () => answer(url, {method: "DELETE"}));
  }
  await note("socket", () => new Promise((done) => {
    const socket = new WebSocket(base.replace("http", "ws") + "/threads/x/stream/events");
    socket.onopen = () => done("open");
    socket.onerror = () => done("failed");
  }));
  return seen;
}"""


class Asked(Brief):
    """Counts the questions that reach the model."""

    def __init__(self) -> None:
        super().__init__()
        self.questions = 0

    def stream(self, request: Request) -> Any:
        self.questions += 1
        return super().stream(request)


class _Page(BaseHTTPRequestHandler):
    """A page with nothing on it: the test runs its script in it."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>hostile</title><body>")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def hostile() -> Iterator[int]:
    """The port of the hostile page's server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        rules = "--host-resolver-rules=MAP *.example 127.0.0.1"
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", rules])
        yield made
        made.close()


def assert_nothing_passes(
    browser: Any, hostile: int, base: str, reads: list[str], writes: list[tuple[str, str]]
) -> None:
    """Try everything from all hostile pages. Fail if a reply can be read, or more than its failure."""
    port = base.rpartition(":")[2]
    for page_of in (f"http://evil.example:{hostile}", f"http://localhost:{hostile}"):
        page = browser.new_page()
        page.goto(page_of)
        seen = page.evaluate(TRIES, [base, reads, writes])
        page.close()
        for name, outcome in seen.items():
            # An opaque reply says nothing, and a beacon nothing either: whether it acted is asked afterwards.
            expected = {"write opaque": "opaque", "beacon": "sent"}
            allowed = {"failed", next((v for k, v in expected.items() if name.startswith(k)), "failed")}
            assert outcome in allowed, (page_of, name, outcome[:200])
    page = browser.new_page()
    rebound = f"http://evil.example:{port}"
    reply = page.goto(f"{rebound}{reads[0]}")
    assert reply.status == 421
    seen = page.evaluate(TRIES, [rebound, reads, writes])
    page.close()
    for name, outcome in seen.items():
        assert outcome in ("failed", "sent", "opaque") or outcome.startswith("421 "), (name, outcome[:200])


def test_the_openai_server(browser: Any, hostile: int) -> None:
    asked = Asked()
    chat = json.dumps({"model": "brief", "messages": [{"role": "user", "content": "?"}]})
    with serving(build_app(ServedModel(asked, RequestPictures(), "brief"))) as url:
        base = url.removesuffix("/v1")
        assert_nothing_passes(
            browser, hostile, base, ["/v1/models", "/health"], [("/v1/chat/completions", chat)]
        )
        assert asked.questions == 0
        assert httpx.post(f"{url}/chat/completions", json=json.loads(chat)).status_code == 200
        assert asked.questions == 1


def test_the_web_page(browser: Any, hostile: int, tmp_path: Path) -> None:
    config, runs = runs_in(tmp_path, Scripted(*SCRIPT))
    sample = CatalogVideo("sample", clip_in(tmp_path), "Which?", ("a", "b"))
    site = Site({"mine": config}, VideoCatalog(tmp_path / "uploads", [sample]), runs)
    join = json.dumps({"data": [], "fn_index": 0, "session_hash": "s"})
    with served(site) as address:
        base = address.rstrip("/")
        reads = [f"/clips/{sample.key}", "/config", "/gradio_api/startup-events"]
        assert_nothing_passes(
            browser, hostile, base, reads, [("/gradio_api/queue/join", join), ("/gradio_api/upload", "x")]
        )
        assert runs.running == {}
        # A link from elsewhere opens the page itself, and the page plays its own videos.
        page = browser.new_page()
        page.goto(f"http://localhost:{hostile}")
        with page.expect_navigation():
            page.evaluate(f"location.href = '{base}/theme.css'")
        own = page.evaluate(f"fetch('/clips/{sample.key}').then((reply) => reply.status)")
        page.close()
        assert own == 200


def test_the_langgraph_server(
    browser: Any, hostile: int, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    clip_in(tmp_path)
    with langgraph_server(tmp_path_factory.mktemp("server"), tmp_path) as base:
        call = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
        writes = [("/threads", "{}"), ("/mcp", call), ("/assistants/search", "{}")]
        assert_nothing_passes(browser, hostile, base, ["/info", "/docs", "/openapi.json"], writes)
        assert httpx.post(f"{base}/threads/search", json={}).json() == []
