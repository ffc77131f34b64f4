"""The filter: every reason to drop a chain, the strict threshold, and bounded memory."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.training.board_chains import build_chain, build_trace, call_and_frames, closing, make_sample

from act2see.errors import ConfigError, CorpusError
from act2see.micro.source import load_world
from act2see.trace.record import Answer, Call, Frames, Segment, Text
from act2see.training.corpus.filtering import BATCH, drop_reason, filter_chains, format_fault
from act2see.training.corpus.records import Attempt, Chain
from act2see.training.corpus.review import Verdict, chain_key
from act2see.training.corpus.similarity import SentenceEncoder


class Angles:
    """An encoder for which "cos 0.8" and the human "cos 1" have a cosine of 0.8.

    It records the number of texts of each call.
    """

    name, window, longer = "angles", 10, 0

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.sizes.append(len(texts))
        cos = np.array([float(t.split("cos ")[1].split()[0]) for t in texts])
        return np.stack([cos, np.sqrt(1 - cos**2)], -1).astype(np.float32)


def measured_chain(n: int, cos: float, human: str = "cos 1", **changes: object) -> Chain:
    return build_chain(make_sample(n, human), thought=f"cos {cos} ", **changes)


def verdict_on(chain: Chain, accepted: bool, comment: str = "") -> dict[str, Verdict]:
    return {
        chain_key(chain): Verdict(
            key=chain_key(chain), id=chain.sample.id, accepted=accepted, comment=comment
        )
    }


SAMPLE = make_sample(0)
SAID = Text(text="No ring blinks. ")
CALL, FRAMES = call_and_frames(3)
END, ANSWER = closing(SAMPLE)
FAULTS: dict[str, tuple[Segment, ...]] = {
    "no answer at the end": (SAID, CALL, FRAMES, END),
    "several answers": (SAID, END, ANSWER, ANSWER),
    "a forced answer": (SAID, END, ANSWER.model_copy(update={"forced": True})),
    "an empty answer": (SAID, END, Answer(text="<answer> </answer>", body="")),
    "an answer without tags": (SAID, END, Answer(text=" It is green.", body="It is green.")),
    "a failed call: repeated": (
        SAID,
        CALL,
        FRAMES,
        CALL.model_copy(update={"outcome": "repeated"}),
        FRAMES,
        END,
        ANSWER,
    ),
    "frames without a call": (SAID, FRAMES, END, ANSWER),
    "a call without a result": (SAID, CALL, END, ANSWER),
    "no thought": (CALL, FRAMES, Text(text="</think>\n"), ANSWER),
    "a thought opened twice": (Text(text="<think>It is. "), END, ANSWER),
    "a thought closed twice": (SAID, END, END, ANSWER),
    "an unclosed thought": (SAID, ANSWER),
    "a call after the thought": (SAID, END, CALL, FRAMES, SAID, ANSWER),
    "a stray tag: </retrieve>": (Text(text="It is </retrieve> so. "), END, ANSWER),
    "a stray tag: <tool_call>": (Text(text="It is <tool_call> so. "), END, ANSWER),
    "an unclosed tag": (SAID, END, Answer(text="<answer>green", body="green")),
    "a text that is parsed differently": (SAID, END, Answer(text="<answer>green</answer>", body="red")),
    "a text that is parsed as an invalid call: repeated": (
        SAID,
        CALL,
        FRAMES,
        SAID,
        CALL,
        FRAMES,
        END,
        ANSWER,
    ),
    "a text that is parsed as an invalid call: unknown": (Text(text="It is <zoom>so</zoom>. "), END, ANSWER),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_format_fault_names_each_fault(fault: str) -> None:
    assert format_fault(build_trace(SAMPLE, *FAULTS[fault])) == fault


def test_well_formed_chains_have_no_format_fault() -> None:
    note = Frames(tag="retrieve", note="No frame matches; go on.")
    for segments in (
        (SAID, END, ANSWER),
        (SAID, CALL, FRAMES, SAID, *call_and_frames(4, "generate"), END, ANSWER),
        (SAID, CALL, note, END, ANSWER),
        (CALL, FRAMES, Text(text="a < b, <b> and </c>."), END, ANSWER),
        (SAID, Text(text="Yes.</think>\nSo I answer: "), ANSWER),
    ):
        assert format_fault(build_trace(SAMPLE, *segments)) == ""
    long = "a" * 600
    call = Call(text=f"<retrieve>{long}</retrieve>", tag="retrieve", query=long)
    assert format_fault(build_trace(SAMPLE, SAID, call, FRAMES, END, ANSWER)) == ""
    bare = build_trace(SAMPLE, SAID, CALL, FRAMES, END, ANSWER).model_dump()
    assert format_fault(build_trace(SAMPLE).model_validate(bare | {"versions": {}})) == ""


def test_every_filter_step_drops_chains_with_a_reason(tmp_path: Path) -> None:
    one, two, three, four, five, six = load_world(6, tmp_path)
    wrong = build_chain(
        one, attempts=(Attempt(outcome="wrong", why="x"),), dropped="wrong after 3 attempts: x"
    )
    broken = build_chain(two).model_copy(update={"trace": build_trace(two, Text(text="It is. "))})
    far = build_chain(three, "retrieve", thought="I do not see anything of interest, and so I simply guess. ")
    alone = build_chain(four.model_copy(update={"chain": ""}), thought="It is. ")
    disliked, good = build_chain(five), build_chain(six, "retrieve", "generate")
    missing = good.model_copy(update={"trace": None})
    chains = [wrong, broken, far, alone, disliked, good, missing]
    encoder = SentenceEncoder("minilm", device="cpu")
    out = list(filter_chains(chains, encoder, verdicts=verdict_on(disliked, False, "nonsense")))
    assert [c.dropped for c in out] == [
        "wrong after 3 attempts: x",
        "filter format: no answer at the end",
        "filter similarity: not above 0.8",
        "filter similarity: no human chain",
        "filter person: rejected: nonsense",
        "",
        "filter format: no trace",
    ]
    assert [c.similarity is not None for c in out] == [False, False, True, False, True, True, False]
    assert [drop_reason(c) for c in out if c.dropped] == [
        ("construction", "wrong"),
        ("format", "no answer at the end"),
        ("similarity", "not above 0.8"),
        ("similarity", "no human chain"),
        ("person", "rejected"),
        ("format", "no trace"),
    ]
    assert [(c.sample, c.trace) for c in out] == [(c.sample, c.trace) for c in chains]
    again = list(filter_chains(out, None, without_chains=True, verdicts=verdict_on(disliked, True)))
    assert [bool(c.dropped) for c in again] == [True, True, True, False, False, False, True]
    assert again[3].similarity is None
    assert list(filter_chains(out, encoder, verdicts=verdict_on(disliked, False, "nonsense"))) == out


def test_drop_reason_of_construction_has_no_details() -> None:
    assert drop_reason(build_chain(SAMPLE, dropped="the video is gone: x.mp4")) == (
        "construction",
        "the video is gone",
    )
    assert drop_reason(build_chain(SAMPLE, attempts=(), dropped="no such: thing")) == (
        "construction",
        "no such",
    )


@pytest.mark.parametrize(
    ("threshold", "kept"),
    [(0.8, [False, False, True]), (0.79, [False, True, True]), (1.0, [False] * 3), (-1, [True] * 3)],
)
def test_similarity_must_exceed_the_threshold(threshold: float, kept: list[bool]) -> None:
    chains = [measured_chain(1, 0.6), measured_chain(2, 0.8), measured_chain(3, 0.81)]
    out = list(filter_chains(chains, Angles(), threshold=threshold))
    assert [c.similarity for c in out] == pytest.approx([0.6, 0.8, 0.81])
    assert [not c.dropped for c in out] == kept


@pytest.mark.parametrize("threshold", [1.5, -2.0, float("nan")])
def test_an_impossible_threshold_is_refused_before_filtering(threshold: float) -> None:
    with pytest.raises(ConfigError, match="between -1 and 1"):
        filter_chains([], Angles(), threshold=threshold)


def test_without_an_encoder_chains_need_a_stored_similarity() -> None:
    with pytest.raises(CorpusError, match="'q1' has no similarity: filter"):
        list(filter_chains([measured_chain(1, 0.9)], None))


def test_filtering_streams_its_chains() -> None:
    taken = Counter[str]()

    def many() -> Iterator[Chain]:
        for n in range(2_000):
            taken["in"] += 1
            yield measured_chain(n, 0.9 if n % 2 else 0.7, "" if n % 10 == 0 else "cos 1")

    encoder = Angles()
    for chain in filter_chains(many(), encoder):
        taken["kept" if not chain.dropped else drop_reason(chain)[1]] += 1
        taken["out"] += 1
        assert taken["in"] - taken["out"] < BATCH
    assert taken == {"in": 2_000, "out": 2_000, "kept": 1_000, "not above 0.8": 800, "no human chain": 200}
    assert encoder.sizes == [3] * -(-2_000 // BATCH)  # each text of a batch is encoded once


def test_verdicts_on_unknown_chains_raise_an_error() -> None:
    chain = measured_chain(1, 0.9)
    other = measured_chain(1, 0.95)
    with pytest.raises(CorpusError, match=r"1 of 2 verdicts .* \(q1\)"):
        list(filter_chains([chain], Angles(), verdicts=verdict_on(chain, True) | verdict_on(other, False)))
    assert [c.dropped for c in filter_chains([chain], Angles(), verdicts=verdict_on(chain, False))] == [
        "filter person: rejected"
    ]


def test_texts_longer_than_the_window_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    encoder = Angles()
    encoder.longer = 3
    with caplog.at_level(logging.WARNING):
        list(filter_chains([], encoder))
    assert [r.message for r in caplog.records] == [
        "3 texts are longer than the window of 10 tokens of angles: the mean of their windows was compared"
    ]
