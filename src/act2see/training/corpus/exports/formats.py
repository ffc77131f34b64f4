"""TRL: conversational vision-language data, `messages` with content parts and `images`, as its SFTTrainer
reads it.

TRL counts and fills image parts of every role but `tool`, and Qwen's templates drop those of an assistant's
message without a word; so a frame that comes back is a user's message, and with `assistant_only_loss` nothing
is learnt on it. With the model's own template that makes a conversation of several turns. With the template
that comes with the export (`rollout.jinja`) it is the rollout that act2see reads: a message that `continues`
opens no turn.

The folder is an image folder of `datasets`, which knows where its pictures are; TRL opens it as a data set.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from act2see.tools.frames import FrameRef
from act2see.training.corpus.exports.turns import Turn
from act2see.training.corpus.files import parquet_rows, write_parquet

FILE = "metadata.parquet"
APART = False
TEMPLATE = "rollout.jinja"
IMAGES = "images_file_names"  # becomes `images` when `datasets` opens the folder


def messages(made: Sequence[Turn]) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for i, turn in enumerate(made):
        content = [
            {"type": "image", "text": None} if isinstance(p, FrameRef) else {"type": "text", "text": p}
            for p in turn.parts
        ]
        out.append({"role": turn.role, "content": content, "continues": i > 1})
    return out


def said(message: dict[str, Any]) -> str:
    return "".join(part["text"] or "" for part in message["content"])


def write(rows: Iterable[dict[str, Any]], folder: Path) -> None:
    from datasets import Features, List, Value

    text = Value("string")
    message = {"role": text, "content": List({"type": text, "text": text}), "continues": Value("bool")}
    features = Features({"messages": List(message), IMAGES: List(text), "act2see": text})
    shutil.copyfile(str(files(__package__) / TEMPLATE), folder / TEMPLATE)
    paths = [{"split": "train", "path": [FILE, "images/**/*.png"]}]
    front = yaml.safe_dump({"configs": [{"config_name": "default", "data_files": paths}]}, sort_keys=False)
    (folder / "README.md").write_text(
        f"---\n{front}---\n\nChains for TRL, exported by act2see.\n", encoding="utf-8"
    )
    write_parquet(
        ({IMAGES if k == "images" else k: v for k, v in row.items()} for row in rows),
        folder / FILE,
        features,
        None,
    )


def read(folder: Path) -> Iterator[dict[str, Any]]:
    for row in parquet_rows(folder / FILE):
        yield {"images" if k == IMAGES else k: v for k, v in row.items()}
