"""Finds out when a model repeats itself forever.

Greedy decoding, and sometimes sampling, can fall into a loop: the same passage again and again, until the
tokens are spent. A loop is text that repeats one passage exactly, several times and for long. A list whose
entries differ in a number is none, unless it has hundreds of entries that are otherwise equal.
"""

from __future__ import annotations

import re

REPEATS = 3
"""The number of times that a passage must follow itself."""
COUNTED_REPEATS = 200
"""The number of times, for passages that differ only in their numbers."""
LENGTH = 1_200
"""The least length of the repeated text, in characters."""
_EVERY = 64  # characters between two checks
_PROBE = 48  # characters whose last occurrence gives the length of the passage
_LONGEST = 16_000  # characters of a passage
_LONGEST_COUNTED = 240  # characters of a passage with a number
_EVERY_COUNTED = 4_096  # characters between two checks for passages with numbers
_NUMBER = re.compile(r"\d+")


class RepetitionDetector:
    """Follows a text and tells when it has become a loop. A character is looked at a few times at most."""

    def __init__(self) -> None:
        self.found = False
        """Whether the text ends in a loop."""
        self._tail = ""
        self._new = 0
        self._new_counted = 0

    def feed(self, text: str) -> bool:
        """Read more text. Return whether it ends in a loop."""
        self._tail = (self._tail + text)[-max(LENGTH, REPEATS * _LONGEST) - _PROBE :]
        self._new += len(text)
        self._new_counted += len(text)
        if self._new >= _EVERY:
            self._new = 0
            self.found = self.found or is_loop(self._tail)
        if self._new_counted >= _EVERY_COUNTED:
            self._new_counted = 0
            counted = _NUMBER.sub("0", self._tail)
            self.found = self.found or is_loop(counted, COUNTED_REPEATS, _LONGEST_COUNTED)
        return self.found


def is_loop(text: str, repeats: int = REPEATS, longest: int = _LONGEST) -> bool:
    """Return whether a text ends in a passage that follows itself for long.

    Args:
        text: The text.
        repeats: The number of times that the passage must follow itself.
        longest: The longest passage, in characters.
    """
    if len(text) < LENGTH:
        return False
    end = len(text) - _PROBE
    start = text.rfind(text[end:], 0, len(text) - 1)
    period = end - start
    if start < 0 or not 0 < period <= longest:
        return False
    needed = max(LENGTH, repeats * period)
    tail = text[-needed:]
    return len(tail) == needed and tail[period:] == tail[:-period]
