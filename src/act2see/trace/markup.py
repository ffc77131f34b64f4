"""HTML whose elements are always closed and whose text is always escaped.

Questions, queries, file names and model output are treated as hostile. A text that is not `Html` is escaped
when it enters an element, so no page can forget it. Characters that are not allowed in a document become the
replacement character: control characters, lone surrogates, and direction controls, which reorder the text
around them.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

_FORBIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_VOID = frozenset({"img", "input", "meta"})


class Html(str):
    """Markup, which is not escaped again."""

    __slots__ = ()


def plain(text: str) -> str:
    """Replace the characters that are not allowed in a document. The text is not yet escaped."""
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)


def safe(text: str) -> Html:
    """Escape a text, as the content of an element or an attribute."""
    return text if isinstance(text, Html) else Html(html.escape(plain(text)))


def el(name: str, /, *children: str | Iterable[str | None] | None, **attributes: str | float | None) -> Html:
    """Return one element.

    Args:
        name: The element's name.
        children: Texts and elements, singly or in iterables. None is left out.
        attributes: In their names `_` means `-`, and a final `_` is dropped (`class_`). None is left out.
    """
    shown = ""
    for key, value in attributes.items():
        if value is not None:
            shown += f' {key.rstrip("_").replace("_", "-")}="{safe(str(value))}"'
    if name in _VOID:
        return Html(f"<{name}{shown}>")
    parts: list[str] = []
    for child in children:
        if isinstance(child, str):
            parts.append(safe(child))
        elif child is not None:
            parts += [safe(c) for c in child if c is not None]
    return Html(f"<{name}{shown}>{''.join(parts)}</{name}>")


def join(between: str, parts: Iterable[str | None]) -> Html:
    """Join the parts that are neither None nor empty, with `between` between them."""
    return Html(safe(between).join(safe(p) for p in parts if p))
