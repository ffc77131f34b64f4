"""Text for a terminal: without control characters, and with lines broken between words.

A terminal breaks lines in the middle of words. Rich breaks them between words, but only in a complete text,
and a chain of thought is shown while it is written. So `Breaker` holds a word back until it is complete.
"""

from __future__ import annotations

import re

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_PIECE = re.compile(r"\n|[^\S\n]+|\S+")


def plain(text: str, style: str = "") -> Text:
    """The text without markup, and without control characters other than newlines and tabs."""
    return Text(_CONTROL.sub("", text), style)


class Breaker:
    """Takes styled pieces and returns them with line ends between words.

    Args:
        width: In cells; None breaks no lines.
    """

    def __init__(self, width: int | None) -> None:
        self.width = max(1, width) if width else 1 << 30
        self.column = 0
        self._word = Text()
        self._space = Text()  # between the last word and this one; left out if the line is broken there

    def feed(self, text: Text) -> Text:
        """Take a piece and return what is certain to fit. The line ends of the text are kept."""
        ready = Text()
        for found in _PIECE.finditer(text.plain):
            piece, words = text[found.start() : found.end()], found.group()
            if words == "\n":
                ready.append_text(self.flush()).append("\n")
                self.column, self._space = 0, Text()
            elif words.isspace():
                ready.append_text(self.flush())
                self._space.append_text(piece)
            elif cell_len(words) == len(words) and len(self._word) + len(words) <= self.width:
                self._word.append_text(piece)
            else:
                # Scripts without spaces may be broken anywhere; so may a word longer than a line.
                for character in piece.divide(range(1, len(words))):
                    if cell_len(character.plain) > 1 or cell_len(self._word.plain) >= self.width:
                        ready.append_text(self.flush())
                    self._word.append_text(character)
        return ready

    def flush(self) -> Text:
        """Return the word that is held back, with the space before it or on a line of its own."""
        word, space = self._word, self._space
        if not word.plain:
            return Text()
        self._word, self._space = Text(), Text()
        width, gap = cell_len(word.plain), cell_len(space.plain)
        if self.column and self.column + gap + width > self.width:
            self.column = width
            return Text("\n").append_text(word)
        self.column += gap + width
        return space.append_text(word)


def break_lines(text: Text, console: Console) -> Text:
    """A complete text with its lines broken between words; unchanged if the console is no terminal."""
    if not console.is_terminal:
        return text
    breaker = Breaker(console.width)
    return breaker.feed(text).append_text(breaker.flush())
