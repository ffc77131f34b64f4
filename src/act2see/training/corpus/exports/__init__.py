"""Exports of a corpus for other trainers, and the way back.

An export is a folder: the trainer's file, `images/` with each frame once, and act2see.json. Each record
carries its whole chain under `act2see`, so an import equals what was exported; the messages are a view of it.

Records may be deleted and reordered. If messages were edited, their reasoning is taken over. A call, an
answer, a question or a frame cannot be edited there, since the rest of the chain would no longer belong to
it.
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
from act2see.training.corpus.card import CorpusMeta, pictures
from act2see.training.corpus.dataset import INFO, copy_from_files, read_corpus, read_info
from act2see.training.corpus.exports.formats import FORMATS, Format, Kind
from act2see.training.corpus.exports.turns import Turn, apply_edits, merge_opening, to_turns
from act2see.training.corpus.files import new_folder, read_marker
from act2see.training.corpus.records import Chain, parse_chain

EXPORT_VERSION = 1


def export_corpus(folder: str | Path, kind: Kind, out: str | Path) -> Path:
    """Write a corpus in the format of a trainer.

    Args:
        folder: The corpus.
        kind: The trainer.
        out: A new or empty folder.

    Returns:
        The file that the trainer reads.

    Raises:
        CorpusError: `folder` is no corpus, `out` is not empty, or it cannot be written. No half export is
            left then.
    """
    from act2see import __version__

    form, meta, out = _format(kind), read_info(folder).meta, Path(out)
    with new_folder(out) as part:
        store = FrameStore(part / "images", memory_bytes=0)

        def rows() -> Iterator[dict[str, Any]]:
            for chain in read_corpus(folder, store):
                turns = _turns(chain, form, meta)
                images = []
                for turn in turns:
                    for frame in turn.frames:
                        path = Path(store.path(frame.digest))
                        images.append(path.relative_to(part.absolute()).as_posix())
                yield {
                    "messages": form.messages(turns),
                    "images": images,
                    "act2see": chain.model_dump_json(),
                }

        form.write(rows(), part)
        marker = {
            "export_version": EXPORT_VERSION,
            "act2see": __version__,
            "kind": kind,
            "meta": meta.model_dump(),
        }
        (part / INFO).write_text(json.dumps(marker, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return out / form.file


def import_corpus(path: str | Path, kind: Kind, store: FrameStore) -> Iterator[Chain]:
    """Read the chains of an export, equal to those that were exported.

    A chain whose reasoning was edited comes back with the new text and without its similarity.

    Args:
        path: The folder of the export, or the file in it.
        kind: The trainer that it is for.
        store: Gets the pixels that it does not have yet.

    Raises:
        CorpusError: It is no export, or one for another trainer or of a newer act2see; or something else than
            reasoning was edited.
    """
    form, folder = _format(kind), Path(path)
    folder = folder.parent if folder.is_file() else folder
    data = read_marker(folder, INFO, "export_version", EXPORT_VERSION, "an export")
    if data.get("kind") != kind:
        raise CorpusError(f"{folder} is an export for {data.get('kind')}, not for {kind}: import it as that")
    try:
        meta = CorpusMeta.model_validate(data.get("meta"))
    except ValidationError as e:
        _, problem = first_problem(e)
        raise CorpusError(f"{folder / INFO} cannot be read ({problem}): export the corpus again") from e
    return _import(form, meta, folder, store)


def _import(form: Format, meta: CorpusMeta, folder: Path, store: FrameStore) -> Iterator[Chain]:
    for n, row in enumerate(form.read(folder), start=1):
        where = f"{folder / form.file}, record {n}"
        if not isinstance(row.get("act2see"), str):
            raise CorpusError(
                f"{where} has lost its `act2see`, which holds the chain: keep that column, "
                "or export the corpus again"
            )
        chain = parse_chain(row["act2see"], where)
        copy_from_files(pictures(chain.trace) if chain.trace else (), folder, store, where)
        yield _take_over_edits(chain, _turns(chain, form, meta), row, form, where)


def _take_over_edits(chain: Chain, turns: list[Turn], row: dict[str, Any], form: Format, where: str) -> Chain:
    """The chain, with its reasoning as the row's messages have it."""
    where = f"{where} ({chain.sample.id!r})"
    given, expected = row.get("messages"), form.messages(turns)
    digests = [frame.digest for turn in turns for frame in turn.frames]
    if [Path(str(path)).stem for path in row.get("images") or ()] != digests:
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
    for i, (turn, new, old) in enumerate(zip(turns, given, expected, strict=True)):
        if new == old:
            continue
        if not turn.trainable or not isinstance(new, dict) or new | {"content": ""} != old | {"content": ""}:
            raise CorpusError(
                f"{where}: message {i + 1} is not the model's and was edited: put it back, "
                "or leave the record out"
            )
        try:
            changes.append((turn, form.text(new)))
        except (KeyError, TypeError) as e:
            raise CorpusError(
                f"{where}: message {i + 1} has no text that can be read: put it back, or leave the record out"
            ) from e
    assert chain.trace is not None
    trace = apply_edits(chain.trace, changes, where)
    if trace == chain.trace:
        return chain
    return chain.model_copy(update={"trace": trace, "similarity": None})


def _turns(chain: Chain, form: Format, meta: CorpusMeta) -> list[Turn]:
    if chain.trace is None:
        raise CorpusError(f"the chain of {chain.sample.id!r} has no trace: export the corpus again")
    turns = to_turns(chain.trace, prompt_of(chain.trace, meta.style, meta.usages))
    return turns if form.opening_apart else merge_opening(turns)


def _format(kind: str) -> Format:
    if kind not in FORMATS:
        raise CorpusError(f"there is no export {kind!r} (known: {', '.join(get_args(Kind))})")
    return FORMATS[kind]  # type: ignore[index]
