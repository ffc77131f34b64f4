"""The queries of `act2see calibrate`: from a table, from JSON lines, or from saved traces.

A line of a table names a video and a query about it. A trace has the queries of its calls to `retrieve`, and
the digest of its video, so it may come from another machine.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from act2see.errors import CalibrationError
from act2see.trace.trace import Trace

FORMATS = "a .tsv, .csv, .jsonl or .json file, or a folder of traces"


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
    except (OSError, UnicodeDecodeError, csv.Error) as e:
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
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(csv.reader(file, delimiter=delimiter), start=1):
            cells = [cell.strip() for cell in row]
            if not any(cells) or (number == 1 and cells[:2] == ["video", "query"]):
                continue
            if len(cells) < 2 or not cells[0] or not cells[1]:
                raise CalibrationError(
                    f"{path}, line {number}: write a video and a query, separated by "
                    f"{'a tab' if delimiter == chr(9) else 'a comma'}"
                )
            yield NamedQuery(cells[1], cells[0])


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
    text = path.read_text(encoding="utf-8-sig", errors="strict" if strict else "replace")
    lines = text.split("\n") if path.suffix.lower() == ".jsonl" else [text]
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
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
