"""The web page: select or upload a video, ask, watch the chain of thought, open past runs, compare two.

Gradio draws the controls and carries the updates; `act2see.trace.page` draws the traces. The page loads
nothing from other hosts, and a content policy in every response makes the browser enforce this. Requests name
videos and runs by key, never by path. `door` refuses all other requests that Gradio would answer.

There are no accounts: anyone who can reach the address can ask questions and see all runs. So by default the
server listens on this machine only, and accepts only requests under this machine's names.
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
from act2see.serve.heads import bounded_http
from act2see.serve.hosts import AllowedHosts, allowed_hosts
from act2see.serve.ui.catalog import VideoCatalog
from act2see.serve.ui.controls import Controls
from act2see.serve.ui.door import Door, InvalidRequests
from act2see.serve.ui.page import CLIPS, RUNS
from act2see.serve.ui.runs import Runs, error_line
from act2see.trace.page import stylesheet, trace_html

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

PORT = 7860
MAX_UPLOAD = 2_048  # MiB
# Gradio's page needs inline scripts, and `eval` to compile templates. All scripts come from this server.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


@dataclass(frozen=True, slots=True)
class Site:
    """The configurations, videos and runs of a page, and its limits."""

    configs: Mapping[str, Config]
    """The configurations by name. The first one is selected."""

    catalog: VideoCatalog
    runs: Runs

    max_upload: int = MAX_UPLOAD
    """The maximum size of an upload, in MiB."""

    hosts: Sequence[str] = ()
    """Allowed host names, in addition to those of this machine."""


def build_app(site: Site) -> FastAPI:
    """Return the page as an ASGI app. Call it in a running event loop: otherwise Gradio creates its own.

    Args:
        site: The contents of the page.

    Raises:
        ConfigError: One of the site's hosts is not a host name.
    """
    import gradio as gr
    from fastapi import FastAPI

    hosts = allowed_hosts(*site.hosts)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    _add_files(app, site)
    blocks = _draw_blocks(site)
    _mount_blocks(app, blocks, site.max_upload)
    mounted = [getattr(route, "app", None) for route in app.routes]
    gradio_app = next(m for m in mounted if m is not None and hasattr(m, "stop_event"))
    app.state.stop = gradio_app.stop_event
    # Gradio's app needs these, too: its own middleware would answer a failure without an id. The middleware
    # that is added last is the first to receive a request.
    gradio_app.add_middleware(InvalidRequests)
    gradio_app.add_middleware(LogFailures)
    events = {}
    for id, event in blocks.fns.items():
        if event.fn:
            events[id] = [isinstance(control, gr.File) for control in event.inputs]
    app.add_middleware(Door, events=events)
    app.add_middleware(AllowedHosts, hosts=hosts)
    app.add_middleware(LogFailures)
    app.add_middleware(_Policy)
    return app


def _add_files(app: FastAPI, site: Site) -> None:
    """Add the routes of videos, traces and their pages."""
    from fastapi import HTTPException
    from fastapi.responses import FileResponse, HTMLResponse, Response

    @app.get(f"/{CLIPS}/{{key}}")
    def send_video(key: str) -> Response:
        video = site.catalog.videos().get(key)
        if video is None or not os.path.isfile(video.path):
            raise HTTPException(404, "this video does not exist")
        # Always send a video type: the browser must not open a file that is also an HTML page as a page.
        kind = mimetypes.guess_type(video.path)[0] or ""
        return FileResponse(video.path, media_type=kind if kind.startswith("video/") else "video/mp4")

    @app.get(f"/{RUNS}/{{id}}/trace.json")
    def send_trace(id: str) -> Response:
        try:
            return Response(site.runs.load(id).to_json() + "\n", media_type="application/json")
        except Act2SeeError as e:
            raise HTTPException(404, str(e)) from e

    @app.get(f"/{RUNS}/{{id}}/trace.html")
    def send_page(id: str) -> Response:
        try:
            return HTMLResponse(trace_html(site.runs.load(id), site.runs.frames(id)))
        except Act2SeeError as e:
            raise HTTPException(404, str(e)) from e


def _draw_blocks(site: Site) -> Any:
    """Return Gradio's part of the page, with all its controls."""
    import gradio as gr

    class Blocks(gr.Blocks):
        async def process_api(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            """Convert unexpected errors: Gradio would print them, and show their text as HTML."""
            try:
                return await super().process_api(*args, **kwargs)
            except gr.Error:
                raise
            except Exception as e:
                raise gr.Error(escape(error_line(e, "an event of the page")), print_exception=False) from e

    blocks = Blocks(title="Act2See", analytics_enabled=False)
    with blocks:
        Controls(site.configs, site.catalog, site.runs, site.max_upload).draw(blocks)
    # By default Gradio builds a pandas table of all events after each event, for a monitor that is disabled.
    blocks._queue.ANAYLTICS_CACHE_FREQUENCY = sys.maxsize
    return blocks


def _mount_blocks(app: FastAPI, blocks: Any, max_upload: int) -> None:
    """Mount Gradio's part of the page at `/`, with our style and script. `max_upload` is in MiB."""
    import gradio as gr

    own = files("act2see.serve.ui")
    css = stylesheet() + own.joinpath("ui.css").read_text(encoding="utf-8")
    script = own.joinpath("ui.js").read_text(encoding="utf-8")
    gr.mount_gradio_app(
        app,
        blocks,
        "/",
        theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        head=f"<style>{css}</style><script>{script}</script>",
        max_file_size=max_upload << 20,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        show_error=False,
    )
    # Gradio checks that a file was uploaded only if its own server was launched. The door has checked this.
    blocks.has_launched = True


class _Policy:
    """ASGI middleware that adds the content policy and related headers to every response."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        await self.app(scope, receive, with_policy if scope["type"] == "http" else send)


def listen(host: str, port: int | None) -> socket.socket:
    """Return a listening socket.

    Args:
        host: The address to listen on.
        port: The port; 0 for any free port, None for the first free port from 7860 to 7909.

    Raises:
        ConfigError: The port is taken or cannot be used, or no port in the range is free.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    ports = range(PORT, PORT + 50) if port is None else [port]
    for candidate in ports:
        try:
            return socket.create_server((host, candidate), family=family)
        except (OSError, OverflowError) as e:
            number = getattr(e, "errno", None)
            why = os.strerror(number) if number and number > 0 else str(e)  # `strerror` repeats the address
    address = f"{host}:{port}" if port is not None else f"{host}, ports {PORT} to {PORT + 49}"
    raise ConfigError(f"cannot listen on {address} ({why}): choose another address with --port or --host")


async def serve(
    site: Site, listening: socket.socket, ready: Callable[[str], None] = lambda url: None
) -> None:
    """Serve the page until the process receives a stop signal.

    Args:
        site: The contents of the page.
        listening: A listening socket.
        ready: Called with the address of the page before it is served.
    """
    server = _server(site)
    ready(_address(listening))
    await server.serve(sockets=[listening])


@contextmanager
def served(site: Site) -> Iterator[str]:
    """Serve the page in a thread, on a free port of this machine, in a `with` block. Yield the address."""
    created: Future[uvicorn.Server] = Future()

    async def main() -> None:
        try:
            created.set_result(_server(site))
        except BaseException as e:
            created.set_exception(e)
            return
        await created.result().serve(sockets=[listening])

    with listen("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=asyncio.run, args=(main(),), name="act2see-ui")
        thread.start()
        try:
            created.result()
            yield _address(listening)
        finally:
            if created.exception() is None:
                created.result().should_exit = True
            thread.join()


def _server(site: Site) -> uvicorn.Server:
    import uvicorn

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # An open page holds two connections: one until Gradio's stop event, one while it follows a run.
            await site.runs.close()
            app.state.stop.set()
            await super().shutdown(sockets)

    app = build_app(site)
    return Server(
        uvicorn.Config(app, http=bounded_http(), log_level="warning", ws="none", timeout_graceful_shutdown=5)
    )


def _address(listening: socket.socket) -> str:
    """Return the URL by which this machine reaches the socket."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    in_url = f"[{host}]" if ":" in host else host
    return f"http://{in_url}:{port}/"
