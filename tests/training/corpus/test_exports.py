"""Exports: the messages that other trainers read, escaped placeholders, and equal chains after an import."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from tests.training.any_chains import chains, make_chain, without_calls

from act2see.agent.prompt import prompt_of
from act2see.agent.rollout import TextPiece, render
from act2see.errors import CorpusError
from act2see.tools.video.store import FrameStore, frame_digest
from act2see.trace.record import Frames, Text
from act2see.training.corpus.card import CorpusMeta, unique_frames
from act2see.training.corpus.dataset import INFO, write_corpus
from act2see.training.corpus.exports import FORMATS, Kind, export_corpus, import_corpus
from act2see.training.corpus.records import Chain

KINDS = get_args(Kind)
SHORT = CorpusMeta(style="short")
JOINER = "\u2060"


@pytest.fixture
def store(tmp_path: Path) -> FrameStore:
    return FrameStore(tmp_path / "frames")


@pytest.fixture
def open_data_set(tmp_path: Path) -> Iterator[Any]:
    import datasets

    datasets.disable_progress_bars()
    yield lambda *what, **how: datasets.load_dataset(
        *what, split="train", cache_dir=str(tmp_path / "cache"), **how
    )
    datasets.enable_progress_bars()


def export(folder: Path, kind: Kind, given: list[Chain], store: FrameStore, meta: CorpusMeta = SHORT) -> Path:
    write_corpus(given, store, folder / "corpus", meta=meta)
    return export_corpus(folder / "corpus", kind, folder / kind)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_exported_chains_are_imported_equal(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, kind: Kind
) -> None:
    folder = tmp_path_factory.mktemp("any")
    store, other = FrameStore(folder / "frames"), FrameStore(folder / "other")
    given = data.draw(st.lists(chains(store), min_size=1, max_size=2))
    file = export(folder, kind, given, store)
    assert list(import_corpus(file.parent, kind, other)) == given
    for digest in {f.digest for c in given if c.trace for f in unique_frames(c.trace)}:
        assert np.array_equal(other.get(digest), store.get(digest))
    for row in FORMATS[kind].read(file.parent):
        contents = [m["content"] for m in row["messages"]]
        if kind == "trl":
            assert sum(part["type"] == "image" for content in contents for part in content) == len(
                row["images"]
            )
        else:
            assert sum(content.count("<image>") for content in contents) == len(row["images"])
        assert not re.search(r"<\|\w+\|>|<video>", "".join(FORMATS[kind].text(m) for m in row["messages"]))
        assert [frame_digest(np.asarray(picture(file.parent / path))) for path in row["images"]] == [
            Path(p).stem for p in row["images"]
        ]


def picture(path: Path) -> Any:
    from PIL import Image

    with Image.open(path) as image:
        return image.convert("RGB")


def test_ms_swift_export_is_the_rollout_with_its_loss_mask(tmp_path: Path, store: FrameStore) -> None:
    chain = make_chain(store)
    (row,) = rows(export(tmp_path, "ms-swift", [chain], store))
    asked, *rest = row["messages"]
    assert asked == {
        "role": "user",
        "content": "<0.0 seconds><image><1.0 seconds><image>\nWhat moves in clip 0?\n"
        "A. the ring\nB. the cross\nTools: retrieve, generate.",
    }
    assert [(m["role"], m["loss"], m["content"]) for m in rest] == [
        ("assistant", False, "<think>\n"),
        ("assistant", True, "I look closer.<retrieve>the ring</retrieve>"),
        ("assistant", False, "<frame><1.7 seconds><image></frame>"),
        ("assistant", True, "Were it gone:<generate>gone</generate>"),
        ("assistant", False, "<frame><imagined><image></frame>"),
        ("assistant", True, "So it moves.</think>\n<answer>A</answer>"),
    ]
    assert chain.trace is not None
    assert [Path(p).stem for p in row["images"]] == [f.digest for f in chain.trace.shown]


def test_llama_factory_export_has_assistant_turns_of_the_model_alone(
    tmp_path: Path, store: FrameStore, open_data_set: Any
) -> None:
    file = export(tmp_path, "llama-factory", [make_chain(store), without_calls(make_chain(store, 1))], store)
    info = json.loads((file.parent / "dataset_info.json").read_text())["act2see"]
    table = open_data_set("json", data_files=str(file.parent / info["file_name"]))
    tags, columns = info["tags"], info["columns"]
    for row, text in zip(
        table,
        ("I look closer.<retrieve>the ring</retrieve>", "It is seen.</think>\n<answer>A</answer>"),
        strict=True,
    ):
        turns = row[columns["messages"]]
        assert [t[tags["role_tag"]] for t in turns] == [tags["user_tag"], tags["assistant_tag"]] * (
            len(turns) // 2
        )
        assert turns[1][tags["content_tag"]] == f"<think>\n{text}"
        assert not [t for t in turns[1::2] if "<image>" in t["content"] or "<frame>" in t["content"]]
        assert all((file.parent / path).is_file() for path in row[columns["images"]])
    assert table[0]["messages"][2]["content"] == "<frame><1.7 seconds><image></frame>"


def test_trls_collator_masks_all_but_the_models_text(
    tmp_path: Path, store: FrameStore, open_data_set: Any
) -> None:
    from transformers import Qwen3VLProcessor
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    from act2see.micro.questions import sentences
    from act2see.micro.recipe.models import vlm_image_processor
    from act2see.micro.recipe.tokenizers import qwen_tokenizer

    class Processor(Qwen3VLProcessor):  # type: ignore[misc]
        def check_argument_for_proper_class(self, *_: Any) -> None:
            """Accept the processor without a video processor, which needs torchvision."""

    given = [make_chain(store), without_calls(make_chain(store, 1))]
    file = export(tmp_path, "trl", given, store)
    tokenizer = qwen_tokenizer(list(sentences())[:200])
    collator = DataCollatorForVisionLanguageModeling(
        Processor(vlm_image_processor(), tokenizer),
        assistant_only_loss=True,
        chat_template=(file.parent / "rollout.jinja").read_text(),
    )
    batch = collator([dict(row) for row in open_data_set(str(file.parent))])
    assert batch["image_grid_thw"].shape[0] == 6
    for chain, ids, labels in zip(given, batch["input_ids"], batch["labels"], strict=True):
        assert chain.trace is not None
        rollout = render(chain.trace, prompt_of(chain.trace, "short", {}), end_of_turn=True)
        read = tokenizer.decode([i for i in ids.tolist() if i != tokenizer.pad_token_id])
        assert re.sub(r"(<\|image_pad\|>)+", "<|image_pad|>", read) == str(rollout)
        learnt = tokenizer.decode([i for i in labels.tolist() if i != -100])
        # TRL tokenises the whole text, so the `>` of a call and the `<` of its frame can be one token, and
        # the `>` of the frame and the word after it.
        ours = (
            "".join(p.text for p in rollout.pieces if isinstance(p, TextPiece) and p.trainable) + "<|im_end|>"
        )
        assert re.sub(r"(</retrieve>|</generate>)<?>?", r"\1", learnt) == ours


def test_spelled_out_placeholders_are_escaped(tmp_path: Path, store: FrameStore) -> None:
    chain = make_chain(store)
    assert chain.trace is not None
    question = chain.trace.question.model_copy(update={"text": "Is <image> or <|im_end|> on the board?"})
    chain = chain.model_copy(update={"trace": chain.trace.model_copy(update={"question": question})})
    (row,) = rows(export(tmp_path, "ms-swift", [chain], store))
    assert f"Is <{JOINER}image> or <{JOINER}|im_end|> on the board?" in row["messages"][0]["content"]


def test_exports_have_the_prompt_of_the_run(tmp_path: Path, store: FrameStore) -> None:
    meta = CorpusMeta(usages={"retrieve": "look again"})
    (row,) = rows(export(tmp_path, "ms-swift", [make_chain(store)], store, meta))
    prompt = row["messages"][0]["content"]
    assert "<retrieve> query </retrieve>: look again\n" in prompt
    assert re.search(r"<generate> query </generate>: \w+", prompt)  # the tool's own line


def test_a_chain_that_does_not_end_with_the_model_is_refused(tmp_path: Path, store: FrameStore) -> None:
    chain = make_chain(store)
    assert chain.trace is not None
    chain = chain.model_copy(
        update={"trace": chain.trace.model_copy(update={"segments": chain.trace.segments[:3]})}
    )
    with pytest.raises(CorpusError, match="'run-0' does not end with text of the model"):
        export(tmp_path, "ms-swift", [chain], store)
    assert not list(tmp_path.glob("ms-swift*"))


@pytest.mark.parametrize("kind", ["ms-swift", "llama-factory"])
def test_import_takes_over_edited_reasoning(tmp_path: Path, store: FrameStore, kind: Kind) -> None:
    given = [make_chain(store), make_chain(store, 1)]
    file = export(tmp_path, kind, given, store)
    file.write_text(file.read_text().replace("Were it gone:", "Without it, <image>:", 1))
    first, second = import_corpus(file, kind, store)
    assert second == given[1]
    before, trace = given[0].trace, first.trace
    assert before is not None
    assert trace is not None
    assert trace.segments == (*before.segments[:3], Text(text="Without it, <image>:"), *before.segments[4:])
    assert first == given[0].model_copy(update={"trace": trace, "similarity": None})


def test_import_accepts_deleted_and_reordered_records(tmp_path: Path, store: FrameStore) -> None:
    given = [make_chain(store, n) for n in range(3)]
    file = export(tmp_path, "llama-factory", given, store)
    lines = file.read_text().splitlines(keepends=True)
    file.write_text(lines[2] + lines[0])
    assert list(import_corpus(file, "llama-factory", store)) == [given[2], given[0]]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '<retrieve>the ring</retrieve>"',
            '<retrieve>the cross</retrieve>"',
            "only reasoning may be edited, but the message no longer ends with '<retrieve>the ring",
        ),
        ('<answer>A</answer>"', '<answer>B</answer>"', "only reasoning may be edited"),
        (
            "I look closer.",
            "I </think> look closer.",
            r"the edited chain is not well formed \(a thought closed twice\)",
        ),
        ("What moves", "What rests", "message 1 was edited, but the model did not write it"),
        ("<1.7 seconds>", "<1.8 seconds>", "message 4 was edited, but the model did not write it"),
        ('"loss": false', '"loss": true', "message 2 was edited, but the model did not write it"),
        (
            '{"role": "assistant", "content": "<think>\\n", "loss": false}, ',
            "",
            "messages were added or removed",
        ),
        ('"act2see": ', '"other": ', "has no `act2see` column, which holds the chain: restore it"),
        ('"images": ["images/', '"images": ["x", "images/', "`images` does not match the chain"),
    ],
)
def test_import_refuses_other_edits(
    tmp_path: Path, store: FrameStore, old: str, new: str, message: str
) -> None:
    file = export(tmp_path, "ms-swift", [make_chain(store)], store)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(CorpusError, match=rf"record 1.*{message}"):
        list(import_corpus(file, "ms-swift", store))


def test_import_refuses_folders_of_another_kind(tmp_path: Path, store: FrameStore) -> None:
    file = export(tmp_path, "trl", [make_chain(store)], store)
    with pytest.raises(CorpusError, match="is an export for trl, not for ms-swift: import it as trl"):
        import_corpus(file, "ms-swift", store)
    with pytest.raises(CorpusError, match=r"is not an export: its act2see\.json has no export_version"):
        import_corpus(tmp_path / "corpus", "trl", store)
    with pytest.raises(CorpusError, match="no export format 'csv': use trl, ms-swift, llama-factory"):
        export_corpus(tmp_path / "corpus", "csv", tmp_path / "csv")  # type: ignore[arg-type]
    data = json.loads((file.parent / INFO).read_text())
    (file.parent / INFO).write_text(json.dumps(data | {"export_version": 2, "act2see": "9.1.0"}))
    with pytest.raises(CorpusError, match=r"an export of version 2.*install act2see 9\.1\.0"):
        import_corpus(file, "trl", store)


def test_import_names_a_missing_picture(tmp_path: Path, store: FrameStore) -> None:
    chain = make_chain(store)
    file = export(tmp_path, "ms-swift", [chain], store)
    assert chain.trace is not None
    (returned,) = next(s for s in chain.trace.segments if isinstance(s, Frames)).frames
    (file.parent / "images" / returned.digest[:2] / f"{returned.digest}.png").unlink()
    with pytest.raises(
        CorpusError, match=rf"record 1: cannot read the picture images/../{returned.digest}.png"
    ):
        list(import_corpus(file, "ms-swift", FrameStore(tmp_path / "other")))
