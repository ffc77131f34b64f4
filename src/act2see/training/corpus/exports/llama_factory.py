"""LLaMA-Factory: ShareGPT-style JSON Lines with `<image>` in the texts, `images` by path, and
dataset_info.json.

LLaMA-Factory learns assistant turns as a whole, pictures in them included, and wants turns to alternate. So
what the model was shown is a user's turn and only what it wrote an assistant's. Its reasoning templates put
an empty thought into every assistant turn that holds no mark of one; `qwen3_vl_nothink` leaves the texts as
they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from act2see.training.corpus.exports.turns import Turn
from act2see.training.corpus.files import jsonl_rows, write_jsonl

FILE = "train.jsonl"
APART = False
INFO = {
    "act2see": {
        "file_name": FILE,
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
        },
    }
}


def messages(made: Sequence[Turn]) -> list[dict[str, Any]]:
    return [{"role": turn.role, "content": turn.text} for turn in made]


def said(message: dict[str, Any]) -> str:
    return str(message["content"])


def write(rows: Iterable[dict[str, Any]], folder: Path) -> None:
    (folder / "dataset_info.json").write_text(json.dumps(INFO, indent=1) + "\n", encoding="utf-8")
    write_jsonl(rows, folder / FILE)


def read(folder: Path) -> Iterator[dict[str, Any]]:
    return jsonl_rows(folder / FILE)
