"""The names that a server answers to: protection from web pages that call servers of one's own machine.

A page in a browser can send requests to 127.0.0.1. Two headers that a page cannot choose reveal it:

- `Host` is the server that the browser believes it is talking to. A page whose DNS name was pointed at this
  machine ("DNS rebinding") may read all answers, but its requests carry its own name as host.
- `Origin` is the page that a request comes from, on every cross-site POST and WebSocket.

So a request is answered only if its host is on a list: this machine's loopback names, the address that the
connection came in on, and the names that the operator added by `--allow-host` or `ACT2SEE_HOSTS`. If it has
an origin, that must be this server itself (the same port of such a host) or a host that the operator added.
"""

from __future__ import annotations

import os
import re
from collections.abc import MutableMapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from act2see.errors import ConfigError
from act2see.serve.failures import send_json

VARIABLE = "ACT2SEE_HOSTS"
_ANY = frozenset({"", "0.0.0.0", "::"})  # addresses to listen on, which name no host
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^\s:/?#@\[\]\\,]+)(?::(?P<port>[0-9]{0,5}))?", re.IGNORECASE)
_MAX_SHOWN = 100  # characters of a refused name


def allowed_hosts(*hosts: str, bound: str = "") -> frozenset[str]:
    """The hosts of `ACT2SEE_HOSTS` and the given ones, in the form in which requests are compared with them.

    Args:
        hosts: Names or addresses, such as `video.example.org` or `192.168.1.5`. The addresses that mean "any"
            are left out.
        bound: The host that the server listens on. A name is added. A loopback name or an address is not:
            every connection says which it is, and pages at other ports of an added host may use the server.

    Raises:
        ConfigError: One of them is not a host name.
    """
    listed = [host.strip() for host in os.environ.get(VARIABLE, "").split(",")]
    names = set()
    for host in (*hosts, *listed):
        if host in _ANY:
            continue
        bare_ipv6 = host.count(":") > 1 and not host.startswith("[")
        parsed = parse_host(f"[{host}]" if bare_ipv6 else host)
        if parsed is None or "*" in parsed[0]:
            raise ConfigError(
                f"{host!r} is no host name: name each host alone, such as video.example.org, "
                f"in --allow-host or {VARIABLE}"
            )
        names.add(parsed[0])
    own = parse_host(bound)
    if own and own[0] != "localhost" and not _is_address(own[0]):
        names.add(own[0])
    return frozenset(names)


class AllowedHosts:
    """ASGI middleware: refuses requests for other hosts (421) and from pages of other hosts (403).

    WebSockets are refused alike. Loopback names, and the address that a connection came in on, are always
    allowed.

    Args:
        hosts: The result of `allowed_hosts`.
    """

    def __init__(self, app: Any, hosts: frozenset[str] = frozenset()) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        refusal = self._refusal(scope) if scope["type"] in ("http", "websocket") else None
        if refusal is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            # Before the handshake is accepted, servers turn this into a plain 403.
            await send({"type": "websocket.close", "code": 1008, "reason": "host or origin not allowed"})
        else:
            status, code, message = refusal
            error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
            await send_json(send, status, error, message)

    def _refusal(self, scope: MutableMapping[str, Any]) -> tuple[int, str, str] | None:
        """Status, code and message if the request is refused."""
        hosts = _header(scope, b"host")
        host = parse_host(hosts[0]) if len(hosts) == 1 else None
        if host is None or not (host[0] in self.hosts or _is_own(host[0], scope)):
            named = _shown(", ".join(hosts) or "(none)")
            message = f"this server does not answer to the host {named}: start it with {_remedy(host)}"
            return 421, "host_not_allowed", message
        for given in _header(scope, b"origin"):
            origin = parse_origin(given)
            if not self._origin_allowed(origin, host, scope):
                why = f"this server does not answer to pages of {_shown(given)}"
                return 403, "origin_not_allowed", f"{why}: start it with {_remedy(origin)}"
        return None

    def _origin_allowed(
        self, origin: tuple[str, str] | None, host: tuple[str, str], scope: MutableMapping[str, Any]
    ) -> bool:
        """Whether an origin is this server itself, or a host that the operator added."""
        if origin is None:
            return False
        same_port = origin[1] == host[1]
        own = origin == host or (same_port and _is_own(origin[0], scope))
        return own or origin[0] in self.hosts


def parse_host(host: str) -> tuple[str, str] | None:
    """Split a host into its name, in lower case, and its port or "". None if it is not a host.

    An IPv6 address loses its brackets.
    """
    found = _HOST.fullmatch(host.strip())
    if not found:
        return None
    name, port = found["name"].lower().rstrip("."), found["port"] or ""
    if name.startswith("["):
        try:
            name = str(ip_address(name[1:-1]))
        except ValueError:
            return None
    return (name, port) if name else None


def parse_origin(origin: str) -> tuple[str, str] | None:
    """Host and port of a page's origin; None for "null" and for anything that is not a web page."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    return parse_host(parts.netloc) if parts.scheme in ("http", "https") else None


def _is_own(name: str, scope: MutableMapping[str, Any]) -> bool:
    """Whether it is a loopback name, or the address that the connection came in on.

    The server knows that address from its socket.
    """
    if name == "localhost":
        return True
    try:
        address, own = ip_address(name), str((scope.get("server") or ("",))[0])
        return address.is_loopback or address == ip_address(own.removeprefix("::ffff:"))
    except ValueError:
        return False


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _header(scope: MutableMapping[str, Any], name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]


def _shown(text: str) -> str:
    return repr(text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}...")


def _remedy(host: tuple[str, str] | None) -> str:
    """The option and the variable that would allow a host, with its name if it can be copied."""
    name = host[0] if host and len(host[0]) <= _MAX_SHOWN else "HOST"
    return f"--allow-host {name}, or with {VARIABLE}={name} in its environment, if it should"
