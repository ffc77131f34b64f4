"""The filter: select the chains of a construction run to train on, and record why the others are dropped.

It has four steps, in this order. They are the paper's, except that the cheap format check precedes the
encoder:

    construction   a chain that was dropped there (wrong after all retries, refused, ...) stays dropped
    format         the grammar reads the chain back unchanged (`format_fault`)
    similarity     its similarity to the human chain exceeds a threshold (the paper: 0.8 on BGE-M3)
    person         no reviewer rejected it (the paper: a person reads a random 100)

A chain is dropped at the first step that it fails, with a reason of the form `filter STEP: WHY[: DETAIL]`.
A filtered file can therefore be filtered again, with verdicts or another threshold: reasons of that form are
cleared first.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice

from act2see.agent.grammar import Grammar
from act2see.agent.names import RESERVED
from act2see.errors import ConfigError, CorpusError
from act2see.trace.record import Answer, Call, Frames, Text
from act2see.trace.trace import Trace
from act2see.training.corpus.records import Chain
from act2see.training.corpus.review import Verdict, chain_key, check_all_seen
from act2see.training.corpus.similarity import TextEncoder, chain_text, similarities, strip_tags

logger = logging.getLogger(__name__)

THRESHOLD = 0.8
"""The paper's threshold, on the scale of BGE-M3."""
STEPS = ("construction", "format", "similarity", "person")
BATCH = 64
"""Number of chains that are held in memory and encoded together."""

_FILTER_REASON = re.compile(r"filter (format|similarity|person): (.*)", re.DOTALL)
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
        encoder: Measures the similarities. If None, the stored similarities are used.
        threshold: The value that a similarity must exceed.
        without_chains: Keep chains without a human chain, which cannot be compared.
        verdicts: `chain_key` -> the verdict of a reviewer.

    Raises:
        ConfigError: The threshold is not between -1 and 1.
        CorpusError: A chain has no similarity and there is no encoder; or, at the end, the chain of a verdict
            is not among `chains`.
    """
    if not -1 <= threshold <= 1:
        raise ConfigError(f"the threshold is {threshold}: choose one between -1 and 1")
    return _filter(iter(chains), encoder, threshold, without_chains, verdicts or {})


def drop_reason(chain: Chain) -> tuple[str, str]:
    """Return the step that dropped a chain, and the reason without its detail, so that equal reasons can be
    counted."""
    if reason := _FILTER_REASON.fullmatch(chain.dropped):
        return reason[1], reason[2].partition(": ")[0]
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
        batch = [_clear_filter_reason(c) for c in batch]
        for step in steps:
            # A step reads only the chains that no earlier step dropped.
            checked = iter(step([c for c in batch if not c.dropped]))
            batch = [c if c.dropped else next(checked) for c in batch]
        if unseen:
            for chain in batch:
                unseen.pop(chain_key(chain), None)
        yield from batch
    check_all_seen(verdicts, list(unseen))
    if encoder and encoder.longer:
        logger.warning(
            "%d texts are longer than the window of %d tokens of %s: the mean of their windows was compared",
            encoder.longer,
            encoder.window,
            encoder.name,
        )


def _clear_filter_reason(chain: Chain) -> Chain:
    """Return the chain without the reason of an earlier filter run."""
    if _FILTER_REASON.fullmatch(chain.dropped):
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
    """Return the chains with their similarities; all texts are encoded together."""
    human = [strip_tags(c.sample.chain) for c in batch]
    pairs = []
    for chain, text in zip(batch, human, strict=True):
        if chain.trace and text:
            pairs.append((chain_text(chain.trace), text))
    measured = iter(similarities(encoder, pairs))
    out = []
    for chain, text in zip(batch, human, strict=True):
        similarity = next(measured) if text else None
        out.append(chain.model_copy(update={"similarity": similarity}))
    return out


def _compare(chain: Chain, threshold: float, without_chains: bool) -> Chain:
    if not strip_tags(chain.sample.chain):
        return chain if without_chains else _drop(chain, "similarity", "no human chain")
    if chain.similarity is None:
        raise CorpusError(f"the chain {chain.sample.id!r} has no similarity: filter with an encoder first")
    if chain.similarity > threshold:
        return chain
    return _drop(chain, "similarity", f"not above {threshold:g}")


def _check_verdict(chain: Chain, verdicts: Mapping[str, Verdict]) -> Chain:
    verdict = verdicts.get(chain_key(chain)) if verdicts else None
    if verdict is None or verdict.accepted:
        return chain
    return _drop(chain, "person", f"rejected: {verdict.comment}" if verdict.comment.strip() else "rejected")


def format_fault(trace: Trace) -> str:
    """Return the fault for which a model must not learn this chain, as `FAULT[: DETAIL]`; empty if there is
    none.

    A chain is well formed if each of its calls worked and returned something, it has a thought that is closed
    once, after the last call, and it ends with one answer that was not forced. Since a model learns the text
    literally, the grammar that reads the model must also parse the text into the stored segments.
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
    if not last.text.startswith("<answer>"):
        return "an answer without tags"
    for call in trace.calls:
        if call.outcome != "ok":
            return f"a failed call: {call.outcome}"
    return _frames_fault(trace) or _thought_fault(trace) or _reading_fault(trace)


def _frames_fault(trace: Trace) -> str:
    call: Call | None = None
    for segment in trace.segments:
        if isinstance(segment, Frames):
            if call is None or call.tag != segment.tag:
                return "frames without a call"
            if not segment.frames and not segment.note:
                return "a call without a result"
        elif call:
            return "a call without a result"
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
        return "an unclosed thought"
    if len(tags) > 1:
        return "a thought closed twice"
    if "</think>" not in texts[-2]:
        return "a call after the thought"
    return ""


def _reading_fault(trace: Trace) -> str:
    tags = tuple(trace.versions.tools) or tuple(dict.fromkeys(c.tag for c in trace.calls))
    # A query that worked in the run is not too long, even if the run's limit was higher than the default.
    longest = max((Grammar(tags=()).max_query, *(len(c.text) for c in trace.calls)))
    try:
        grammar = Grammar(tags, longest)
    except ConfigError:
        return f"invalid tool tags: {', '.join(tags)}"
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
    """Return the fault of one turn of the model.

    Args:
        grammar: The grammar of the run.
        turn: The segments of the turn; the last one is a call or the answer.
        earlier: The tag and query of each call before the turn.
    """
    written = "".join(s.text for s in turn)
    end = turn[-1]
    parser = grammar.parser(earlier=earlier)
    parser.feed(written)
    if parser.stopped is None:
        return "an unclosed tag"
    read = parser.segments[-1]
    if isinstance(read, Call) and read.outcome != "ok":
        return f"a text that is parsed as an invalid call: {read.outcome}"
    if parser.text != written or read != end:
        return "a text that is parsed differently"
    return ""
