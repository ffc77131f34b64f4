"""Which files of a GGUF repository a llama.cpp server needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from act2see.errors import WeightsError
from act2see.tools.runtime.gguf import choose_files, find_gguf, is_gguf, split_name

# The publisher's repository of the 2B model.
FILES = [
    ".gitattributes",
    "README.md",
    "Qwen3VL-2B-Thinking-F16.gguf",
    "Qwen3VL-2B-Thinking-Q4_K_M.gguf",
    "Qwen3VL-2B-Thinking-Q8_0.gguf",
    "mmproj-Qwen3VL-2B-Thinking-F16.gguf",
    "mmproj-Qwen3VL-2B-Thinking-Q8_0.gguf",
]
REPOSITORY = "Qwen/Qwen3-VL-2B-Thinking-GGUF"


@pytest.mark.parametrize("quantisation", ["Q8_0", "q8_0"])
def test_the_quantisation_and_the_most_exact_vision_file_are_chosen(quantisation: str) -> None:
    assert choose_files(FILES, REPOSITORY, quantisation) == [
        "Qwen3VL-2B-Thinking-Q8_0.gguf",
        "mmproj-Qwen3VL-2B-Thinking-F16.gguf",
    ]


def test_all_parts_of_a_split_model_are_chosen() -> None:
    parts = [f"Q8_0/Big-Q8_0-0000{n}-of-00003.gguf" for n in (2, 1, 3)]
    files = [*parts, "Big-Q4_K_M.gguf", "mmproj-Big-bf16.gguf"]
    assert choose_files(files, "a/b", "Q8_0") == [*sorted(parts), "mmproj-Big-bf16.gguf"]


def test_only_the_first_of_several_models_is_chosen() -> None:
    files = ["A-2B-Q8_0.gguf", "A-4B-Q8_0.gguf", "mmproj-A-F16.gguf"]
    assert choose_files(files, "a/b", "Q8_0") == ["A-2B-Q8_0.gguf", "mmproj-A-F16.gguf"]


def test_missing_part_is_named() -> None:
    files = ["Big-Q8_0-00001-of-00003.gguf", "Big-Q8_0-00003-of-00003.gguf", "mmproj-Big-F16.gguf"]
    with pytest.raises(WeightsError, match="Big-Q8_0: 2 of 3 parts are there"):
        choose_files(files, "a/b", "Q8_0")


def test_dynamic_quantisations_differ_from_plain_ones() -> None:
    files = ["Model-Q4_K_XL.gguf", "Model-UD-Q4_K_XL.gguf", "mmproj-F16.gguf"]
    assert choose_files(files, "a/b", "UD-Q4_K_XL")[0] == "Model-UD-Q4_K_XL.gguf"
    with pytest.raises(WeightsError, match="it has Q4_K_XL, UD-Q4_K_XL"):
        choose_files(files, "a/b", "Q8_0")


def test_names_with_a_dot_before_the_quantisation() -> None:
    assert choose_files(["Model.Q4_K_M.gguf", "Model.mmproj-f16.gguf"], "a/b", "Q4_K_M") == [
        "Model.Q4_K_M.gguf",
        "Model.mmproj-f16.gguf",
    ]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (FILES, "a/b has no quantisation Q5_K_M: it has F16, Q4_K_M, Q8_0"),
        (["model.safetensors"], "holds no model in the format GGUF"),
        (["Model-Q5_K_M.gguf"], "has no vision file"),
    ],
)
def test_missing_files_are_named(files: list[str], says: str) -> None:
    with pytest.raises(WeightsError, match=says):
        choose_files(files, "a/b", "Q5_K_M")


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        (f"{REPOSITORY}:Q8_0", True),
        (REPOSITORY, True),
        ("a/b:Q4_K_M", True),
        ("a/b", False),
        ("micro:vlm", False),
        ("./model.gguf", False),
        ("/x/y.gguf", False),
    ],
)
def test_names_of_gguf_repositories(name: str, is_one: bool) -> None:
    assert is_gguf(name) is is_one


def test_the_parts_of_a_name() -> None:
    assert split_name("a/b:Q8_0") == ("a/b", "Q8_0")
    assert split_name("a/b-GGUF") == ("a/b-GGUF", "Q4_K_M")
    with pytest.raises(WeightsError, match="names no GGUF repository"):
        split_name("b:Q8_0")


def test_a_model_that_is_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match="not downloaded"):
        find_gguf(f"{REPOSITORY}:Q8_0")
