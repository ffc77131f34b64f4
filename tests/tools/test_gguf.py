"""Which files of a GGUF repository a llama.cpp server needs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from act2see.errors import WeightsError
from act2see.tools.runtime.catalogue import known_weights
from act2see.tools.runtime.gguf import choose_files, find_gguf, is_gguf, split_name
from act2see.tools.runtime.hub import list_files
from act2see.tools.runtime.revisions import check_name
from act2see.tools.runtime.weights import Wanted, cached_folder, find_weights, is_of_hub, what_is_missing

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


@pytest.mark.parametrize("quantisation", ["UD-Q4_K_XL", "ud-q4_k_xl", "Q4_K_XL"])
def test_a_quantisation_may_have_several_parts(quantisation: str) -> None:
    files = ["Model-UD-Q4_K_XL.gguf", "Model-Q4_0.gguf", "mmproj-F16.gguf"]
    assert choose_files(files, "a/b", quantisation)[0] == "Model-UD-Q4_K_XL.gguf"


def test_one_of_several_models_with_a_quantisation_is_chosen() -> None:
    files = ["Model-UD-Q8_0.gguf", "Model-Q8_0.gguf", "mmproj-F16.gguf"]
    assert choose_files(files, "a/b", "Q8_0") == ["Model-Q8_0.gguf", "mmproj-F16.gguf"]
    assert choose_files(files, "a/b", "UD-Q8_0") == ["Model-UD-Q8_0.gguf", "mmproj-F16.gguf"]


WRONG_NAMES = [
    ("@../x", "names no repository before the @"),
    ("a/b@", "has no revision after the @: write owner/name@REVISION, or leave out the @"),
    ("a/b:Q8_0@", "has no revision after the @"),
    ("a/b@main:Q8_0", "write the quantisation before the revision"),
    ("a/b@../../etc", "is not the name of a commit, a branch or a tag"),
    ("a/b@/etc/passwd", "is not the name of a commit"),
    ("a/b@a//b", "is not the name of a commit"),
    ("a/b@ main", "is not the name of a commit"),
    (f"a/b@{'x' * 300}", "is not the name of a commit"),
    ("a/..@main", r"is neither a folder nor a hub repository \(owner/name\)"),
    ("ä/b:Q8_0@main", "is neither a folder nor a hub repository"),
]


@pytest.mark.parametrize(("name", "says"), WRONG_NAMES)
def test_a_wrong_name_says_what_is_wrong(name: str, says: str) -> None:
    for look in (find_gguf, find_weights, cached_folder, list_files):
        with pytest.raises(WeightsError, match=says):
            look(name)
    assert re.search(says, what_is_missing(Wanted("reasoner", name)))
    assert not is_of_hub(name)


@pytest.mark.parametrize("name", ["a/b@main", "a/b:Q8_0@v1.0", "a/b@refs/pr/1", f"a/b@{'c' * 40}", "gpt2"])
def test_names_of_the_hub_are_accepted(name: str) -> None:
    check_name(name)


def test_a_name_too_long_for_a_folder_is_a_weights_error() -> None:
    name = f"{'a' * 300}/b"
    assert not is_of_hub(name)
    with pytest.raises(WeightsError, match="is neither a folder nor a hub repository"):
        find_weights(name)


def test_gguf_files_are_no_weights_for_transformers() -> None:
    with pytest.raises(WeightsError, match=r"names GGUF files, which only a llama\.cpp server loads"):
        find_weights("a/b:Q8_0")
    with pytest.raises(WeightsError, match="names GGUF files"):
        cached_folder("a/b:Q8_0@main")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of a repository with two snapshots; the second lacks a part of its model."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--a--b-GGUF"
    whole, half = folder / "snapshots" / ("c" * 40), folder / "snapshots" / ("d" * 40)
    for snapshot in (whole, half):
        snapshot.mkdir(parents=True)
        (snapshot / "mmproj-F16.gguf").write_bytes(b"x")
    (whole / "m-Q8_0.gguf").write_bytes(b"x")
    (half / "m-Q8_0-00001-of-00002.gguf").write_bytes(b"x")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("c" * 40)
    return folder


@pytest.mark.parametrize("name", ["a/b-GGUF:Q8_0", "a/b-GGUF:q8_0", "a/b-GGUF:q8_0@main"])
def test_a_complete_model_is_found_in_any_case(hub: Path, name: str) -> None:
    assert find_gguf(name).model == hub / "snapshots" / ("c" * 40) / "m-Q8_0.gguf"


def test_a_damaged_or_unreadable_cache_is_a_weights_error(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (hub / "refs" / "broken").write_bytes(b"\xff\xfe")
    with pytest.raises(WeightsError, match="not downloaded"):
        find_gguf("a/b-GGUF:Q8_0@broken")
    with pytest.raises(WeightsError, match="not downloaded"):
        find_gguf(f"a/b-GGUF:Q8_0@{'d' * 40}")

    def refuse(*args: object, **keywords: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rglob", refuse)
    with pytest.raises(WeightsError, match=r"models--a--b-GGUF cannot be read: Permission denied"):
        find_gguf("a/b-GGUF:Q8_0")


@pytest.mark.parametrize("name", ["q8_0", "Q8_0", "q8_0@main"])
def test_the_catalogue_knows_a_quantisation_in_any_case(name: str) -> None:
    known = known_weights(f"{REPOSITORY}:{name}")
    assert known is not None
    assert known.stored == "gguf"
    assert known_weights(f"{REPOSITORY}:Q2_K") is None
