"""Export a corpus for other trainers, and import an export.

An export is a folder: the trainer's file, `images/` with each frame once, and act2see.json. Each record holds
its whole chain in the column `act2see`, so an import equals what was exported; the messages are a view of the
chain.

Before an import, records may be deleted and reordered, and the reasoning in messages may be edited. A call,
an answer, a question or a frame must not be edited: the rest of the chain would no longer match it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from act2see.agent.prompt import prompt_of
from act2see.errors import CorpusError
from act2see.tools.runtime.text import first_problem
from act2see.tools.video.store import FrameStore
from act2see.training.corpus.card import CorpusMeta, unique_frames
from act2see.training.corpus.dataset import INFO, copy_from_files, read_corpus, read_info
from act2see.training.corpus.exports.formats import FORMATS, Format, Kind, Row
from act2see.training.corpus.exports.turns import Turn, apply_edits, merge_opening, to_turns
from act2see.training.corpus.files import new_folder, read_marker
from act2see.training.corpus.records import Chain, parse_chain

EXPORT_VERSION = 1
_UNDO = "undo the change, or delete the record"


def export_corpus(folder: str | Path, kind: Kind, out: str | Path) -> Path:
    """Write a corpus in the format of a trainer.

    Args:
        folder: The corpus.
        kind: The trainer.
        out: A new or empty folder.

    Returns:
        The file that the trainer reads.

    Raises:
        CorpusError: `folder` is not a corpus, `out` is not empty, or `out` cannot be written. No partial
            export is left.
    """
    from act2see import __version__

    form = _format(kind)
    meta = read_info(folder).meta
    out = Path(out)
    with new_folder(out) as part:
        form.write(_export_rows(folder, part, form, meta), part)
        marker = {
            "export_version": EXPORT_VERSION,
            "act2see": __version__,
            "kind": kind,
            "meta": meta.model_dump(),
        }
        (part / INFO).write_text(json.dumps(marker, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return out / form.file


def _export_rows(folder: str | Path, part: Path, form: Format, meta: CorpusMeta) -> Iterator[Row]:
    """Yield the rows of an export to `part`, and write their pictures."""
    store = FrameStore(part / "images", memory_bytes=0)
    for chain in read_corpus(folder, store):
        turns = _turns(chain, form, meta)
        images = []
        for turn in turns:
            for frame in turn.frames:
                path = Path(store.path(frame.digest))
                images.append(path.relative_to(part.absolute()).as_posix())
        yield {"messages": form.messages(turns), "images": images, "act2see": chain.model_dump_json()}


def import_corpus(path: str | Path, kind: Kind, store: FrameStore) -> Iterator[Chain]:
    """Yield chains equal to those that were exported.

    A chain whose reasoning was edited has the new text and no similarity.

    Args:
        path: The folder of the export, or the trainer's file in it.
        kind: The trainer of the export.
        store: The frame store to which missing pictures are added.

    Raises:
        CorpusError: `path` is not an export, it is for another trainer, a newer act2see wrote it, or
            something other than reasoning was edited.
    """
    form = _format(kind)
    folder = Path(path)
    folder = folder.parent if folder.is_file() else folder
    data = read_marker(folder, INFO, "export_version", EXPORT_VERSION, "an export")
    if data.get("kind") != kind:
        actual = data.get("kind")
        raise CorpusError(f"{folder} is an export for {actual}, not for {kind}: import it as {actual}")
    try:
        meta = CorpusMeta.model_validate(data.get("meta"))
    except ValidationError as e:
        _, problem = first_problem(e)
        raise CorpusError(f"cannot read {folder / INFO} ({problem}): export the corpus again") from e
    return _import(form, meta, folder, store)


def _import(form: Format, meta: CorpusMeta, folder: Path, store: FrameStore) -> Iterator[Chain]:
    for n, row in enumerate(form.read(folder), start=1):
        where = f"{folder / form.file}, record {n}"
        if not isinstance(row.get("act2see"), str):
            raise CorpusError(
                f"{where} has no `act2see` column, which holds the chain: restore it, "
                "or export the corpus again"
            )
        chain = parse_chain(row["act2see"], where)
        copy_from_files(unique_frames(chain.trace) if chain.trace else (), folder, store, where)
        turns = _turns(chain, form, meta)
        yield _apply_row(chain, turns, row, form, f"{where} ({chain.sample.id!r})")


def _apply_row(chain: Chain, turns: list[Turn], row: Row, form: Format, where: str) -> Chain:
    """Return the chain with the reasoning of the row's messages.

    Args:
        chain: The exported chain.
        turns: The turns of that chain.
        row: The row, whose messages may have been edited.
        form: The format of the row.
        where: The record, for error messages.

    Raises:
        CorpusError: Something other than reasoning was edited.
    """
    digests = [frame.digest for turn in turns for frame in turn.frames]
    if [Path(str(path)).stem for path in row.get("images") or ()] != digests:
        raise CorpusError(f"{where}: `images` does not match the chain: {_UNDO}")
    changes = _edited_turns(turns, row.get("messages"), form, where)
    if not changes:
        return chain
    assert chain.trace is not None
    trace = apply_edits(chain.trace, changes, where)
    if trace == chain.trace:
        return chain
    return chain.model_copy(update={"trace": trace, "similarity": None})


def _edited_turns(turns: list[Turn], messages: Any, form: Format, where: str) -> list[tuple[Turn, str]]:
    """Return the turns whose messages were edited, with their new texts."""
    expected = form.messages(turns)
    if not isinstance(messages, list) or len(messages) != len(expected):
        raise CorpusError(f"{where}: messages were added or removed: {_UNDO}")
    changes = []
    for n, (turn, new, old) in enumerate(zip(turns, messages, expected, strict=True), start=1):
        if new == old:
            continue
        only_content = isinstance(new, dict) and new | {"content": ""} == old | {"content": ""}
        if not turn.trainable or not only_content:
            raise CorpusError(f"{where}: message {n} was edited, but the model did not write it: {_UNDO}")
        try:
            changes.append((turn, form.text(new)))
        except (KeyError, TypeError) as e:
            raise CorpusError(f"{where}: message {n} has no readable text: {_UNDO}") from e
    return changes


def _turns(chain: Chain, form: Format, meta: CorpusMeta) -> list[Turn]:
    if chain.trace is None:
        raise CorpusError(f"the chain of {chain.sample.id!r} has no trace: export the corpus again")
    turns = to_turns(chain.trace, prompt_of(chain.trace, meta.style, meta.usages))
    return turns if form.separate_opening else merge_opening(turns)


def _format(kind: str) -> Format:
    if kind not in FORMATS:
        raise CorpusError(f"there is no export format {kind!r}: use {', '.join(get_args(Kind))}")
    return FORMATS[kind]  # type: ignore[index]
