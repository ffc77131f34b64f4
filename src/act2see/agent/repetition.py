"""Finds out when a model repeats itself forever.

Greedy decoding, and sometimes sampling, can fall into a loop: the same passage again and again, until the
tokens are spent. A loop is text that repeats one passage exactly, several times and for long; a list whose
entries differ in a number is none.
"""

from __future__ import annotations

REPEATS = 4
"""The number of times that a passage must follow itself."""
LENGTH = 1_200
"""The least length of the repeated text, in characters."""
_EVERY = 64  # characters between two checks
_PROBE = 48  # characters whose last occurrence gives the length of the passage
_LONGEST = 2_000  # characters of a passage


class RepetitionDetector:
    """Follows a text and tells when it has become a loop. A character is looked at a few times at most."""

    def __init__(self) -> None:
        self.found = False
        """Whether the text ends in a loop."""
        self._tail = ""
        self._new = 0

    def feed(self, text: str) -> bool:
        """Read more text. Return whether it ends in a loop."""
        self._tail = (self._tail + text)[-max(LENGTH, REPEATS * _LONGEST) - _PROBE :]
        self._new += len(text)
        if self._new >= _EVERY:
            self._new = 0
            self.found = self.found or is_loop(self._tail)
        return self.found


def is_loop(text: str) -> bool:
    """Return whether a text ends in a passage that follows itself for long."""
    if len(text) < LENGTH:
        return False
    end = len(text) - _PROBE
    start = text.rfind(text[end:], 0, len(text) - 1)
    period = end - start
    if start < 0 or not 0 < period <= _LONGEST:
        return False
    needed = max(LENGTH, REPEATS * period)
    tail = text[-needed:]
    return len(tail) == needed and tail[period:] == tail[:-period]
