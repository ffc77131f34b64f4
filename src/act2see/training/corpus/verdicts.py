"""What a person said of chains: accepted or rejected, with a comment, in the file that the review page saves.

A verdict holds for what was seen. Its key is a hash of the sample and of everything that the chain shows, so
the verdict on one attempt is never taken for a verdict on another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from act2see.errors import CorpusError
from act2see.tools.frames import Record
from act2see.training.corpus.records import Chain

VERDICTS_VERSION = 1


class Verdict(Record):
    """One chain's. `key` is its `chain_key`; `id` is the sample's, for people."""

    key: str
    id: str
    accepted: bool
    comment: str = ""


class Asked(Record):
    """A chain that was on the page."""

    key: str
    id: str


class _File(Record):
    verdicts_version: int
    review: str
    asked: tuple[Asked, ...]
    verdicts: tuple[Verdict, ...]


def chain_key(chain: Chain) -> str:
    """Sixteen hexadecimal digits: equal for chains of the same sample with the same text and frames."""
    trace = chain.trace
    seen = [trace.text, [f.digest for f in trace.shown]] if trace else []
    data = json.dumps([chain.sample.source, chain.sample.id, *seen])
    return hashlib.blake2b(data.encode(), digest_size=8).hexdigest()


def read_verdicts(path: str | Path, *, partial: bool = False) -> dict[str, Verdict]:
    """The verdicts of a file, by `chain_key`.

    Raises `CorpusError` for what is no such file, for verdicts on chains that were not on the page or stand
    twice, and, unless `partial`, for chains without one.
    """
    try:
        data: Any = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise CorpusError(f"cannot read {path} ({e}): give the file that the review page saved") from e
    version = data.get("verdicts_version") if isinstance(data, dict) else None
    if version != VERDICTS_VERSION:
        raise CorpusError(
            f"{path} has verdicts version {version!r} and this act2see reads {VERDICTS_VERSION}: make the review page again"
        )
    try:
        file = _File.model_validate(data)
    except ValidationError as e:
        first = e.errors()[0]
        raise CorpusError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from e
    asked = {a.key: a.id for a in file.asked}
    verdicts = {v.key: v for v in file.verdicts}
    if unknown := [v.id for v in file.verdicts if v.key not in asked]:
        raise CorpusError(
            f"{path} has verdicts on chains that were not asked ({named(unknown)}): give the file as the page saved it"
        )
    if len(verdicts) < len(file.verdicts):
        twice = [v.id for v in file.verdicts if verdicts[v.key] is not v]
        raise CorpusError(
            f"{path} has two verdicts on the same chain ({named(twice)}): give the file as the page saved it"
        )
    if (missing := [id for key, id in asked.items() if key not in verdicts]) and not partial:
        raise CorpusError(
            f"{path} has no verdict yet on {len(missing)} of {len(asked)} chains ({named(missing)}): "
            "open the page again, it has kept the others"
        )
    return verdicts


def check_known(verdicts: Mapping[str, Verdict], left: Sequence[str]) -> None:
    """Raise for verdicts, by the keys that are `left`, whose chain did not come."""
    if left:
        raise CorpusError(
            f"{len(left)} of {len(verdicts)} verdicts are on chains that are not here, or not as they were judged "
            f"({named([verdicts[k].id for k in left])}): give the chains that the page was made from, or review these"
        )


def named(ids: Sequence[str]) -> str:
    """The first few."""
    return ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
