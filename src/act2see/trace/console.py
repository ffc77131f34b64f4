"""Text for a terminal: without anything that the terminal would obey, and broken between words where its line
ends.

A terminal breaks lines in the middle of words. Rich breaks between them, but only a text that is whole, and a
chain of thought is shown while it is written: so a word is held back until it is over.
"""

from __future__ import annotations

import re

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_PIECE = re.compile(r"\n|[^\S\n]+|\S+")


def plain(text: str, style: str = "") -> Text:
    """Text as it is: no markup, no control characters but newlines and tabs."""
    return Text(_CONTROL.sub("", text), style)


class Breaker:
    """Takes styled pieces and gives them back with line ends between words. `width` is in cells; None breaks
    nothing."""

    def __init__(self, width: int | None) -> None:
        self.width = max(1, width) if width else 1 << 30
        self.column = 0
        self._word = Text()
        self._space = Text()  # between the last word and this one: left out where the line is broken

    def feed(self, text: Text) -> Text:
        """What is certain to fit. The line ends of the text are kept."""
        ready = Text()
        for found in _PIECE.finditer(text.plain):
            piece, said = text[found.start() : found.end()], found.group()
            if said == "\n":
                ready.append_text(self.flush()).append("\n")
                self.column, self._space = 0, Text()
            elif said.isspace():
                ready.append_text(self.flush())
                self._space.append_text(piece)
            elif cell_len(said) == len(said) and len(self._word) + len(said) <= self.width:
                self._word.append_text(piece)
            else:
                # Scripts without spaces may be broken anywhere; so may what is longer than a line.
                for character in piece.divide(range(1, len(said))):
                    if cell_len(character.plain) > 1 or cell_len(self._word.plain) >= self.width:
                        ready.append_text(self.flush())
                    self._word.append_text(character)
        return ready

    def flush(self) -> Text:
        """The word that is held back, with the space before it or on a line of its own."""
        word, space = self._word, self._space
        if not word.plain:
            return Text()
        self._word, self._space = Text(), Text()
        wide, gap = cell_len(word.plain), cell_len(space.plain)
        if self.column and self.column + gap + wide > self.width:
            self.column = wide
            return Text("\n").append_text(word)
        self.column += gap + wide
        return space.append_text(word)


def break_lines(text: Text, console: Console) -> Text:
    """A whole text with its lines broken between words, as wide as the terminal is. Elsewhere it is as it
    was."""
    if not console.is_terminal:
        return text
    breaker = Breaker(console.width)
    return breaker.feed(text).append_text(breaker.flush())
