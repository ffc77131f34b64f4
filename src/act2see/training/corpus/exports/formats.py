"""The file formats of other trainers: TRL, ms-swift (4.2 or newer) and LLaMA-Factory.

A format converts the turns of a rollout into the trainer's messages, and writes and reads the trainer's file.
Each class documents the behaviour of its trainer that requires the chosen form.
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
from act2see.training.corpus.files import read_jsonl, read_parquet, write_jsonl, write_parquet

Kind = Literal["trl", "ms-swift", "llama-factory"]
Message = dict[str, Any]
Row = dict[str, Any]
"""A record: `messages`, `images` (paths) and `act2see` (the whole chain as JSON)."""


class Format(ABC):
    """A trainer's format."""

    file: ClassVar[str]
    """The file that the trainer reads."""
    separate_opening: ClassVar[bool] = False
    """Whether the opening tag of the thought is a separate message."""

    @abstractmethod
    def messages(self, turns: Sequence[Turn]) -> list[Message]:
        """Return the trainer's messages, one for each turn."""

    @abstractmethod
    def text(self, message: Message) -> str:
        """Return the text of a message.

        Raises:
            KeyError, TypeError: The message does not have this format.
        """

    @abstractmethod
    def write(self, rows: Iterable[Row], folder: Path) -> None:
        """Write the trainer's file, and the files that the trainer needs with it."""

    @abstractmethod
    def read(self, folder: Path) -> Iterator[Row]:
        """Yield the rows of the trainer's file.

        Raises:
            CorpusError: The file cannot be read.
        """


class Trl(Format):
    """TRL: conversational vision-language data for its SFTTrainer: `messages` with content parts, `images`.

    TRL counts and fills the image parts of every role except `tool`, and Qwen's templates silently drop the
    image parts of an assistant message. A returned frame is therefore a user message, which
    `assistant_only_loss` masks. With the model's own template, the messages are a conversation of several
    turns. With the template of the export (`rollout.jinja`), they are the rollout that act2see reads: a
    message with `continues` does not start a turn.

    The folder is an image folder of `datasets`, so TRL opens it as a data set with its pictures.
    """

    file = "metadata.parquet"
    template = "rollout.jinja"
    images = "images_file_names"
    """The column that `datasets` opens as `images`."""

    def messages(self, turns: Sequence[Turn]) -> list[Message]:
        out: list[Message] = []
        for i, turn in enumerate(turns):
            content = []
            for part in turn.parts:
                if isinstance(part, FrameRef):
                    content.append({"type": "image", "text": None})
                else:
                    content.append({"type": "text", "text": part})
            # The first two turns, the prompt and the opening tag, each start a chat turn.
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
        renamed = (_rename_key(row, "images", self.images) for row in rows)
        write_parquet(renamed, folder / self.file, features, None)

    def read(self, folder: Path) -> Iterator[Row]:
        for row in read_parquet(folder / self.file):
            yield _rename_key(row, self.images, "images")


def _rename_key(row: Row, old: str, new: str) -> Row:
    return {new if key == old else key: value for key, value in row.items()}


class _JsonLines(Format):
    """JSON Lines, with `<image>` in the texts and paths in `images`."""

    file = "train.jsonl"

    def text(self, message: Message) -> str:
        return str(message["content"])

    def write(self, rows: Iterable[Row], folder: Path) -> None:
        write_jsonl(rows, folder / self.file)

    def read(self, folder: Path) -> Iterator[Row]:
        return read_jsonl(folder / self.file)


class MsSwift(_JsonLines):
    """ms-swift: JSON Lines with a `loss` for each message.

    ms-swift joins consecutive assistant messages into one turn, tokenises them separately if their `loss`
    differs, and never learns a picture. A rollout is therefore exported exactly: one assistant turn, whose
    parts have their own `loss`.
    """

    separate_opening = True

    def messages(self, turns: Sequence[Turn]) -> list[Message]:
        question, *rest = turns
        out: list[Message] = [{"role": "user", "content": question.text}]
        for turn in rest:
            out.append({"role": "assistant", "content": turn.text, "loss": turn.trainable})
        return out


class LlamaFactory(_JsonLines):
    """LLaMA-Factory: JSON Lines in ShareGPT style, with dataset_info.json.

    LLaMA-Factory learns whole assistant turns, including their pictures, and requires user and assistant
    turns to alternate. Returned frames are therefore user turns, and only text of the model is an assistant
    turn. Its reasoning templates add an empty thought to every assistant turn without thought tags; the
    template `qwen3_vl_nothink` does not change the texts.
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
