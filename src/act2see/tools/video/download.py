"""Download a video: only over HTTP or HTTPS, only up to a size, and only once for each address.

`urllib` by default also opens local files and follows redirects to FTP, so the opener here has only handlers
for HTTP and HTTPS.

A server that sends a byte now and then is never silent, so a download has a limit of time as a whole. When it
is over, the connection is shut down, wherever the download waits.
"""

from __future__ import annotations

import hashlib
import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from urllib import request
from urllib.error import HTTPError

from act2see.errors import VideoError
from act2see.tools.runtime.files import replacing_file
from act2see.tools.runtime.text import format_bytes

LARGEST = 2 << 30  # bytes
LONGEST = 1800.0  # seconds
_TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 20


def download(
    url: str,
    folder: Path,
    *,
    largest: int = LARGEST,
    longest: float = LONGEST,
    stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Download a file into a folder, unless it is there already.

    Args:
        url: The address of the file.
        folder: The folder for the file, which is named by a hash of the address.
        largest: The largest size, in bytes.
        longest: The longest time, in seconds.
        stop: Called after each block. When it returns true, the download stops.

    Returns:
        The path of the file.

    Raises:
        VideoError: The file cannot be downloaded, is too large, takes too long or ends too early, or the
            download was stopped.
    """
    name = hashlib.blake2b(url.encode("utf-8", "replace"), digest_size=16).hexdigest()
    path = folder / f"{name}.video"
    if path.exists():
        return path
    connection = _Connection()
    try:
        with replacing_file(path) as new, connection.closed_after(longest):
            try:
                with _opener(connection).open(url, timeout=_TIMEOUT) as response, open(new, "wb") as file:
                    _copy(response, file, url, largest, stop)
            finally:
                # A connection that was shut down looks like one that broke, or like the end of the file.
                if connection.is_over:
                    raise VideoError(
                        f"the download of {url} took longer than {longest:g} s: "
                        "download it yourself, into a folder that may be opened"
                    )
    except (OSError, http.client.HTTPException, ValueError) as e:
        if isinstance(e, HTTPError):
            e.close()  # it holds the connection
        why = " ".join(str(getattr(e, "reason", "") or e).split())
        raise VideoError(f"{url} cannot be downloaded ({why}): check the address") from e
    return path


def _copy(response: Any, file: IO[bytes], url: str, largest: int, stop: Callable[[], bool]) -> None:
    size = 0
    announced = response.headers.get("content-length", "")
    # `read` would wait for a whole block, and neither the size nor `stop` would be looked at meanwhile.
    while block := response.read1(_CHUNK):
        size += len(block)
        if size > largest:
            raise VideoError(
                f"{url} is larger than {format_bytes(largest, binary=True)}: "
                "download it yourself, into a folder that may be opened"
            )
        if stop():
            raise VideoError(f"the download of {url} was stopped: the request was cancelled")
        file.write(block)
    if announced.isdecimal() and size < int(announced[:20]):
        raise VideoError(f"the download of {url} ended after {size:,} of {announced} bytes: try again")


class _Connection:
    """The sockets of a download, which another thread can shut down."""

    def __init__(self) -> None:
        self.is_over = False
        """Whether the time was over."""
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()

    def add(self, opened: socket.socket) -> None:
        with self._lock:
            self._sockets.append(opened)
        if self.is_over:
            self._shut_down()

    @contextmanager
    def closed_after(self, seconds: float) -> Iterator[None]:
        timer = threading.Timer(seconds, self._end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _end(self) -> None:
        self.is_over = True
        self._shut_down()

    def _shut_down(self) -> None:
        with self._lock:
            for opened in self._sockets:
                with suppress(OSError):  # it is closed already
                    opened.shutdown(socket.SHUT_RDWR)


def _opener(connection: _Connection) -> request.OpenerDirector:
    class Plain(http.client.HTTPConnection):
        def connect(self) -> None:
            super().connect()
            connection.add(self.sock)

    class Secure(http.client.HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            connection.add(self.sock)

    class PlainHandler(request.HTTPHandler):
        def http_open(self, req: request.Request) -> http.client.HTTPResponse:
            return self.do_open(Plain, req)

    class SecureHandler(request.HTTPSHandler):
        def https_open(self, req: request.Request) -> http.client.HTTPResponse:
            return self.do_open(Secure, req, context=ssl.create_default_context())

    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler,
        PlainHandler,
        SecureHandler,
        request.HTTPRedirectHandler,
        request.HTTPDefaultErrorHandler,
        request.HTTPErrorProcessor,
        request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener
