"""The files of corpora and exports: folders that are written whole or not at all, their marker, and rows.

Of parquet a row group at a time is in memory: at most 100 rows, and not many more than 8 MiB of pictures. Of
JSON Lines it is one line.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from act2see.errors import CorpusError, StoreError
from act2see.tools.runtime.text import first_line

_GROUP_ROWS, _GROUP_BYTES = 100, 8 << 20


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, beside its place as `NAME.part`; it becomes `folder` if the block succeeds.

    `tools.runtime.files.whole_folder` replaces what an earlier run wrote. A corpus is never written over, and
    the half that a killed run left, which may be large, is deleted by the next run: hence the fixed name.

    Raises:
        CorpusError: `folder` is there already and not empty, or it cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CorpusError(f"{folder} is there already: delete it, or give another folder")
    part = folder.with_name(f"{folder.name}.part")
    try:
        if part.exists():
            shutil.rmtree(part)
        part.mkdir(parents=True)
        yield part
        if folder.exists():
            folder.rmdir()
        part.rename(folder)
    except BaseException as e:
        shutil.rmtree(part, ignore_errors=True)
        if isinstance(e, OSError | StoreError):
            raise CorpusError(f"cannot write {folder} ({e}): free some space, or give another folder") from e
        raise


def read_marker(folder: Path, name: str, key: str, known: int, what: str) -> dict[str, Any]:
    """Read the JSON file that says what a folder is.

    Args:
        folder: The folder.
        name: The file's name.
        key: The field that holds the version of the format.
        known: The newest version that can be read.
        what: What the folder should be, for error messages: "a corpus".

    Raises:
        CorpusError: The folder is something else, or its version is newer than `known`.
    """
    from act2see import __version__

    try:
        data = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise CorpusError(
            f"{folder} is not {what}: it has no {name} that can be read; give the folder that act2see wrote"
        ) from e
    version = data.get(key) if isinstance(data, dict) else None
    if not isinstance(version, int) or version < 1:
        raise CorpusError(
            f"{folder} is not {what}: its {name} names no {key}; give the folder that act2see wrote"
        )
    if version > known:
        writer = data.get("act2see", "a newer version")
        raise CorpusError(
            f"{folder} is {what} of version {version} and act2see {__version__} reads versions up to "
            f"{known}: it was written by act2see {writer}; install that or a newer one"
        )
    return dict(data)


def write_parquet(rows: Iterable[dict[str, Any]], path: Path, features: Any, max_bytes: int | None) -> bool:
    """Write rows, a group at a time, until there are no more or the file has `max_bytes`.

    Args:
        rows: Taken only as far as they are written, if it is an iterator.
        path: The file; it is not made if there are no rows.
        features: The columns, as `datasets.Features`.
        max_bytes: None for no bound.

    Returns:
        Whether there were any rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = features.arrow_schema
    rows, writer = iter(rows), None
    try:
        while group := _take_group(rows):
            # Opened with the first group, so that there is no empty last shard.
            writer = writer or pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False)
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            if max_bytes is not None and path.stat().st_size >= max_bytes:
                break
    finally:
        if writer:
            writer.close()
    return writer is not None


def parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file, few of them in memory at once.

    Raises:
        CorpusError: The file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=16):
                yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as e:
        raise CorpusError(
            f"{path} cannot be read ({first_line(e)}): restore it from where it was copied"
        ) from e


def _take_group(rows: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    group: list[dict[str, Any]] = []
    size = 0
    while len(group) < _GROUP_ROWS and size < _GROUP_BYTES and (row := next(rows, None)) is not None:
        group.append(row)
        size += sum(len(p["bytes"]) for p in row.get("images", ()))
    return group


def write_jsonl(rows: Iterable[dict[str, Any]], path: Path) -> None:
    """Write one object a line."""
    with path.open("w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


def jsonl_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file, line by line.

    Raises:
        CorpusError: The file cannot be read, or a line is not an object.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            for n, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise CorpusError(
                        f"{path}, line {n} is not an object: restore it from where it was copied"
                    )
                yield row
    except (OSError, ValueError) as e:
        raise CorpusError(f"{path} cannot be read ({e}): restore it from where it was copied") from e
