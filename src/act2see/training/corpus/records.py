"""What construction writes and everything after it reads: one question, and the chain that a teacher made for
it.

A run's folder holds `chains.jsonl`, one `Chain` a line, and `frames/`, the frame store that the traces refer
to. Chains that fell stay in the file with the reason, so that a report can say where they went.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from act2see.errors import CorpusError
from act2see.tools.frames import Record
from act2see.trace.trace import Trace
from act2see.training.corpus.sources import Sample

CHAINS_VERSION = 1

Outcome = Literal["right", "wrong", "no answer", "format", "refused", "truncated", "failed"]


class Cost(Record):
    """What a teacher took: tokens read and written, requests sent, dollars where its prices are known."""

    read: int = 0
    written: int = 0
    requests: int = 0
    dollars: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            read=self.read + other.read,
            written=self.written + other.written,
            requests=self.requests + other.requests,
            dollars=self.dollars + other.dollars,
        )


class Attempt(Record):
    """One rollout of the teacher and how it ended; `why` says it in words where it is not right."""

    outcome: Outcome
    answer: str | None = None
    why: str = ""
    seconds: float = 0.0
    cost: Cost = Cost()


class Chain(Record):
    """A sample, the teacher's attempts at it, and the last attempt's trace.

    `dropped` is the reason why the chain is not for training, and empty where it is. `similarity` is that of
    the chain's text to the human one, once it was measured.
    """

    chains_version: int = CHAINS_VERSION
    sample: Sample
    trace: Trace | None = None
    attempts: tuple[Attempt, ...] = Field(default=())
    dropped: str = ""
    similarity: float | None = None
    teacher: str = ""

    @property
    def cost(self) -> Cost:
        return sum((a.cost for a in self.attempts), Cost())


def read_chains(path: str | Path) -> Iterator[Chain]:
    """The chains of a JSON Lines file, one by one. A line cut short by a crash, the last one, is left out.

    Raises `CorpusError` for any other line that cannot be read, and for a file of a newer version.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8") as lines:
            for n, line in enumerate(lines, start=1):
                if line.strip() and (line.endswith("\n") or _whole(line)):
                    yield parse_chain(line, f"{path}, line {n}")
    except (OSError, UnicodeDecodeError) as e:
        raise CorpusError(f"cannot read {path} ({e}): give the chains.jsonl of a construction run") from e


def parse_chain(line: str, where: str) -> Chain:
    try:
        data: Any = json.loads(line)
    except ValueError as e:
        raise CorpusError(f"{where} is not JSON ({e})") from e
    version = data.get("chains_version") if isinstance(data, dict) else None
    if version != CHAINS_VERSION:
        raise CorpusError(
            f"{where} has version {version!r} and this act2see reads {CHAINS_VERSION}: read it with the one that wrote it"
        )
    try:
        return Chain.model_validate(data)
    except ValidationError as e:
        first = e.errors()[0]
        raise CorpusError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from e


def write_chains(chains: Iterable[Chain], path: str | Path) -> int:
    """Write them all, or nothing: to a file beside it first. Returns how many."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    n = 0
    try:
        with part.open("w", encoding="utf-8") as out:
            for chain in chains:
                out.write(chain.model_dump_json() + "\n")
                n += 1
        part.replace(path)
    except OSError as e:
        part.unlink(missing_ok=True)
        raise CorpusError(f"cannot write {path} ({e}): free some space, or give another folder") from e
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return n


def _whole(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
