"""The data set card: its numbers, its front matter, its example and its limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.training.any_chains import make_chain, without_calls

from act2see.errors import CorpusError
from act2see.tools.video.store import FrameStore
from act2see.trace.record import Frames
from act2see.training.corpus.card import COLUMNS, CorpusMeta, Images, readable_chain, unique_frames
from act2see.training.corpus.dataset import INFO, read_info, write_corpus
from act2see.training.corpus.records import Chain

META = CorpusMeta(
    name="Board chains",
    licence="cc-by-4.0",
    threshold=0.8,
    encoder="minilm",
    retries=2,
    notes="Made by hand.",
)


@pytest.fixture
def store(tmp_path: Path) -> FrameStore:
    return FrameStore(tmp_path / "frames")


@pytest.fixture
def given(store: FrameStore) -> list[Chain]:
    """Seven chains of two sources and two teachers; two are dropped, one was never compared."""
    other = make_chain(store, 2, teacher="noisy | scripted", similarity=0.84)
    other = other.model_copy(
        update={"sample": other.sample.model_copy(update={"source": "jsonl", "licence": ""})}
    )
    return [
        without_calls(make_chain(store, 0, similarity=0.96)),
        make_chain(store, 1),
        other,
        make_chain(store, 3, similarity=None),
        make_chain(store, 4),
        make_chain(store, 5, dropped="filter similarity: not above 0.8"),
        make_chain(store, 6, dropped="wrong after 3 attempts: A", attempts=()),
    ]


def written(
    folder: Path, given: list[Chain], store: FrameStore, images: Images = "embedded", meta: CorpusMeta = META
) -> tuple[Any, str]:
    write_corpus(given, store, folder, images=images, meta=meta)
    front, _, body = (
        (folder / "README.md").read_text(encoding="utf-8").removeprefix("---\n").partition("\n---\n")
    )
    return yaml.safe_load(front), body


def test_card_numbers_are_counted_from_the_chains(
    tmp_path: Path, store: FrameStore, given: list[Chain]
) -> None:
    front, body = written(tmp_path / "corpus", given, store)
    kept = [c.trace for c in given if not c.dropped and c.trace]
    returned = [f for t in kept for s in t.segments if isinstance(s, Frames) for f in s.frames]
    info = read_info(tmp_path / "corpus")
    assert info.chains == len(kept) == 5
    assert info.with_frames == sum(any(isinstance(s, Frames) for s in t.segments) for t in kept) == 4
    assert info.retrieved == sum(not f.imagined for f in returned) == 4
    assert info.generated == sum(f.imagined for f in returned) == 4
    assert info.calls == {"retrieve": 4, "generate": 4}
    assert info.pictures == sum(len(unique_frames(t)) for t in kept)
    assert info.similarity == (0.84, pytest.approx((0.96 + 0.9 + 0.84 + 0.9) / 4))
    assert info.compared == 4
    assert info.sources == {"world": {"CC0-1.0": 4}, "jsonl": {"": 1}}
    assert info.dropped == {"similarity: not above 0.8": 1, "construction: wrong after 3 attempts": 1}
    assert info.meta == META
    for line in (
        "| chains | 5 |",
        "| chains with a returned frame (call rate) | 4 (80.00%) |",
        "| frames retrieved | 4 |",
        "| frames generated | 4 |",
        "| similarity to the human chain (4 compared) | lowest 0.840, mean 0.900 |",
        "| world | CC0-1.0 | 4 |",
        "| jsonl | not given | 1 |",
        "| similarity: not above 0.8 | 1 |",
        "Teacher: scripted (4), noisy | scripted (1). The right answer was not in its prompt.",
        "After a wrong answer the teacher tried again, at most 2 times. "
        "A chain that stayed wrong was dropped.",
        "Similarity to the human chain had to exceed 0.8, measured by minilm.",
        "- 4 frames are imagined",
        "- 1 chains were not compared with a human chain.",
        "- 1 chains come from sources without a stated licence",
        "Made by hand.",
    ):
        assert line in body
    assert front["license"] == "cc-by-4.0"
    assert front["size_categories"] == ["n<1K"]
    assert front["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}
    ]


def test_card_omits_steps_that_were_not_taken(tmp_path: Path, store: FrameStore) -> None:
    chain = without_calls(make_chain(store))
    _, body = written(
        tmp_path / "corpus", [chain], store, "reference", CorpusMeta(ground_truth_in_prompt=True)
    )
    assert "The right answer was in its prompt." in body
    assert "| chains with a returned frame (call rate) | 0 (0.00%) |" in body
    for word in (
        "imagined",
        "tried again",
        "had to exceed",
        "Dropped chains",
        "not compared",
        "stated licence",
        "calls of",
    ):
        assert word not in body.partition("## Columns")[0] + body.partition("## Limits")[2]


def test_card_example_has_a_frame_and_a_longer_fence(
    tmp_path: Path, store: FrameStore, given: list[Chain]
) -> None:
    assert given[1].trace is not None
    question = given[1].trace.question.model_copy(update={"text": "```"})
    sample = given[1].sample.model_copy(update={"question": "```\n# not a heading"})
    chain = given[1].model_copy(
        update={"sample": sample, "trace": given[1].trace.model_copy(update={"question": question})}
    )
    _, body = written(tmp_path / "corpus", [given[0], chain, given[2]], store)
    example = body.partition("## An example\n\n````text\n")[2].partition("\n````\n")[0]
    assert example.startswith("```\n# not a heading\nA. the ring\nB. the cross\n\n<think>\nI look closer.")
    assert chain.trace is not None
    assert example.endswith(readable_chain(chain.trace))


def test_card_describes_every_column(tmp_path: Path, store: FrameStore, given: list[Chain]) -> None:
    import pyarrow.parquet as pq

    _, body = written(tmp_path / "corpus", given, store)
    (file,) = (tmp_path / "corpus" / "data").iterdir()
    assert set(pq.read_schema(file).names) == set(COLUMNS)
    assert all(f"| {column} | " in body for column in COLUMNS)


def test_a_damaged_info_file_raises_an_error(tmp_path: Path, store: FrameStore, given: list[Chain]) -> None:
    written(tmp_path / "corpus", given, store)
    (tmp_path / "corpus" / INFO).write_text("{")
    with pytest.raises(CorpusError, match=r"is not a corpus: it has no readable act2see\.json"):
        read_info(tmp_path / "corpus")
