"""The filter: what of a construction run is good enough to learn from, and why the rest is not.

    construction   what fell there (wrong after all retries, refused, ...) stays so
    format         the chain reads back by the grammar (`format_check`)
    similarity     its text is closer to the human chain than a threshold
    person         nobody who looked at it rejected it

A chain falls at the first step that it fails and keeps the reason, as `filter STEP: WHY[: DETAIL]`. So a file
that was filtered can be filtered again, with verdicts or with another threshold: its reasons are weighed
anew.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice

from act2see.errors import ConfigError, CorpusError
from act2see.training.corpus.format_check import format_fault
from act2see.training.corpus.records import Chain
from act2see.training.corpus.similarity import Encoder, chain_text, plain, similarities
from act2see.training.corpus.verdicts import Verdict, chain_key, check_known

logger = logging.getLogger(__name__)

THRESHOLD = 0.8
STEPS = ("construction", "format", "similarity", "person")
BATCH = 64
_OURS = re.compile(r"filter (format|similarity|person): (.*)", re.DOTALL)

Step = Callable[[Sequence[Chain]], Sequence[Chain]]


def filter_chains(
    chains: Iterable[Chain],
    encoder: Encoder | None,
    *,
    threshold: float = THRESHOLD,
    without_chains: bool = False,
    verdicts: Mapping[str, Verdict] | None = None,
) -> Iterator[Chain]:
    """All chains, in order, with `similarity` and `dropped` set; 64 of them are in memory at once.

    A similarity must exceed `threshold`; 0.8 is the paper's, on the scale of BGE-M3. Without an encoder the
    similarities that the chains already have are taken. `without_chains` lets chains through that have no
    human one to be compared with. Raises `CorpusError`, at the end, for verdicts on chains that did not come.
    """
    if not -1 <= threshold <= 1:
        raise ConfigError(f"the threshold is {threshold}: a similarity lies between -1 and 1")
    return _filtered(iter(chains), encoder, threshold, without_chains, verdicts or {})


def fallen(chain: Chain) -> tuple[str, str]:
    """The step at which a dropped chain fell and why, without details: equal for chains that fell alike."""
    if ours := _OURS.fullmatch(chain.dropped):
        return ours[1], ours[2].partition(": ")[0]
    last = chain.attempts[-1].outcome if chain.attempts else "right"
    return "construction", last if last != "right" else chain.dropped.partition(": ")[0]


def _filtered(
    chains: Iterator[Chain],
    encoder: Encoder | None,
    threshold: float,
    without_chains: bool,
    verdicts: Mapping[str, Verdict],
) -> Iterator[Chain]:
    steps: tuple[Step, ...] = (
        lambda batch: [_format(c) for c in batch],
        lambda batch: _similarity(batch, encoder, threshold, without_chains),
        lambda batch: [_person(c, verdicts) for c in batch],
    )
    unseen = dict.fromkeys(verdicts)
    while batch := list(islice(chains, BATCH)):
        batch = [c.model_copy(update={"dropped": ""}) if _OURS.fullmatch(c.dropped) else c for c in batch]
        for step in steps:
            judged = iter(step([c for c in batch if not c.dropped]))
            batch = [c if c.dropped else next(judged) for c in batch]
        if unseen:
            for chain in batch:
                unseen.pop(chain_key(chain), None)
        yield from batch
    check_known(verdicts, list(unseen))
    if encoder and encoder.longer:
        logger.warning(
            "%d texts are longer than the %d tokens of %s: they were compared by the mean of their windows",
            encoder.longer,
            encoder.window,
            encoder.name,
        )


def _drop(chain: Chain, step: str, why: str) -> Chain:
    return chain.model_copy(update={"dropped": f"filter {step}: {why}"}) if why else chain


def _format(chain: Chain) -> Chain:
    return _drop(chain, "format", format_fault(chain.trace) if chain.trace else "no trace")


def _similarity(
    batch: Sequence[Chain], encoder: Encoder | None, threshold: float, without_chains: bool
) -> list[Chain]:
    human = [plain(c.sample.chain) for c in batch]
    if encoder:
        pairs = [
            (chain_text(c.trace), text) for c, text in zip(batch, human, strict=True) if c.trace and text
        ]
        measured = iter(similarities(encoder, pairs))
        batch = [
            c.model_copy(update={"similarity": next(measured) if text else None})
            for c, text in zip(batch, human, strict=True)
        ]
    out = []
    for chain, text in zip(batch, human, strict=True):
        if not text:
            out.append(chain if without_chains else _drop(chain, "similarity", "no human chain"))
        elif chain.similarity is None:
            raise CorpusError(
                f"the chain {chain.sample.id!r} has no similarity yet: filter with an encoder first"
            )
        else:
            out.append(
                chain
                if chain.similarity > threshold
                else _drop(chain, "similarity", f"not above {threshold:g}")
            )
    return out


def _person(chain: Chain, verdicts: Mapping[str, Verdict]) -> Chain:
    verdict = verdicts.get(chain_key(chain)) if verdicts else None
    if verdict is None or verdict.accepted:
        return chain
    return _drop(chain, "person", f"rejected: {verdict.comment}" if verdict.comment.strip() else "rejected")
