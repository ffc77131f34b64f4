"""The identity of a video file: its digest, and whether it is still the file that had this digest.

A digest covers every byte. A file is hashed again only if its inode, size, time of change or time of status
change (ctime) differ. The ctime cannot be set, so `cp -p`, `touch -r` and a link to another file are noticed.
Clocks of file systems are coarse: a file that changed just now may change again within the same tick, so its
identity is not trusted yet.

The digest of a large file is also kept in the cache. Otherwise each process would read all of the file.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from act2see.errors import VideoError
from act2see.tools.runtime.files import replacing_file

log = logging.getLogger(__name__)
FRAMES = 4
"""Raise this when a fix changes which frame comes at a time, or its pixels: what was cached is wrong then."""

_LARGE = 64 << 20  # bytes: digests of larger files are kept
_CHUNK = 1 << 20
_TRIES = 3  # at a digest of a file that is being written
_TICK, _COARSE_TICK = 100_000_000, 2_000_000_000  # nanoseconds; some file systems count whole seconds
_PACKAGES = {"pyav": ("av",), "decord": ("decord2", "decord")}


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What a file system says about a file. Equal identities that are not recent mean equal content."""

    device: int
    inode: int
    size: int
    modified: int
    """Nanoseconds. A program can set it."""
    changed: int
    """Nanoseconds of the last change of content, name or permissions. No program can set it."""
    recent: bool = field(compare=False)
    """Whether it changed so recently that a second change may have left the same times."""

    @property
    def content(self) -> tuple[int, int, int, int]:
        """The part that a change of name or permissions does not affect."""
        return self.device, self.inode, self.size, self.modified


def identify(file: str | int) -> FileIdentity:
    """Return the identity of a path, whose links are followed, or of an open file. Raises `OSError`."""
    now = time.time_ns()
    stat = os.stat(file)
    latest = max(stat.st_ctime_ns, stat.st_mtime_ns)
    tick = _TICK if stat.st_ctime_ns % 1_000_000_000 else _COARSE_TICK
    # A time in the future, of a server whose clock is ahead, is never old enough.
    recent = now - latest < tick if latest <= now else now - stat.st_ctime_ns < tick
    return FileIdentity(
        stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, recent=recent
    )


def content_digest(path: str, part: str, cache: Path | None) -> str:
    """Return the hash of a file and of a part of it, as 32 hexadecimal digits.

    Args:
        path: The file.
        part: The fragment of the part; empty for the whole file.
        cache: The folder of the cache, for digests of large files.

    Raises:
        OSError: The file cannot be read.
        VideoError: It is being written.
    """
    identity = identify(path)
    if identity.size <= _LARGE:
        return _hash(path, part)
    # Parts of a large file share one pass over its bytes.
    whole = _large_digest(os.path.abspath(path), identity, object() if identity.recent else None, cache)
    return hashlib.blake2b(f"{whole}{part}".encode(), digest_size=16).hexdigest() if part else whole


@lru_cache(64)
def _large_digest(path: str, identity: FileIdentity, once: object, cache: Path | None) -> str:
    """Return the digest of a large file. `once` is unique if the result must not be used again."""
    key = repr((path, identity.content, identity.changed))
    name = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    kept = cache / "videos" / "digests" / name if cache else None
    if kept and not identity.recent:
        try:
            digest, check = kept.read_text().split()
            if check == _check(key, digest):
                return digest
        except (OSError, ValueError):
            pass  # not there, or damaged
    log.info("reading all of %s for its digest", path)
    digest = _hash(path, "")
    if kept and identify(path) == identity and not identity.recent:
        try:
            with replacing_file(kept) as new:
                new.write_text(f"{digest} {_check(key, digest)}")
        except OSError as e:
            log.warning("the digest of %s cannot be kept: %s", path, e.strerror)
    return digest


def sampled_digest(path: str, part: str) -> str | None:
    """Return the digest that act2see 0.1.0 gave a large file, by which its traces name the video.

    It is of the size and 64 of the MiB. Different files can share it, so it only finds the videos of earlier
    traces. Returns None for a small file, whose digest is as it was.

    Raises:
        OSError: The file cannot be read.
    """
    size = os.path.getsize(path)
    if size <= _LARGE:
        return None
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    with open(path, "rb") as file:
        for n in range(64):
            file.seek((size - _CHUNK) * n // 63)
            digest.update(file.read(_CHUNK))
    digest.update(part.encode())
    return digest.hexdigest()


def _check(key: str, digest: str) -> str:
    return hashlib.blake2b(f"{key} {digest}".encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def _hash(path: str, part: str) -> str:
    """Hash a file as one state of it: if it changes meanwhile, begin again."""
    for _ in range(_TRIES):
        digest = hashlib.blake2b(digest_size=16)
        with open(path, "rb", buffering=0) as file:
            before = identify(file.fileno())
            while block := file.read(_CHUNK):
                digest.update(block)
            if identify(file.fileno()) == before:
                digest.update(part.encode())
                return digest.hexdigest()
    raise VideoError(f"{path} is being written: ask again when it is complete")


def decoding(decoder: str) -> str:
    """Return the name of a way of decoding, for the keys of what is cached: `4-pyav18.1.0`.

    It has the package's version, since wheels contain their own FFmpeg, and `FRAMES`.
    """
    for package in _PACKAGES[decoder]:
        try:
            return f"{FRAMES}-{decoder}{version(package)}"
        except PackageNotFoundError:
            continue
    return f"{FRAMES}-{decoder}"
