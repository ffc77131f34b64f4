"""What stands before the LangGraph server: `langgraph.json` names this app, and the server takes its
middleware as the outermost.

The server by itself lets any web page read everything (CORS `*`) and answers to any host. Here it answers to
the hosts of `serve/hosts.py`, and only pages of hosts in `ACT2SEE_HOSTS` may use it from a browser, LangSmith
Studio (smith.langchain.com) among them. An exception that nobody handled becomes a 500 with an id, under
which the log has its traceback.
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

# Headers of answers that the SDK reads in a browser.
_READ = ["x-pagination-total", "x-pagination-next", "content-location", "location", "mcp-session-id"]


class OuterHosts(AllowedHosts):
    """`AllowedHosts`, except for the server's calls to itself, which never leave the process and have a
    made-up host."""

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        # uvicorn sets the root path, not the client; the server's own authentication relies on it as well.
        if str(scope.get("root_path") or "").startswith("/noauth"):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def build_app() -> Starlette:
    """An app without routes, for its middleware. Raises `ConfigError` where `ACT2SEE_HOSTS` cannot be
    read."""
    hosts = allowed_hosts()
    middleware = [Middleware(OuterHosts, hosts)]
    if hosts:
        named = "|".join(re.escape(f"[{h}]" if ":" in h else h) for h in sorted(hosts))
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origin_regex=rf"https?://(?:{named})(?::\d+)?",
                allow_methods=["*"],
                allow_headers=["*"],
                allow_private_network=True,  # a page from the internet that reaches for 127.0.0.1 asks for it
                expose_headers=_READ,
            )
        )
    return Starlette(middleware=[*middleware, Middleware(LogFailures), Middleware(OwnSettings)])


app = build_app()
