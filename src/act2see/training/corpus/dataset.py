"""The corpus on disk: a folder that Hugging Face `datasets` opens directly, and that `read_corpus` reads back
into equal chains.

    README.md                       the data set card, generated from the data
    act2see.json                    version and counts of the corpus (`CorpusInfo`)
    data/train-*.parquet            embedded pixels: shards of about `shard_size` bytes
    or metadata.parquet, images/    referenced pixels: files named by digest, each picture once

Chains are streamed, one row group in memory, and the folder gets its name only when it is complete.
Referenced pictures have the layout of an image folder of `datasets`: relative paths in an image column of a
parquet file would be resolved from the reader's working directory, not from the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from act2see.errors import CorpusError, StoreError, TraceError
from act2see.tools.frames import FrameRef
from act2see.tools.runtime.text import first_line, first_problem
from act2see.tools.video.store import FrameStore
from act2see.trace.trace import Trace
from act2see.training.corpus.card import (
    CORPUS_VERSION,
    CorpusCounter,
    CorpusInfo,
    CorpusMeta,
    Images,
    corpus_card,
    readable_chain,
    unique_frames,
)
from act2see.training.corpus.files import new_folder, read_marker, read_parquet, write_parquet
from act2see.training.corpus.records import Attempt, Chain
from act2see.training.corpus.sources import Sample

INFO = "act2see.json"
SHARD_SIZE = 500 << 20
_ATTEMPTS = TypeAdapter(tuple[Attempt, ...])


def write_corpus(
    chains: Iterable[Chain],
    source: FrameStore,
    folder: str | Path,
    *,
    images: Images = "embedded",
    shard_size: int = SHARD_SIZE,
    meta: CorpusMeta | None = None,
) -> CorpusInfo:
    """Write the chains that were not dropped; count the dropped ones by reason.

    Args:
        chains: The chains of a filter run.
        source: The store that holds their frames.
        folder: A new or empty folder.
        images: Whether pixels are embedded in the table or stored as files that it refers to.
        shard_size: The size of a shard in bytes, for embedded pixels. A shard ends with the row group that
            reaches it.
        meta: The facts for the card that cannot be counted.

    Returns:
        The version and the counts of the corpus.

    Raises:
        CorpusError: `folder` is not empty, no chain was kept, a frame is missing, or the disk is full. No
            partial corpus is left.
    """
    from act2see import __version__

    folder = Path(folder)
    meta = meta or CorpusMeta()
    counter = CorpusCounter()
    with new_folder(folder) as part:
        rows = _rows(chains, source, part, images, counter)
        if images == "embedded":
            files = _write_shards(rows, part, shard_size)
        else:
            files = ["metadata.parquet"]
            write_parquet(rows, part / files[0], _features(images), max_bytes=None)
        if counter.example is None:
            raise CorpusError(
                f"there is no chain to write: all {counter.dropped.total()} were dropped (see the report)"
            )
        info = counter.info(__version__, images, files, meta)
        (part / "README.md").write_text(corpus_card(info, counter.example), encoding="utf-8")
        (part / INFO).write_text(info.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return info


def read_info(folder: str | Path) -> CorpusInfo:
    """Read the version and the counts of a corpus.

    Raises:
        CorpusError: The folder is not a corpus, or a newer act2see wrote it.
    """
    data = read_marker(Path(folder), INFO, "corpus_version", CORPUS_VERSION, "a corpus")
    try:
        return CorpusInfo.model_validate(data)
    except ValidationError as e:
        field, problem = first_problem(e)
        raise CorpusError(f"{Path(folder) / INFO}: {field}: {problem}; write the corpus again") from e


def read_corpus(folder: str | Path, store: FrameStore) -> Iterator[Chain]:
    """Yield chains equal to those that were written, in the same order.

    Args:
        folder: The corpus.
        store: The frame store to which missing pictures are added.

    Raises:
        CorpusError: The folder is not a corpus, a newer act2see wrote it, or a shard, a record or a picture
            is missing or damaged; the message names it.
    """
    folder = Path(folder)
    info = read_info(folder)
    return _read(folder, info, store)


def _read(folder: Path, info: CorpusInfo, store: FrameStore) -> Iterator[Chain]:
    for file in info.files:
        for n, row in enumerate(read_parquet(folder / file), start=1):
            where = f"{folder / file}, record {n}"
            chain = _chain(row, where)
            frames = unique_frames(chain.trace) if chain.trace else ()
            if info.images == "reference":
                copy_from_files(frames, folder, store, where)
            else:
                _copy_from_row(frames, row["images"] or [], store, where)
            yield chain


def _copy_from_row(
    frames: tuple[FrameRef, ...], embedded: list[dict[str, Any]], store: FrameStore, where: str
) -> None:
    if len(embedded) != len(frames):
        raise CorpusError(
            f"{where} has {len(embedded)} pictures, but its trace has {len(frames)}: write the corpus again"
        )
    for frame, picture in zip(frames, embedded, strict=True):
        _copy(frame, picture["bytes"] or b"", store, where)


def copy_from_files(frames: Iterable[FrameRef], folder: Path, store: FrameStore, where: str) -> None:
    """Copy the frames that `store` does not have from the files of `folder/images`.

    Args:
        frames: The frames of a record.
        folder: The corpus or the export.
        store: The frame store to which missing pictures are added.
        where: The record, for error messages.

    Raises:
        CorpusError: A file is missing or damaged; the message names it.
    """
    files = FrameStore(folder / "images", memory_bytes=0)
    for frame in frames:
        if frame.digest in store:
            continue
        path = Path(files.path(frame.digest))
        try:
            png = path.read_bytes()
        except OSError as e:
            name = path.relative_to(folder.absolute())
            raise CorpusError(
                f"{where}: cannot read the picture {name} ({e.strerror}): copy it again from its source"
            ) from e
        _copy(frame, png, store, where)


def _copy(frame: FrameRef, png: bytes, store: FrameStore, where: str) -> None:
    if not store.put_png(frame.digest, png):
        fault = "damaged" if png else "missing"
        raise CorpusError(
            f"{where}: the picture {frame.digest} is {fault}: copy the corpus again from its source"
        )


def _write_shards(rows: Iterator[dict[str, Any]], part: Path, shard_size: int) -> list[str]:
    """Write the shards; return their paths relative to `part`."""
    folder = part / "data"
    folder.mkdir()
    features = _features("embedded")
    shards: list[Path] = []
    while write_parquet(rows, path := folder / f"{len(shards)}.parquet", features, shard_size):
        shards.append(path)
    # The names include the number of shards, which is known only now.
    files = [f"data/train-{i:05d}-of-{len(shards):05d}.parquet" for i in range(len(shards))]
    for shard, file in zip(shards, files, strict=True):
        shard.rename(part / file)
    return files


def _features(images: Images) -> Any:
    """Return the columns, as `datasets.Features`."""
    from datasets import Features, Image, List, Value

    text = Value("string")
    number = Value("float64")
    names = (
        "id",
        "source",
        "licence",
        "video",
        "question",
        "answer",
        "human_chain",
        "teacher",
        "chain",
        "trace",
        "attempts",
    )
    columns: dict[str, Any] = dict.fromkeys(names, text)
    columns |= {
        "trim": List(number),
        "options": List(text),
        "similarity": number,
        "n_calls": Value("int32"),
        "tools": List(text),
    }
    if images == "embedded":
        columns["images"] = List(Image())
    else:
        columns["images_file_names"] = List(text)
    return Features(columns)


def _rows(
    chains: Iterable[Chain], source: FrameStore, part: Path, images: Images, counter: CorpusCounter
) -> Iterator[dict[str, Any]]:
    files = FrameStore(part / "images", memory_bytes=0)
    for chain in chains:
        if chain.dropped:
            counter.drop(chain)
            continue
        trace = chain.trace
        if trace is None:
            raise CorpusError(
                f"the chain of {chain.sample.id!r} has no trace and is not marked as dropped: "
                "construct it again"
            )
        row = _row(chain, trace)
        frames = unique_frames(trace)
        new = 0
        if images == "embedded":
            row["images"] = []
            for frame in frames:
                png = _png(source, frame, chain.sample)
                row["images"].append({"bytes": png, "path": f"{frame.digest}.png"})
            new = len(frames)
        else:
            row["images_file_names"] = []
            for frame in frames:
                path = Path(files.path(frame.digest))
                new += _write_new(source, frame, path, chain.sample)
                row["images_file_names"].append(path.relative_to(part.absolute()).as_posix())
        counter.keep(chain, trace, new)
        yield row


def _row(chain: Chain, trace: Trace) -> dict[str, Any]:
    """Return the row of a chain, without its pictures."""
    return {
        **chain.sample.model_dump(exclude={"chain"}),
        "human_chain": chain.sample.chain,
        "teacher": chain.teacher,
        "similarity": chain.similarity,
        "chain": readable_chain(trace),
        "trace": trace.to_json(),
        "attempts": _ATTEMPTS.dump_json(chain.attempts).decode(),
        "n_calls": len(trace.calls),
        "tools": list(dict.fromkeys(c.tag for c in trace.calls)),
    }


def _write_new(source: FrameStore, frame: FrameRef, path: Path, sample: Sample) -> bool:
    """Write a picture unless its file exists; return whether it was written."""
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_png(source, frame, sample))
    return True


def _png(source: FrameStore, frame: FrameRef, sample: Sample) -> bytes:
    try:
        return source.png(frame.digest)
    except StoreError as e:
        raise CorpusError(f"a frame of {sample.id!r} is missing: {e}") from e


def _chain(row: dict[str, Any], where: str) -> Chain:
    """Return the chain of a row; the inverse of `_row`."""
    try:
        fields = {name: row[name] for name in Sample.model_fields if name != "chain"}
        return Chain(
            sample=Sample(chain=row["human_chain"], **fields),
            trace=Trace.from_json(row["trace"], where),
            attempts=_ATTEMPTS.validate_json(row["attempts"]),
            similarity=row["similarity"],
            teacher=row["teacher"],
        )
    except KeyError as e:
        raise CorpusError(f"{where} has no column {e}: write the corpus again") from e
    except (ValidationError, TraceError) as e:
        raise CorpusError(f"cannot read {where} ({first_line(e)}): write the corpus again") from e
