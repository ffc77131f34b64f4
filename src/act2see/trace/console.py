"""Text for a terminal: without control characters, and with lines broken between words.

A terminal breaks lines in the middle of words. Rich breaks them between words, but only in a complete text,
and a chain of thought is printed while it is written. So `Breaker` holds each word until it is complete.
"""

from __future__ import annotations

import re

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from act2see.tools.runtime.text import drop_controls

_PIECE = re.compile(r"\n|[^\S\n]+|\S+")


def plain(text: str, style: str = "") -> Text:
    """Return the text as rich text, unparsed, without control characters other than newlines and tabs."""
    return Text(drop_controls(text), style)


class Breaker:
    """Breaks the lines of a text that arrives in styled pieces, between words.

    Args:
        width: The line width in cells. None disables line breaking.
    """

    def __init__(self, width: int | None) -> None:
        self.width = max(1, width) if width else 1 << 30  # wider than any line
        self.column = 0  # cells already printed on the current line
        self._word = Text()
        self._space = Text()  # before the word; dropped if the line is broken there

    def feed(self, text: Text) -> Text:
        """Take a piece and return the text that is complete so far. Line ends in the text are kept."""
        ready = Text()
        for found in _PIECE.finditer(text.plain):
            piece = text[found.start() : found.end()]
            words = found.group()
            if words == "\n":
                ready.append_text(self.flush()).append("\n")
                self.column = 0
                self._space = Text()
            elif words.isspace():
                ready.append_text(self.flush())
                self._space.append_text(piece)
            elif cell_len(words) == len(words) and len(self._word) + len(words) <= self.width:
                self._word.append_text(piece)
            else:
                # Wide characters belong to scripts without spaces, in which a line can break anywhere.
                # A word longer than a line must break somewhere.
                for character in piece.divide(range(1, len(words))):
                    if cell_len(character.plain) > 1 or cell_len(self._word.plain) >= self.width:
                        ready.append_text(self.flush())
                    self._word.append_text(character)
        return ready

    def flush(self) -> Text:
        """Return the held word, preceded by its space or, if it does not fit, by a line end."""
        word = self._word
        space = self._space
        if not word.plain:
            return Text()
        self._word = Text()
        self._space = Text()
        width = cell_len(word.plain)
        gap = cell_len(space.plain)
        if self.column and self.column + gap + width > self.width:
            self.column = width
            return Text("\n").append_text(word)
        self.column += gap + width
        return space.append_text(word)


def break_lines(text: Text, console: Console) -> Text:
    """Return a complete text with lines broken between words; unchanged if the console is not a terminal."""
    if not console.is_terminal:
        return text
    breaker = Breaker(console.width)
    return breaker.feed(text).append_text(breaker.flush())
