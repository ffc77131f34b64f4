"""Settings, the dry run compared with figures computed by hand, and the configs for eight GPUs."""

from __future__ import annotations

import io
import shlex
from pathlib import Path
from typing import Any, get_args

import pytest
from tests.training.rollouts import QUICK, draw_trace

from act2see.agent.packing import Packer
from act2see.errors import ConfigError
from act2see.graphs.config import load_config
from act2see.micro.questions import FAMILIES
from act2see.tools.runtime.weights import resolve_weights
from act2see.tools.video.store import FrameStore
from act2see.training.sft.dryrun import Launch, Memory, config_file, dry_run, estimate, meta_model
from act2see.training.sft.finetune import finetune
from act2see.training.sft.samples import LeftOut, Reader, RolloutCollator, describe_left_out
from act2see.training.sft.settings import SftSettings
from act2see.training.sft.trainer import lora_config


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    return FrameStore(tmp_path_factory.mktemp("frames"))


def test_defaults_are_the_papers() -> None:
    s = SftSettings()
    assert (s.base, s.mode, s.learning_rate, s.batch, s.epochs) == (
        "Qwen/Qwen3-VL-8B-Thinking",
        "lora",
        2.5e-6,
        1,
        1.0,
    )
    assert s.non_defaults() == {}
    assert s.cli_options() == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mode": "loar"}, "mode: Input should be 'lora', 'full' or 'qlora'"),
        ({"learning_rate": 0}, "learning_rate: Input should be greater than 0"),
        ({"learning_rate": -1e-6}, "learning_rate: Input should be greater than 0"),
        ({"lora_dropout": 1.0}, "lora_dropout: Input should be less than 1"),
        ({"max_context": 0}, "max_context: Input should be greater than or equal to 1"),
        ({"lora_targets": ()}, "lora_targets: Tuple should have at least 1 item"),
        ({"lerning_rate": 1e-5}, "unknown key 'lerning_rate'; did you mean 'learning_rate'?"),
    ],
)
def test_an_invalid_setting_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        SftSettings.read(given)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_graph_with_another_prompt_style_is_refused(store: FrameStore, tmp_path: Path) -> None:
    settings = QUICK.model_copy(update={"prompt": "paper"})
    with pytest.raises(ConfigError, match="prompt style is 'short', but training uses 'paper'"):
        finetune([draw_trace("observe", store)], store, tmp_path, settings, graph=load_config("micro"))


def test_dry_run_equals_figures_computed_by_hand(store: FrameStore) -> None:
    """micro: 4 layers, hidden 128, queries 4 x 32, keys 2 x 32, MLP 384, vision 3 x 96 with an MLP of 256."""
    traces = [draw_trace(f, store) for f in FAMILIES]
    long = draw_trace("both", store, 1).model_copy(update={"id": "long"})
    packer = Packer.from_pretrained(resolve_weights("micro:base"))
    reader = Reader(packer, "short")
    lengths = [len(packer.pack(reader.rollout(t)).ids) for t in traces]
    limit = max(lengths)
    long = long.model_copy(update={"segments": long.segments[:1] * 4 + long.segments})
    settings = QUICK.model_copy(
        update={"batch": 1, "max_steps": None, "epochs": 3.0, "max_context": limit, "device": "auto"}
    )
    found = dry_run([*traces, long], settings, corpus="my corpus", out="here", gpus=2)

    trainable = [sum(packer.pack(reader.rollout(t)).trainable) + 1 for t in traces]
    assert (found.samples, found.tokens, found.trainable) == (4, sum(lengths), sum(trainable))
    assert found.masked_share == pytest.approx(1 - sum(trainable) / sum(lengths))
    assert (found.longest.id, found.longest.tokens) == (traces[lengths.index(limit)].id, limit)
    assert [x.id for x in found.left_out] == ["long"]
    assert found.vision == 9 * sum(len(t.shown) for t in traces)
    assert found.steps == 3 * 2  # 4 samples on 2 GPUs, 3 epochs

    # rank 16 on q, k, v, o, gate, up and down of each layer
    lora = 4 * 16 * ((128 + 128) + 2 * (128 + 64) + (128 + 128) + 2 * (128 + 384) + (384 + 128))
    assert found.trained == lora
    tensors = _sizes(Path(resolve_weights("micro:base")) / "model.safetensors")
    assert found.parameters == sum(tensors.values())
    memory = {m.mode: m for m in found.memory}
    n = found.parameters
    assert memory["lora"].weights == 2 * n + 4 * lora
    assert (memory["lora"].gradients, memory["lora"].optimiser) == (4 * lora, 8 * lora)
    m = n - sum(size for name, size in tensors.items() if ".visual." in name)
    assert (memory["full"].weights, memory["full"].gradients, memory["full"].optimiser) == (
        4 * n,
        4 * m,
        8 * m,
    )
    assert memory["qlora"].weights < memory["lora"].weights

    # bfloat16: 2 (4 h + 3 q + 3 k + 4 f) a token and layer; float32 inputs of the adapted layers; one block
    # of vision; logits
    layer = 2 * (4 * 128 + 3 * 128 + 3 * 64 + 4 * 384) + 4 * (3 * 128 + 128 + 2 * 128 + 384)
    vision = found.longest.patches * 2 * (14 * 96 + 2 * 256)
    logits = 2 * found.longest.trainable * len(packer.codec.tokenizer) + 4 * found.longest.trainable * 128
    assert memory["lora"].activations == limit * 4 * layer + vision + logits

    words = shlex.split(found.command)
    assert words[:4] == ["accelerate", "launch", "--config_file", config_file("ddp")]
    assert words[4:9] == ["--num_processes", "2", "-m", "act2see", "sft"]
    assert words[9:12] == ["my corpus", "--out", "here"]
    assert SftSettings.read(_options(words[12:])) == settings
    shown = _printed(found)
    tokens = found.left_out[0].tokens
    assert f"long ({tokens:,}); `max_context: {tokens}` keeps all of them" in shown
    assert f"{found.masked_share:.1%}" in shown


def _sizes(file: Path) -> dict[str, int]:
    from safetensors.torch import load_file

    return {name: t.numel() for name, t in load_file(file).items()}


def _options(words: list[str]) -> dict[str, Any]:
    """Read options like the command line."""
    read: dict[str, Any] = {}
    while words:
        name = words.pop(0).removeprefix("--")
        flag = not words or words[0].startswith("--")
        key, value = (
            name.removeprefix("no-").replace("-", "_") if flag else name.replace("-", "_"),
            None if flag else words.pop(0),
        )
        read[key] = not name.startswith("no-") if flag else value
    return read


def _printed(found: Any) -> str:
    from rich.console import Console

    console = Console(width=400, file=io.StringIO())
    console.print(found.table())
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("mode", ["full", "lora"])
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_the_estimate_of_activations_is_near_what_autograd_keeps(store: FrameStore, mode: str) -> None:
    import torch
    from peft import get_peft_model

    from act2see.training.sft.finetune import load_base

    settings = QUICK.model_copy(update={"mode": mode, "batch": 1})
    folder = resolve_weights("micro:base")
    reader, trace = Reader(Packer.from_pretrained(folder), "short"), draw_trace("both", store)
    batch = RolloutCollator(reader, store, settings, 4096)([{"trace": trace.to_json(), "number": 0}])
    model = load_base(folder, settings)
    model.model.visual.requires_grad_(False)
    if mode == "lora":
        get_peft_model(model, lora_config(model, settings))
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Any] = {}

    def keep(t: Any) -> Any:
        if t.untyped_storage().data_ptr() not in own:
            kept[t.untyped_storage().data_ptr()] = t.untyped_storage()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        del batch["labels"]
        out = model.train().model(**batch).last_hidden_state
    assert out.requires_grad
    estimated = estimate(meta_model(folder), settings, reader.size(trace)).activations
    assert estimated == pytest.approx(sum(s.nbytes() for s in kept.values()), rel=0.25)


def test_memory_per_gpu_by_launch_config() -> None:
    m = Memory(mode="full", weights=800, gradients=80, optimiser=160, activations=7)
    each = {launch: m.per_gpu(launch, 8) for launch in get_args(Launch)}
    assert each == {"ddp": 1047, "deepspeed_zero2": 837, "deepspeed_zero3": 137, "fsdp": 137}


@pytest.mark.parametrize("launch", get_args(Launch))
def test_accelerate_reads_the_config(launch: Launch) -> None:
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    config = load_config_from_file(config_file(launch))
    assert config.num_processes == 8
    assert config.mixed_precision == "bf16"
    args = launch_command_parser().parse_args(["--config_file", config_file(launch), "-m", "act2see", "sft"])
    # Every key of a section must be an option that accelerate knows.
    for section in (config.fsdp_config, config.deepspeed_config):
        assert all(hasattr(args, key) for key in section), [key for key in section if not hasattr(args, key)]
    if launch == "ddp":
        checked, *_ = _validate_launch_command(args)
        assert (checked.num_processes, checked.multi_gpu, checked.mixed_precision) == (8, True, "bf16")
    assert config.distributed_type == {"ddp": "MULTI_GPU", "fsdp": "FSDP"}.get(launch, "DEEPSPEED")


def test_traces_of_many_frames_are_named_before_the_run_with_the_setting_that_keeps_them() -> None:
    """256 frames of 448 pixels have 50,176 vision tokens; the default context is 32,768."""
    long = [
        LeftOut(id=f"hour-{n}", tokens=52_000 + n, why="longer than the context of 32768 tokens")
        for n in range(7)
    ]
    empty = LeftOut(id="empty", tokens=90, why="the model wrote nothing in it")
    assert describe_left_out([*long, empty], 262_144) == [
        "7 left out, longer than the context of 32768 tokens: "
        "hour-0 (52,000), hour-1 (52,001), hour-2 (52,002), hour-3 (52,003), hour-4 (52,004) and 2 more; "
        "`max_context: 52006` keeps all of them, in more memory",
        "1 left out, the model wrote nothing in it: empty (90)",
    ]
    [sentence] = describe_left_out(long, 40_960)
    assert sentence.endswith(
        "the base takes at most 40,960 tokens, so make the traces with fewer or smaller frames "
        "(`view.max_frames`, `view.max_side`)"
    )
