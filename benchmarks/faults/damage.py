"""Files that change behind our back: those of the cache between two runs, and the video during one.

Files of the cache are cut, zeroed, emptied, deleted, get flipped bits, become folders or links, or get the
content of another. The video is replaced, cut, extended, deleted or written over at each event of a run.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.faults.scene import OTHERS, Looking, write_scene
from benchmarks.faults.trial import Fault, Place, Reached

_FLIPS = 12  # places at which bits of each file are flipped


def _cut(file: Path, rng: random.Random) -> None:
    os.truncate(file, rng.randrange(max(1, file.stat().st_size)))


def _empty(file: Path, rng: random.Random) -> None:
    file.write_bytes(b"")


def _zero(file: Path, rng: random.Random) -> None:
    data = bytearray(file.read_bytes())
    half = len(data) // 2
    data[half:] = bytes(len(data) - half)
    file.write_bytes(data)


def _flip(file: Path, rng: random.Random) -> None:
    data = bytearray(file.read_bytes())
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        file.write_bytes(data)


def _change_digit(file: Path, rng: random.Random) -> None:
    """Change a digit to another: the file stays valid text."""
    data = bytearray(file.read_bytes())
    digits = [i for i, byte in enumerate(data) if 48 <= byte <= 57]
    if digits:
        i = rng.choice(digits)
        data[i] = rng.choice([d for d in range(48, 58) if d != data[i]])
        file.write_bytes(data)


def _swap(file: Path, rng: random.Random) -> None:
    """Give the file the content of another one of its kind."""
    others = sorted(p for p in file.parents[1].rglob(f"*{file.suffix}") if p != file and p.is_file())
    if others:
        shutil.copyfile(rng.choice(others), file)


def _delete(file: Path, rng: random.Random) -> None:
    file.unlink()


def _to_folder(file: Path, rng: random.Random) -> None:
    file.unlink()
    file.mkdir()


def _to_broken_link(file: Path, rng: random.Random) -> None:
    file.unlink()
    file.symlink_to("nowhere")


_DAMAGES: dict[str, tuple[Callable[[Path, random.Random], None], int]] = {
    "cut": (_cut, 2),
    "empty": (_empty, 1),
    "half zeroed": (_zero, 1),
    "bit flip": (_flip, _FLIPS),
    "digit": (_change_digit, 6),
    "other content": (_swap, 1),
    "deleted": (_delete, 1),
    "folder": (_to_folder, 1),
    "broken link": (_to_broken_link, 1),
}
"""What happens to a file, and how many times it is tried."""


def damage_faults(cache: Path) -> Iterator[Fault]:
    """Yield faults of each file of a cache. Those of pictures that are not shown are left out."""
    names = [str(file.relative_to(cache)) for file in sorted(cache.rglob("*")) if file.is_file()]
    for name in names:
        digit = name.endswith(".json")
        for kind, (damage, times) in _DAMAGES.items():
            if kind == "digit" and not digit:
                continue
            # A file without its parts has as many places, but most files of the cache are pictures.
            for n in range(1 if name.endswith(".png") else times * (4 if digit and times > 1 else 1)):
                inject = partial(_damaged, name=name, damage=damage, seed=f"{name} {kind} {n}")
                yield Fault("store", kind, f"{name} {n + 1}", inject, warm=True)
    for kind in ("cache deleted", "pictures deleted", "indexes deleted", "videos deleted"):
        inject = partial(_without, part=kind.split()[0])
        yield Fault("store", kind, "before a second run", inject, warm=True)


@contextmanager
def _damaged(
    place: Place, reached: Reached, name: str, damage: Callable[[Path, random.Random], None], seed: str
) -> Iterator[None]:
    damage(place.cache / name, random.Random(seed))
    reached()
    try:
        yield
    finally:
        if (place.cache / name).is_dir():  # a person removes what is in the way
            shutil.rmtree(place.cache / name)


@contextmanager
def _without(place: Place, reached: Reached, part: str) -> Iterator[None]:
    folder = {"pictures": "frames", "indexes": "indexes", "videos": "videos"}.get(part, "")
    shutil.rmtree(place.cache / folder)
    reached()
    yield


def _replace_by_other(video: Path) -> None:
    write_scene(video.with_name("new.mp4"), OTHERS[0])
    os.replace(video.with_name("new.mp4"), video)


def _write_over(video: Path) -> None:
    """Write another clip into the same file, and give it its old time."""
    stat = video.stat()
    other = write_scene(video.with_name("new.mp4"), OTHERS[1])
    with open(video, "r+b") as file:
        file.write(other.read_bytes())
        file.truncate()
    os.utime(video, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def _truncate(video: Path) -> None:
    os.truncate(video, video.stat().st_size // 2)


def _append(video: Path) -> None:
    with open(video, "ab") as file:
        file.write(bytes(5000))


def _unlink(video: Path) -> None:
    video.unlink()


def _make_folder(video: Path) -> None:
    video.unlink()
    video.mkdir()


def _forbid(video: Path) -> None:
    """Replace the file by one of text, as servers do that send an error page."""
    video.write_text("<html>503 Service Unavailable</html>")


_CHANGES: dict[str, Callable[[Path], None]] = {
    "replaced": _replace_by_other,
    "written over": _write_over,
    "cut": _truncate,
    "appended": _append,
    "deleted": _unlink,
    "folder": _make_folder,
    "error page": _forbid,
}


def video_faults() -> Iterator[Fault]:
    """Yield changes of the video at moments of a run: before it, at each reading, and at each turn."""
    for kind, change in _CHANGES.items():
        for moment, times in (("open_video", 4), ("identify", 12), ("turn", 3)):
            for at in range(1, times + 1):
                yield Fault(
                    "video", kind, f"{moment} {at}", partial(_changed, change=change, moment=moment, at=at)
                )


@contextmanager
def _changed(
    place: Place, reached: Reached, change: Callable[[Path], None], moment: str, at: int
) -> Iterator[None]:
    from act2see.tools.video import library, watch

    original = place.video.with_name("original.mp4")
    shutil.copy2(place.video, original)
    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            reached()
            change(place.video)

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            count()
            return real(*arguments, **options)

        return call

    owner: Any
    if moment == "turn":
        owner, name = Looking, "stream"
    else:
        owner, name = {"open_video": (library, "open_video"), "identify": (watch, "identify")}[moment]
    try:
        with patch.object(owner, name, counted(getattr(owner, name))):
            yield
    finally:
        if place.video.is_dir():
            place.video.rmdir()
        shutil.copy2(original, place.video.with_name("back.mp4"))
        os.replace(place.video.with_name("back.mp4"), place.video)
