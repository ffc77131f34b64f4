"""The frame store: in a folder and behind a URL, shared, damaged, full."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from act2see.errors import StoreError
from act2see.tools.frames import FrameRef, Initial, Retrieved
from act2see.tools.video.store import FrameStore, default_cache, frame_digest, frame_png, image_block


def noise(seed: int, width: int = 31, height: int = 17) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(params=["folder", "memory"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], FrameStore]:
    """Return a function that opens the same store again, with an empty memory."""
    where = tmp_path / "frames" if request.param == "folder" else f"memory://{uuid.uuid4().hex}/frames"
    return lambda: FrameStore(where)


def test_put_and_get(make: Callable[[], FrameStore]) -> None:
    pixels = noise(0)
    digest = make().put(pixels)
    assert digest == frame_digest(pixels)
    assert digest in make()
    got = make().get(digest)
    assert np.array_equal(got, pixels)
    assert got.dtype == np.uint8
    assert not got.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        got[0, 0, 0] = 1


@settings(max_examples=30, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_any_picture_survives(tmp_path_factory: pytest.TempPathFactory, pixels: np.ndarray) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    assert np.array_equal(FrameStore(folder).get(FrameStore(folder).put(pixels)), pixels)


def test_the_digest_is_of_shape_and_pixels() -> None:
    flat = np.zeros((2, 8, 3), np.uint8)
    assert frame_digest(flat) != frame_digest(flat.reshape(8, 2, 3))
    assert frame_digest(noise(0)[:, ::-1]) == frame_digest(np.ascontiguousarray(noise(0)[:, ::-1]))
    assert frame_digest(noise(0)) != frame_digest(noise(1))


def test_the_same_picture_is_written_once(tmp_path: Path) -> None:
    store = FrameStore(tmp_path)
    path = Path(store.path(store.put(noise(0))))
    before = path.stat().st_mtime_ns, path.stat().st_ino
    FrameStore(tmp_path).put(noise(0))
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before
    assert [p.name for p in tmp_path.rglob("*.png")] == [path.name]


def test_the_store_copies_the_callers_array(tmp_path: Path) -> None:
    store = FrameStore(tmp_path)
    pixels = noise(0)
    digest = store.put(pixels)
    pixels[:] = 0
    assert np.array_equal(store.get(digest), noise(0))


def test_ref(make: Callable[[], FrameStore]) -> None:
    store = make()
    ref = store.ref(noise(0), 2.5)
    assert (ref.width, ref.height, ref.seconds, ref.provenance) == (31, 17, 2.5, Initial())
    found = Retrieved(query="a boat", score=0.4)
    assert store.ref(noise(0), 2.5, found).provenance == found
    assert np.array_equal(store.get(ref.digest), noise(0))


def test_export_gives_an_ordinary_png(make: Callable[[], FrameStore], tmp_path: Path) -> None:
    store = make()
    path = store.export(store.put(noise(0)), tmp_path / "out" / "frame.png")
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert np.array_equal(np.asarray(image), noise(0))
    assert os.listdir(path.parent) == ["frame.png"]
    with pytest.raises(StoreError, match="choose another folder"):
        store.export(frame_digest(noise(0)), path / "below a file" / "frame.png")


def test_a_missing_picture(make: Callable[[], FrameStore], tmp_path: Path) -> None:
    store, digest = make(), "0" * 32
    assert digest not in store
    for ask in (lambda: store.get(digest), lambda: store.export(digest, tmp_path / "x.png")):
        with pytest.raises(StoreError, match=f"{digest} is not in .*another store"):
            ask()
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize(
    "digest",
    ["", "../../etc/passwd", "0" * 31, "0" * 33, "0" * 32 + "\n", "G" * 32, "A" * 32, "/" * 32, "é" * 32],
)
def test_an_invalid_digest_never_becomes_a_path(make: Callable[[], FrameStore], digest: str) -> None:
    store = make()
    assert digest not in store
    for ask in (store.get, store.path):
        with pytest.raises(StoreError, match="is not a frame digest"):
            ask(digest)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((2, 2, 3)),
        np.zeros((2, 2), np.uint8),
        np.zeros((2, 2, 4), np.uint8),
        np.zeros((0, 2, 3), np.uint8),
    ],
)
def test_arrays_that_are_not_pictures_are_refused(tmp_path: Path, pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="a picture is"):
        FrameStore(tmp_path).put(pixels)


@pytest.mark.parametrize("content", [b"", b"not a picture", "another"])
def test_a_damaged_picture_is_noticed(tmp_path: Path, content: bytes | str) -> None:
    store = FrameStore(tmp_path)
    digest, other = store.put(noise(0)), store.put(noise(1))
    data = Path(store.path(other)).read_bytes() if isinstance(content, str) else content
    Path(store.path(digest)).write_bytes(data)
    with pytest.raises(StoreError, match=r"delete .* and ask again"):
        FrameStore(tmp_path).get(digest)


def test_memory_is_limited_and_keeps_recently_used_pictures(tmp_path: Path) -> None:
    one = noise(0).nbytes
    store = FrameStore(tmp_path, memory_bytes=2 * one)
    a, b, c = (store.put(noise(k)) for k in range(3))
    store.get(b)
    store.put(noise(3))
    for digest in (a, b, c):
        Path(store.path(digest)).unlink()
    assert np.array_equal(store.get(b), noise(1))
    for digest in (a, c):
        with pytest.raises(StoreError):
            store.get(digest)
    FrameStore(tmp_path / "none", memory_bytes=0).put(noise(0))


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write frames to .*file.*ACT2SEE_CACHE.*`store:`"):
        FrameStore(tmp_path / "file" / "frames").put(noise(0))


@pytest.mark.skipif(sys.platform == "win32", reason="no file modes there")
def test_a_read_only_folder(tmp_path: Path) -> None:
    """Run in a process that drops root's rights, because root may write anywhere."""
    code = """
import os, sys, numpy as np
from PIL import Image, PngImagePlugin
from act2see.errors import StoreError
from act2see.tools.video.store import FrameStore
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    FrameStore(sys.argv[1]).put(np.zeros((2, 2, 3), np.uint8))
except StoreError as e:
    print(e)
"""
    folder = tmp_path / "frames"
    folder.mkdir()
    folder.chmod(0o500)
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, env=os.environ, check=True
    )
    assert done.stdout.startswith(
        f"cannot write frames to {folder}: Permission denied; free some space, set ACT2SEE_CACHE"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limit there")
def test_a_full_disk_leaves_no_incomplete_file(tmp_path: Path) -> None:
    """Let a limit on file size fail a write half-way, as a full disk does."""
    code = """
import resource, sys, numpy as np
from act2see.errors import StoreError
from act2see.tools.video.store import FrameStore
store = FrameStore(sys.argv[1])
pixels = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
from PIL import Image, PngImagePlugin
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    store.put(pixels)
except StoreError as e:
    print(e)
"""
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        env=os.environ,
        check=True,
    )
    assert (
        f"cannot write frames to {tmp_path}: File too large; free some space, set ACT2SEE_CACHE"
        in done.stdout
    )
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


@pytest.mark.parametrize("url", ["nosuch://bucket/frames", "nosuch+x://"])
def test_an_unknown_kind_of_url(url: str) -> None:
    with pytest.raises(StoreError, match="cannot be reached"):
        FrameStore(url)


def test_a_file_url_is_a_folder(tmp_path: Path) -> None:
    digest = FrameStore(f"file://{tmp_path}").put(noise(0))
    assert digest in FrameStore(tmp_path)


def test_many_threads_put_and_get_the_same_pictures(make: Callable[[], FrameStore]) -> None:
    store, gate = make(), threading.Barrier(8)

    def work(_: int) -> bool:
        gate.wait()
        return all(np.array_equal(store.get(store.put(noise(k))), noise(k)) for k in range(20))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_two_processes_share_a_folder(tmp_path: Path) -> None:
    code = """
import sys, numpy as np
from act2see.tools.video.store import FrameStore
store = FrameStore(sys.argv[1], memory_bytes=0)
for k in range(60):
    pixels = np.random.default_rng(k).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    assert np.array_equal(store.get(store.put(pixels)), pixels)
"""
    both = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=os.environ) for _ in range(2)]
    assert [p.wait(60) for p in both] == [0, 0]
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(files) == 60
    assert all(p.suffix == ".png" for p in files)


def test_default_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ACT2SEE_CACHE", "~/mine")
    assert default_cache() == tmp_path / "mine"
    assert FrameStore().location == str(tmp_path / "mine" / "frames")
    monkeypatch.delenv("ACT2SEE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache() == tmp_path / "xdg" / "act2see"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == tmp_path / ".cache" / "act2see"
    assert not os.listdir(tmp_path)  # the call creates nothing


def test_a_store_is_a_source_of_frames(make: Callable[[], FrameStore]) -> None:
    ref = make().ref(noise(0), 1.0)
    assert np.array_equal(make()(ref), noise(0))


def test_a_stored_png_is_returned_unchanged(make: Callable[[], FrameStore]) -> None:
    store, pixels = make(), noise(0)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=9)  # different from the store's own encoding
    ref = FrameRef(digest=frame_digest(pixels), width=31, height=17, seconds=0.0)
    assert store.put_png(ref.digest, out.getvalue())
    assert store.png(ref) == store.png(ref.digest) == frame_png(ref, store) == out.getvalue()
    assert base64.b64decode(image_block(ref, store, "PNG")["base64"]) == out.getvalue()
    with Image.open(io.BytesIO(frame_png(ref, lambda _: pixels))) as image:
        assert np.array_equal(np.asarray(image), pixels)


def test_only_the_picture_of_a_digest_is_stored_under_it(make: Callable[[], FrameStore]) -> None:
    store = make()
    digest, other = frame_digest(noise(0)), store.png(store.put(noise(1)))
    for png in (other, b"", b"not a picture"):
        assert not store.put_png(digest, png)
    assert digest not in store
