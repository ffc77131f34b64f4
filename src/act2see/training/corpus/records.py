"""The data of a construction run: one question, and the chain that a teacher made for it.

A run's folder holds `chains.jsonl`, one `Chain` a line, and `frames/`, the frame store that the traces refer
to. Rejected chains stay in the file with the reason, so that the report can count them.

The run writes through a `Journal`: each record is on disk before the next one starts. A process that is
killed while it writes leaves half a line, which the next process removes. A record that is in the file is
never made again, so a resumed run makes no duplicates.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from filelock import FileLock, Timeout
from pydantic import Field, ValidationError

from act2see.errors import CorpusError
from act2see.tools.frames import Number, Record
from act2see.tools.runtime.files import whole_file
from act2see.tools.runtime.plain_json import parse_json, read_lines
from act2see.tools.runtime.text import first_problem, quote_text
from act2see.trace.trace import Trace
from act2see.training.corpus.sources import Sample

CHAINS_VERSION = 1

Outcome = Literal["right", "wrong", "no answer", "format", "refused", "truncated", "failed"]


class Cost(Record):
    """The tokens, requests and dollars that a teacher used."""

    read: int = 0
    """Prompt tokens, including cached ones."""
    written: int = 0
    """Generated tokens."""
    requests: int = 0
    dollars: Number = 0.0
    """0 if the teacher's prices are unknown."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            read=self.read + other.read,
            written=self.written + other.written,
            requests=self.requests + other.requests,
            dollars=self.dollars + other.dollars,
        )


class Attempt(Record):
    """One rollout of the teacher and how it ended."""

    outcome: Outcome
    answer: str | None = None
    why: str = ""
    """The reason for the outcome; empty if the outcome is "right"."""
    seconds: Number = 0.0
    cost: Cost = Cost()


class Chain(Record):
    """A sample, the teacher's attempts at it, and the trace of the last attempt."""

    chains_version: int = CHAINS_VERSION
    sample: Sample
    trace: Trace | None = None
    attempts: tuple[Attempt, ...] = Field(default=())
    dropped: str = ""
    """The reason why the chain is not used for training; empty if it is used."""
    similarity: float | None = None
    """Cosine similarity of the chain's text to the human chain; None until it is measured."""
    teacher: str = ""

    @property
    def cost(self) -> Cost:
        """The cost of all attempts."""
        return sum((a.cost for a in self.attempts), Cost())


def read_chains(path: str | Path) -> Iterator[Chain]:
    """Read a JSON Lines file chain by chain. An incomplete last line, left by a crash, is skipped.

    Raises:
        CorpusError: Any other line cannot be read, or another version of act2see wrote the file.
    """
    path = Path(path)
    try:
        for n, line in enumerate(read_lines(path), start=1):
            is_complete = line.endswith("\n") or _is_json(line)
            if line.strip() and is_complete:
                yield parse_chain(line, f"{path}, line {n}")
    except (OSError, ValueError) as e:
        raise CorpusError(f"cannot read {path} ({e}): give the chains.jsonl of a construction run") from e


def parse_chain(line: str, where: str) -> Chain:
    """Read one chain from its JSON.

    Args:
        line: The JSON of the chain.
        where: The location of the line, for error messages.

    Raises:
        CorpusError: The line is not JSON, has another version, or is not a chain.
    """
    try:
        data: Any = parse_json(line, keep_nul=True)
    except ValueError as e:
        raise CorpusError(f"{where} is not JSON ({e})") from e
    version = data.get("chains_version") if isinstance(data, dict) else None
    if version != CHAINS_VERSION:
        raise CorpusError(
            f"{where} has version {quote_text(repr(version))}, but this act2see reads version "
            f"{CHAINS_VERSION}: read it with the act2see that wrote it"
        )
    try:
        return Chain.model_validate(data)
    except ValidationError as e:
        field, problem = first_problem(e)
        raise CorpusError(f"{where}: {field}: {problem}") from e


def write_chains(chains: Iterable[Chain], path: str | Path) -> int:
    """Write all chains; if that fails, the file is not changed.

    Returns:
        The number of chains.

    Raises:
        StoreError: The file cannot be written.
    """
    n = 0
    with whole_file(Path(path)) as new, new.open("w", encoding="utf-8") as out:
        for chain in chains:
            out.write(chain.model_dump_json() + "\n")
            n += 1
    return n


def _is_json(line: str) -> bool:
    try:
        parse_json(line)
    except ValueError:
        return False
    return True


class Journal:
    """Context manager of a run's `chains.jsonl`, to which one process at a time appends.

    Raises:
        CorpusError: On entering, if the folder cannot be written or another process is writing to it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "chains.jsonl"
        self.done: dict[str, bool] = {}
        """Sample id -> whether its chain was kept."""
        self.cost = Cost()
        """Cost of all chains in the file."""
        self._folder = folder

    def __enter__(self) -> Self:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self._folder / ".lock", timeout=0)
            self._lock.acquire()
            self._file = self.path.open("ab")
        except Timeout as e:
            raise CorpusError(
                f"another process is writing to {self._folder}: wait until it ends, or use another folder"
            ) from e
        except OSError as e:
            raise CorpusError(f"cannot write to {self._folder} ({e.strerror}): use another folder") from e
        try:
            self._cut_unfinished_line()
            for chain in read_chains(self.path):
                self._count(chain)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._lock.release()

    def write(self, chain: Chain) -> None:
        """Append a chain and wait until it is on disk.

        Raises:
            CorpusError: The chain cannot be written; the file is then unchanged.
        """
        end = self._file.tell()
        try:
            self._file.write((chain.model_dump_json() + "\n").encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as e:
            os.truncate(self.path, end)
            raise CorpusError(
                f"cannot write to {self.path} ({e.strerror}): "
                "free some space, then run the same command again to resume"
            ) from e
        self._count(chain)

    def _count(self, chain: Chain) -> None:
        self.done[chain.sample.id] = not chain.dropped
        self.cost += chain.cost

    def _cut_unfinished_line(self) -> None:
        data = self.path.read_bytes()
        if data and not data.endswith(b"\n"):
            self._file.truncate(data.rfind(b"\n") + 1)
            self._file.seek(0, os.SEEK_END)
