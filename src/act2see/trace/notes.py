"""The note of a reply as a model may read it, whichever way the trace reaches the model.

A note has one of two authors. If the call before it was not run, the graph wrote it: it names the run's
tags, and models were trained on its sentences, so only the rollout's own marks are broken in it. Any other
note quotes a tool, an error, a person or the text on a screen, so all its angle brackets are replaced. The
trace itself keeps the text as it was, for people.
"""

from __future__ import annotations

from act2see.tools.runtime.outside import break_tags, quote_tags
from act2see.trace.record import Call, Frames, Segment


def readable_note(reply: Frames, before: Segment | None) -> str:
    """Return the note of a reply without anything that a model could take for a mark.

    Args:
        reply: The reply to a call.
        before: The segment before it.
    """
    is_feedback = isinstance(before, Call) and before.outcome != "ok"
    return break_tags(reply.note) if is_feedback else quote_tags(reply.note)
