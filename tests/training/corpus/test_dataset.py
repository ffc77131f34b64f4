"""The corpus on disk: equal chains are read back, `datasets` opens it, and it is complete or absent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from tests.training.any_chains import chains, make_chain, put, without_calls

from act2see.errors import CorpusError
from act2see.tools.video.store import FrameStore, frame_digest
from act2see.training.corpus.card import CORPUS_VERSION, Images, unique_frames
from act2see.training.corpus.dataset import INFO, read_corpus, read_info, write_corpus
from act2see.training.corpus.records import Chain


@pytest.fixture
def store(tmp_path: Path) -> FrameStore:
    return FrameStore(tmp_path / "frames")


@pytest.fixture(params=["embedded", "reference"])
def images(request: pytest.FixtureRequest) -> Images:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def open_data_set(tmp_path: Path) -> Iterator[Any]:
    """Return a function that opens a folder with `datasets`, with a separate cache."""
    import datasets

    datasets.disable_progress_bars()
    yield lambda folder, **how: datasets.load_dataset(
        str(folder), split="train", cache_dir=str(tmp_path / "cache"), **how
    )
    datasets.enable_progress_bars()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), images=st.sampled_from(["embedded", "reference"]))
def test_written_chains_are_read_equal(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, images: Images
) -> None:
    folder = tmp_path_factory.mktemp("any")
    store, other = FrameStore(folder / "frames"), FrameStore(folder / "other")
    given = data.draw(st.lists(chains(store), min_size=1, max_size=3))
    write_corpus(given, store, folder / "corpus", images=images)
    assert list(read_corpus(folder / "corpus", other)) == given
    for digest in {f.digest for c in given if c.trace for f in unique_frames(c.trace)}:
        assert np.array_equal(other.get(digest), store.get(digest))


def test_shards_hold_all_chains_in_order(tmp_path: Path, store: FrameStore) -> None:
    given = [make_chain(store, n) for n in range(230)]
    info = write_corpus(given, store, tmp_path / "corpus", shard_size=1)
    assert info.files == tuple(f"data/train-{i:05d}-of-00003.parquet" for i in range(3))
    assert sorted(
        str(p.relative_to(tmp_path / "corpus")) for p in (tmp_path / "corpus").rglob("*.parquet")
    ) == list(info.files)
    assert list(read_corpus(tmp_path / "corpus", store)) == given


def test_datasets_opens_a_corpus_with_its_pixels(
    tmp_path: Path, store: FrameStore, images: Images, open_data_set: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [make_chain(store, 0), without_calls(make_chain(store, 1))]
    write_corpus(given, store, tmp_path / "corpus", images=images)
    monkeypatch.chdir("/")  # paths must not depend on the working directory
    table = open_data_set(tmp_path / "corpus")
    assert len(table) == 2
    assert table.features["images"].feature.__class__.__name__ == "Image"
    for row, chain in zip(table, given, strict=True):
        assert chain.trace is not None
        assert [frame_digest(np.asarray(image)) for image in row["images"]] == [
            f.digest for f in unique_frames(chain.trace)
        ]
        assert row["id"] == chain.sample.id
        assert row["trim"] == [0.5, 5.25]
        assert row["human_chain"] == "The ring moves."
        assert json.loads(row["trace"]) == json.loads(chain.trace.to_json())
    assert table[0]["chain"].startswith(
        "I look closer.<retrieve>the ring</retrieve><frame><1.7 seconds></frame>Were it gone:"
    )
    assert "<frame><imagined></frame>" in table[0]["chain"]
    assert (table[0]["n_calls"], table[0]["tools"]) == (2, ["retrieve", "generate"])
    assert (table[1]["n_calls"], table[1]["tools"]) == (0, [])
    streamed = next(iter(open_data_set(tmp_path / "corpus", streaming=True)))
    assert frame_digest(np.asarray(streamed["images"][0])) in store


def test_a_parquet_shard_opens_alone(tmp_path: Path, store: FrameStore, open_data_set: Any) -> None:
    write_corpus([make_chain(store)], store, tmp_path / "corpus")
    table = open_data_set("parquet", data_files=str(tmp_path / "corpus" / "data" / "*.parquet"))
    assert [image.size for image in table[0]["images"]] == [(24, 16), (16, 24), (8, 8), (16, 24), (24, 16)]


def test_pictures_are_in_order_of_appearance_with_anchors_last(store: FrameStore) -> None:
    chain = make_chain(store)
    assert chain.trace is not None
    assert [f.digest for f in unique_frames(chain.trace)] == [put(store, n).digest for n in (0, 1, 2, 4, 3)]


def test_a_referenced_picture_is_written_once(tmp_path: Path, store: FrameStore) -> None:
    given = [make_chain(store, 1, teacher=str(n)) for n in range(3)]
    info = write_corpus(given, store, tmp_path / "corpus", images="reference")
    assert info.pictures == len(list((tmp_path / "corpus" / "images").rglob("*.png"))) == 5


def test_dropped_chains_are_not_written(tmp_path: Path, store: FrameStore) -> None:
    given = [make_chain(store, 0), make_chain(store, 1, dropped="filter similarity: not above 0.8")]
    assert write_corpus(given, store, tmp_path / "corpus").dropped == {"similarity: not above 0.8": 1}
    assert list(read_corpus(tmp_path / "corpus", store)) == given[:1]
    with pytest.raises(CorpusError, match="no chain to write: all 1 were dropped"):
        write_corpus(given[1:], store, tmp_path / "none")
    assert not list(tmp_path.glob("none*"))


def test_a_corpus_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, store: FrameStore, images: Images
) -> None:
    with pytest.raises(CorpusError, match="'q0' has no trace"):
        write_corpus([make_chain(store, trace=None)], store, tmp_path / "corpus", images=images)
    with pytest.raises(CorpusError, match=r"a frame of 'q0' is missing: frame [0-9a-f]{32} is not in"):
        write_corpus([make_chain(store)], FrameStore(tmp_path / "empty"), tmp_path / "corpus", images=images)
    assert not list(tmp_path.glob("corpus*"))
    (tmp_path / "corpus").mkdir()
    write_corpus([make_chain(store)], store, tmp_path / "corpus", images=images)
    with pytest.raises(CorpusError, match="corpus already exists"):
        write_corpus([make_chain(store)], store, tmp_path / "corpus", images=images)


def test_a_full_disk_leaves_no_half_corpus(tmp_path: Path, store: FrameStore) -> None:
    """A limit of the kernel on file sizes is reached in the middle of a shard."""
    resource = pytest.importorskip("resource")
    given = [make_chain(store, n) for n in range(300)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A first corpus runs all imports, which could write files under the limit.
    write_corpus(given[:1], store, tmp_path / "first")
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
    try:
        with pytest.raises(CorpusError, match=r"cannot write .*corpus \(.*\): free some space"):
            write_corpus(given, store, tmp_path / "corpus")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["first", "frames"]


def test_the_part_of_a_killed_run_is_replaced(tmp_path: Path, store: FrameStore) -> None:
    (tmp_path / "corpus.part").mkdir()
    (tmp_path / "corpus.part" / "half").write_text("x")
    write_corpus([make_chain(store)], store, tmp_path / "corpus")
    assert sorted(p.name for p in (tmp_path / "corpus").iterdir()) == ["README.md", INFO, "data"]


def test_a_corpus_of_a_newer_version_is_refused(tmp_path: Path, store: FrameStore) -> None:
    write_corpus([make_chain(store)], store, tmp_path / "corpus")
    data = json.loads((tmp_path / "corpus" / INFO).read_text())
    (tmp_path / "corpus" / INFO).write_text(
        json.dumps(data | {"corpus_version": CORPUS_VERSION + 1, "act2see": "9.1.0", "new": 1})
    )
    with pytest.raises(
        CorpusError,
        match=r"version 2, and act2see \S+ reads versions up to 1: install act2see 9.1.0 or newer",
    ):
        read_corpus(tmp_path / "corpus", store)


def test_a_folder_that_is_not_a_corpus_is_refused(tmp_path: Path, store: FrameStore) -> None:
    with pytest.raises(
        CorpusError, match=r"is not a corpus: it has no readable act2see\.json; give the folder"
    ):
        read_corpus(tmp_path, store)
    (tmp_path / INFO).write_text('{"corpus_version": "1"}')
    with pytest.raises(CorpusError, match="has no corpus_version"):
        read_info(tmp_path)
    (tmp_path / INFO).write_text('{"corpus_version": 1}')
    with pytest.raises(CorpusError, match="act2see: Field required"):
        read_info(tmp_path)


def damage(folder: Path, kind: str, chain: Chain) -> None:
    """Damage a file of a corpus, or a picture in it."""
    assert chain.trace is not None
    digest = chain.trace.initial[1].digest
    if kind == "file":
        (folder / "images" / digest[:2] / f"{digest}.png").unlink()
    elif kind == "other":
        (folder / "images" / digest[:2] / f"{digest}.png").write_bytes(b"no picture")
    elif kind == "shard":
        next((folder / "data").iterdir()).write_bytes(b"no parquet")
    else:
        (path,) = (folder / "data").iterdir()
        table = pq.read_table(path)
        rows = table.to_pylist()
        rows[0]["images"][1]["bytes"] = None
        pq.write_table(table.from_pylist(rows, schema=table.schema), path)


@pytest.mark.parametrize(
    ("images", "kind", "message"),
    [
        ("reference", "file", r"record 1: cannot read the picture images/\w\w/\w{32}.png \(No such file"),
        ("reference", "other", r"record 1: the picture \w{32} is damaged"),
        ("embedded", "bytes", r"record 1: the picture \w{32} is missing"),
        ("embedded", "shard", r"cannot read .*train-00000-of-00001.parquet"),
    ],
)
def test_damaged_files_are_named(
    tmp_path: Path, store: FrameStore, images: Images, kind: str, message: str
) -> None:
    chain = make_chain(store)
    write_corpus([chain], store, tmp_path / "corpus", images=images)
    damage(tmp_path / "corpus", kind, chain)
    with pytest.raises(CorpusError, match=message):
        list(read_corpus(tmp_path / "corpus", FrameStore(tmp_path / "other")))
