"""Download a video: only over HTTP, only up to a size, and only once for each address.

`urllib` alone would also follow a redirect to FTP and open local files; the opener here knows HTTP and HTTPS,
and nothing else. The file is written beside its place and renamed into it.
"""

from __future__ import annotations

import hashlib
import http.client
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib import request
from urllib.error import HTTPError
from uuid import uuid4

from act2see.errors import VideoError

LARGEST = 2 << 30
_SECONDS = 30.0  # without a byte
_CHUNK = 1 << 20


def download(
    url: str, folder: Path, *, largest: int = LARGEST, stop: Callable[[], bool] = lambda: False
) -> Path:
    """Download the file of an address into `folder`, unless it is there.

    Args:
        stop: Asked after each MiB; once it returns true, the download is given up.

    Raises:
        VideoError: It cannot be had, is larger than `largest` bytes, or was given up.
    """
    path = folder / (hashlib.blake2b(url.encode("utf-8", "replace"), digest_size=16).hexdigest() + ".video")
    if path.exists():
        return path
    temporary = path.with_name(f".{path.name}-{uuid4().hex}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _opener().open(url, timeout=_SECONDS) as response, open(temporary, "wb") as file:
            got = 0
            while block := response.read(_CHUNK):
                got += len(block)
                if got > largest:
                    raise VideoError(
                        f"{url} is larger than {largest} bytes: download it yourself, into a folder that may be opened"
                    )
                if stop():
                    raise VideoError(f"the download of {url} was given up: nobody waits for it any more")
                file.write(block)
        temporary.replace(path)
    except (OSError, http.client.HTTPException, ValueError) as e:
        if isinstance(e, HTTPError):
            e.close()  # it holds the connection
        why = " ".join(str(getattr(e, "reason", "") or e).split())
        raise VideoError(f"{url} cannot be downloaded ({why}): check the address") from e
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path


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
