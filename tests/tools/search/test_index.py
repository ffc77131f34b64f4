"""The index: compared with NumPy, read from disk, damaged. Segments of scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays

from act2see.errors import StoreError
from act2see.tools.search import index as module
from act2see.tools.search.index import FrameIndex, IndexWriter, find_segments, read_index


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
    return writer.write(folder / id, id, {"video": "v"}), features


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
    with pytest.raises(StoreError, match="its files do not belong together"):
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


def flat(n: int, **peaks: float) -> np.ndarray:
    out = np.full(n, 0.1, np.float32)
    for at, value in peaks.items():
        out[int(at[1:])] = value
    return out


def test_segments() -> None:
    assert find_segments(flat(20), 0.2) == []
    [one] = find_segments(flat(20, _7=0.9), 0.2)
    assert (one.start, one.stop, one.best) == (7, 8, 7)
    [only] = find_segments(flat(1, _0=0.9), 0.2)
    assert (only.start, only.stop, only.best) == (0, 1, 0)
    found = find_segments(flat(30, _3=0.5, _4=0.8, _5=0.6, _20=0.7, _21=0.7), 0.2, 2)
    assert sorted(s.best for s in found) == [4, 20]
    [shortest] = find_segments(flat(30, _9=0.9), 0.2, 1, longest=1)
    assert shortest.best == 9


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float32, st.integers(1, 25), elements=st.floats(-1, 1, width=32)),
    st.integers(1, 4),
    st.integers(1, 30),
)
def test_segments_do_not_overlap_and_contain_a_frame_above_the_threshold(
    scores: np.ndarray, count: int, longest: int
) -> None:
    found = find_segments(scores, 0.25, count, longest)
    assert len(found) <= count
    assert bool(found) == bool((scores > 0.25).any())
    taken = [i for s in found for i in range(s.start, s.stop)]
    assert len(taken) == len(set(taken))
    for s in found:
        assert 0 <= s.start <= s.best < s.stop <= len(scores)
        assert s.stop - s.start <= longest
        assert scores[s.best] > 0.25
    assert [s.confidence for s in found] == sorted((s.confidence for s in found), reverse=True)
