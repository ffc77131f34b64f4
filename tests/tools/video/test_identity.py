"""The identity of a file: every byte counts, and a replaced file is noticed whatever its times say."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.tools.videos import number, write_video

from act2see.errors import VideoError
from act2see.tools.video import identity
from act2see.tools.video.identity import FileIdentity, identify
from act2see.tools.video.library import VideoLibrary
from act2see.tools.video.reader import open_video, video_digest
from act2see.tools.video.store import FrameStore
from act2see.tools.video.window import Window

TIMES = [n / 10 for n in range(20)]


def library_in(cache: Path) -> VideoLibrary:
    return VideoLibrary(cache, FrameStore(cache / "frames"), 128)


def shown(library: VideoLibrary, video: Path, frame: int = 0) -> int:
    """Return the number that a frame of a video shows."""
    [ref] = library.pictures(str(video), [frame])
    return number(library.store.get(ref.digest))


@pytest.fixture
def twins(tmp_path: Path) -> tuple[Path, Path]:
    """Two videos of one size and one time of change: their first frames show 0, and 5 in the other."""
    a = write_video(tmp_path / "a.mp4", TIMES)
    b = write_video(tmp_path / "b.mp4", TIMES, first=5)
    size = max(a.stat().st_size, b.stat().st_size)
    for path in (a, b):
        with path.open("ab") as file:
            file.truncate(size)
        os.utime(path, ns=(10**18, 10**18))
    return a, b


def copy_over(a: Path, b: Path) -> None:
    """Do as `cp -p` does: the content and the times."""
    shutil.copyfile(b, a)
    shutil.copystat(b, a)


def retarget(a: Path, b: Path) -> None:
    a.unlink()
    a.symlink_to(b)


def rename_over(a: Path, b: Path) -> None:
    b.replace(a)


@pytest.mark.parametrize("replace", [copy_over, retarget, rename_over])
def test_a_replaced_file_is_read_again(
    twins: tuple[Path, Path], tmp_path: Path, replace: Callable[[Path, Path], None]
) -> None:
    a, b = twins
    library = library_in(tmp_path / "cache")
    assert shown(library, a) == 0
    before = library.probe(a).info.digest
    replace(a, b)
    [(_, _, pixels)] = open_video(a).read([0])
    assert number(pixels) == 5
    assert shown(library, a) == 5
    assert library.probe(a).info.digest == video_digest(a) != before


def test_an_identity_is_trusted_when_the_clock_has_moved_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_text("a")
    changed = path.stat().st_ctime_ns
    for later, recent in ((0, True), (10**6, True), (3 * 10**9, False), (-(10**12), True)):
        monkeypatch.setattr(identity.time, "time_ns", lambda later=later: changed + later)
        assert identify(str(path)).recent is recent


def test_every_byte_of_a_large_file_counts(tmp_path: Path) -> None:
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    for path, byte in ((a, b"x"), (b, b"y")):
        with path.open("wb") as file:  # sparse
            file.truncate(70 << 20)
            file.seek(33_500_000)
            file.write(byte)
    assert video_digest(a) != video_digest(b)


def test_a_large_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its parts nor another process read it again, until it changes."""
    monkeypatch.setattr(identity, "_LARGE", 10)
    path, cache = tmp_path / "large.mp4", tmp_path / "cache"
    path.write_bytes(b"some content")
    whole = video_digest(path)
    monkeypatch.setattr(identity, "identify", settled(identify))
    read = count_reads(monkeypatch)
    parts = [video_digest(Window(str(path), n, n + 10), cache) for n in range(3)]
    assert len({whole, *parts}) == 4
    assert video_digest(path, cache) == whole
    assert len(read) == 1
    identity._large_digest.cache_clear()  # as in another process
    assert video_digest(path, cache) == whole
    assert len(read) == 1
    [kept] = (cache / "videos" / "digests").iterdir()
    kept.write_text("0" * 32 + " " + "0" * 16)  # damaged
    identity._large_digest.cache_clear()
    assert video_digest(path, cache) == whole
    path.write_bytes(b"other content")
    assert video_digest(path, cache) != whole
    assert len(read) == 3


def settled(real: Callable[[str | int], FileIdentity]) -> Callable[[str | int], FileIdentity]:
    """Return `identify` for a file that last changed long ago."""

    def identify_later(file: str | int) -> FileIdentity:
        one = real(file)
        return FileIdentity(one.device, one.inode, one.size, one.modified, one.changed, recent=False)

    return identify_later


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    read: list[str] = []
    real = identity._hash

    def hash_counted(path: str, part: str) -> str:
        read.append(path)
        return real(path, part)

    monkeypatch.setattr(identity, "_hash", hash_counted)
    return read


def test_a_file_that_is_being_written_has_no_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "growing.mp4"
    path.write_bytes(b"x")
    real = identity.identify

    def identify_and_grow(file: str | int) -> FileIdentity:
        with path.open("ab") as more:
            more.write(b"x")
        return real(file)

    monkeypatch.setattr(identity, "identify", identify_and_grow)
    with pytest.raises(VideoError, match="is being written: ask again when it is complete"):
        video_digest(path)


def test_a_change_of_name_or_permissions_is_none_of_content(twins: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = twins
    library = library_in(tmp_path / "cache")
    watch = library.watch(str(a))
    a.chmod(0o600)
    os.link(a, tmp_path / "other name.mp4")
    watch.check()
    copy_over(a, b)
    with pytest.raises(VideoError, match=r"a\.mp4 changed while it was read: ask again"):
        watch.check()
    with pytest.raises(VideoError, match="changed"):
        library.watch(str(a), watch.digest)


def test_a_file_replaced_while_its_pictures_are_taken(twins: tuple[Path, Path], tmp_path: Path) -> None:
    """Nothing of the other content is kept under the digest of the first."""
    a, b = twins
    library = library_in(tmp_path / "cache")
    old = library.probe(a).info.digest
    frames = library.decode(str(a), [0, 10], None, old)
    next(frames)
    first = a.read_bytes()
    copy_over(a, b)
    with pytest.raises(VideoError, match="changed while it was read"):
        list(frames)
    with pytest.raises(VideoError, match="changed while it was read"):
        library.keep(str(a), {0: "0" * 32}, old)
    a.write_bytes(first)
    assert library.probe(a).info.digest == old
    assert library.probe(a).taken == {}


def test_what_another_version_decoded_is_decoded_again(
    twins: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = library_in(tmp_path / "cache")
    shown(library, twins[0])
    assert library.decoding.startswith(f"{identity.FRAMES}-pyav")
    assert library_in(tmp_path / "cache").probe(twins[0]).taken
    monkeypatch.setattr(identity, "FRAMES", identity.FRAMES + 1)
    assert library_in(tmp_path / "cache").probe(twins[0]).taken == {}


def test_a_cache_deleted_under_a_running_server(twins: tuple[Path, Path], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    library = library_in(cache)
    [ref] = library.pictures(str(twins[0]), [3])
    shutil.rmtree(cache)
    assert library.store.png(ref)  # from memory
    assert library.pictures(str(twins[0]), [3]) == [ref]
    assert number(FrameStore(cache / "frames").get(ref.digest)) == 3


@pytest.mark.parametrize("part", [0.0, 0.5, 0.9])
def test_a_truncated_picture_is_made_again(twins: tuple[Path, Path], tmp_path: Path, part: float) -> None:
    cache = tmp_path / "cache"
    [ref] = library_in(cache).pictures(str(twins[0]), [3])
    file = Path(library_in(cache).store.path(ref.digest))
    png = file.read_bytes()
    file.write_bytes(png[: int(part * len(png))])
    assert library_in(cache).pictures(str(twins[0]), [3]) == [ref]
    assert file.read_bytes() == png
    file.write_bytes(png[: int(part * len(png))])
    store = FrameStore(cache / "frames")
    assert store.put_png(ref.digest, png)
    assert file.read_bytes() == png
