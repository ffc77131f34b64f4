"""The review page: it is self-contained and safe, and its verdicts are read back or refused with a reason."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tests.training.board_chains import build_chain, make_sample

from act2see.errors import CorpusError
from act2see.micro.source import load_world
from act2see.tools.video.store import FrameStore
from act2see.training.corpus.filtering import filter_chains
from act2see.training.corpus.records import Chain, read_chains, write_chains
from act2see.training.corpus.review import chain_key, export_review, read_verdicts

HOSTILE = "\"'></script><script>alert(1)</script><img src=x onerror='f()'></style></textarea></title>\u202e"


class Page(HTMLParser):
    """A strict parser of a page: every element must be closed, in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.html = path.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.content: dict[str, str] = {}
        self.feed(self.html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {k: v or "" for k, v in attrs}))
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        where = self.open[-1] if self.open and self.open[-1] in ("script", "style") else "text"
        self.content[where] = self.content.get(where, "") + data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def policy(self) -> str:
        return next(
            a["content"] for a in self.all("meta") if a.get("http-equiv") == "Content-Security-Policy"
        )


@pytest.fixture
def world(tmp_path: Path) -> tuple[list[Chain], FrameStore]:
    store = FrameStore(tmp_path / "frames")
    samples = load_world(4, tmp_path)
    tags = ((), ("retrieve",), ("generate",), ("retrieve", "generate"))
    return [
        build_chain(s, *t, store=store, similarity=0.91) for s, t in zip(samples, tags, strict=True)
    ], store


def export_page(path: Path, chains: list[Chain], store: FrameStore | None = None, **options: Any) -> Page:
    export_review(chains, path, store if store else None, **options)
    return Page(path)


def save_verdicts(
    page: Page, path: Path, rejected: tuple[str, ...] = (), left: int = 0, **changes: Any
) -> Path:
    """Write the file that the page saves if all samples except the last `left` are judged."""
    articles = [{"key": a["data-key"], "id": a["data-id"]} for a in page.all("article")]
    judged = [
        a | {"accepted": a["id"] not in rejected, "comment": ""} for a in articles[: len(articles) - left]
    ]
    data = {
        "verdicts_version": 1,
        "review": page.all("body")[0]["data-review"],
        "asked": articles,
        "verdicts": judged,
    }
    path.write_text(json.dumps(data | changes), encoding="utf-8")
    return path


def test_review_page_shows_each_chain_beside_the_human_chain(
    tmp_path: Path, world: tuple[list[Chain], FrameStore]
) -> None:
    chains, store = world
    page = export_page(tmp_path / "review.html", chains, store)
    assert len(page.all("article")) == 4
    assert {a["data-key"] for a in page.all("article")} == {chain_key(c) for c in chains}
    words = " ".join(page.content["text"].split())
    for chain in chains:
        assert chain.sample.question in words
        assert chain.sample.chain.split("\n\n")[0].strip()[:80] in words
        assert words.count(" ".join(chain.sample.chain.split())[:80]) >= 2
    assert words.count("The human chain") == words.count("The teacher's chain") == 4
    assert "similarity 0.91" in words
    radios = [(a["value"], a["name"]) for a in page.all("input")]
    assert len(set(radios)) == 8
    assert len(page.all("textarea")) == 4
    # Two initial frames of all chains, a retrieved frame, an imagined frame and its anchor: each once.
    assert page.content["style"].count("data:image/png") + page.content["style"].count("data:image/jpeg") >= 5
    assert "no picture" not in words
    assert sum("imagined, not in the video" in a.get("aria-label", "") for a in page.all("div")) == 2


def test_review_page_is_self_contained_and_runs_one_script(
    tmp_path: Path, world: tuple[list[Chain], FrameStore]
) -> None:
    page = export_page(tmp_path / "review.html", *world)
    [script] = page.all("script")
    assert script == {}
    digest = base64.b64encode(hashlib.sha256(page.content["script"].encode()).digest()).decode()
    assert (
        page.policy
        == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )
    assert not re.search(
        r"(?:src|href)=|https?://|@import|url\((?!data:)", page.html.replace("link.href", "")
    )
    assert len(page.html) < 2_000_000


def test_review_page_escapes_hostile_text(tmp_path: Path) -> None:
    sample = make_sample(
        1, HOSTILE, id=HOSTILE, source=HOSTILE, video=HOSTILE, question=HOSTILE, options=(HOSTILE, "green")
    )
    page = export_page(
        tmp_path / "review.html",
        [
            build_chain(sample, "retrieve", thought=HOSTILE),
            build_chain(make_sample(2, options=()), thought=HOSTILE),
        ],
    )
    assert len(page.all("script")) == 1
    assert page.all("img") == []
    assert len(page.all("style")) == 1
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.content["text"].count("<script>alert(1)</script>") >= 6
    assert "\u202e" not in page.html
    assert "no picture" in page.content["text"]


def test_drawn_chains_depend_on_the_seed_and_not_on_the_order(tmp_path: Path) -> None:
    chains = [build_chain(make_sample(n), dropped="" if n % 2 else "x") for n in range(200)]
    kept = {f"q{n}" for n in range(1, 200, 2)}

    def drawn(seed: int, chains: list[Chain], count: int = 20) -> list[str]:
        return [
            a["data-id"]
            for a in export_page(tmp_path / "r.html", chains, seed=seed, count=count).all("article")
        ]

    first = drawn(0, chains)
    assert len(set(first)) == 20
    assert set(first) < kept
    assert drawn(0, random.Random(1).sample(chains, 200)) == first
    assert set(drawn(1, chains)) != set(first)
    assert set(drawn(0, chains, 300)) == kept
    with pytest.raises(CorpusError, match="no chain was kept"):
        export_review([c for c in chains if c.dropped], tmp_path / "r.html")


def test_saved_verdicts_can_be_read_and_used_by_the_filter(
    tmp_path: Path, world: tuple[list[Chain], FrameStore]
) -> None:
    chains, store = world
    page = export_page(tmp_path / "review.html", chains, store)
    verdicts = read_verdicts(save_verdicts(page, tmp_path / "verdicts.json", rejected=("world-1",)))
    assert {v.id: v.accepted for v in verdicts.values()} == {f"world-{n}": n != 1 for n in range(4)}
    write_chains(chains, tmp_path / "chains.jsonl")
    out = list(filter_chains(read_chains(tmp_path / "chains.jsonl"), None, verdicts=verdicts))
    assert [c.dropped for c in out] == ["", "filter person: rejected", "", ""]


def test_chain_key_depends_on_text_and_frames() -> None:
    one = build_chain(make_sample(1), "retrieve")
    assert one.trace
    assert (
        chain_key(one)
        == chain_key(Chain.model_validate_json(one.model_dump_json()))
        == chain_key(one.model_copy(update={"similarity": 0.9}))
    )
    others = [
        build_chain(make_sample(1)),
        build_chain(make_sample(1), "generate"),
        build_chain(make_sample(1, source="x"), "retrieve"),
        build_chain(make_sample(1), "retrieve", thought="A"),
    ]
    fewer = one.model_copy(update={"trace": one.trace.model_copy(update={"initial": ()})})
    assert len({chain_key(c) for c in (one, fewer, *others)}) == 6


def test_read_verdicts_names_what_is_wrong(tmp_path: Path) -> None:
    page = export_page(tmp_path / "review.html", [build_chain(make_sample(n)) for n in range(8)])
    last = [a["data-id"] for a in page.all("article")][-6:]
    file = tmp_path / "v.json"
    with pytest.raises(
        CorpusError, match=rf"no verdict on 6 of 8 chains \({', '.join(last[:5])} and 1 more\)"
    ):
        read_verdicts(save_verdicts(page, file, left=6))
    assert len(read_verdicts(file, partial=True)) == 2
    verdict = {"key": "0" * 16, "id": "stranger", "accepted": True, "comment": ""}
    with pytest.raises(CorpusError, match=r"not on the page \(stranger\)"):
        read_verdicts(save_verdicts(page, file, verdicts=[verdict]))
    known = {**verdict, "key": page.all("article")[0]["data-key"], "id": "q"}
    with pytest.raises(CorpusError, match=r"two verdicts on the same chain \(q\)"):
        read_verdicts(save_verdicts(page, file, verdicts=[known, known]))
    with pytest.raises(CorpusError, match=r"verdicts\.0\.accepted"):
        read_verdicts(save_verdicts(page, file, verdicts=[known | {"accepted": "perhaps"}]))
    with pytest.raises(CorpusError, match="version 9"):
        read_verdicts(save_verdicts(page, file, verdicts_version=9))
    for content in (b"[1", b"[]", b"\xff", None):
        file.unlink() if content is None else file.write_bytes(content)
        with pytest.raises(CorpusError, match=r"v\.json"):
            read_verdicts(file)
