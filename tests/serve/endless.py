"""A client whose request has headers without end, or lines without end after its body."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

ENDLESS = 16 << 20  # bytes, far more than a server and the system's buffers hold
BEGINNINGS = (
    b"GET / HTTP/1.1\r\nhost: localhost\r\n",
    b"GET / HTTP/1.1\r\nhost: localhost\r\nx: ",
    b"GET /",
    b"POST /none HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n",
)
"""Where the lines are added: to the headers, to one header, to the path, and after a body in chunks."""


def assert_heads_are_bounded(url: str) -> None:
    """Send endless heads. Each must be answered with 431 at the most, and the connection closed."""
    address = urlsplit(url)
    for beginning in BEGINNINGS:
        line = b"a:b\r\n" if beginning.endswith(b"\n") else b"a"
        block = line * (10_000 // len(line))
        answer, sent = b"", 0
        with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=30) as made:
            try:
                made.sendall(beginning)
                while sent < ENDLESS:
                    made.sendall(block)
                    sent += len(block)
                while part := made.recv(65536):
                    answer += part
            except (ConnectionResetError, BrokenPipeError):
                pass  # the connection was closed before all was sent
        assert sent < ENDLESS, beginning
        assert not answer or answer.split()[1] in (b"431", b"404", b"405", b"400"), answer
    head = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n" + b"a:b\r\n" * 12_500 + b"\r\n"
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=30) as made:
        made.sendall(head)
        assert made.recv(65536).split()[1] in (b"200", b"404")  # a large one is answered
