"""Tables of records from anywhere: a file or folder, any fsspec URL, a data set of the Hugging Face hub.

JSON (a list, or an object that names its records), JSON Lines, CSV, TSV and Parquet.
`hf://datasets/owner/name` is read by `datasets` where it is installed; with a file behind it, it is an
fsspec URL as any other.
"""

from __future__ import annotations

import csv
import fnmatch
import hashlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from act2see.errors import BenchmarkError
from act2see.tools.runtime.files import read_file, replacing_file
from act2see.tools.runtime.plain_json import parse_json
from act2see.tools.runtime.text import first_line
from act2see.tools.video.store import default_cache

LARGEST = 256 << 20
"""Bytes of a file of records; the largest of the field has 6 MB."""
ENDINGS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
_URL = re.compile(r"[a-z][a-z0-9+.-]+://")
_DATASET = re.compile(r"hf://datasets/([^/]+/[^/@]+)(?:@[^/]+)?/?")
Row = tuple[str, Any]
"""The name of a record, and the record; a text in its place says why there is none."""


def locate_table(source: str, names: tuple[str, ...], split: str = "test") -> Path | list[dict[str, Any]]:
    """Return the file of a source, or the records that `datasets` loads.

    Args:
        source: A file, a folder, an fsspec URL, or `hf://datasets/owner/name`.
        names: Patterns of the file's name in a folder, the likeliest first.
        split: The split of a data set of the hub.

    Raises:
        BenchmarkError: There is no such file.
    """
    if match := _DATASET.fullmatch(source):
        return _load_dataset(match[1], split)
    if _URL.match(source):
        return _download(source)
    path = Path(source)
    if path.is_dir():
        return find_in_folder(path, names)
    if not path.is_file():
        raise BenchmarkError(f"there is no file or folder {source}: download the benchmark, or name its file")
    return path


def find_in_folder(folder: Path, names: tuple[str, ...]) -> Path:
    """Return the file of a benchmark in a folder, or in one folder below it. Raises `BenchmarkError` if
    none is.
    """
    files = sorted(p for p in [*folder.glob("*"), *folder.glob("*/*")] if p.is_file() and p.suffix in ENDINGS)
    for name in names:
        for path in files:
            if fnmatch.fnmatch(path.name, name):
                return path
    found = ", ".join(path.name for path in files[:5]) or "none"
    raise BenchmarkError(
        f"{folder} has none of {', '.join(names)} (files of records there: {found}): "
        "name the folder of the download, or the file itself"
    )


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the records of a file. A line that cannot be read is yielded with the reason.

    Raises:
        BenchmarkError: The file cannot be read, or is of no known kind.
    """
    kind = path.suffix.lower()
    if kind not in ENDINGS:
        raise BenchmarkError(f"{path} is of no known kind ({', '.join(ENDINGS)})")
    if kind == ".parquet":
        yield from _read_parquet(path)
        return
    try:
        text = read_file(path, LARGEST).decode("utf-8-sig")
    except (OSError, ValueError) as e:
        raise BenchmarkError(f"cannot read {path}: {first_line(e)}") from e
    if kind in (".csv", ".tsv"):
        yield from _read_csv(path, text, "\t" if kind == ".tsv" else ",")
    elif kind == ".json":
        yield from _read_json(path, text)
    else:
        for n, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                try:
                    yield f"line {n}", parse_json(line)
                except ValueError as e:
                    yield f"line {n}", f"is not JSON ({e})"


def _read_json(path: Path, text: str) -> Iterator[Row]:
    try:
        data = parse_json(text, LARGEST)
    except ValueError as e:
        raise BenchmarkError(f"{path} is not JSON: {first_line(e)}") from e
    if isinstance(data, dict):
        inner = [value for value in data.values() if isinstance(value, list)]
        if len(data) <= 3 and len(inner) == 1:  # {"data": [...], "version": 1}
            data = inner[0]
        else:
            yield from ((str(name), row) for name, row in data.items())
            return
    if not isinstance(data, list):
        raise BenchmarkError(f"{path} holds a {type(data).__name__}, not records")
    yield from ((f"record {n}", row) for n, row in enumerate(data, start=1))


def _read_csv(path: Path, text: str, delimiter: str) -> Iterator[Row]:
    table = csv.DictReader(text.splitlines(keepends=True), delimiter=delimiter)
    try:
        begin = 2 if table.fieldnames is None else table.line_num + 1
        for row in table:
            yield f"line {begin}", row if None not in row else "has more fields than the header"
            begin = table.line_num + 1
    except csv.Error as e:
        raise BenchmarkError(
            f"{path}, line {table.line_num + 1} cannot be read ({e}): check its quotes"
        ) from e


def _read_parquet(path: Path) -> Iterator[Row]:
    try:
        from pyarrow import parquet
    except ImportError as e:
        raise BenchmarkError(f"{path} needs pyarrow: pip install 'act2see[eval]'") from e
    try:
        rows = parquet.read_table(path).to_pylist()
    except (OSError, ValueError) as e:  # pyarrow's errors derive from these
        raise BenchmarkError(f"cannot read {path}: {first_line(e)}") from e
    yield from ((f"record {n}", row) for n, row in enumerate(rows, start=1))


def _download(url: str) -> Path:
    """Return a local copy of a file at an fsspec URL."""
    import fsspec

    try:
        with fsspec.open(url, "rb") as file:
            data = file.read(LARGEST + 1)
    except Exception as e:  # each file system has errors of its own
        raise BenchmarkError(f"cannot read {url}: {first_line(e)}") from e
    if len(data) > LARGEST:
        raise BenchmarkError(f"{url} is too large for a file of records")
    name = hashlib.blake2b(data, digest_size=16).hexdigest()
    path = default_cache() / "benchmarks" / name / url.rpartition("/")[2]
    if not path.exists():
        with replacing_file(path) as new:
            new.write_bytes(data)
    return path


def _load_dataset(name: str, split: str) -> list[dict[str, Any]]:
    if importlib.util.find_spec("datasets") is None:
        raise BenchmarkError(
            f"{name} needs datasets (pip install 'act2see[eval]'), or name a file of it: hf://…/x.json"
        )
    import datasets

    try:
        return [dict(row) for row in datasets.load_dataset(name, split=split)]
    except Exception as e:  # the hub, the network, the data set's own faults
        raise BenchmarkError(f"cannot load {name} ({split}) from the hub: {first_line(e)}") from e
