"""Host and origin checks, which protect a local server from web pages in the user's browser.

A page in a browser can send requests to 127.0.0.1. It cannot choose two headers of these requests:

- `Host` names the server that the browser connects to. If an attacker points a DNS name at this machine
  ("DNS rebinding"), the page may read all answers, but its requests carry the attacker's name as host.
- `Origin` names the page that sent the request. Every cross-site POST and WebSocket carries it.

A request is answered only if its host is on a list: this machine's loopback names, the address that the
connection came in on, and the names that the operator added with `--allow-host` or `ACT2SEE_HOSTS`. If the
request has an origin, the origin must be this server itself (same port, allowed host) or a host that the
operator added.

A page can also embed an address as a picture, a video, a script or a frame, and learn from it whether it
exists, how large it is and how long. Such requests have no origin, but browsers mark them in
`Sec-Fetch-Site`. Of another site's requests without an origin, only links are answered, which open as a page
of their own.
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
_ANY = frozenset({"", "0.0.0.0", "::"})  # addresses that mean "listen on all interfaces"
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^\s:/?#@\[\]\\,]+)(?::(?P<port>[0-9]{0,5}))?", re.IGNORECASE)
_MAX_SHOWN = 100  # characters of a refused name in a message


def allowed_hosts(*hosts: str, bound: str = "") -> frozenset[str]:
    """Return the given hosts and those of `ACT2SEE_HOSTS`, normalized for comparison with requests.

    Args:
        hosts: Names or addresses, such as `video.example.org` or `192.168.1.5`. Addresses that mean "all
            interfaces" are left out.
        bound: The host that the server listens on. It is added if it is a DNS name. A loopback name or an
            address is not added: each connection carries its address, and adding a host would allow pages
            from all its ports.

    Raises:
        ConfigError: One of the hosts is not a host name.
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
                f"{host!r} is not a host name: write names such as video.example.org "
                f"in --allow-host or {VARIABLE}"
            )
        names.add(parsed[0])
    own = parse_host(bound)
    if own and own[0] != "localhost" and not _is_address(own[0]):
        names.add(own[0])
    return frozenset(names)


class AllowedHosts:
    """ASGI middleware that refuses requests for other hosts (421) and from pages of other hosts (403).

    It refuses WebSockets by the same rules. Loopback names, and the address that a connection came in on, are
    always allowed.

    Args:
        app: The protected app.
        hosts: The result of `allowed_hosts`.
    """

    def __init__(self, app: Any, hosts: frozenset[str] = frozenset()) -> None:
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        refusal = self._refusal(scope) if scope["type"] in ("http", "websocket") else None
        if refusal is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            # Servers answer with a plain 403, because the handshake is not accepted yet.
            await send({"type": "websocket.close", "code": 1008, "reason": "host or origin not allowed"})
        else:
            status, code, message = refusal
            error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
            await send_json(send, status, error, message)

    def _refusal(self, scope: MutableMapping[str, Any]) -> tuple[int, str, str] | None:
        """Return the status, code and message of a refusal, or None if the request is allowed."""
        hosts = _header(scope, b"host")
        host = parse_host(hosts[0]) if len(hosts) == 1 else None
        if host is None or not (host[0] in self.hosts or _is_own(host[0], scope)):
            named = _shown(", ".join(hosts) or "(none)")
            return 421, "host_not_allowed", f"the host {named} is not allowed: {_remedy(host)}"
        for given in _header(scope, b"origin"):
            origin = parse_origin(given)
            if not self._origin_allowed(origin, host, scope):
                message = f"pages from {_shown(given)} are not allowed: {_remedy(origin)}"
                return 403, "origin_not_allowed", message
        if _is_embedded(scope):
            message = "pages of other sites may not embed this address: open it as a page of its own"
            return 403, "site_not_allowed", message
        return None

    def _origin_allowed(
        self, origin: tuple[str, str] | None, host: tuple[str, str], scope: MutableMapping[str, Any]
    ) -> bool:
        """Return whether an origin is this server itself, or a host that the operator added."""
        if origin is None:
            return False
        same_port = origin[1] == host[1]
        own = origin == host or (same_port and _is_own(origin[0], scope))
        return own or origin[0] in self.hosts


def parse_host(host: str) -> tuple[str, str] | None:
    """Split a host into its name, in lower case, and its port or "". Return None for anything else.

    The brackets of an IPv6 address are removed.
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
    """Return the host and port of an origin. Return None for "null" and anything that is not a web page."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    return parse_host(parts.netloc) if parts.scheme in ("http", "https") else None


def _is_embedded(scope: MutableMapping[str, Any]) -> bool:
    """Return whether a page of another site embeds the address, by the marks that browsers set.

    A page on another port of this machine counts as "same-site". A request with an origin was checked by it.
    """
    site = _header(scope, b"sec-fetch-site")
    if not {"cross-site", "same-site"} & set(site) or _header(scope, b"origin"):
        return False
    is_link = _header(scope, b"sec-fetch-mode") == ["navigate"] and _header(scope, b"sec-fetch-dest") == [
        "document"
    ]
    return not is_link


def _is_own(name: str, scope: MutableMapping[str, Any]) -> bool:
    """Return whether `name` is a loopback name, or the address that the connection came in on.

    ASGI servers read that address from the socket.
    """
    if name == "localhost":
        return True
    server = scope.get("server") or ("",)
    own = str(server[0]).removeprefix("::ffff:")  # of an IPv4 connection on a dual-stack socket
    try:
        address = ip_address(name)
        return address.is_loopback or address == ip_address(own)
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
    """Return how the operator can allow a host. The host is named if its name is valid and short."""
    name = host[0] if host and len(host[0]) <= _MAX_SHOWN else "HOST"
    return f"to allow it, start the server with --allow-host {name} or {VARIABLE}={name}"
