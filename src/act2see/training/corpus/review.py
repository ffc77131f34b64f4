"""Review by a person: the page on which a person accepts or rejects drawn chains, and the file that it saves.

The page is one self-contained HTML file with embedded frames. It shows each question with its right answer,
the human chain beside the teacher's chain with its frames, two radio buttons and a comment. It works from
disk, offline, and by keyboard. The browser's storage keeps the verdicts across reloads; a button saves them
to the file that `read_verdicts` reads. The content security policy allows only the script with the given
hash, so text of a chain cannot run as a script.

The draw depends on the seed and the chains, but not on their order, since construction is concurrent. The key
of a verdict is a hash of the sample and of the text and frames of its chain, so a verdict never applies to
another attempt.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from act2see.errors import CorpusError
from act2see.tools.frames import Record
from act2see.tools.runtime.files import write_text
from act2see.tools.runtime.plain_json import read_json
from act2see.tools.runtime.text import first_problem, quote_text
from act2see.trace.chain import chain_section
from act2see.trace.markup import Html, el
from act2see.trace.options import option_label
from act2see.trace.page import initial_section, stylesheet
from act2see.trace.pictures import Pictures
from act2see.trace.trace import Trace
from act2see.training.corpus.records import Chain
from act2see.training.corpus.sources import Sample

if TYPE_CHECKING:
    from act2see.tools.video.store import FrameSource

VERDICTS_VERSION = 1
COUNT = 100
"""The paper has a person read a random 100 chains."""

# Base64 characters for the frames of one chain: a page of a hundred chains is smaller than 25 MB.
_PICTURES_BUDGET = 240_000
_KEYS = {
    "j": "next",
    "k": "previous",
    "a": "accept",
    "r": "reject",
    "c": "comment",
    "Esc": "leave the comment",
}


class Verdict(Record):
    """A person's decision on one chain."""

    key: str
    """The chain's `chain_key`."""
    id: str
    """The sample's id, for error messages."""
    accepted: bool
    comment: str = ""


class _PageEntry(Record):
    """A chain that was on the page."""

    key: str
    id: str


class _VerdictsFile(Record):
    """The file that the review page saves."""

    verdicts_version: int
    review: str
    asked: tuple[_PageEntry, ...]
    verdicts: tuple[Verdict, ...]


def chain_key(chain: Chain) -> str:
    """Return 16 hexadecimal digits, equal for chains of the same sample with equal text and frames."""
    trace = chain.trace
    seen = [trace.text, [f.digest for f in trace.shown]] if trace else []
    return _hash(json.dumps([chain.sample.source, chain.sample.id, *seen]))


def export_review(
    chains: Iterable[Chain],
    path: str | Path,
    frames: FrameSource | None = None,
    *,
    count: int = COUNT,
    seed: int = 0,
) -> int:
    """Write the review page.

    Args:
        chains: Filtered chains; only kept chains can be drawn.
        path: The HTML file.
        frames: The source of pixels, `(h, w, 3)` uint8. Default: the frame store.
        count: The number of chains to draw.
        seed: The seed of the draw.

    Returns:
        The number of chains on the page.

    Raises:
        CorpusError: No chain was kept.
        StoreError: The page cannot be written.
    """
    drawn, kept = _draw(chains, count, seed)
    if not drawn:
        raise CorpusError("there is nothing to review, since no chain was kept: see the report")
    write_text(Path(path), _page(drawn, kept, seed, frames))
    return len(drawn)


def read_verdicts(path: str | Path, *, partial: bool = False) -> dict[str, Verdict]:
    """Read a file of verdicts.

    Args:
        path: The file that the review page saved.
        partial: Accept a file in which some chains have no verdict.

    Returns:
        `chain_key` -> verdict.

    Raises:
        CorpusError: The file is not of the review page; a verdict is on a chain that was not on the page; a
            chain has two verdicts; or, unless `partial`, a chain has no verdict.
    """
    file = _read_file(Path(path))
    asked = {entry.key: entry.id for entry in file.asked}
    verdicts = {v.key: v for v in file.verdicts}
    if unknown := [v.id for v in file.verdicts if v.key not in asked]:
        raise CorpusError(
            f"{path} has verdicts on chains that were not on the page ({first_few(unknown)}): "
            "give the unchanged file that the page saved"
        )
    if twice := [v.id for v in file.verdicts if verdicts[v.key] is not v]:
        raise CorpusError(
            f"{path} has two verdicts on the same chain ({first_few(twice)}): "
            "give the unchanged file that the page saved"
        )
    missing = [id for key, id in asked.items() if key not in verdicts]
    if missing and not partial:
        raise CorpusError(
            f"{path} has no verdict on {len(missing)} of {len(asked)} chains ({first_few(missing)}): "
            "judge them on the page, which still has the other verdicts, and save the file again"
        )
    return verdicts


def check_all_seen(verdicts: Mapping[str, Verdict], unseen: Sequence[str]) -> None:
    """Raise an error if there are verdicts without a chain.

    Args:
        verdicts: `chain_key` -> verdict.
        unseen: The keys of the verdicts whose chain was not found.

    Raises:
        CorpusError: `unseen` is not empty.
    """
    if unseen:
        raise CorpusError(
            f"{len(unseen)} of {len(verdicts)} verdicts are on chains that are missing or have changed "
            f"({first_few([verdicts[k].id for k in unseen])}): "
            "give the chains that the page was made from, or review these"
        )


def first_few(ids: Sequence[str]) -> str:
    """Return the first five ids and the number of further ones."""
    more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
    return ", ".join(ids[:5]) + more


def _read_file(path: Path) -> _VerdictsFile:
    try:
        data: Any = read_json(path)
    except (OSError, ValueError) as e:
        raise CorpusError(f"cannot read {path} ({e}): give the file that the review page saved") from e
    version = data.get("verdicts_version") if isinstance(data, dict) else None
    if version != VERDICTS_VERSION:
        raise CorpusError(
            f"{path} has verdicts version {quote_text(repr(version))}, but this act2see reads version "
            f"{VERDICTS_VERSION}: make the review page again"
        )
    try:
        return _VerdictsFile.model_validate(data)
    except ValidationError as e:
        field, problem = first_problem(e)
        raise CorpusError(f"{path}: {field}: {problem}") from e


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _draw(chains: Iterable[Chain], count: int, seed: int) -> tuple[list[tuple[str, Chain]], int]:
    """Draw the kept chains whose hash with the seed is smallest.

    Returns:
        The drawn chains with their keys, and the number of kept chains.
    """
    kept = 0

    def ranked() -> Iterator[tuple[str, str, Chain]]:
        nonlocal kept
        for chain in chains:
            if chain.trace and not chain.dropped:
                kept += 1
                key = chain_key(chain)
                yield _hash(f"{seed}:{key}"), key, chain

    smallest = heapq.nsmallest(count, ranked(), key=lambda entry: entry[0])
    return [(key, chain) for _, key, chain in smallest], kept


def _page(drawn: list[tuple[str, Chain]], kept: int, seed: int, frames: FrameSource | None) -> str:
    """Return the HTML of the page.

    Args:
        drawn: The drawn chains with their keys.
        kept: The number of kept chains.
        seed: The seed of the draw.
        frames: The source of pixels.
    """
    articles = []
    styles = [stylesheet(), _asset("review.css")]
    for n, (key, chain) in enumerate(drawn, start=1):
        pictures = Pictures(frames, _PICTURES_BUDGET)
        articles.append(_article(key, chain, f"{n} of {len(drawn)}", pictures))
        styles.append(pictures.css())
    script = _asset("review.js")
    digest = hashlib.sha256(script.encode()).digest()
    allowed = f"'sha256-{base64.b64encode(digest).decode()}'"
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"
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
    intro = el(
        "p",
        f"{len(drawn)} of {kept:,} kept chains, drawn at random (seed {seed}). ",
        "Accept a chain if its reasoning is sound and agrees with the frames that it names; else reject it. ",
        "When all chains are judged, save the verdicts and give the file to the filter.",
    )
    body = el(
        "body",
        _toolbar(),
        el("main", el("h1", title), intro, articles),
        el("script", Html(script)),
        class_="a2s page review",
        data_review=_hash("".join(key for key, _ in drawn)),
    )
    return f"<!doctype html>\n{el('html', head, body, lang='en')}\n"


def _toolbar() -> Html:
    """Return the header with the status, the button that saves, and the keyboard shortcuts."""
    keys: list[Html | str] = []
    for key, action in _KEYS.items():
        keys += [el("kbd", key), f" {action} "]
    return el(
        "header",
        el("span", "Enable scripts: the page needs its script to save verdicts.", role="status"),
        el("button", "Save verdicts", id="save", type="button"),
        el("p", keys, class_="keys"),
        class_="desk",
    )


def _article(key: str, chain: Chain, place: str, pictures: Pictures) -> Html:
    """Return the section of one chain.

    Args:
        key: The chain's key.
        chain: The chain.
        place: Its place on the page: "1 of 100".
        pictures: The frames of the section.
    """
    sample, trace = chain.sample, chain.trace
    assert trace is not None
    facts = [place, f"{sample.source} {sample.id}", Path(sample.video).name]
    if chain.similarity is not None:
        facts.append(f"similarity {chain.similarity:.2f}")
    paragraphs = [text.strip() for text in sample.chain.split("\n\n") if text.strip()]
    human = [el("p", text, class_="said", dir="auto") for text in paragraphs]
    human = human or [el("p", "There is no human chain.", class_="note")]
    return el(
        "article",
        el("p", el("bdi", " · ".join(facts)), class_="eyebrow"),
        el("h2", sample.question, dir="auto", class_="question"),
        _answers(sample, trace),
        initial_section(trace, pictures, "h3"),
        el(
            "div",
            el("section", el("h3", "The human chain"), human),
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
        is_right = option == sample.answer
        marks = []
        if is_right:
            marks.append(el("span", "right", class_="mark"))
        if option == trace.choice:
            marks.append(el("span", "the teacher's", class_="mark"))
        letter = el("span", option_label(i), class_="letter")
        text = el("span", el("bdi", option), marks)
        items.append(el("li", letter, text, class_="chosen" if is_right else None))
    return el("ol", items, class_="options", role="list")


def _form(key: str) -> Html:
    buttons = []
    for value, label in (("accept", "Accept"), ("reject", "Reject")):
        radio = el("input", type="radio", name=f"verdict-{key}", value=value)
        buttons.append(el("label", radio, f" {label}"))
    comment = el("label", "Comment", el("textarea", rows="2"), class_="comment")
    return el("fieldset", el("legend", "Verdict"), buttons, comment)


def _asset(name: str) -> str:
    return files("act2see.training.corpus").joinpath(name).read_text(encoding="utf-8")
