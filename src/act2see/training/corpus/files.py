"""The files of corpora and exports: folders that are written completely or not at all, markers, and rows.

Rows are streamed. Memory holds one row group of a parquet file (at most 100 rows, and little more than 8 MiB
of pictures) or one line of a JSON Lines file.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from act2see.errors import CorpusError, StoreError
from act2see.tools.runtime.files import sync_folder
from act2see.tools.runtime.plain_json import parse_json, read_json, read_lines
from act2see.tools.runtime.text import first_line, quote_text

_GROUP_ROWS, _GROUP_BYTES = 100, 8 << 20


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield the folder `NAME.part` beside `folder`; rename it to `folder` if the block succeeds.

    `tools.runtime.files.whole_folder` replaces an existing folder; a corpus is never overwritten. The name of
    the part is fixed, so that the next run deletes what a killed run left, which can be large.

    Raises:
        CorpusError: `folder` already exists and is not empty, it cannot be written, or another process is
            writing it.
    """
    target = folder.absolute()  # `.` has no name
    part = target.with_name(f"{target.name}.part")
    with only_writer(target.with_name(f".{target.name}.lock"), folder):
        # Only now: the other process may have written it meanwhile.
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise CorpusError(f"{folder} already exists: delete it, or use another folder")
        try:
            if part.exists():
                shutil.rmtree(part)
            part.mkdir()
            yield part
            sync_folder(part)
            if target.exists():
                target.rmdir()
            part.rename(target)
        except BaseException as e:
            shutil.rmtree(part, ignore_errors=True)
            if isinstance(e, OSError | StoreError):
                raise _cannot_write(folder, e) from e
            raise


@contextmanager
def only_writer(lock: Path, folder: Path) -> Iterator[None]:
    """Hold a lock while a folder is written, so that two processes do not destroy each other's files.

    Args:
        lock: The file of the lock, which is deleted at the end. A killed process leaves it, unlocked.
        folder: The folder, for error messages.

    Raises:
        CorpusError: Another process holds the lock, or the lock cannot be written.
    """
    held = FileLock(lock, timeout=0)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held.acquire()
    except Timeout as e:
        raise CorpusError(
            f"another process is writing to {folder}: wait until it ends, or use another folder"
        ) from e
    except OSError as e:
        raise _cannot_write(folder, e) from e
    try:
        yield
    finally:
        # Before the release, so that nobody's lock is deleted; Windows deletes no open file.
        with suppress(OSError):
            lock.unlink()
        held.release()


def _cannot_write(folder: Path, error: Exception) -> CorpusError:
    return CorpusError(f"cannot write {folder} ({error}): free some space, or use another folder")


def read_marker(folder: Path, name: str, key: str, known: int, what: str) -> dict[str, Any]:
    """Read the JSON file that identifies a folder.

    Args:
        folder: The folder.
        name: The file's name.
        key: The field that holds the version of the format.
        known: The newest version that can be read.
        what: The expected kind of folder, for error messages, such as "a corpus".

    Raises:
        CorpusError: The folder is of another kind, or its version is newer than `known`.
    """
    from act2see import __version__

    try:
        data = read_json(folder / name)
    except (OSError, ValueError) as e:
        raise _wrong_folder(folder, what, f"it has no readable {name}") from e
    version = data.get(key) if isinstance(data, dict) else None
    if not isinstance(version, int) or version < 1:
        raise _wrong_folder(folder, what, f"its {name} has no {key}")
    if version > known:
        needed = (
            f"act2see {quote_text(str(data['act2see']))} or newer" if "act2see" in data else "a newer act2see"
        )
        raise CorpusError(
            f"{folder} is {what} of version {version}, and act2see {__version__} reads versions up to "
            f"{known}: install {needed}"
        )
    return dict(data)


def _wrong_folder(folder: Path, what: str, problem: str) -> CorpusError:
    return CorpusError(f"{folder} is not {what}: {problem}; give the folder that act2see wrote")


def write_parquet(rows: Iterable[dict[str, Any]], path: Path, features: Any, max_bytes: int | None) -> bool:
    """Write rows, one group at a time, until none are left or the file reaches `max_bytes`.

    Args:
        rows: The rows. An iterator keeps those that were not written.
        path: The file; it is not created if there are no rows.
        features: The columns, as `datasets.Features`.
        max_bytes: The size at which to stop, in bytes; None for no limit.

    Returns:
        Whether any row was written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = features.arrow_schema
    rows = iter(rows)
    writer = None
    try:
        while group := _take_group(rows):
            # Opened at the first group: otherwise the last shard could be empty.
            writer = writer or pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False)
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            if max_bytes is not None and path.stat().st_size >= max_bytes:
                break
    finally:
        if writer:
            writer.close()
    return writer is not None


def read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a parquet file; at most 16 are in memory.

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
        raise CorpusError(f"cannot read {path} ({first_line(e)}): copy it again from its source") from e


def _take_group(rows: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """Take the rows of the next row group from `rows`."""
    group: list[dict[str, Any]] = []
    size = 0
    while len(group) < _GROUP_ROWS and size < _GROUP_BYTES and (row := next(rows, None)) is not None:
        group.append(row)
        size += sum(len(p["bytes"]) for p in row.get("images", ()))
    return group


def write_jsonl(rows: Iterable[dict[str, Any]], path: Path) -> None:
    """Write one JSON object per line."""
    with path.open("w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON Lines file, line by line.

    Raises:
        CorpusError: The file cannot be read, or a line is not an object.
    """
    try:
        for n, line in enumerate(read_lines(path), start=1):
            if not line.strip():
                continue
            row = parse_json(line, keep_nul=True)
            if not isinstance(row, dict):
                raise CorpusError(
                    f"{path}, line {n} is not a JSON object: copy the file again from its source"
                )
            yield row
    except (OSError, ValueError) as e:
        raise CorpusError(f"cannot read {path} ({e}): copy it again from its source") from e
