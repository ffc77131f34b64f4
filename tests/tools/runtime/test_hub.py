"""Downloading weights: the choice of files, resuming, and errors of a hub that refuses or is unreachable."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.tools.hub_server import SHA, Hub, hub_server

from act2see.errors import UnreachableError, WeightsError
from act2see.tools.runtime.hub import fetch, list_files, wanted
from act2see.tools.runtime.revisions import revision_of

PACKAGE = Path(__file__).resolve().parents[3] / "src" / "act2see"
MODEL = {
    "config.json": b"{}",
    "model-00001-of-00002.safetensors": bytes(3_000_000),
    "model-00002-of-00002.safetensors": b"x" * 500_000,
    "model.safetensors.index.json": b'{"weight_map": {}}',
    "merges.txt": b"a b",
    "README.md": b"read me",
    "pytorch_model.bin": b"pickle",
    "modeling_mine.py": b"print('no')",
    "original/consolidated.safetensors": b"again",
    "onnx/model.onnx": b"again",
}
INDEX = json.dumps(
    {
        "_class_name": "P",
        "unet": ["diffusers", "U"],
        "vae": ["diffusers", "V"],
        "text_encoder_3": ["transformers", "T"],
        "tokenizer_3": ["transformers", "T5Tokenizer"],
        "safety_checker": [None, None],
    }
).encode()
PIPELINE = {
    "model_index.json": INDEX,
    "everything.safetensors": b"again",
    "unet/config.json": b"{}",
    "unet/diffusion_pytorch_model.safetensors": b"unet",
    "unet/diffusion_pytorch_model.fp16.safetensors": b"half",
    "unet/diffusion_pytorch_model.safetensors.index.fp16.json": b"{}",
    "vae/diffusion_pytorch_model.safetensors": b"vae",
    "vae/diffusion_pytorch_model.bin": b"pickle",
    "text_encoder_3/model.safetensors": b"t5",
    "tokenizer_3/spiece.model": b"words",
    "tokenizer_3/tokenizer_config.json": b"{}",
    "safety_checker/model.safetensors": b"unused",
}
READ = {
    "config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "merges.txt",
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
    with hub_server() as made:
        made.repos |= {"owner/model": dict(MODEL), "owner/pipeline": dict(PIPELINE)}
        yield made


def test_only_loaded_files_are_downloaded(hub: Hub) -> None:
    files = list_files("owner/model", endpoint=hub.url)
    assert set(files.sizes) == READ
    assert files.bytes == sum(len(MODEL[f]) for f in READ)
    seen: list[int] = []
    folder = fetch(files, endpoint=hub.url, report=seen.append)
    assert {p.name for p in folder.iterdir()} == READ
    assert all((folder / f).read_bytes() == MODEL[f] for f in READ)
    assert sum(seen) == files.bytes
    # The second call sends no request.
    sent = dict(hub.sent)
    assert fetch(files, endpoint=hub.url) == folder
    assert hub.sent == sent


def test_only_loaded_parts_of_a_pipeline_are_wanted() -> None:
    index = json.loads(INDEX)
    every = wanted(list(PIPELINE), index)
    assert {f.partition("/")[0] for f in every} == {
        "model_index.json",
        "unet",
        "vae",
        "text_encoder_3",
        "tokenizer_3",
    }
    assert [f for f in every if "fp16" in f or f.endswith(".bin")] == []
    assert {f.partition("/")[0] for f in wanted(list(PIPELINE), index, ("text_encoder_3",))} == {
        "model_index.json",
        "unet",
        "vae",
    }


def test_parts_of_sentence_transformers_are_folders() -> None:
    names = ["modules.json", "0_CLIPModel/model.safetensors", "0_CLIPModel/pytorch_model.bin"]
    assert wanted(names) == names[:2]


def test_a_pipeline_over_http(hub: Hub) -> None:
    files = list_files("owner/pipeline", without=("text_encoder_3",), endpoint=hub.url)
    folder = fetch(files, endpoint=hub.url)
    assert {p.name for p in folder.iterdir()} == {"model_index.json", "unet", "vae"}


def test_an_interrupted_download_is_resumed(hub: Hub) -> None:
    big = "model-00001-of-00002.safetensors"
    hub.cut[big] = 1
    folder = fetch(list_files("owner/model", endpoint=hub.url), endpoint=hub.url)
    assert (folder / big).read_bytes() == MODEL[big]
    assert hub.ranges == [(big, "bytes=1500000-")]
    assert hub.sent[big] == len(MODEL[big])  # each byte once


def test_a_second_call_downloads_the_missing_files(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import file_download

    monkeypatch.setattr(file_download.time, "sleep", lambda _: None)  # the pauses between retries
    big = "model-00001-of-00002.safetensors"
    hub.cut[big] = 10**6
    files = list_files("owner/model", endpoint=hub.url)
    with pytest.raises(WeightsError, match=r"the download of owner/model stopped: .*; run this again"):
        fetch(files, endpoint=hub.url)
    hub.cut.clear()
    hub.sent.clear()
    folder = fetch(files, endpoint=hub.url)
    assert all((folder / f).read_bytes() == MODEL[f] for f in READ)
    assert hub.sent == {big: len(MODEL[big])}


def test_a_gated_repository(hub: Hub) -> None:
    hub.gated.add("owner/pipeline")
    with pytest.raises(
        WeightsError,
        match=r"owner/pipeline is gated: sign in at http\S+/owner/pipeline, accept .* `hf auth login`",
    ):
        list_files("owner/pipeline", endpoint=hub.url)
    hub.gated.add("owner/model")
    files = list_files("owner/model", endpoint=hub.url)
    with pytest.raises(WeightsError, match="owner/model is gated"):
        fetch(files, endpoint=hub.url)
    assert fetch(files, endpoint=hub.url, token="accepted").is_dir()


def test_the_licence_is_named_where_it_is_known(hub: Hub) -> None:
    name = "stabilityai/stable-diffusion-3.5-large"
    hub.repos[name] = dict(PIPELINE)
    hub.revisions[str(revision_of(name))] = SHA
    hub.gated.add(name)
    with pytest.raises(WeightsError, match=r"its licence \(Stability AI Community License\)"):
        list_files(name, endpoint=hub.url)


def test_a_missing_repository_and_one_without_safetensors(hub: Hub) -> None:
    with pytest.raises(
        WeightsError, match="has no repository owner/nothing that you can access: check the name"
    ):
        list_files("owner/nothing", endpoint=hub.url)
    hub.repos["owner/pickles"] = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}
    with pytest.raises(WeightsError, match="owner/pickles has no safetensors"):
        list_files("owner/pickles", endpoint=hub.url)


def test_a_hub_that_fails(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    hub.down = True
    with pytest.raises(WeightsError, match="answered 503 for owner/model: run this again"):
        list_files("owner/model", endpoint=hub.url)
    with pytest.raises(
        UnreachableError, match=r"127\.0\.0\.1:1 cannot be reached: .* export HF_HUB_OFFLINE=1"
    ):
        list_files("owner/model", endpoint="http://127.0.0.1:1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UnreachableError, match="HF_HUB_OFFLINE is set: unset it"):
        list_files("owner/model", endpoint=hub.url)


def test_a_full_disk_stops_the_download_before_it_begins(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from act2see.tools.runtime import hub as tools_hub

    monkeypatch.setattr(tools_hub, "free_space", lambda _: 1_000_000)
    with pytest.raises(WeightsError, match=r"owner/model needs 3\.5 MB more, and .* export HF_HOME=FOLDER"):
        fetch(list_files("owner/model", endpoint=hub.url), endpoint=hub.url)
    assert hub.sent == {}


def test_code_of_a_repository_is_never_run() -> None:
    given = re.compile(r"trust_remote_code\b(?!=False)")
    assert [str(p) for p in PACKAGE.rglob("*.py") if given.search(p.read_text(encoding="utf-8"))] == []
