"""The queries of `act2see calibrate`: from a table, from JSON lines, or from saved traces.

A line of a table names a video and a query about it. A trace has the queries of its calls to `retrieve`, and
the digest of its video, so it may come from another machine.

Tables come from spreadsheets: UTF-8 and UTF-16 with a byte order mark are read, and a header may name
further columns. Quotes in a .tsv file are text, unless they enclose a whole cell. A cell too many is an
error, since it mostly comes from a comma in a query.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from act2see.errors import CalibrationError
from act2see.tools.runtime.files import read_file
from act2see.tools.runtime.plain_json import parse_json
from act2see.trace.trace import Trace

FORMATS = "a .tsv, .csv, .jsonl or .json file, or a folder of traces"
_LARGEST = 64 << 20  # bytes of a file
_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_LINE_END = re.compile(r"\r\n?|\n")
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')


@dataclass(frozen=True, slots=True)
class NamedQuery:
    """A query, and the video that it is about."""

    query: str
    video: str
    """Path or name of the video."""
    digest: str = ""
    """Digest of the video; empty if it is not known."""


def read_queries(path: Path) -> list[NamedQuery]:
    """Return the queries of a file, or of all traces in a folder.

    Args:
        path: A table (.tsv or .csv: video, query), JSON lines (`{"video": ..., "query": ...}`, traces, or the
            chains of `act2see corpus build`), a trace (.json), or a folder of traces.

    Raises:
        CalibrationError: The file cannot be read, or a line has no video or no query.
        TraceError: A trace cannot be read.
    """
    try:
        if path.is_dir():
            return read_trace_folder(path)
        match path.suffix.lower():
            case ".tsv" | ".csv":
                return list(_read_table(path))
            case ".jsonl":
                return list(_read_lines(path))
            case ".json":
                return list(_queries_of(Trace.load(path)))
    except (OSError, ValueError) as e:
        why = getattr(e, "strerror", None) or e
        raise CalibrationError(f"cannot read the queries {path} ({why}): name {FORMATS}") from e
    raise CalibrationError(f"queries cannot be read from {path}: name {FORMATS}")


def read_trace_folder(folder: Path) -> list[NamedQuery]:
    """Return the queries of all traces in a folder and in the folders below it. Other files are ignored.

    Raises:
        OSError: A file cannot be read.
        TraceError: A trace cannot be read.
    """
    queries: list[NamedQuery] = []
    for file in sorted([*folder.rglob("*.json"), *folder.rglob("*.jsonl")]):
        for where, row in _json_rows(file):
            if _is_trace(row) or _is_trace(row.get("trace")):
                queries += _queries_of_row(row, where)
    return queries


def _read_table(path: Path) -> Iterator[NamedQuery]:
    """Yield the rows of a table with the columns video and query, which may have a header."""
    is_tsv = path.suffix.lower() == ".tsv"
    columns: list[str] | None = None
    for number, row in _rows_of_tsv(path) if is_tsv else _rows_of_csv(path):
        where = f"{path}, line {number}"
        cells = [cell.strip() for cell in row]
        while cells and not cells[-1]:
            cells.pop()
        if not cells:
            continue
        if columns is None:
            names = [cell.casefold() for cell in cells]
            is_header = {"video", "query"} <= set(names)
            columns = names if is_header else ["video", "query"]
            if is_header:
                continue
        if len(cells) > len(columns):
            advice = "name each column in the first line"
            if not is_tsv:
                advice = f"put a query with a comma into quotes, or {advice}"
            raise CalibrationError(
                f"{where} has {len(cells)} cells instead of {len(columns)} ({', '.join(columns)}): {advice}"
            )
        named = dict(zip(columns, cells, strict=False))
        video, query = named.get("video"), named.get("query")
        if not (video and query):
            separator = "a tab" if is_tsv else "a comma"
            raise CalibrationError(f"{where}: write a video and a query, separated by {separator}")
        yield NamedQuery(" ".join(query.split()), video)


def _rows_of_tsv(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a .tsv file with the numbers of their lines."""
    for number, line in enumerate(_LINE_END.split(_read_text(path)), start=1):
        cells = []
        for cell in line.split("\t"):
            quoted = _QUOTED.fullmatch(cell)
            cells.append(quoted[1].replace('""', '"') if quoted else cell)
        yield number, cells


def _rows_of_csv(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a .csv file with the numbers of their first lines.

    Raises:
        CalibrationError: The quotes of a row are wrong.
    """
    reader = csv.reader(StringIO(_read_text(path), newline=""), skipinitialspace=True, strict=True)
    while True:
        number = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as e:
            raise CalibrationError(
                f"{path}, line {number} is not a row of a CSV table ({e}): check its quotes"
            ) from e
        if row is None:
            return
        yield number, row


def _read_text(path: Path) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 with a byte order mark.

    Raises:
        CalibrationError: A line has another encoding, or a NUL character.
        OSError: The file cannot be read.
    """
    data = read_file(path, _LARGEST)
    mark = next((mark for mark in _MARKS if data.startswith(mark)), b"")
    encoding = _MARKS.get(mark, "utf-8")
    data = data.removeprefix(mark)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as e:
        number = data[: e.start].decode(encoding, "replace").count("\n") + 1
        raise CalibrationError(f"{path}, line {number} is not UTF-8: save the file as UTF-8") from e
    if "\0" in text:
        number = text[: text.index("\0")].count("\n") + 1
        raise CalibrationError(f"{path}, line {number} has a NUL character: save the file as UTF-8")
    return text


def _read_lines(path: Path) -> Iterator[NamedQuery]:
    for where, row in _json_rows(path, strict=True):
        if _is_trace(row) or "trace" in row:
            yield from _queries_of_row(row, where)
            continue
        video, query = row.get("video"), row.get("query")
        if not (isinstance(video, str) and isinstance(query, str) and video.strip() and query.strip()):
            raise CalibrationError(f'{where}: write {{"video": "FILE", "query": "TEXT"}}, or a trace')
        yield NamedQuery(query.strip(), video.strip())


def _json_rows(path: Path, strict: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a JSON or JSON Lines file with their places.

    Args:
        path: The file.
        strict: Whether anything else is an error; otherwise it is skipped.
    """
    text = _read_text(path) if strict else read_file(path, _LARGEST).decode("utf-8-sig", "replace")
    lines = text.split("\n") if path.suffix.lower() == ".jsonl" else [text]
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = parse_json(line)
        except ValueError as e:
            if strict:
                raise CalibrationError(f"{where} is not JSON ({e})") from e
            continue
        if isinstance(row, dict):
            yield where, row
        elif strict:
            raise CalibrationError(f"{where} is not an object")


def _is_trace(row: Any) -> bool:
    return isinstance(row, dict) and "schema_version" in row and "segments" in row


def _queries_of_row(row: dict[str, Any], where: str) -> Iterator[NamedQuery]:
    """Yield the queries of a trace, or of a chain of `act2see corpus build`, which may have no trace."""
    data = row if _is_trace(row) else row["trace"]
    if data is not None:
        yield from _queries_of(Trace.from_json(json.dumps(data), where))


def _queries_of(trace: Trace) -> Iterator[NamedQuery]:
    """Yield the queries that `retrieve` searched for, as a person may have changed them."""
    for call, frames in trace.looks:
        version = trace.versions.tools.get(call.tag, call.tag)
        if call.outcome != "ok" or not version.startswith("retrieve"):
            continue
        review = frames.review if frames else None
        query = (review.query if review else "") or call.query
        yield NamedQuery(query, trace.video.path, trace.video.digest)
