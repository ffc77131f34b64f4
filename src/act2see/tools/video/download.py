"""Download a video: only over HTTP or HTTPS, only up to a size, and only once for each address.

`urllib` by default also opens local files and follows redirects to FTP, so the opener here has only handlers
for HTTP and HTTPS.
"""

from __future__ import annotations

import hashlib
import http.client
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib import request
from urllib.error import HTTPError

from act2see.errors import VideoError
from act2see.tools.runtime.files import replacing_file
from act2see.tools.runtime.text import format_bytes

LARGEST = 2 << 30  # bytes
_TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 20


def download(
    url: str, folder: Path, *, largest: int = LARGEST, stop: Callable[[], bool] = lambda: False
) -> Path:
    """Download a file into a folder, unless it is there already.

    Args:
        url: The address of the file.
        folder: The folder for the file, which is named by a hash of the address.
        largest: The largest size, in bytes.
        stop: Called after each MiB. When it returns true, the download stops.

    Returns:
        The path of the file.

    Raises:
        VideoError: The file cannot be downloaded, is too large, or the download was stopped.
    """
    name = hashlib.blake2b(url.encode("utf-8", "replace"), digest_size=16).hexdigest()
    path = folder / f"{name}.video"
    if path.exists():
        return path
    try:
        with (
            replacing_file(path) as new,
            _opener().open(url, timeout=_TIMEOUT) as response,
            open(new, "wb") as file,
        ):
            _copy(response, file, url, largest, stop)
    except (OSError, http.client.HTTPException, ValueError) as e:
        if isinstance(e, HTTPError):
            e.close()  # it holds the connection
        why = " ".join(str(getattr(e, "reason", "") or e).split())
        raise VideoError(f"{url} cannot be downloaded ({why}): check the address") from e
    return path


def _copy(response: Any, file: IO[bytes], url: str, largest: int, stop: Callable[[], bool]) -> None:
    size = 0
    while block := response.read(_CHUNK):
        size += len(block)
        if size > largest:
            raise VideoError(
                f"{url} is larger than {format_bytes(largest, binary=True)}: "
                "download it yourself, into a folder that may be opened"
            )
        if stop():
            raise VideoError(f"the download of {url} was stopped: the request was cancelled")
        file.write(block)


def _opener() -> request.OpenerDirector:
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler,
        request.HTTPHandler,
        request.HTTPSHandler,
        request.HTTPRedirectHandler,
        request.HTTPDefaultErrorHandler,
        request.HTTPErrorProcessor,
        request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener
