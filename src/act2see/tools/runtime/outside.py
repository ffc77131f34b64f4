"""Text from outside, made safe for a model and for lists of lines.

A model reads its own words, the marks that the graph writes (`<frame>`, `</think>`, `<3.7 seconds>`), and
words of others: the note of a tool, an error, a person's reason, the text on a screen. Words of others must
not look like marks, or a video could close the thought and write the answer. There are two strengths:

- `quote_tags` replaces every angle bracket, for words of which the model only needs the sense;
- `break_tags` replaces the brackets of marks alone, for words that may speak of other tags: a question about
  a web page, or the graph's own sentence about a wrong call.

Brackets become single quotation marks (U+2039, U+203A), which read the same and are in no rollout. Unicode's
noncharacters are removed: one of them separates pieces on the way to a server, and a tag that it splits would
become whole there. So are control characters: a model repeats words of others in its answer, and there they
would reach a terminal.

`one_line` is for names in a list with a line for each: a line break in a name would forge a line.
"""

from __future__ import annotations

import re
import unicodedata

from act2see.tools.runtime.text import CONTROLS

_LEFT, _RIGHT = "\u2039", "\u203a"
_QUOTES = {ord("<"): _LEFT, ord(">"): _RIGHT}
_UNSEEN = re.compile(f"[{CONTROLS}\ufdd0-\ufdef\ufffe\uffff]")
# Signs that are not letters are allowed before and after the name: `< / frame >` means the same to a model.
_MARK = re.compile(
    r"<([^\w<>]*(?:think|answer|frame|tool_call|tool_response|imagined|\d[\d.,:]*\s*s(?:ec(?:ond)?s?)?)[^\w<>]*)>",
    re.IGNORECASE,
)
_BREAKS = frozenset({"Cc", "Zl", "Zp"})  # controls and line separators
_REVERSING = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})


def quote_tags(text: str) -> str:
    """Return the text with single quotation marks (U+2039, U+203A) for all angle brackets."""
    return _UNSEEN.sub("", text).translate(_QUOTES)


def break_tags(text: str) -> str:
    """Return the text with the same marks for the brackets of the rollout's own marks; other tags stay."""
    return _MARK.sub(rf"{_LEFT}\1{_RIGHT}", _UNSEEN.sub("", text))


def one_line(text: str) -> str:
    """Return the text on one line, with an escape for each character that breaks or reverses it."""
    return text if text.isprintable() else "".join(map(_escape, text))


def _escape(char: str) -> str:
    is_harmless = (
        unicodedata.category(char) not in _BREAKS and unicodedata.bidirectional(char) not in _REVERSING
    )
    return char if is_harmless else char.encode("unicode_escape").decode("ascii")
