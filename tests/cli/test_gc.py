"""`act2see gc` removes what nothing refers to, and nothing that anything refers to."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pytest
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from tests.cli.helpers import Run, assert_one_line_error, environment

from act2see.cli.garbage import Places, find_garbage, remove
from act2see.cli.references import find_references
from act2see.errors import StoreError
from act2see.tools.frames import FrameRef, Video
from act2see.tools.video.store import FrameStore
from act2see.trace.folder import KeptTraces, save_folder
from act2see.trace.record import Question
from act2see.trace.trace import Trace

DAY = 86_400
QUESTION = Question(text="?")
MakeTrace = Callable[..., Trace]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "cache"
    monkeypatch.setenv("ACT2SEE_CACHE", str(cache))
    return cache


def put(cache: Path, number: int, age: float = 100) -> FrameRef:
    """Store a picture that was used last `age` days ago. The store is closed again."""
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    store = FrameStore(cache / "frames")
    frame = store.ref(pixels, 1.0)
    make_old(Path(store.path(frame.digest)), age)
    return frame


def make_old(path: Path, age: float = 100) -> None:
    then = time.time() - age * DAY
    for here, _, names in os.walk(path):
        for name in (".", *names):
            os.utime(Path(here, name), (then, then))
    os.utime(path, (then, then))


def make(path: Path, age: float = 100) -> Path:
    """Write a folder with a file in it, as an index or an upload is."""
    path.mkdir(parents=True)
    (path / "meta.json").write_text("{}")
    make_old(path, age)
    return path


def is_there(cache: Path, frame: FrameRef) -> bool:
    return Path(FrameStore(cache / "frames").path(frame.digest)).exists()


def save_checkpoint(path: Path, frame: FrameRef) -> None:
    """Save a state with a reference in it, as a run of the graph does."""

    class State(TypedDict):
        trace: dict[str, Any]

    def node(state: State) -> State:
        return {"trace": {**state["trace"], "frames": [frame.model_dump(mode="json")], "text": "a" * 9000}}

    graph = StateGraph(State)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    graph.add_edge("node", END)
    with SqliteSaver.from_conn_string(str(path)) as saver:
        graph.compile(saver).invoke({"trace": {"id": "a"}}, {"configurable": {"thread_id": "run"}})


def test_every_reference_keeps_its_frame(run: Run, cache: Path, tmp_path: Path, trace: MakeTrace) -> None:
    lost, saved, kept, page, elsewhere, own, recent = (put(cache, n, 2 if n == 6 else 100) for n in range(7))
    save_checkpoint(cache / "runs.sqlite", saved)
    KeptTraces(cache / "traces").keep(trace(question=QUESTION, id="kept", initial=(kept,)))
    save_folder(
        trace(question=QUESTION, id="page", initial=(page,)),
        cache / "runs" / "page",
        FrameStore(cache / "frames"),
    )
    # A picture that was read is in use again, so all are made old once more.
    make_old(Path(FrameStore(cache / "frames").path(page.digest)))
    trace(question=QUESTION, initial=(elsewhere,)).save(tmp_path / "mine" / "trace.json")
    save_checkpoint(tmp_path / "own.sqlite", own)
    keep = ("--keep", tmp_path / "mine", "--keep", tmp_path / "own.sqlite")

    said = run("gc", "--dry-run", *keep).stdout
    assert "frames: 1, " in said
    assert "would be freed" in said
    assert is_there(cache, lost)
    assert "frames: 1, " in run("gc", *keep).stdout
    assert not is_there(cache, lost)
    assert all(is_there(cache, one) for one in (saved, kept, page, elsewhere, own, recent))
    assert run("gc", *keep).stdout == "nothing to remove\n"
    # Without --keep nothing tells that the traces elsewhere exist; the recent one stays all the same.
    assert "frames: 2, " in run("gc").stdout
    assert [is_there(cache, one) for one in (elsewhere, own, recent)] == [False, False, True]


def test_indexes_uploads_and_downloads(run: Run, cache: Path, trace: MakeTrace) -> None:
    used, unused = "a" * 32, "b" * 32
    before = trace(question=QUESTION)
    video = Video(
        **{**before.video.model_dump(), "digest": used, "path": f"/runs/uploads/{'c' * 32}/a.mp4#t=2,5"}
    )
    KeptTraces(cache / "traces").keep(before.model_copy(update={"video": video}))
    stay = [make(cache / "indexes" / f"{used}-e-3fps"), make(cache / "runs" / "uploads" / ("c" * 32))]
    stay += [make(cache / "indexes" / f"{unused}-e-1fps", age=1), make(cache / "calibrations" / unused)]
    go = [make(cache / "indexes" / f"{unused}-e-3fps"), make(cache / "indexes" / f"{unused}-f-3fps.parts")]
    go += [make(cache / "runs" / "uploads" / unused), make(cache / "videos" / unused)]
    go += [make(cache / "indexes" / f".{'d' * 32}-{used}-e-3fps")]
    download = cache / "downloads" / f"{unused}.video"
    download.parent.mkdir()
    download.write_bytes(b"12345")
    make_old(download)
    said = run("gc").stdout
    for kind in ("indexes: 2", "uploads: 1", "downloads: 1, 5 bytes", "videos: 1", "unfinished files: 1"):
        assert kind in said
    assert all(path.exists() for path in stay)
    assert not any(path.exists() for path in (*go, download))


def test_frames_of_a_running_process_stay(run: Run, cache: Path) -> None:
    code = """
import sys, numpy as np
from act2see.tools.video.store import FrameStore
store = FrameStore(sys.argv[1])
print(store.put(np.zeros((8, 8, 3), np.uint8)), flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", code, str(cache / "frames")]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(cache)
    )
    assert process.stdin
    assert process.stdout
    picture = Path(FrameStore(cache / "frames").path(process.stdout.readline().strip()))
    [mark] = (cache / "frames" / ".open").iterdir()
    make_old(picture, 60)  # it was stored 60 days ago, by a process that has run for 70
    make_old(mark, 70)
    run("gc")
    assert picture.exists()
    process.kill()  # it leaves its mark, but not its lock
    process.communicate()
    run("gc")
    assert not picture.exists()
    assert not mark.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no locks for it")
def test_a_store_takes_its_mark_along(cache: Path) -> None:
    store = FrameStore(cache / "frames")
    store.put(np.zeros((8, 8, 3), np.uint8))
    assert len(list((cache / "frames" / ".open").iterdir())) == 1
    del store
    assert not (cache / "frames" / ".open").exists()


def test_a_frame_that_comes_into_use_at_the_last_moment_stays(cache: Path) -> None:
    first, second = put(cache, 1), put(cache, 2)
    places = Places(cache / "frames", (cache,))
    found = {one.path.stem: one for one in find_garbage(places, 30)}
    assert FrameStore(cache / "frames").intact(first.digest)  # so that a reference to it may be saved now
    assert not remove(found[first.digest], places, 30)
    assert remove(found[second.digest], places, 30)
    assert is_there(cache, first)
    # The store does not believe its memory: a picture that is gone is written again.
    store = FrameStore(cache / "frames")
    pixels = store.get(first.digest)
    Path(store.path(first.digest)).unlink()
    assert store.put(pixels) == first.digest
    assert is_there(cache, first)


def test_what_cannot_be_read_may_refer_to_anything(run: Run, cache: Path) -> None:
    frame = put(cache, 1)
    (cache / "runs.sqlite").write_bytes(b"SQLite format 3\x00" + b"damaged" * 500)
    assert_one_line_error(run("gc", code=2), "runs.sqlite", "nothing was removed")
    (cache / "runs.sqlite").unlink()
    assert_one_line_error(run("gc", "--keep", cache / "none", code=2), "there is no", "check --keep")
    assert is_there(cache, frame)


def test_digests_are_found_wherever_they_lie(tmp_path: Path) -> None:
    digest = "0123456789abcdef" * 2
    file = tmp_path / "a.pckl"
    for before in (0, 8 << 20, (8 << 20) + 5, (16 << 20) - 3):
        file.write_bytes(b"\x00" * before + b"7" + digest.encode() + b"\xa5")
        assert digest in find_references(tmp_path)
    with pytest.raises(StoreError, match="nothing was removed"):
        find_references(tmp_path / "none")


def test_a_store_that_is_no_folder(run: Run, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("preset: micro\nstore: memory://frames\n")
    assert_one_line_error(
        run("gc", "--config", tmp_path / "c.yaml", code=2), "memory://frames is not a folder"
    )
