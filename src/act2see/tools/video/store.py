"""The frame store: pictures, found by a hash of their pixels.

Traces and checkpoints hold `FrameRef`s; the pixels are here, as lossless PNG, in a local folder or at any
fsspec URL (`s3://bucket/frames`, `memory://frames`). The same picture is stored once, whoever puts it there.
Pictures are written beside their place and renamed into it, so threads and processes may share a store and a
killed one leaves no half picture; what is read is checked against its hash. Recently used pixels stay in
memory, up to a number of bytes.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from act2see.errors import StoreError
from act2see.tools.frames import FrameRef, Initial, Provenance
from act2see.tools.runtime.forks import Lock, natively, renew_after_fork

Pixels = NDArray[np.uint8]  # (height, width, 3)
FrameSource = Callable[[FrameRef], Pixels]
Kind = Literal["JPEG", "PNG"]
_DIGEST = re.compile(r"[0-9a-f]{32}")  # 128 bits; nothing else may become part of a path
_COMPRESSION = 1  # PNG: a quarter of the default's time for a seventh more bytes


def default_cache() -> Path:
    """Where frames and indexes are kept, absolute: ACT2SEE_CACHE, else act2see in XDG_CACHE_HOME, else
    ~/.cache/act2see."""
    if chosen := os.environ.get("ACT2SEE_CACHE"):
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).absolute() if base else Path.home() / ".cache") / "act2see"


def frame_digest(pixels: Pixels) -> str:
    """The name of a picture: blake2b-128, in hex, of its height, width and pixels."""
    height, width, _ = pixels.shape
    digest = hashlib.blake2b(f"{height}x{width}:".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


class FrameStore:
    """Pictures by digest. Thread-safe; `location` is a folder or an fsspec URL (default: `frames` in the
    cache)."""

    def __init__(
        self, location: str | os.PathLike[str] | None = None, *, memory_bytes: int = 64 << 20
    ) -> None:
        where = os.fspath(location) if location is not None else str(default_cache() / "frames")
        self._remote: Any = None
        if "://" in where and not where.startswith("file://"):
            self._remote, self.location = _remote(where)
        else:
            # Absolute, so that it stays the same store when the working folder changes.
            self.location = where = os.path.abspath(os.path.expanduser(where.removeprefix("file://")))
        self.url = where
        self._memory: OrderedDict[str, Pixels] = OrderedDict()
        self._bytes, self._most = 0, memory_bytes
        self._lock = Lock()
        renew_after_fork(self)

    def renew(self) -> None:
        """In a forked child: connections of its own."""
        if self._remote is not None:
            self._remote, self.location = _remote(self.url)

    def __repr__(self) -> str:
        return f"FrameStore({self.url!r})"

    def put(self, pixels: Pixels) -> str:
        """Store `(height, width, 3)` uint8 RGB; returns the digest. Raises `StoreError` where it cannot be
        written."""
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
            raise ValueError(f"a picture is (height, width, 3) uint8, not {pixels.shape} {pixels.dtype}")
        digest = frame_digest(pixels)
        if not self._has(digest):
            self._write(digest, _png(pixels))
        self._remember(digest, pixels)
        return digest

    def get(self, digest: str) -> Pixels:
        """The picture, `(height, width, 3)` uint8 RGB, read-only. Raises `StoreError` where it is missing or
        damaged."""
        path = self.path(digest)
        with self._lock:
            if digest in self._memory:
                self._memory.move_to_end(digest)
                return self._memory[digest]
        try:
            pixels = _pixels(self._read(path))
        except FileNotFoundError as e:
            raise StoreError(
                f"frame {digest} is not in {self.url}: was the trace made with another store, or the store cleared?"
            ) from e
        except OSError as e:  # Pillow's error for what is no picture is an OSError as well
            raise StoreError(
                f"frame {digest} in {self.url} cannot be read ({e.strerror or e}): delete {path} and ask again"
            ) from e
        if frame_digest(pixels) != digest:
            raise StoreError(f"frame {digest} in {self.url} is damaged: delete {path} and ask again")
        return self._remember(digest, pixels)

    def ref(self, pixels: Pixels, seconds: float, provenance: Provenance | None = None) -> FrameRef:
        """Store a picture and refer to it: `seconds` in the video, `provenance` initial unless said
        otherwise."""
        height, width, _ = pixels.shape
        return FrameRef(
            digest=self.put(pixels),
            width=width,
            height=height,
            seconds=seconds,
            provenance=provenance or Initial(),
        )

    def path(self, digest: str) -> str:
        """Where the PNG of a digest is, or would be: a file name, or a path in the URL's file system."""
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise StoreError(f"{digest!r} is no frame digest: it takes 32 hexadecimal digits")
        # By first byte, since file systems are slow with very many names in one folder.
        return f"{self.location}/{digest[:2]}/{digest}.png"

    def png(self, digest: str) -> bytes:
        """The picture as it is stored: a PNG file. Raises `StoreError` as `get` does."""
        self.get(digest)  # a damaged picture is not handed on
        return self._read(self.path(digest))

    def put_png(self, digest: str, png: bytes) -> bool:
        """Store a PNG file as it is; False, and nothing is stored, where it is not the picture of that
        digest."""
        if digest in self:
            return True
        try:
            pixels = _pixels(png)
        except (
            OSError,
            SyntaxError,
            ValueError,
        ):  # what Pillow raises for what is no PNG, and for a broken one
            return False
        if frame_digest(pixels) != digest:
            return False
        self._write(digest, png)
        self._remember(digest, pixels)
        return True

    def export(self, digest: str, dest: str | os.PathLike[str]) -> Path:
        """Write the PNG to a local file, whole or not at all; returns its path."""
        png, dest = self.png(digest), Path(dest)
        try:
            _write_file(dest, png)
        except OSError as e:
            raise StoreError(f"cannot write {dest}: {e.strerror or e}; choose another folder") from e
        return dest

    def __contains__(self, digest: object) -> bool:
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            return False
        with self._lock:
            held = digest in self._memory
        return held or self._has(digest)

    def _has(self, digest: str) -> bool:
        path = self.path(digest)
        return bool(self._remote.exists(path)) if self._remote else os.path.exists(path)

    def _read(self, path: str) -> bytes:
        if self._remote:
            return bytes(self._remote.cat_file(path))
        return Path(path).read_bytes()

    def _write(self, digest: str, png: bytes) -> None:
        path = self.path(digest)
        try:
            if self._remote:
                self._remote.makedirs(os.path.dirname(path), exist_ok=True)
                self._remote.pipe_file(path, png)
            else:
                _write_file(Path(path), png)
        except OSError as e:
            raise StoreError(
                f"cannot write frames to {self.url}: {e.strerror or e}; free some space, set ACT2SEE_CACHE to another folder, "
                "or name one as `store:` in the config"
            ) from e

    def _remember(self, digest: str, pixels: Pixels) -> Pixels:
        if pixels.flags.writeable or not pixels.flags.owndata:
            pixels = pixels.copy()  # the caller's array may change, or be a part of something large
        pixels.flags.writeable = False
        with self._lock:
            if digest not in self._memory and pixels.nbytes <= self._most:
                self._memory[digest] = pixels
                self._bytes += pixels.nbytes
                while self._bytes > self._most:
                    self._bytes -= self._memory.popitem(last=False)[1].nbytes
        return pixels


def _remote(url: str) -> tuple[Any, str]:
    import fsspec

    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as e:
        raise StoreError(f"the frame store {url} cannot be reached: {e}") from e
    return fs, path.rstrip("/")


def _write_file(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(
        f".{path.name}-{uuid4().hex}"
    )  # with the permissions of any new file, unlike tempfile's
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@natively
def _png(pixels: Pixels) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=_COMPRESSION)
    return out.getvalue()


@natively
def _pixels(png: bytes) -> Pixels:
    from PIL import Image

    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        return np.array(image.convert("RGB"))


def image_block(frame: FrameRef, source: FrameSource, kind: Kind = "JPEG") -> dict[str, str]:
    """A frame as LangChain's standard image block."""
    from PIL import Image

    out = io.BytesIO()
    # A fast compression is worth more than a small one.
    Image.fromarray(source(frame)).save(
        out, kind, **({"quality": 92} if kind == "JPEG" else {"compress_level": 1})
    )
    return {
        "type": "image",
        "base64": base64.b64encode(out.getvalue()).decode(),
        "mime_type": f"image/{kind.lower()}",
    }
