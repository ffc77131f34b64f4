"""The outermost middleware of the LangGraph server. `langgraph.json` names this app.

By default the LangGraph server lets any web page read everything (CORS `*`) and answers requests for any
host. This middleware admits only the hosts of `serve/hosts.py`. In a browser, only pages of hosts in
`ACT2SEE_HOSTS` may use the server; this applies to LangSmith Studio (smith.langchain.com), too. An unhandled
exception becomes a 500 with an id, and its traceback is logged under that id. Heads of requests are bounded.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from act2see.serve.failures import LogFailures
from act2see.serve.hosts import AllowedHosts, allowed_hosts
from act2see.serve.langgraph.repairs import repair_server
from act2see.serve.langgraph.settings import OwnSettings

# Response headers that the SDK reads in a browser.
_EXPOSED = ["x-pagination-total", "x-pagination-next", "content-location", "location", "mcp-session-id"]


class OuterHosts(AllowedHosts):
    """`AllowedHosts` that lets the server's calls to itself pass.

    These calls stay in the process, and their host is invented.
    """

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        # A client cannot set the root path. The server's own authentication relies on it, too.
        if str(scope.get("root_path") or "").startswith("/noauth"):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def build_app() -> Starlette:
    """Return an app that consists of middleware only.

    Raises:
        ConfigError: `ACT2SEE_HOSTS` contains something that is not a host name.
    """
    hosts = allowed_hosts()
    middleware = [Middleware(OuterHosts, hosts)]
    if hosts:
        in_urls = [f"[{host}]" if ":" in host else host for host in sorted(hosts)]
        named = "|".join(map(re.escape, in_urls))
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origin_regex=rf"https?://(?:{named})(?::\d+)?",
                allow_methods=["*"],
                allow_headers=["*"],
                allow_private_network=True,  # lets allowed pages on the internet call 127.0.0.1
                expose_headers=_EXPOSED,
            )
        )
    return Starlette(
        middleware=[*middleware, Middleware(LogFailures), Middleware(OwnSettings)], lifespan=_repaired
    )


@asynccontextmanager
async def _repaired(app: Starlette) -> AsyncIterator[None]:
    """Change the server's process before it listens."""
    repair_server()
    yield


app = build_app()
