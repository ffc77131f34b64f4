"""The index: compared with NumPy, read from disk, damaged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from act2see.errors import StoreError
from act2see.tools.frames import Curve
from act2see.tools.search import index as module
from act2see.tools.search.index import FrameIndex, IndexWriter, read_index


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    x = rng.normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def build(
    folder: Path, frames: int = 40, tokens: int = 4, dim: int = 16, id: str = "a"
) -> tuple[FrameIndex, np.ndarray]:
    features = unit(np.random.default_rng(0), frames, tokens, dim).astype(np.float16)
    parts = np.array_split(np.arange(frames), 3)
    writer = IndexWriter()
    for p in parts:
        if len(p):
            writer.add(p * 4, p / 3, features[p])
    return writer.write(folder / id, id, {"video": id}), features


def reference(phrases: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Mean over phrasings of the best query token."""
    return np.einsum("md,npd->mnp", phrases, features.astype(np.float64)).max(-1).mean(0)


@pytest.mark.parametrize("phrasings", [1, 3])
def test_scores_equal_a_computation_in_numpy(tmp_path: Path, phrasings: int) -> None:
    index, features = build(tmp_path)
    phrases = unit(np.random.default_rng(1), phrasings, 16).astype(np.float32)
    assert np.allclose(index.scores(phrases), reference(phrases, features), atol=1e-3)
    assert len(index) == 40


@pytest.mark.parametrize("phrasings", [1, 3])
def test_the_best_of_a_long_video_are_exact(
    tmp_path: Path, phrasings: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROWS", 12)  # as if the video had more rows than a search takes
    index, features = build(tmp_path)
    for seed in range(20):
        phrases = unit(np.random.default_rng(seed), phrasings, 16).astype(np.float32)
        want, got = reference(phrases, features), index.scores(phrases, best=3)
        top = np.sort(want)[-3:]
        assert np.allclose(np.sort(got)[-3:], top, atol=1e-3)
        assert (got >= want - 1e-3).all()  # an upper bound, if it is not exact


@pytest.mark.parametrize("phrasings", [1, 3])
def test_scores_above_a_limit_are_exact(
    tmp_path: Path, phrasings: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROWS", 12)
    index, features = build(tmp_path)
    for seed in range(20):
        phrases = unit(np.random.default_rng(seed), phrasings, 16).astype(np.float32)
        want = reference(phrases, features)
        for limit in (-1.0, 0.0, 0.3, 0.6):
            got = index.scores(phrases, above=limit)
            assert np.array_equal(got > limit, want > limit)
            assert np.allclose(got[got > limit], want[want > limit], atol=1e-3)


def test_an_index_is_the_same_from_disk(tmp_path: Path) -> None:
    index, _ = build(tmp_path)
    again = read_index(tmp_path / "a", "a")
    assert again.frames.tolist() == index.frames.tolist() == [4 * i for i in range(40)]
    assert np.allclose(again.seconds, np.arange(40) / 3)
    phrases = unit(np.random.default_rng(1), 2, 16).astype(np.float32)
    assert np.array_equal(again.scores(phrases), index.scores(phrases))
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("name", ["rows.faiss", "meta.json", "frames.npz"])
@pytest.mark.parametrize("data", [b"", b"\x00rubbish"])
def test_a_damaged_file_is_noticed(tmp_path: Path, name: str, data: bytes) -> None:
    build(tmp_path)
    (tmp_path / "a" / name).write_bytes(data)
    with pytest.raises(StoreError, match="is damaged"):
        read_index(tmp_path / "a", "a")


def test_parts_of_different_indexes_are_noticed(tmp_path: Path) -> None:
    build(tmp_path)
    build(tmp_path, frames=30, id="b")
    (tmp_path / "b" / "rows.faiss").replace(tmp_path / "a" / "rows.faiss")
    with pytest.raises(StoreError, match=r"rows\.faiss is not as it was written"):
        read_index(tmp_path / "a", "a")
    with pytest.raises(StoreError, match="is damaged"):  # its rows are missing
        read_index(tmp_path / "b", "b")
    with pytest.raises(StoreError, match="no index in"):
        read_index(tmp_path / "c", "c")
    build(tmp_path, id="d")
    with pytest.raises(StoreError, match="its name is d"):
        read_index(tmp_path / "d", "e")


def test_an_empty_index_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no frame to index"):
        IndexWriter().write(tmp_path / "a", "a", {})


@pytest.mark.parametrize("frames", [1, 5, 128, 300])
def test_the_curve_is_short_and_keeps_the_peak(tmp_path: Path, frames: int) -> None:
    index, _ = build(tmp_path, frames)
    scores = np.random.default_rng(0).random(frames).astype(np.float32)
    curve = index.curve(scores)
    assert len(curve.values) == min(128, frames)
    assert max(curve.values) == pytest.approx(scores.max(), abs=1e-3)
    assert curve.start == 0.0
    if frames > 1:
        assert curve.step * len(curve.values) == pytest.approx(frames / 3, rel=0.01)


def test_a_frame_for_which_the_encoder_computed_nan_comes_last(tmp_path: Path) -> None:
    features = unit(np.random.default_rng(0), 8, 2, 16).astype(np.float16)
    features[3, 1] = np.nan  # the other vector of the frame counts
    features[5] = np.nan
    writer = IndexWriter()
    writer.add(np.arange(8), np.arange(8) / 3, features)
    index = writer.write(tmp_path / "a", "a", {})
    phrases = unit(np.random.default_rng(1), 2, 16).astype(np.float32)
    with np.errstate(invalid="ignore"):
        want = np.einsum("md,npd->mnp", phrases, np.nan_to_num(features, nan=-1).astype(np.float64))
    scores = index.scores(phrases)
    assert scores[5] == -1
    assert np.isfinite(index.curve(scores).values).all()
    for i in (0, 1, 2, 4, 6, 7):
        assert scores[i] == pytest.approx(want[:, i].max(-1).mean(), abs=1e-3)


def test_an_index_of_nan_is_an_error(tmp_path: Path) -> None:
    writer = IndexWriter()
    writer.add(np.arange(3), np.arange(3) / 3, np.full((3, 2, 16), np.nan, np.float16))
    with pytest.raises(StoreError, match=r"no valid scores.*`encoder\.dtype: float32`"):
        writer.write(tmp_path / "a", "a", {}).scores(np.ones((1, 16), np.float32) / 4)


def test_a_curve_with_nan_can_be_read_again() -> None:
    curve = Curve(start=0, step=1, values=(0.5, float("nan")))
    again = Curve.model_validate_json(curve.model_dump_json())
    assert again.values[0] == 0.5
    assert np.isnan(again.values[1])


@pytest.mark.parametrize("name", ["rows.faiss", "frames.npz"])
@pytest.mark.parametrize("part", [0.0, 0.02, 0.5, 0.999])
def test_bytes_that_changed_are_noticed_before_faiss_reads_them(
    tmp_path: Path, name: str, part: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAISS ends the process on some damaged headers, and searches a zeroed half as if nothing was."""
    import faiss

    build(tmp_path)
    monkeypatch.setattr(faiss, "read_index", lambda *_: pytest.fail("FAISS was given a damaged file"))
    file = tmp_path / "a" / name
    data = file.read_bytes()
    start = int(part * len(data))
    stop = max(start + 1, start + len(data) // 2) if part == 0.5 else start + 1
    zeroed = bytes(stop - start) if any(data[start:stop]) else b"\xff" * (stop - start)
    file.write_bytes(data[:start] + zeroed + data[stop:])
    assert file.stat().st_size >= len(data)
    with pytest.raises(StoreError, match=f"{name} is not as it was written"):
        read_index(tmp_path / "a", "a")


def test_an_index_of_version_1_is_damaged(tmp_path: Path) -> None:
    build(tmp_path)
    meta = json.loads((tmp_path / "a" / "meta.json").read_text())
    del meta["index_version"], meta["checksums"]
    (tmp_path / "a" / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(StoreError, match="its version is 1, not 2"):
        read_index(tmp_path / "a", "a")
