"""Whether a chain is one that a model may learn to write: read again, by the grammar that will read the
model.

A chain is well formed when each call in it worked, a tool returned something right after each, the thought is
there and is closed once, after the last call, and one answer that nobody forced ends it. Text is learnt as it
stands, so it must also read back as the segments that it is stored as.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from act2see.agent.grammar import RESERVED, Grammar
from act2see.errors import ConfigError
from act2see.trace.record import Answer, Call, Frames, Text
from act2see.trace.trace import Trace
from act2see.training.corpus.similarity import chain_text

_THOUGHT = re.compile(r"</?think>")


def format_fault(trace: Trace) -> str:
    """What is wrong with it, in a few words, a detail after ": "; empty where nothing is."""
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
    if bad := next((c.outcome for c in trace.calls if c.outcome != "ok"), None):
        return f"a call that did not work: {bad}"
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
    said = [s.text if isinstance(s, Text) else "" for s in trace.segments]
    marks = _THOUGHT.findall("".join(said))
    if not chain_text(trace):
        return "no thought"
    if "<think>" in marks:
        return "a thought opened twice"
    if len(marks) != 1:
        return "a thought closed twice" if marks else "a thought that is not closed"
    if "</think>" not in said[-2]:
        return "a call after the thought"
    return ""


def _reading_fault(trace: Trace) -> str:
    tags = tuple(trace.versions.tools) or tuple(dict.fromkeys(c.tag for c in trace.calls))
    # How long a query might be was the run's to say; one that worked there is not too long here.
    longest = max((Grammar(tags=()).max_query, *(len(c.text) for c in trace.calls)))
    try:
        grammar = Grammar(tags, longest)
    except ConfigError:
        return f"tags that cannot be used: {', '.join(tags)}"
    stray = re.compile("|".join(rf"</?{re.escape(name)}>" for name in (*tags, *RESERVED) if name != "think"))
    turn: list[Text | Call | Answer] = []
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


def _turn_fault(
    grammar: Grammar, turn: Sequence[Text | Call | Answer], earlier: Sequence[tuple[str, str]]
) -> str:
    """`turn` is what was written up to a call or to the answer, `earlier` the calls before it."""
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
