"""How a token is drawn: each setting against its definition, on logits whose chances are known."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from act2see.agent.reasoners.base import Sampling
from act2see.agent.reasoners.sampling import TokenSampler, find_largest
from act2see.errors import ReasonerError

CHANCES = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.05])
LOGITS = CHANCES.log()
DRAWS = 2000


def drawn(forbidden: tuple[int, ...] = (), logits: torch.Tensor = LOGITS, **settings: Any) -> Counter[int]:
    """How often each token is drawn first, over many seeds."""
    none = torch.tensor(forbidden, dtype=torch.long)
    settings = {"temperature": 1.0, **settings}
    return Counter(TokenSampler(Sampling(seed=n, **settings), none).draw(logits) for n in range(DRAWS))


def shares(counts: Counter[int]) -> list[float]:
    return [counts[i] / DRAWS for i in range(len(CHANCES))]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.5, 0.2, 0.15, 0.1, 0.05]),
        ({"temperature": 0.5}, [0.25, 0.04, 0.0225, 0.01, 0.0025]),
        ({"top_k": 2}, [0.5, 0.2, 0, 0, 0]),
        ({"top_p": 0.6}, [0.5, 0.2, 0, 0, 0]),
        # Top-p counts what top-k has left: 0.5, 0.2 and 0.15 of 0.95.
        ({"top_p": 0.8, "top_k": 4}, [0.5, 0.2, 0.15, 0, 0]),
        ({"min_p": 0.3}, [0.5, 0.2, 0.15, 0, 0]),
        ({"forbidden": (0,)}, [0, 0.2, 0.15, 0.1, 0.05]),
    ],
)
def test_tokens_are_drawn_with_their_chances(settings: dict[str, Any], expected: list[float]) -> None:
    total = sum(expected)
    found = shares(drawn(**settings))
    assert found == pytest.approx([chance / total for chance in expected], abs=0.04)
    assert [share == 0 for share in found] == [chance == 0 for chance in expected]


def test_top_p_of_a_flat_distribution_keeps_its_share() -> None:
    """More tokens than the candidates that are looked at first."""
    logits = torch.zeros(5000)
    sampler = TokenSampler(Sampling(1.0, top_p=0.5), torch.tensor([], dtype=torch.long))
    assert len({sampler.draw(logits) for _ in range(3000)}) > 1500


def test_repetition_penalty_counts_prompt_and_text_and_presence_only_text() -> None:
    """The definitions of transformers and vLLM, followed greedily by hand."""
    none, logits = torch.tensor([], dtype=torch.long), torch.tensor([2.0, 1.9, 1.8, -1.0])
    repeated = TokenSampler(Sampling(repetition_penalty=1.5), none, prompt=torch.tensor([0]))
    # 0 is in the prompt: 2 / 1.5 < 1.9. Then 1 is written: 1.9 / 1.5 < 1.8.
    assert [repeated.draw(logits) for _ in range(3)] == [1, 2, 0]
    present = TokenSampler(Sampling(presence_penalty=0.15), none, prompt=torch.tensor([0]))
    assert [present.draw(logits) for _ in range(3)] == [0, 1, 0]


def test_a_seed_repeats_and_each_draw_differs() -> None:
    none, logits = torch.tensor([], dtype=torch.long), torch.zeros(1000)
    texts = [
        [s.draw(logits) for _ in range(20)]
        for s in (TokenSampler(Sampling(1.0, seed=n), none) for n in (5, 5, 6))
    ]
    assert texts[0] == texts[1] != texts[2]
    assert len(set(texts[0])) > 15


@pytest.mark.parametrize("size", [5, 151_936])
def test_greedy_is_the_largest(size: int) -> None:
    logits = torch.randn(size, generator=torch.Generator().manual_seed(1))
    assert TokenSampler(Sampling(), torch.tensor([int(logits.argmax())])).draw(logits) == int(
        logits.topk(2).indices[1]
    )


def test_logits_without_probabilities_are_an_error() -> None:
    none = torch.tensor([], dtype=torch.long)
    for logits in (torch.full((4,), torch.nan), torch.full((4,), -torch.inf)):
        with pytest.raises(ReasonerError, match="computes no probabilities"):
            TokenSampler(Sampling(), none).draw(logits)


@pytest.mark.parametrize("size", [5, 549, 12_800, 151_936])
@pytest.mark.parametrize("count", [1, 34])
def test_the_largest_are_those_of_a_full_sort(size: int, count: int) -> None:
    """Small vocabularies, and those that are searched in blocks."""
    for seed in range(20):
        logits = torch.randn(size, generator=torch.Generator().manual_seed(seed))
        expected = logits.sort(descending=True).indices[:count]
        assert find_largest(logits, count).tolist() == expected.tolist()


def test_the_largest_of_one_block_and_of_equal_logits() -> None:
    logits = torch.zeros(12_800)
    logits[300:334] = torch.arange(34.0) + 1
    assert find_largest(logits, 34).tolist() == list(range(333, 299, -1))
    assert len(set(find_largest(torch.zeros(12_800), 34).tolist())) == 34


def test_top_k_counts_only_tokens_that_may_be_drawn() -> None:
    """The forbidden tokens are the most likely ones."""
    assert set(drawn(forbidden=(0, 1), top_k=2)) == {2, 3}
    logits = torch.arange(12_800.0) / 100
    forbidden = tuple(range(12_780, 12_800))
    assert set(drawn(forbidden=forbidden, logits=logits, top_k=2)) == {12_779, 12_778}


def test_no_probabilities_are_an_error_with_blocks_too() -> None:
    logits = torch.zeros(12_800)
    logits[77] = torch.nan
    for settings in (Sampling(), Sampling(0.6, top_k=20), Sampling(0.6, 0.95), Sampling(0.6, 0.95, top_k=20)):
        with pytest.raises(ReasonerError, match="computes no probabilities"):
            TokenSampler(settings, torch.tensor([1])).draw(logits)
