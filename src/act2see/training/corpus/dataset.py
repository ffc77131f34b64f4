"""The corpus on disk: a folder that Hugging Face `datasets` opens as it is, and that gives back the same
chains.

    README.md            the data set card, made from the data
    act2see.json         the corpus's version, and what is in it (`CorpusInfo`)
    data/train-*.parquet with pixels embedded; shards of about `shard_size` bytes
    or metadata.parquet, images/   with pixels by reference: files named by digest, equal ones once

Chains pass through one by one, a row group at a time is in memory, and what is written stands beside its
place until it is whole. Referenced pictures are laid out as `datasets`' image folders are: a parquet file
that holds relative paths in an image column would look for them where the reader was started, not where the
file is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from act2see.errors import CorpusError, StoreError, TraceError
from act2see.tools.frames import FrameRef
from act2see.tools.video.store import FrameStore
from act2see.trace.trace import Trace
from act2see.training.corpus.card import (
    CORPUS_VERSION,
    CorpusInfo,
    CorpusMeta,
    Count,
    Images,
    card,
    pictures,
    readable,
)
from act2see.training.corpus.files import parquet_rows, read_marker, whole_folder, write_parquet
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
    """Write the chains that were not dropped, with their pixels from `source`; the others are counted by
    reason.

    `shard_size` is in bytes and for embedded pictures; a shard ends with the row group that reaches it.
    Raises `CorpusError` where `folder` is not empty, nothing was kept, a frame is missing, or it cannot be
    written, as on a full disk; there is no half corpus then.
    """
    from act2see import __version__

    folder, meta, count = Path(folder), meta or CorpusMeta(), Count()
    with whole_folder(folder) as part:
        rows = _rows(chains, source, part, images, count)
        if images == "embedded":
            (part / "data").mkdir()
            names = _write_shards(rows, part / "data", shard_size)
            files = [f"data/train-{i:05d}-of-{len(names):05d}.parquet" for i in range(len(names))]
            for name, file in zip(names, files, strict=True):
                name.rename(part / file)
        else:
            files = ["metadata.parquet"]
            write_parquet(rows, part / files[0], _features(images), most_bytes=None)
        if count.example is None:
            raise CorpusError(
                f"there is no chain to write: {sum(count.dropped.values())} were given and all of them dropped"
            )
        info = count.info(__version__, images, files, meta)
        (part / "README.md").write_text(card(info, count.example), encoding="utf-8")
        (part / INFO).write_text(info.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return info


def read_info(folder: str | Path) -> CorpusInfo:
    """What a corpus says of itself. Raises `CorpusError` for another kind of folder, and for a corpus of a
    newer act2see."""
    data = read_marker(Path(folder), INFO, "corpus_version", CORPUS_VERSION, "a corpus")
    try:
        return CorpusInfo.model_validate(data)
    except ValidationError as e:
        first = e.errors()[0]
        raise CorpusError(
            f"{Path(folder) / INFO}: {'.'.join(map(str, first['loc']))}: {first['msg']}; write the corpus again"
        ) from e


def read_corpus(folder: str | Path, store: FrameStore) -> Iterator[Chain]:
    """The chains, equal to those that were written and in their order; pixels that `store` lacks are put
    there.

    Raises `CorpusError` for what is no corpus or one of a newer act2see, and names a shard, a record or a
    picture that is missing or damaged.
    """
    folder = Path(folder)
    info = read_info(folder)
    return _read(folder, info, store)


def _read(folder: Path, info: CorpusInfo, store: FrameStore) -> Iterator[Chain]:
    for file in info.files:
        for n, row in enumerate(parquet_rows(folder / file), start=1):
            where = f"{folder / file}, record {n}"
            chain = _chain(row, where)
            frames = pictures(chain.trace) if chain.trace else ()
            if info.images == "reference":
                bring_files(frames, folder, store, where)
            else:
                given = row["images"] or []
                if len(given) != len(frames):
                    raise CorpusError(
                        f"{where} has {len(given)} pictures and its trace {len(frames)}: write the corpus again"
                    )
                for frame, picture in zip(frames, given, strict=True):
                    bring(frame, picture["bytes"] or b"", store, where)
            yield chain


def bring_files(frames: Iterable[FrameRef], folder: Path, store: FrameStore, where: str) -> None:
    """Put frames that the store lacks there, from the files of `folder/images`."""
    files = FrameStore(folder / "images", memory_bytes=0)
    for frame in frames:
        if frame.digest not in store:
            path = Path(files.path(frame.digest))
            try:
                png = path.read_bytes()
            except OSError as e:
                name = path.relative_to(folder.absolute())
                raise CorpusError(
                    f"{where}: the picture {name} cannot be read ({e.strerror}): restore it from where it was copied"
                ) from e
            bring(frame, png, store, where)


def bring(frame: FrameRef, png: bytes, store: FrameStore, where: str) -> None:
    """Put a frame that the store lacks there. Raises `CorpusError` where the picture is not the frame's."""
    if not store.put_png(frame.digest, png):
        what = "damaged" if png else "missing"
        raise CorpusError(
            f"{where}: the picture {frame.digest} is {what}: restore the file from where it was copied"
        )


def _write_shards(rows: Iterable[dict[str, Any]], folder: Path, shard_size: int) -> list[Path]:
    """Shards, whose number stands in their names only once it is known."""
    rows, features = iter(rows), _features("embedded")
    shards: list[Path] = []
    while write_parquet(rows, path := folder / f"{len(shards)}.parquet", features, shard_size):
        shards.append(path)
    return shards


def _features(images: Images) -> Any:
    from datasets import Features, Image, List, Value

    text, number = Value("string"), Value("float64")
    plain = dict.fromkeys(
        (
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
        ),
        text,
    )
    return Features(
        plain
        | {
            "trim": List(number),
            "options": List(text),
            "similarity": number,
            "n_calls": Value("int32"),
            "tools": List(text),
        }
        | ({"images": List(Image())} if images == "embedded" else {"images_file_names": List(text)})
    )


def _rows(
    chains: Iterable[Chain], source: FrameStore, part: Path, images: Images, count: Count
) -> Iterator[dict[str, Any]]:
    files = FrameStore(part / "images", memory_bytes=0)
    for chain in chains:
        if chain.dropped:
            count.drop(chain)
            continue
        sample, trace = chain.sample, chain.trace
        if trace is None:
            raise CorpusError(
                f"the chain of {sample.id!r} has no trace and is not marked as dropped: make it again"
            )
        frames = pictures(trace)
        row: dict[str, Any] = {
            **sample.model_dump(exclude={"chain"}),
            "human_chain": sample.chain,
            "teacher": chain.teacher,
            "similarity": chain.similarity,
            "chain": readable(trace),
            "trace": trace.to_json(),
            "attempts": _ATTEMPTS.dump_json(chain.attempts).decode(),
            "n_calls": len(trace.calls),
            "tools": list(dict.fromkeys(c.tag for c in trace.calls)),
        }
        if images == "embedded":
            row["images"] = [
                {"bytes": _png(source, frame, sample), "path": f"{frame.digest}.png"} for frame in frames
            ]
            new = len(frames)
        else:
            paths = {frame.digest: Path(files.path(frame.digest)) for frame in frames}
            new = sum(_place(source, frame, paths[frame.digest], sample) for frame in frames)
            row["images_file_names"] = [
                path.relative_to(part.absolute()).as_posix() for path in paths.values()
            ]
        count.keep(chain, trace, new)
        yield row


def _place(source: FrameStore, frame: FrameRef, path: Path, sample: Sample) -> bool:
    """Write a picture where it is not there yet; whether it was not."""
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
    try:
        return Chain(
            sample=Sample(
                chain=row["human_chain"], **{k: row[k] for k in Sample.model_fields if k != "chain"}
            ),
            trace=Trace.from_json(row["trace"], where),
            attempts=_ATTEMPTS.validate_json(row["attempts"]),
            similarity=row["similarity"],
            teacher=row["teacher"],
        )
    except KeyError as e:
        raise CorpusError(f"{where} has no column {e}: write the corpus again") from e
    except (ValidationError, TraceError) as e:
        raise CorpusError(f"{where} cannot be read: {str(e).splitlines()[0]}") from e
