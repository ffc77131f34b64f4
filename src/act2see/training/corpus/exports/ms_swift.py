"""ms-swift (4.2 or newer): JSON Lines, `messages` with `<image>` in their texts and `images` by path.

ms-swift joins assistant messages that follow one another into one turn, tokenises them one by one where their
`loss` differs, and never learns a picture. So a rollout is told exactly: one turn, each stretch with its own
`loss`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from act2see.training.corpus.exports.turns import Turn
from act2see.training.corpus.files import jsonl_rows, write_jsonl

FILE = "train.jsonl"
APART = True


def messages(made: Sequence[Turn]) -> list[dict[str, Any]]:
    asked, *rest = made
    return [
        {"role": "user", "content": asked.text},
        *({"role": "assistant", "content": t.text, "loss": t.learnt} for t in rest),
    ]


def said(message: dict[str, Any]) -> str:
    return str(message["content"])


def write(rows: Iterable[dict[str, Any]], folder: Path) -> None:
    write_jsonl(rows, folder / FILE)


def read(folder: Path) -> Iterator[dict[str, Any]]:
    return jsonl_rows(folder / FILE)
