"""The file formats of other trainers: TRL, ms-swift (4.2 or newer) and LLaMA-Factory.

A format says how the turns of a rollout become the trainer's messages, and how its file is written and read.
Each class documents what its trainer does to messages that forced the form chosen here.
"""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml

from act2see.tools.frames import FrameRef
from act2see.training.corpus.exports.turns import Turn
from act2see.training.corpus.files import jsonl_rows, parquet_rows, write_jsonl, write_parquet

Kind = Literal["trl", "ms-swift", "llama-factory"]
Message = dict[str, Any]
Row = dict[str, Any]
"""A record: `messages`, `images` (paths) and `act2see` (the whole chain as JSON)."""


class Format(ABC):
    """A trainer's format."""

    file: ClassVar[str]
    """The file that the trainer reads."""
    opening_apart: ClassVar[bool] = False
    """Whether the opened thought is a message of its own."""

    @abstractmethod
    def messages(self, turns: Sequence[Turn]) -> list[Message]:
        """The turns as the trainer's messages, one for each."""

    @abstractmethod
    def text(self, message: Message) -> str:
        """The text of a message. Raises `KeyError` or `TypeError` if it is none of this format."""

    @abstractmethod
    def write(self, rows: Iterable[Row], folder: Path) -> None:
        """Write the file, and what the trainer needs beside it."""

    @abstractmethod
    def read(self, folder: Path) -> Iterator[Row]:
        """The rows of the file. Raises `CorpusError` if it cannot be read."""


class Trl(Format):
    """TRL: conversational vision-language data, `messages` with content parts and `images`, for its
    SFTTrainer.

    TRL counts and fills image parts of every role but `tool`, and Qwen's templates drop those of an
    assistant's message silently. So a returned frame is a user's message, and with `assistant_only_loss`
    nothing is learnt on it. With the model's own template that makes a conversation of several turns. With
    the template that comes with the export (`rollout.jinja`) it is the rollout that act2see reads: a message
    that `continues` opens no turn.

    The folder is an image folder of `datasets`, which finds its pictures; TRL opens it as a data set.
    """

    file = "metadata.parquet"
    template = "rollout.jinja"
    images = "images_file_names"
    """The column that becomes `images` when `datasets` opens the folder."""

    def messages(self, turns: Sequence[Turn]) -> list[Message]:
        out: list[Message] = []
        for i, turn in enumerate(turns):
            content = []
            for part in turn.parts:
                if isinstance(part, FrameRef):
                    content.append({"type": "image", "text": None})
                else:
                    content.append({"type": "text", "text": part})
            out.append({"role": turn.role, "content": content, "continues": i > 1})
        return out

    def text(self, message: Message) -> str:
        return "".join(part["text"] or "" for part in message["content"])

    def write(self, rows: Iterable[Row], folder: Path) -> None:
        from datasets import Features, List, Value

        text = Value("string")
        message = {"role": text, "content": List({"type": text, "text": text}), "continues": Value("bool")}
        features = Features({"messages": List(message), self.images: List(text), "act2see": text})
        shutil.copyfile(str(files(__package__) / self.template), folder / self.template)
        paths = [{"split": "train", "path": [self.file, "images/**/*.png"]}]
        front = yaml.safe_dump(
            {"configs": [{"config_name": "default", "data_files": paths}]}, sort_keys=False
        )
        readme = f"---\n{front}---\n\nChains for TRL, exported by act2see.\n"
        (folder / "README.md").write_text(readme, encoding="utf-8")
        renamed = (_renamed(row, "images", self.images) for row in rows)
        write_parquet(renamed, folder / self.file, features, None)

    def read(self, folder: Path) -> Iterator[Row]:
        for row in parquet_rows(folder / self.file):
            yield _renamed(row, self.images, "images")


def _renamed(row: Row, old: str, new: str) -> Row:
    return {new if key == old else key: value for key, value in row.items()}


class _JsonLines(Format):
    """JSON Lines with `<image>` in the texts and `images` by path."""

    file = "train.jsonl"

    def text(self, message: Message) -> str:
        return str(message["content"])

    def write(self, rows: Iterable[Row], folder: Path) -> None:
        write_jsonl(rows, folder / self.file)

    def read(self, folder: Path) -> Iterator[Row]:
        return jsonl_rows(folder / self.file)


class MsSwift(_JsonLines):
    """ms-swift.

    It joins assistant messages that follow one another into one turn, tokenises them one by one if their
    `loss` differs, and never learns a picture. So a rollout is exported exactly: one turn, each stretch with
    its own `loss`.
    """

    opening_apart = True

    def messages(self, turns: Sequence[Turn]) -> list[Message]:
        asked, *rest = turns
        out: list[Message] = [{"role": "user", "content": asked.text}]
        for turn in rest:
            out.append({"role": "assistant", "content": turn.text, "loss": turn.trainable})
        return out


class LlamaFactory(_JsonLines):
    """LLaMA-Factory: ShareGPT-style, with dataset_info.json.

    It learns assistant turns as a whole, pictures in them included, and wants turns to alternate. So what the
    model was shown is a user's turn, and only what it wrote is an assistant's. Its reasoning templates put an
    empty thought into every assistant turn without a thought's mark; `qwen3_vl_nothink` leaves the texts as
    they are.
    """

    def messages(self, turns: Sequence[Turn]) -> list[Message]:
        return [{"role": turn.role, "content": turn.text} for turn in turns]

    def write(self, rows: Iterable[Row], folder: Path) -> None:
        tags = {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
        }
        info = {
            "act2see": {
                "file_name": self.file,
                "formatting": "sharegpt",
                "columns": {"messages": "messages", "images": "images"},
                "tags": tags,
            }
        }
        (folder / "dataset_info.json").write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")
        super().write(rows, folder)


FORMATS: Mapping[Kind, Format] = {"trl": Trl(), "ms-swift": MsSwift(), "llama-factory": LlamaFactory()}
