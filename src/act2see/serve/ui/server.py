"""The web page: pick or upload a clip, ask, watch the chain come about, open past runs, compare two.

Gradio draws the controls and carries the updates; traces are drawn by `act2see.trace.page`. The page needs
nothing from elsewhere and may fetch nothing from elsewhere: a content policy on every answer says so to the
browser. The server knows videos and runs by key, never by a path from the browser; `ui_door` keeps everything
else that Gradio would answer outside.

Whoever reaches the address may ask and see all runs: there are no accounts. So it listens on this machine
alone, and answers to this machine's names alone, unless it is told otherwise.
"""

from __future__ import annotations

import asyncio
import mimetypes
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from act2see.errors import Act2SeeError, ConfigError
from act2see.graphs.config import Config
from act2see.serve.failures import LogFailures
from act2see.serve.hosts import AllowedHosts, allowed_hosts
from act2see.serve.ui.controls import Controls
from act2see.serve.ui.door import Door, Inside
from act2see.serve.ui.page import CLIPS, RUNS
from act2see.serve.ui.runs import Runs, error_line
from act2see.serve.ui.shelf import VideoCatalog
from act2see.trace.page import stylesheet, trace_html

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

PORT = 7860
MAX_UPLOAD = 2_048  # MiB
# Gradio's page is built by scripts in it and by templates that it compiles; what matters is that all comes
# from here.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


@dataclass(frozen=True, slots=True)
class Site:
    """What the page offers: configurations by name (the first is selected), videos, runs.

    `hosts` are names that it answers to, besides those of this machine.
    """

    configs: Mapping[str, Config]
    shelf: VideoCatalog
    runs: Runs
    max_upload: int = MAX_UPLOAD
    hosts: Sequence[str] = ()


def build_app(site: Site) -> FastAPI:
    """The page as an ASGI app. Call it in a running event loop: Gradio makes loops of its own otherwise.

    Raises:
        ConfigError: One of the site's hosts is no host name.
    """
    import gradio as gr
    from fastapi import FastAPI, HTTPException
    from fastapi.responses import FileResponse, HTMLResponse, Response

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get(f"/{CLIPS}/{{key}}")
    def clip(key: str) -> Response:
        found = site.shelf.clips().get(key)
        if found is None or not os.path.isfile(found.path):
            raise HTTPException(404, "there is no such video")
        # Whatever a name ends in, the browser is told that it is a video: a page that is also one must not be
        # opened as a page.
        kind = mimetypes.guess_type(found.path)[0] or ""
        return FileResponse(found.path, media_type=kind if kind.startswith("video/") else "video/mp4")

    @app.get(f"/{RUNS}/{{id}}/trace.json")
    def trace(id: str) -> Response:
        try:
            return Response(site.runs.load(id).to_json() + "\n", media_type="application/json")
        except Act2SeeError as e:
            raise HTTPException(404, str(e)) from e

    @app.get(f"/{RUNS}/{{id}}/trace.html")
    def page(id: str) -> Response:
        try:
            return HTMLResponse(trace_html(site.runs.load(id), site.runs.frames(id)))
        except Act2SeeError as e:
            raise HTTPException(404, str(e)) from e

    class Blocks(gr.Blocks):
        async def process_api(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            """Where a handler has no place of its own for an error: Gradio would print it, and show its text
            as HTML."""
            try:
                return await super().process_api(*args, **kwargs)
            except gr.Error:
                raise
            except Exception as e:
                raise gr.Error(escape(error_line(e, "an event of the page")), print_exception=False) from e

    hosts = allowed_hosts(*site.hosts)
    blocks = Blocks(title="Act2See", analytics_enabled=False)
    with blocks:
        Controls(site.configs, site.shelf, site.runs, site.max_upload).draw(blocks)
    # After every event Gradio would make a table, with pandas, of all events so far, for a monitor that is
    # off.
    blocks._queue.ANAYLTICS_CACHE_FREQUENCY = sys.maxsize
    own = files("act2see.serve.ui")
    css = stylesheet() + own.joinpath("ui.css").read_text(encoding="utf-8")
    script = own.joinpath("ui.js").read_text(encoding="utf-8")
    gr.mount_gradio_app(
        app,
        blocks,
        "/",
        theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        head=f"<style>{css}</style><script>{script}</script>",
        max_file_size=site.max_upload << 20,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        show_error=False,
    )
    # Gradio checks that a file was uploaded only where its own server was launched. The door has checked it
    # before.
    blocks.has_launched = True
    mounted = [getattr(route, "app", None) for route in app.routes]
    gradio_app = next(m for m in mounted if m is not None and hasattr(m, "stop_event"))
    app.state.stop = gradio_app.stop_event
    # In Gradio's app too, whose own middleware would answer a failure without an id. The last one added is
    # the first to see a request.
    gradio_app.add_middleware(Inside)
    gradio_app.add_middleware(LogFailures)
    events = {
        id: [isinstance(control, gr.File) for control in event.inputs]
        for id, event in blocks.fns.items()
        if event.fn
    }
    app.add_middleware(Door, events=events)
    app.add_middleware(AllowedHosts, hosts=hosts)
    app.add_middleware(LogFailures)
    app.add_middleware(_Policy)
    return app


class _Policy:
    """Adds the headers to every answer."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        await self.app(scope, receive, with_policy if scope["type"] == "http" else send)


def listen(host: str, port: int | None) -> socket.socket:
    """A socket for the server; without a port the first free one from 7860 on. Raises `ConfigError` where
    there is none."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in range(PORT, PORT + 50) if port is None else [port]:
        try:
            return socket.create_server((host, candidate), family=family)
        except (OSError, OverflowError) as e:
            why = getattr(e, "strerror", None) or str(e)
    what = f"{host}:{port}" if port is not None else f"{host}, ports {PORT} to {PORT + 49},"
    raise ConfigError(f"{what} cannot be listened on ({why}): name another with --port, or --host")


async def serve(
    site: Site, listening: socket.socket, ready: Callable[[str], None] = lambda url: None
) -> None:
    """Serve the page until the process is told to stop. `ready` is given its address."""
    server = _server(site)
    ready(_address(listening))
    await server.serve(sockets=[listening])


@contextmanager
def served(site: Site) -> Iterator[str]:
    """Serve the page from a thread of its own, on a free port of this machine, while the block lasts; gives
    its address."""
    made: Future[uvicorn.Server] = Future()

    async def main() -> None:
        try:
            made.set_result(_server(site))
        except BaseException as e:
            made.set_exception(e)
            return
        await made.result().serve(sockets=[listening])

    with listen("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=asyncio.run, args=(main(),), name="act2see-ui")
        thread.start()
        try:
            made.result()
            yield _address(listening)
        finally:
            if made.exception() is None:
                made.result().should_exit = True
            thread.join()


def _server(site: Site) -> uvicorn.Server:
    import uvicorn

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # A page that is open holds connections for ever: one until Gradio's stop event, one while a run
            # goes on.
            await site.runs.close()
            app.state.stop.set()
            await super().shutdown(sockets)

    app = build_app(site)
    return Server(uvicorn.Config(app, log_level="warning", ws="none", timeout_graceful_shutdown=5))


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}/"
