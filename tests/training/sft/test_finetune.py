"""Fine-tuning micro: the loss falls, and the graph loads the result only on the right base."""

from __future__ import annotations

import asyncio
import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from tests.training.rollouts import QUICK, draw_trace

from act2see.agent.prompt import Prompt
from act2see.agent.reasoners.base import Delta, Reasoner, Request
from act2see.agent.reasoners.transformers import TransformersReasoner
from act2see.agent.rollout import render
from act2see.errors import ConfigError, CorpusError, StoreError, WeightsError
from act2see.graphs.config import load_config
from act2see.graphs.parts import build_parts
from act2see.micro.questions import FAMILIES
from act2see.tools.runtime.weights import resolve_weights
from act2see.tools.video.store import FrameStore
from act2see.trace.record import Text
from act2see.trace.trace import Trace
from act2see.training.sft.finetune import finetune
from act2see.training.sft.result import SftResult

OVERFIT = QUICK.model_copy(update={"batch": 4, "max_steps": 5, "learning_rate": 5e-3, "lora_dropout": 0.0})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    return FrameStore(tmp_path_factory.mktemp("frames"))


@pytest.fixture(scope="module")
def traces(store: FrameStore) -> list[Trace]:
    return [draw_trace(f, store) for f in FAMILIES]


@pytest.fixture(scope="module")
def overfit(tmp_path_factory: pytest.TempPathFactory, store: FrameStore, traces: list[Trace]) -> SftResult:
    """The result of five steps on one batch."""
    return finetune(traces, store, tmp_path_factory.mktemp("sft") / "adapter", OVERFIT, corpus="four boards")


def reasoner_of(weights: str, adapter: str | None, store: FrameStore) -> Reasoner:
    return TransformersReasoner.from_pretrained(weights, store, adapter=adapter, rows=1)


def greedy(reasoner: Any, trace: Trace, count: int = 320) -> str:
    """Return the text that a reasoner writes for a trace's question, and close the reasoner."""
    prompt = Prompt(dict.fromkeys(trace.versions.tools, ""), "short")
    question = render(trace.model_copy(update={"segments": ()}), prompt)

    async def write() -> str:
        stream = reasoner.stream(Request(question, count))
        return "".join([d.text async for d in stream if isinstance(d, Delta)])

    try:
        return asyncio.run(write())
    finally:
        reasoner.close()


def test_the_loss_falls_on_a_repeated_batch(overfit: SftResult) -> None:
    assert [step for step, _ in overfit.losses] == [1, 2, 3, 4, 5]
    losses = [loss for _, loss in overfit.losses]
    assert losses[-1] < losses[1] < losses[0]
    assert overfit.steps == 5
    assert (overfit.samples, overfit.left_out) == (4, ())
    assert json.loads((Path(overfit.folder) / "sft.json").read_text())["steps"] == 5


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_a_merged_adapter_generates_the_same_text(
    overfit: SftResult, store: FrameStore, traces: list[Trace], tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import Qwen3VLForConditionalGeneration

    base = resolve_weights("micro:base")
    model: Any = Qwen3VLForConditionalGeneration.from_pretrained(base)
    PeftModel.from_pretrained(model, overfit.folder).merge_and_unload().save_pretrained(tmp_path / "merged")
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        shutil.copy(Path(overfit.folder) / name, tmp_path / "merged")
    before = greedy(reasoner_of(base, None, store), traces[3])
    unmerged = greedy(reasoner_of(base, overfit.folder, store), traces[3])
    merged = greedy(reasoner_of(str(tmp_path / "merged"), None, store), traces[3])
    assert unmerged == merged
    assert unmerged != before, "the adapter changes nothing"


def test_the_graph_loads_the_adapter_of_its_config(
    overfit: SftResult, store: FrameStore, traces: list[Trace]
) -> None:
    config = load_config(
        "micro",
        store=store.url,
        reasoner={"weights": "micro:base", "adapter": overfit.folder},
        view={"guard": None},
    )
    expected = greedy(reasoner_of(resolve_weights("micro:base"), overfit.folder, store), traces[3], 64)
    assert greedy(build_parts(config).reasoner, traces[3], 64) == expected


def test_an_adapter_of_another_base_is_refused(overfit: SftResult, tmp_path: Path) -> None:
    """Cases: other weights of the same shapes, another name without a digest, no adapter, another width."""
    base, store = resolve_weights("micro:base"), FrameStore(tmp_path / "frames")
    other = str(shutil.copytree(base, tmp_path / "other"))
    tensors = load_file(Path(other) / "model.safetensors")
    first = next(iter(tensors))
    save_file({**tensors, first: tensors[first] + 1}, Path(other) / "model.safetensors", {"format": "pt"})

    def load(weights: str, adapter: Path) -> TransformersReasoner:
        return TransformersReasoner.from_pretrained(weights, store, adapter=str(adapter))

    with pytest.raises(
        WeightsError,
        match=r"trained on micro:base, and the reasoner's weights are .*other, which are not the same",
    ):
        load(other, Path(overfit.folder))
    unsigned = Path(shutil.copytree(overfit.folder, tmp_path / "unsigned"))
    (unsigned / "base.json").unlink()
    assert load(base, unsigned)
    with pytest.raises(WeightsError, match="base_model_name_or_path in its adapter_config"):
        load(other, unsigned)
    with pytest.raises(WeightsError, match=r"holds no adapter_config\.json"):
        load(other, tmp_path)
    narrow = Path(shutil.copytree(other, tmp_path / "narrow"))
    config = json.loads((narrow / "config.json").read_text())
    config["text_config"]["intermediate_size"] = 256
    (narrow / "config.json").write_text(json.dumps(config))
    _random_weights(narrow)
    with pytest.raises(WeightsError, match="has a width of 256, not 384"):
        load(str(narrow), Path(overfit.folder))


def _random_weights(folder: Path) -> None:
    from transformers import AutoConfig, Qwen3VLForConditionalGeneration

    made: Any = Qwen3VLForConditionalGeneration(AutoConfig.from_pretrained(folder))
    made.save_pretrained(folder)


def test_full_mode_trains_all_but_the_vision_tower(
    store: FrameStore, traces: list[Trace], tmp_path: Path
) -> None:

    settings = QUICK.model_copy(
        update={"mode": "full", "max_steps": 1, "gradient_checkpointing": True, "learning_rate": 1e-3}
    )
    finetune(traces, store, tmp_path / "full", settings)
    before = load_file(Path(resolve_weights("micro:base")) / "model.safetensors")
    after = load_file(tmp_path / "full" / "model.safetensors")
    same = {name for name, t in after.items() if t.equal(before[name].float())}
    assert {name for name in after if ".visual." in name} == same
    assert greedy(reasoner_of(str(tmp_path / "full"), None, store), traces[0], 4)


def test_an_unfrozen_vision_tower_is_adapted(store: FrameStore, traces: list[Trace], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    settings = QUICK.model_copy(
        update={"max_steps": 1, "freeze_vision": False, "gradient_checkpointing": True}
    )
    finetune(traces, store, tmp_path / "out", settings)
    weights = load_file(tmp_path / "out" / "adapter_model.safetensors")
    vision = [tensor for name, tensor in weights.items() if ".visual." in name and "lora_B" in name]
    assert len(vision) == 3 * 4 + 2 * 2, "four layers in each block, two in each merger"
    assert all(tensor.abs().max() > 0 for tensor in vision)
    adapted = reasoner_of(resolve_weights("micro:base"), str(tmp_path / "out"), store)
    assert greedy(adapted, traces[0], 4)


def test_traces_longer_than_the_context_are_left_out_and_named(
    store: FrameStore, traces: list[Trace], tmp_path: Path
) -> None:
    steps: list[int] = []
    segments = (Text(text="so " * 4000), *traces[0].segments)
    long = traces[0].model_copy(update={"id": "the long one", "segments": segments})
    settings = QUICK.model_copy(update={"max_steps": 1, "max_context": 3000})
    result = finetune(
        [*traces, long], store, tmp_path / "out", settings, progress=lambda _, step, *__: steps.append(step)
    )
    assert [(x.id, x.why) for x in result.left_out] == [
        ("the long one", "longer than the context of 3000 tokens")
    ]
    assert result.left_out[0].tokens > 4000
    assert result.samples == 4
    assert steps == [1]
    assert "1: longer than the context of 3000 tokens" in (tmp_path / "out" / "README.md").read_text()


def test_impossible_runs_fail_before_the_base_is_loaded(
    store: FrameStore, traces: list[Trace], tmp_path: Path
) -> None:
    def run(*given: Trace, source: FrameStore = store, **changes: Any) -> None:
        finetune(given, source, tmp_path / "out", QUICK.model_copy(update=changes))

    with pytest.raises(CorpusError, match="no trace is left to train on, 1 were left out and 0 held out"):
        run(traces[0], max_context=10)
    with pytest.raises(StoreError, match=r"is not in .*empty"):
        run(traces[0], source=FrameStore(tmp_path / "empty"))
    with pytest.raises(
        ConfigError,
        match=r"language model has no layer query, lm_head: use .*q_proj.*cannot be adapted",
    ):
        run(traces[0], lora_targets=("q_proj", "query", "lm_head"))
    if not find_spec("bitsandbytes"):
        with pytest.raises(ConfigError, match=r"mode qlora needs (a CUDA GPU|the package bitsandbytes)"):
            run(traces[0], mode="qlora")
    for package in ("tensorboard", "wandb", "trackio"):
        if not find_spec(package):
            with pytest.raises(ConfigError, match=f"needs the package {package}"):
                run(traces[0], report_to=package)
    with pytest.raises(WeightsError, match="there is no weight folder"):
        run(traces[0], base="./nowhere")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot write"):
        finetune(traces, store, tmp_path / "file", QUICK)
