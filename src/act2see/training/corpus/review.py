"""The page on which a person accepts or rejects a random part of the kept chains.

One self-contained HTML file, frames inside: each question with its right answer, the human chain beside the
teacher's with its frames in place, two radio buttons and a comment. It works from disk, offline, by keyboard.
What was judged stays in the browser's own storage, so a reload loses nothing, until a button saves it as the
file that `read_verdicts` reads. The content policy names the one script by its hash: no text of a chain can
become another.

Which chains are drawn depends on the seed and on the chains, not on their order, since construction is
concurrent.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from act2see.errors import CorpusError
from act2see.trace.chain import chain_section
from act2see.trace.markup import Html, el
from act2see.trace.page import initial_section, stylesheet
from act2see.trace.pictures import Pictures
from act2see.trace.record import LETTERS
from act2see.trace.trace import Trace
from act2see.training.corpus.records import Chain
from act2see.training.corpus.sources import Sample
from act2see.training.corpus.verdicts import chain_key

if TYPE_CHECKING:
    from act2see.tools.video.store import FrameSource

COUNT = 100
# Characters of base64 for the frames of one chain: a page of a hundred stays below 25 MB.
_BUDGET = 240_000
_KEYS = {
    "j": "next",
    "k": "previous",
    "a": "accept",
    "r": "reject",
    "c": "comment",
    "Esc": "leave the comment",
}


def export_review(
    chains: Iterable[Chain],
    path: str | Path,
    frames: FrameSource | None = None,
    *,
    count: int = COUNT,
    seed: int = 0,
) -> int:
    """Write a page of `count` kept chains, drawn at random; returns how many there are on it.

    `frames` gives pixels, `(h, w, 3)` uint8; by default the frame store does. Raises `CorpusError` where no
    chain was kept.
    """
    drawn, kept = _draw(chains, count, seed)
    if not drawn:
        raise CorpusError("there is nothing to review: no chain was kept (see the report)")
    page, path = _page(drawn, kept, seed, frames), Path(path)
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(page, encoding="utf-8")
        part.replace(path)
    except OSError as e:
        raise CorpusError(f"cannot write {path} ({e}): free some space, or give another folder") from e
    return len(drawn)


def _draw(chains: Iterable[Chain], count: int, seed: int) -> tuple[list[tuple[str, Chain]], int]:
    """The chains whose hash with the seed is smallest, with their keys, and among how many."""
    kept = 0

    def keyed() -> Iterator[tuple[str, str, Chain]]:
        nonlocal kept
        for chain in chains:
            if chain.trace and not chain.dropped:
                kept += 1
                key = chain_key(chain)
                yield hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).hexdigest(), key, chain

    return [(key, chain) for _, key, chain in heapq.nsmallest(count, keyed(), key=lambda k: k[0])], kept


def _page(drawn: list[tuple[str, Chain]], kept: int, seed: int, frames: FrameSource | None) -> str:
    articles, styles = [], [stylesheet(), _asset("review.css")]
    for n, (key, chain) in enumerate(drawn, start=1):
        pictures = Pictures(frames, _BUDGET)
        articles.append(_article(key, chain, f"{n} of {len(drawn)}", pictures))
        styles.append(pictures.css())
    script = _asset("review.js")
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'"
    title = f"Review of {len(drawn)} chains"
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("title", f"{title} · act2see"),
        el("style", Html("\n".join(styles))),
    )
    drawn_from = f"{len(drawn)} of {kept:,} kept chains, drawn at random (seed {seed})."
    desk = el(
        "header",
        el("span", "The page needs its script to save verdicts.", role="status"),
        el("button", "Save verdicts", id="save", type="button"),
        el(
            "p",
            [part for key, what in _KEYS.items() for part in (el("kbd", key), f" {what} ")],
            class_="keys",
        ),
        class_="desk",
    )
    intro = el(
        "p",
        f"{drawn_from} Accept a chain whose reasoning is sound and holds for the frames it names; reject it otherwise. ",
        "When all are judged, save the verdicts and give the file to the filter.",
    )
    review = hashlib.blake2b("".join(key for key, _ in drawn).encode(), digest_size=8).hexdigest()
    body = el(
        "body",
        desk,
        el("main", el("h1", title), intro, articles),
        el("script", Html(script)),
        class_="a2s page review",
        data_review=review,
    )
    return f"<!doctype html>\n{el('html', head, body, lang='en')}\n"


def _article(key: str, chain: Chain, place: str, pictures: Pictures) -> Html:
    sample, trace = chain.sample, chain.trace
    assert trace is not None
    facts = [place, f"{sample.source} {sample.id}", Path(sample.video).name]
    facts += [f"similarity {chain.similarity:.2f}"] if chain.similarity is not None else []
    human = [el("p", p.strip(), class_="said", dir="auto") for p in sample.chain.split("\n\n") if p.strip()]
    return el(
        "article",
        el("p", el("bdi", " · ".join(facts)), class_="eyebrow"),
        el("h2", sample.question, dir="auto", class_="question"),
        _answers(sample, trace),
        initial_section(trace, pictures, "h3"),
        el(
            "div",
            el("section", el("h3", "The human chain"), human or el("p", "There is none.", class_="note")),
            el("div", chain_section(trace, pictures, "h3", links=False, title="The teacher's chain")),
            class_="sides",
        ),
        _form(key),
        class_="sample",
        tabindex="-1",
        data_key=key,
        data_id=sample.id,
    )


def _answers(sample: Sample, trace: Trace) -> Html:
    given = trace.answer or ""
    if not sample.options:
        return el(
            "p",
            el("b", "Right answer: "),
            el("bdi", sample.answer),
            el("b", " The teacher's: "),
            el("bdi", given),
            class_="note",
        )
    items = []
    for i, option in enumerate(sample.options):
        right, teacher = option == sample.answer, option == trace.choice
        marks = [
            el("span", what, class_="mark")
            for what, there in (("right", right), ("the teacher's", teacher))
            if there
        ]
        letter = el("span", LETTERS[i] if i < len(LETTERS) else str(i + 1), class_="letter")
        items.append(
            el("li", letter, el("span", el("bdi", option), marks), class_="chosen" if right else None)
        )
    return el("ol", items, class_="options", role="list")


def _form(key: str) -> Html:
    buttons = [
        el("label", el("input", type="radio", name=f"verdict-{key}", value=value), f" {words}")
        for value, words in (("accept", "Accept"), ("reject", "Reject"))
    ]
    comment = el("label", "Comment", el("textarea", rows="2"), class_="comment")
    return el("fieldset", el("legend", "Verdict"), buttons, comment)


def _asset(name: str) -> str:
    return files("act2see.training.corpus").joinpath(name).read_text(encoding="utf-8")
