"""Host and origin checks of the servers, and the handling of unexpected errors."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from act2see.errors import ConfigError
from act2see.serve.failures import LogFailures, log_failure
from act2see.serve.hosts import AllowedHosts, allowed_hosts

PORT = 8000


async def hello(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/broken":
        raise KeyError("a secret of the server")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/broken-later":
        raise KeyError("a secret of the server")
    await send({"type": "http.response.body", "body": b"hello"})


def request(
    app: Any, *headers: tuple[str, str], path: str = "/", kind: str = "http", server: str = "127.0.0.1"
) -> tuple[int | None, Any]:
    """Return the status and content of the answer; for a WebSocket, None and its first message."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(k.lower().encode(), v.encode("latin-1")) for k, v in headers]
    scope = {"type": kind, "method": "POST", "path": path, "headers": raw, "server": (server, PORT)}
    asyncio.run(app(scope, None, send))
    if kind == "websocket":
        return None, sent[0]["type"]
    body = b"".join(m.get("body", b"") for m in sent)
    return sent[0]["status"], json.loads(body) if sent[0]["status"] != 200 else body


@pytest.mark.parametrize(
    ("host", "added", "server", "allowed"),
    [
        ("localhost:8000", (), "127.0.0.1", True),
        ("LOCALHOST.", (), "127.0.0.1", True),
        ("127.0.0.1:9999", (), "127.0.0.1", True),  # a forwarded port
        ("127.1.2.3", (), "127.0.0.1", True),
        ("[::1]:8000", (), "::1", True),
        ("evil.example", (), "127.0.0.1", False),
        ("evil.example:8000", (), "127.0.0.1", False),
        ("localhost.evil.example", (), "127.0.0.1", False),
        ("127.0.0.1.evil.example", (), "127.0.0.1", False),
        ("evil.example@localhost", (), "127.0.0.1", False),
        ("localhost,evil.example", (), "127.0.0.1", False),
        ("192.168.1.5", (), "127.0.0.1", False),
        ("192.168.1.5:8000", (), "192.168.1.5", True),
        ("192.168.1.5:8000", (), "::ffff:192.168.1.5", True),
        ("[fe80::1]:8000", (), "fe80:0::1", True),
        ("video.example.org", ("Video.Example.Org",), "10.0.0.1", True),
        ("video.example.org:443", ("other.example.org", "video.example.org"), "10.0.0.1", True),
        ("sub.video.example.org", ("video.example.org",), "10.0.0.1", False),
        ("0.0.0.0", ("0.0.0.0", "::", ""), "10.0.0.1", False),
        ("", (), "127.0.0.1", False),
        ("[::1", (), "127.0.0.1", False),
        ("\xe9", (), "127.0.0.1", False),
    ],
)
def test_hosts_that_are_not_allowed_are_refused(
    host: str, added: tuple[str, ...], server: str, allowed: bool
) -> None:
    app = AllowedHosts(hello, allowed_hosts(*added))
    status, said = request(app, ("host", host), server=server)
    assert status == (200 if allowed else 421)
    assert (
        request(app, ("host", host), kind="websocket", server=server)[1] == "websocket.close"
    ) is not allowed
    if not allowed:
        assert said["error"]["code"] == "host_not_allowed"
        assert "--allow-host" in said["error"]["message"]
        assert "ACT2SEE_HOSTS" in said["detail"]


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:8000", 200),
        ("http://127.0.0.1:8000", 200),
        ("https://video.example.org", 200),
        ("http://localhost:3000", 403),  # a page of another program
        ("http://localhost", 403),
        ("http://evil.example", 403),
        ("http://evil.example:8000", 403),
        ("http://video.example.org.evil.example", 403),
        ("null", 403),
        ("file://", 403),
        ("http://[", 403),
        ("", 403),
    ],
)
def test_foreign_origins_are_refused(origin: str, status: int) -> None:
    app = AllowedHosts(hello, allowed_hosts("video.example.org"))
    given, said = request(app, ("host", "localhost:8000"), ("origin", origin))
    assert given == status
    assert status == 200 or said["error"]["code"] == "origin_not_allowed"
    assert (
        request(app, ("host", "localhost:8000"), ("origin", "http://localhost:8000"), ("origin", origin))[0]
        == status
    )


@pytest.mark.parametrize(
    ("site", "mode", "dest", "status"),
    [
        ("cross-site", "no-cors", "image", 403),
        ("cross-site", "no-cors", "video", 403),
        ("cross-site", "no-cors", "script", 403),
        ("cross-site", "no-cors", "empty", 403),
        ("cross-site", "navigate", "iframe", 403),
        ("same-site", "no-cors", "image", 403),  # another port of this machine
        ("cross-site", "navigate", "document", 200),  # a link
        ("same-origin", "no-cors", "video", 200),
        ("none", "navigate", "document", 200),  # typed into the address bar
    ],
)
def test_pages_of_other_sites_embed_nothing(site: str, mode: str, dest: str, status: int) -> None:
    marks = ("sec-fetch-site", site), ("sec-fetch-mode", mode), ("sec-fetch-dest", dest)
    app = AllowedHosts(hello, allowed_hosts("video.example.org"))
    given, said = request(app, ("host", "localhost:8000"), *marks)
    assert given == status
    assert status == 200 or said["error"]["code"] == "site_not_allowed"
    allowed = ("origin", "https://video.example.org")
    assert request(app, ("host", "localhost:8000"), allowed, *marks)[0] == 200


def test_the_bound_address_allows_no_other_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACT2SEE_HOSTS", raising=False)
    for bound in ("127.0.0.1", "localhost", "0.0.0.0", "::", "::1", "192.168.1.5", ""):
        assert allowed_hosts(bound=bound) == set()
    app = AllowedHosts(hello, allowed_hosts(bound="box.lan"))
    assert request(app, ("host", "box.lan:8000"), ("origin", "http://box.lan:8000"))[0] == 200
    assert request(app, ("host", "box.lan"), ("origin", "https://box.lan"))[0] == 200
    assert request(app, ("host", "box.lan:8000"), ("origin", "http://localhost:3000"))[0] == 403


def test_requests_without_or_with_two_hosts_are_refused() -> None:
    assert request(AllowedHosts(hello))[0] == 421
    assert request(AllowedHosts(hello), ("host", "localhost"), ("host", "evil.example"))[0] == 421


def test_hosts_from_the_environment_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACT2SEE_HOSTS", " a.example ,b.example:443,, ::2,[::3]")
    assert allowed_hosts("c.example") == {"a.example", "b.example", "c.example", "::2", "::3"}
    for wrong in ("http://a.example/", "*", "*.example", "a b", "[x]"):
        with pytest.raises(ConfigError, match="is not a host name"):
            allowed_hosts(wrong)


def test_an_unexpected_error_is_a_500_with_a_log_id(caplog: pytest.LogCaptureFixture) -> None:
    status, said = request(LogFailures(hello), path="/broken")
    assert status == 500
    assert "secret" not in json.dumps(said)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info
    id = record.getMessage().partition("(error ")[2].rstrip(")")
    assert id
    assert id in said["error"]["message"]
    assert id in said["detail"]


def test_an_error_after_the_first_byte_is_logged_and_raised(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(KeyError):
        request(LogFailures(hello), path="/broken-later")
    assert "POST /broken-later failed (error " in caplog.text


def test_log_failure_escapes_newlines(caplog: pytest.LogCaptureFixture) -> None:
    log_failure("tool\nERROR forged \ud800", ValueError())
    assert caplog.records[0].getMessage().count("\n") == 0
