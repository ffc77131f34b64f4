"""HTML by construction: elements that are always closed, text that is always escaped.

Questions, queries, file names and model output are hostile here. Whatever is not `Html` already is escaped
when it enters an element, so a page cannot forget to. What has no place in a document becomes the replacement
character: control characters, lone surrogates, and direction controls, which reorder what stands around them.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

_NO_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_VOID = frozenset({"input", "meta"})


class Html(str):
    """Markup: it stands in a page as it is."""

    __slots__ = ()


def plain(text: str) -> str:
    """`text` with the replacement character for what has no place in a document: not yet escaped."""
    return _NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", text)


def safe(text: str) -> Html:
    """`text` as the content of an element or an attribute."""
    return text if isinstance(text, Html) else Html(html.escape(plain(text)))


def el(name: str, /, *children: str | Iterable[str | None] | None, **attributes: str | float | None) -> Html:
    """One element. In attribute names `_` is `-` and an end `_` is dropped (`class_`); what is None is left
    out."""
    shown = "".join(
        f' {k.rstrip("_").replace("_", "-")}="{safe(str(v))}"' for k, v in attributes.items() if v is not None
    )
    if name in _VOID:
        return Html(f"<{name}{shown}>")
    parts: list[str] = []
    for child in children:
        if child is not None:
            parts += [safe(child)] if isinstance(child, str) else [safe(c) for c in child if c is not None]
    return Html(f"<{name}{shown}>{''.join(parts)}</{name}>")


def join(between: str, parts: Iterable[str | None]) -> Html:
    """The parts that there are, with `between` between them."""
    return Html(safe(between).join(safe(p) for p in parts if p))
