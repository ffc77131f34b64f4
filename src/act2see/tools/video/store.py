"""The frame store: pictures, found by a hash of their pixels.

Traces and checkpoints contain `FrameRef`s. The store contains the pixels, as lossless PNG files, in a local
folder or at any fsspec URL (`s3://bucket/frames`, `memory://frames`). Each picture is stored once. Local
files are written atomically, so threads and processes may share a store, and a killed process leaves no
incomplete picture. Every picture read is checked against its hash; a damaged one is replaced the next time it
is put. Recently used pixels stay in memory, up to a limit.

A store does not depend on videos. It is itself a `FrameSource`.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from act2see.errors import StoreError
from act2see.tools.frames import FrameRef, Initial, Provenance
from act2see.tools.runtime.files import read_file, replacing_file
from act2see.tools.runtime.forks import Lock, natively, renew_after_fork
from act2see.tools.runtime.picture_files import MAX_BYTES, PictureError, decode_picture
from act2see.tools.runtime.text import quote_text
from act2see.tools.video.uses import OpenMark, use_file

Pixels = NDArray[np.uint8]
"""`(height, width, 3)`, RGB."""
FrameSource = Callable[[FrameRef], Pixels]
"""Returns the pixels of a frame. A `FrameStore` is one."""
Kind = Literal["JPEG", "PNG"]
_DIGEST = re.compile(r"[0-9a-f]{32}")  # 128 bits; a digest becomes part of a path, so it is checked
_COMPRESSION = 1  # of PNG: a quarter of the default's time, for a seventh more bytes


def default_cache() -> Path:
    """Return the absolute path of the folder for frames and indexes.

    It is ACT2SEE_CACHE, else `act2see` in XDG_CACHE_HOME, else `~/.cache/act2see`.
    """
    if chosen := os.environ.get("ACT2SEE_CACHE"):
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    parent = Path(base).absolute() if base else Path.home() / ".cache"
    return parent / "act2see"


def frame_digest(pixels: Pixels) -> str:
    """Return the digest of a picture: BLAKE2b of its height, width and pixels, as 32 hexadecimal digits."""
    height, width, _ = pixels.shape
    digest = hashlib.blake2b(f"{height}x{width}:".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


class FrameStore:
    """Pictures by digest. Thread-safe.

    Args:
        location: A folder or an fsspec URL; by default `frames` in the cache.
        memory_bytes: The largest size of the pixels that stay in memory.

    Raises:
        StoreError: fsspec has no file system for the URL.
    """

    def __init__(
        self, location: str | os.PathLike[str] | None = None, *, memory_bytes: int = 64 << 20
    ) -> None:
        where = os.fspath(location) if location is not None else str(default_cache() / "frames")
        self._remote: Any = None
        if "://" in where and not where.startswith("file://"):
            self._remote, self.location = _remote(where)
        else:
            # Absolute, so that a change of the working folder has no effect.
            self.location = where = os.path.abspath(os.path.expanduser(where.removeprefix("file://")))
        self.url = where
        self._mark = OpenMark(self.location)
        self._memory: LRUCache[str, Pixels] = LRUCache(memory_bytes, getsizeof=lambda pixels: pixels.nbytes)
        self._lock = Lock()
        renew_after_fork(self)

    def renew(self) -> None:
        """In a forked child, open new connections."""
        if self._remote is not None:
            self._remote, self.location = _remote(self.url)

    def __repr__(self) -> str:
        return f"FrameStore({self.url!r})"

    def __call__(self, frame: FrameRef) -> Pixels:
        """Return the pixels of a frame. Raises `StoreError` as `get` does."""
        return self.get(frame.digest)

    def put(self, pixels: Pixels, *, durable: bool = True) -> str:
        """Store `(height, width, 3)` uint8 RGB and return its digest.

        Args:
            pixels: The picture.
            durable: Wait until the file is on disk. False is for pictures that can be decoded again.

        Raises:
            StoreError: The store cannot be written.
            ValueError: The array has another shape or type.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
            raise ValueError(f"a picture is (height, width, 3) uint8, not {pixels.shape} {pixels.dtype}")
        digest = frame_digest(pixels)
        if not self.intact(digest):
            self._write(digest, encode_png(pixels), durable)
        self._remember(digest, pixels)
        return digest

    def get(self, digest: str) -> Pixels:
        """Return a picture, `(height, width, 3)` uint8 RGB, read-only.

        Raises:
            StoreError: The picture is missing or damaged.
        """
        path = self.path(digest)
        with self._lock:
            cached = self._memory.get(digest)
        if cached is not None:
            return cached
        try:
            pixels = _decode_png(self._read(path))
        except FileNotFoundError as e:
            raise StoreError(
                f"frame {digest} is not in {self.url}: was the trace made with another store, "
                "or the store cleared?"
            ) from e
        except (OSError, PictureError) as e:
            why = getattr(e, "strerror", None) or e
            raise StoreError(
                f"frame {digest} in {self.url} cannot be read ({why}): delete {path} and ask again"
            ) from e
        if frame_digest(pixels) != digest:
            raise StoreError(f"frame {digest} in {self.url} is damaged: delete {path} and ask again")
        self._use(path)
        return self._remember(digest, pixels)

    def ref(self, pixels: Pixels, seconds: float, provenance: Provenance | None = None) -> FrameRef:
        """Store a picture and return a reference to it.

        Args:
            pixels: `(height, width, 3)` uint8 RGB.
            seconds: Time of the picture in the video.
            provenance: Provenance of the picture; by default that of an initial frame.

        Raises:
            StoreError: The store cannot be written.
        """
        height, width, _ = pixels.shape
        return FrameRef(
            digest=self.put(pixels),
            width=width,
            height=height,
            seconds=seconds,
            provenance=provenance or Initial(),
        )

    def path(self, digest: str) -> str:
        """Return the path of a picture's PNG file, which need not exist.

        Returns:
            A local path, or a path in the URL's file system.

        Raises:
            StoreError: `digest` is not a frame digest.
        """
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            shown = quote_text(repr(digest))
            raise StoreError(f"{shown} is not a frame digest: a digest is 32 hexadecimal digits")
        # One folder per first byte, because file systems are slow with very many files in one folder.
        return f"{self.location}/{digest[:2]}/{digest}.png"

    def png(self, frame: FrameRef | str) -> bytes:
        """Return the stored PNG file of a frame or digest. Raises `StoreError` as `get` does."""
        digest = frame.digest if isinstance(frame, FrameRef) else frame
        pixels = self.get(digest)  # raises an error for a damaged picture
        try:
            return self._read(self.path(digest))
        except OSError:  # the store was cleared, but the picture is in memory
            return encode_png(pixels)

    def intact(self, digest: str) -> bool:
        """Return whether the store has a picture that can be read.

        A remote file is not read for this: such stores write files whole.

        Raises:
            StoreError: `digest` is not a frame digest.
        """
        path = self.path(digest)
        if self._remote:
            return self._has(digest)
        with self._lock:
            known = digest in self._memory
        if known:  # it was checked, but the store may have been cleared since
            return self._use(path)
        try:
            pixels = _decode_png(self._read(path))
        except (OSError, PictureError):
            return False
        if frame_digest(pixels) != digest or not self._use(path):
            return False
        self._remember(digest, pixels)
        return True

    def put_png(self, digest: str, png: bytes) -> bool:
        """Store a PNG file unchanged, if it is the picture of a digest.

        Returns:
            Whether it is that picture, and so is in the store now.

        Raises:
            StoreError: The store cannot be written.
        """
        if self.intact(digest):
            return True
        try:
            pixels = _decode_png(png)
        except PictureError:
            return False
        if frame_digest(pixels) != digest:
            return False
        self._write(digest, png)
        self._remember(digest, pixels)
        return True

    def export(self, digest: str, dest: str | os.PathLike[str]) -> Path:
        """Write a picture's PNG to a local file, atomically, and return its path.

        Raises:
            StoreError: The frame is missing or damaged, or `dest` cannot be written.
        """
        png, path = self.png(digest), Path(dest)
        try:
            with replacing_file(path) as new:
                new.write_bytes(png)
        except OSError as e:
            raise StoreError(f"cannot write {path}: {e.strerror or e}; choose another folder") from e
        return path

    def __contains__(self, digest: object) -> bool:
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            return False
        with self._lock:
            cached = digest in self._memory
        return cached or self._has(digest)

    def _use(self, path: str) -> bool:
        """Say that a picture is in use. Return whether its file is still there."""
        if self._remote:
            return bool(self._remote.exists(path))
        self._mark.make()
        return use_file(path)

    def _has(self, digest: str) -> bool:
        path = self.path(digest)
        return bool(self._remote.exists(path)) if self._remote else os.path.exists(path)

    def _read(self, path: str) -> bytes:
        if self._remote:
            return bytes(self._remote.cat_file(path))
        return read_file(path, MAX_BYTES)

    def _write(self, digest: str, png: bytes, durable: bool = True) -> None:
        path = self.path(digest)
        try:
            if self._remote:
                self._remote.makedirs(os.path.dirname(path), exist_ok=True)
                self._remote.pipe_file(path, png)
            else:
                with replacing_file(Path(path), durable=durable) as new:
                    new.write_bytes(png)
                self._mark.make()
        except OSError as e:
            raise StoreError(
                f"cannot write frames to {self.url}: {e.strerror or e}; free some space, set ACT2SEE_CACHE "
                "to another folder, or name one as `store:` in the config"
            ) from e

    def _remember(self, digest: str, pixels: Pixels) -> Pixels:
        """Return the picture as a read-only array, and keep it in memory if it fits."""
        if pixels.flags.writeable or not pixels.flags.owndata:
            pixels = pixels.copy()  # the caller could change it, or it could keep a larger array alive
        pixels.flags.writeable = False
        with self._lock:
            if digest not in self._memory and pixels.nbytes <= self._memory.maxsize:
                self._memory[digest] = pixels
        return pixels


def _remote(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path in it."""
    import fsspec

    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as e:
        raise StoreError(f"the frame store {url} cannot be reached: {e}") from e
    return fs, path.rstrip("/")


@natively
def encode_png(pixels: Pixels) -> bytes:
    """Encode `(height, width, 3)` uint8 RGB as a PNG file, with little compression for speed."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=_COMPRESSION)
    return out.getvalue()


@natively
def _decode_png(png: bytes) -> Pixels:
    with decode_picture(png) as image:
        return np.array(image.convert("RGB"))


@natively
def _encode_jpeg(pixels: Pixels) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=92)
    return out.getvalue()


def frame_png(frame: FrameRef, source: FrameSource) -> bytes:
    """Return a frame as a PNG file: the stored file if `source` is a store, else a new one.

    Raises the errors of `source`.
    """
    return source.png(frame) if isinstance(source, FrameStore) else encode_png(source(frame))


def image_block(frame: FrameRef, source: FrameSource, kind: Kind = "JPEG") -> dict[str, str]:
    """Return a frame as LangChain's standard image block. Raises the errors of `source`."""
    data = frame_png(frame, source) if kind == "PNG" else _encode_jpeg(source(frame))
    return {
        "type": "image",
        "base64": base64.b64encode(data).decode(),
        "mime_type": f"image/{kind.lower()}",
    }
