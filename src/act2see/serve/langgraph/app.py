"""The outermost middleware of the LangGraph server; `langgraph.json` names this app.

The server by itself lets any web page read everything (CORS `*`) and answers to any host. Here it answers to
the hosts of `serve/hosts.py`, and only pages of hosts in `ACT2SEE_HOSTS` may use it from a browser, LangSmith
Studio (smith.langchain.com) included. An unhandled exception becomes a 500 with an id, under which the log
has its traceback.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from act2see.serve.failures import LogFailures
from act2see.serve.hosts import AllowedHosts, allowed_hosts
from act2see.serve.langgraph.settings import OwnSettings

# Headers of responses that the SDK reads in a browser.
_EXPOSED = ["x-pagination-total", "x-pagination-next", "content-location", "location", "mcp-session-id"]


class OuterHosts(AllowedHosts):
    """`AllowedHosts`, except for the server's calls to itself.

    Those never leave the process, and have a made-up host.
    """

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        # uvicorn sets the root path, not the client. The server's own authentication relies on it as well.
        if str(scope.get("root_path") or "").startswith("/noauth"):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def build_app() -> Starlette:
    """An app without routes, for its middleware.

    Raises:
        ConfigError: `ACT2SEE_HOSTS` cannot be read.
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
                allow_private_network=True,  # for pages of the internet that call 127.0.0.1
                expose_headers=_EXPOSED,
            )
        )
    return Starlette(middleware=[*middleware, Middleware(LogFailures), Middleware(OwnSettings)])


app = build_app()
