"""Exports of a corpus for other trainers, and the way back.

An export is a folder: the trainer's file, `images/` with each frame once, and act2see.json. Each record
carries its whole chain under `act2see`, so what comes back equals what went out; the messages are a view of
it.

Records may be deleted and reordered. Where messages were edited, their reasoning is taken over; a call, an
answer, a question or a frame cannot be edited there, since the rest of the chain would no longer belong to
it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from pydantic import ValidationError

from act2see.agent.prompt import prompt_of
from act2see.errors import CorpusError
from act2see.tools.video.store import FrameStore
from act2see.training.corpus.card import CorpusMeta, pictures
from act2see.training.corpus.dataset import INFO, bring_files, read_corpus, read_info
from act2see.training.corpus.exports import formats as trl, llama_factory, ms_swift
from act2see.training.corpus.exports.turns import Turn, edited, opened, turns
from act2see.training.corpus.files import read_marker, whole_folder
from act2see.training.corpus.records import Chain, parse_chain

EXPORT_VERSION = 1
Kind = Literal["trl", "ms-swift", "llama-factory"]


class Format(Protocol):
    """A trainer's format. `APART`: whether the opened thought is a message of its own."""

    FILE: str
    APART: bool

    def messages(self, made: list[Turn], /) -> list[dict[str, Any]]: ...
    def said(self, message: dict[str, Any], /) -> str: ...
    def write(self, rows: Iterator[dict[str, Any]], folder: Path, /) -> None: ...
    def read(self, folder: Path, /) -> Iterator[dict[str, Any]]: ...


FORMATS: Mapping[Kind, Format] = {"trl": trl, "ms-swift": ms_swift, "llama-factory": llama_factory}


def export_corpus(folder: str | Path, kind: Kind, out: str | Path) -> Path:
    """Write a corpus in the format of a trainer; returns the file that the trainer reads.

    Raises `CorpusError` for what is no corpus, where `out` is not empty, and where it cannot be written;
    there is no half export then.
    """
    from act2see import __version__

    form, meta, out = _format(kind), read_info(folder).meta, Path(out)
    with whole_folder(out) as part:
        store = FrameStore(part / "images", memory_bytes=0)

        def rows() -> Iterator[dict[str, Any]]:
            for chain in read_corpus(folder, store):
                made = _turns(chain, form, meta)
                images = [
                    Path(store.path(f.digest)).relative_to(part.absolute()).as_posix()
                    for t in made
                    for f in t.frames
                ]
                yield {"messages": form.messages(made), "images": images, "act2see": chain.model_dump_json()}

        form.write(rows(), part)
        marker = {
            "export_version": EXPORT_VERSION,
            "act2see": __version__,
            "kind": kind,
            "meta": meta.model_dump(),
        }
        (part / INFO).write_text(json.dumps(marker, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return out / form.FILE


def import_corpus(path: str | Path, kind: Kind, store: FrameStore) -> Iterator[Chain]:
    """The chains of an export, by its folder or its file, equal to those that were exported; their pixels go
    to `store`.

    A chain whose reasoning was edited comes back with the new text and without its similarity. Raises
    `CorpusError` for another edit, and for what is no export, of another kind or of a newer act2see.
    """
    form, folder = _format(kind), Path(path)
    folder = folder.parent if folder.is_file() else folder
    data = read_marker(folder, INFO, "export_version", EXPORT_VERSION, "an export")
    if data.get("kind") != kind:
        raise CorpusError(f"{folder} is an export for {data.get('kind')}, not for {kind}: import it as that")
    try:
        meta = CorpusMeta.model_validate(data.get("meta"))
    except ValidationError as e:
        raise CorpusError(
            f"{folder / INFO} cannot be read ({e.errors()[0]['msg']}): export the corpus again"
        ) from e
    return _imported(form, meta, folder, store)


def _imported(form: Format, meta: CorpusMeta, folder: Path, store: FrameStore) -> Iterator[Chain]:
    for n, row in enumerate(form.read(folder), start=1):
        where = f"{folder / form.FILE}, record {n}"
        if not isinstance(row.get("act2see"), str):
            raise CorpusError(
                f"{where} has lost its `act2see`, which holds the chain: keep that column, or export the corpus again"
            )
        chain = parse_chain(row["act2see"], where)
        bring_files(pictures(chain.trace) if chain.trace else (), folder, store, where)
        yield _compared(chain, _turns(chain, form, meta), row, form, where)


def _compared(chain: Chain, made: list[Turn], row: dict[str, Any], form: Format, where: str) -> Chain:
    """The chain, with its reasoning as the messages have it."""
    where = f"{where} ({chain.sample.id!r})"
    given, expected = row.get("messages"), form.messages(made)
    if [Path(str(p)).stem for p in row.get("images") or ()] != [f.digest for t in made for f in t.frames]:
        raise CorpusError(
            f"{where}: its images are not those of its chain: put them back, or leave the record out"
        )
    if given == expected:
        return chain
    if not isinstance(given, list) or len(given) != len(expected):
        raise CorpusError(
            f"{where}: messages were added or taken away: put them back, or leave the record out"
        )
    changes = []
    for i, (turn, new, old) in enumerate(zip(made, given, expected, strict=True)):
        if new == old:
            continue
        if not turn.learnt or not isinstance(new, dict) or new | {"content": ""} != old | {"content": ""}:
            raise CorpusError(
                f"{where}: message {i + 1} is not the model's and was edited: put it back, or leave the record out"
            )
        try:
            changes.append((turn, form.said(new)))
        except (KeyError, TypeError) as e:
            raise CorpusError(
                f"{where}: message {i + 1} has no text that can be read: put it back, or leave the record out"
            ) from e
    assert chain.trace is not None
    trace = edited(chain.trace, changes, where)
    return chain if trace == chain.trace else chain.model_copy(update={"trace": trace, "similarity": None})


def _turns(chain: Chain, form: Format, meta: CorpusMeta) -> list[Turn]:
    if chain.trace is None:
        raise CorpusError(f"the chain of {chain.sample.id!r} has no trace: export the corpus again")
    made = turns(chain.trace, prompt_of(chain.trace, meta.style, meta.usages))
    return made if form.APART else opened(made)


def _format(kind: str) -> Format:
    if kind not in FORMATS:
        raise CorpusError(f"there is no export {kind!r} (known: {', '.join(get_args(Kind))})")
    return FORMATS[kind]  # type: ignore[index]
