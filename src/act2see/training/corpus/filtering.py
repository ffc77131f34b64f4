"""The filter: which chains of a construction run are good enough to train on, and why the others are not.

Four steps, in this order. They are the paper's, but the cheap format check comes before the encoder:

    construction   a chain that was dropped there (wrong after all retries, refused, ...) stays dropped
    format         the chain reads back by the grammar (`format_fault`)
    similarity     its text is more similar to the human chain than a threshold (the paper: 0.8 on BGE-M3)
    person         no reviewer rejected it (the paper: a person reads a random 100)

A chain is dropped at the first step that it fails and keeps the reason, as `filter STEP: WHY[: DETAIL]`. So a
filtered file can be filtered again, with verdicts or with another threshold: its own reasons are
reconsidered.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice

from act2see.agent.grammar import Grammar
from act2see.agent.parser import RESERVED
from act2see.errors import ConfigError, CorpusError
from act2see.trace.record import Answer, Call, Frames, Text
from act2see.trace.trace import Trace
from act2see.training.corpus.records import Chain
from act2see.training.corpus.review import Verdict, chain_key, check_all_seen
from act2see.training.corpus.similarity import TextEncoder, chain_text, plain, similarities

logger = logging.getLogger(__name__)

THRESHOLD = 0.8
"""The paper's, on the scale of BGE-M3."""
STEPS = ("construction", "format", "similarity", "person")
BATCH = 64
"""Chains that are in memory, and compared, at once."""

_OURS = re.compile(r"filter (format|similarity|person): (.*)", re.DOTALL)
_THOUGHT_TAG = re.compile(r"</?think>")

Step = Callable[[Sequence[Chain]], Sequence[Chain]]
ModelSegment = Text | Call | Answer


def filter_chains(
    chains: Iterable[Chain],
    encoder: TextEncoder | None,
    *,
    threshold: float = THRESHOLD,
    without_chains: bool = False,
    verdicts: Mapping[str, Verdict] | None = None,
) -> Iterator[Chain]:
    """Yield all chains, in order, with `similarity` and `dropped` set.

    Args:
        chains: The chains of a construction run, or of an earlier filter run.
        encoder: Measures the similarities. None takes those that the chains already have.
        threshold: A similarity must exceed it.
        without_chains: Keep chains that have no human chain to be compared with.
        verdicts: The verdicts of reviewers, by `chain_key`.

    Raises:
        ConfigError: The threshold is not between -1 and 1.
        CorpusError: A chain has no similarity and there is no encoder; or, at the end, a verdict is on a
            chain that is not among `chains`.
    """
    if not -1 <= threshold <= 1:
        raise ConfigError(f"the threshold is {threshold}: a similarity lies between -1 and 1")
    return _filter(iter(chains), encoder, threshold, without_chains, verdicts or {})


def drop_reason(chain: Chain) -> tuple[str, str]:
    """The step at which a dropped chain fell, and the reason without its detail, so that equal reasons can be
    counted."""
    if ours := _OURS.fullmatch(chain.dropped):
        return ours[1], ours[2].partition(": ")[0]
    last = chain.attempts[-1].outcome if chain.attempts else "right"
    return "construction", last if last != "right" else chain.dropped.partition(": ")[0]


def _filter(
    chains: Iterator[Chain],
    encoder: TextEncoder | None,
    threshold: float,
    without_chains: bool,
    verdicts: Mapping[str, Verdict],
) -> Iterator[Chain]:
    steps: tuple[Step, ...] = (
        lambda batch: [_check_format(c) for c in batch],
        lambda batch: _check_similarity(batch, encoder, threshold, without_chains),
        lambda batch: [_check_verdict(c, verdicts) for c in batch],
    )
    unseen = dict.fromkeys(verdicts)
    while batch := list(islice(chains, BATCH)):
        batch = [_reconsidered(c) for c in batch]
        for step in steps:
            judged = iter(step([c for c in batch if not c.dropped]))
            batch = [c if c.dropped else next(judged) for c in batch]
        if unseen:
            for chain in batch:
                unseen.pop(chain_key(chain), None)
        yield from batch
    check_all_seen(verdicts, list(unseen))
    if encoder and encoder.longer:
        logger.warning(
            "%d texts are longer than the %d tokens of %s: they were compared by the mean of their windows",
            encoder.longer,
            encoder.window,
            encoder.name,
        )


def _reconsidered(chain: Chain) -> Chain:
    """The chain without the reason that an earlier filter run gave it."""
    if _OURS.fullmatch(chain.dropped):
        return chain.model_copy(update={"dropped": ""})
    return chain


def _drop(chain: Chain, step: str, why: str) -> Chain:
    return chain.model_copy(update={"dropped": f"filter {step}: {why}"})


def _check_format(chain: Chain) -> Chain:
    fault = format_fault(chain.trace) if chain.trace else "no trace"
    return _drop(chain, "format", fault) if fault else chain


def _check_similarity(
    batch: Sequence[Chain], encoder: TextEncoder | None, threshold: float, without_chains: bool
) -> list[Chain]:
    if encoder:
        batch = _measure(batch, encoder)
    return [_compare(chain, threshold, without_chains) for chain in batch]


def _measure(batch: Sequence[Chain], encoder: TextEncoder) -> list[Chain]:
    """The chains with their similarities, all encoded together."""
    human = [plain(c.sample.chain) for c in batch]
    pairs = [(chain_text(c.trace), text) for c, text in zip(batch, human, strict=True) if c.trace and text]
    measured = iter(similarities(encoder, pairs))
    out = []
    for chain, text in zip(batch, human, strict=True):
        similarity = next(measured) if text else None
        out.append(chain.model_copy(update={"similarity": similarity}))
    return out


def _compare(chain: Chain, threshold: float, without_chains: bool) -> Chain:
    if not plain(chain.sample.chain):
        return chain if without_chains else _drop(chain, "similarity", "no human chain")
    if chain.similarity is None:
        raise CorpusError(
            f"the chain {chain.sample.id!r} has no similarity yet: filter with an encoder first"
        )
    if chain.similarity > threshold:
        return chain
    return _drop(chain, "similarity", f"not above {threshold:g}")


def _check_verdict(chain: Chain, verdicts: Mapping[str, Verdict]) -> Chain:
    verdict = verdicts.get(chain_key(chain)) if verdicts else None
    if verdict is None or verdict.accepted:
        return chain
    return _drop(chain, "person", f"rejected: {verdict.comment}" if verdict.comment.strip() else "rejected")


def format_fault(trace: Trace) -> str:
    """Why a model must not learn to write this chain, in a few words, a detail after ": "; empty if it may.

    A chain is well formed if each call in it worked and returned something, its thought is there and is
    closed once, after the last call, and it ends with one answer that was not forced. Text is learnt as it
    is, so it must also read back, by the grammar that will read the model, as the segments that it is stored
    as.
    """
    last = trace.segments[-1] if trace.segments else None
    answers = sum(isinstance(s, Answer) for s in trace.segments)
    if not isinstance(last, Answer):
        return "no answer at the end"
    if answers > 1:
        return "several answers"
    if last.forced or any(isinstance(s, Text) and s.author == "graph" for s in trace.segments):
        return "a forced answer"
    if not last.body:
        return "an empty answer"
    for call in trace.calls:
        if call.outcome != "ok":
            return f"a call that did not work: {call.outcome}"
    return _frames_fault(trace) or _thought_fault(trace) or _reading_fault(trace)


def _frames_fault(trace: Trace) -> str:
    call: Call | None = None
    for segment in trace.segments:
        if isinstance(segment, Frames):
            if call is None or call.tag != segment.tag:
                return "frames that no call asked for"
            if not segment.frames and not segment.note:
                return "a call that nothing came of"
        elif call:
            return "a call that nothing came of"
        call = segment if isinstance(segment, Call) else None
    return ""


def _thought_fault(trace: Trace) -> str:
    texts = [s.text if isinstance(s, Text) else "" for s in trace.segments]
    tags = _THOUGHT_TAG.findall("".join(texts))
    if not chain_text(trace):
        return "no thought"
    if "<think>" in tags:
        return "a thought opened twice"
    if not tags:
        return "a thought that is not closed"
    if len(tags) > 1:
        return "a thought closed twice"
    if "</think>" not in texts[-2]:
        return "a call after the thought"
    return ""


def _reading_fault(trace: Trace) -> str:
    tags = tuple(trace.versions.tools) or tuple(dict.fromkeys(c.tag for c in trace.calls))
    # The run decided how long a query may be; one that worked there is not too long here.
    longest = max((Grammar(tags=()).max_query, *(len(c.text) for c in trace.calls)))
    try:
        grammar = Grammar(tags, longest)
    except ConfigError:
        return f"tags that cannot be used: {', '.join(tags)}"
    names = [re.escape(name) for name in (*tags, *RESERVED) if name != "think"]
    stray = re.compile("|".join(f"</?{name}>" for name in names))
    turn: list[ModelSegment] = []
    earlier: list[tuple[str, str]] = []
    for segment in trace.segments:
        if isinstance(segment, Frames):
            continue
        turn.append(segment)
        if isinstance(segment, Text):
            if found := stray.search(segment.text):
                return f"a stray tag: {found.group()}"
            continue
        if fault := _turn_fault(grammar, turn, earlier):
            return fault
        if isinstance(segment, Call):
            earlier.append((segment.tag, segment.query))
        turn = []
    return ""


def _turn_fault(grammar: Grammar, turn: Sequence[ModelSegment], earlier: Sequence[tuple[str, str]]) -> str:
    """`turn` is what the model wrote up to a call or to the answer, `earlier` the calls before it."""
    written, end = "".join(s.text for s in turn), turn[-1]
    parser = grammar.parser(earlier=earlier)
    parser.feed(written)
    if parser.stopped is None:
        return "a tag that is not closed"
    read = parser.segments[-1]
    if isinstance(read, Call) and read.outcome != "ok":
        return f"a call that does not read as one: {read.outcome}"
    if parser.text != written or read != end:
        return "a text that reads as something else"
    return ""
