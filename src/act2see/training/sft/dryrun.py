"""An estimate of a fine-tuning run before it starts: tokens, memory by mode, and the command that starts it.

Only the base's config, tokenizer and preprocessor are loaded; parameters are counted on the meta device. The
memory in bytes, for N parameters, M of them trained, and T tokens (the longest sample times the batch):

    weights      full   4 N
                 lora   2 N (4 N on a CPU) + 4 M
                 qlora  0.516 for each quantised parameter, 2 for each other one, + 2 M
    gradients    4 M (qlora 2 M)
    optimiser    8 M, the two moments of AdamW (qlora 4 M)
    activations  c T (L h + A) with gradient checkpointing, c T L A without

where c is 2 bytes in bfloat16 and 4 in float32, h the hidden size, q and k the widths of queries and keys, f
the width of the MLP, L the number of layers, and A = 4 h + 3 q + 3 k + 4 f the activations of a layer: norms,
queries and output, keys and values, the gated MLP. LoRA adds 4 T bytes for each input of an adapted layer.
The activations also include one tile of logits and one block of a frozen vision tower (all blocks of a
trained one).

The memory of allocators and kernels is not included: plan for a fifth more.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal, get_args

from act2see.graphs.config import Config
from act2see.tools.frames import Record
from act2see.tools.runtime.text import format_bytes
from act2see.tools.runtime.weights import cached_folder
from act2see.trace.trace import Trace
from act2see.training.sft.finetune import open_base, reader_of
from act2see.training.sft.samples import LeftOut, Size, describe_left_out, read_samples
from act2see.training.sft.settings import Mode, SftSettings
from act2see.training.sft.trainer import lora_parameters, lora_targets

if TYPE_CHECKING:
    from rich.table import Table

Launch = Literal["ddp", "deepspeed_zero2", "deepspeed_zero3", "fsdp"]
NF4_BYTES = 0.516
"""Bytes per parameter: four bits, and the doubly quantised scales of blocks of 64."""
TILE = 4096, 32_768
"""Positions and vocabulary entries of the logits that TRL computes together."""
USABLE_SHARE = 0.8
"""Share of a GPU's memory that a run may use; the rest is for allocator and kernels."""


class Memory(Record):
    """The memory, in bytes, of one process without sharding."""

    mode: Mode
    weights: int
    gradients: int
    optimiser: int
    activations: int

    def per_gpu(self, launch: Launch, gpus: int) -> int:
        """Return the bytes per GPU. ZeRO-2 shards gradients and optimiser, ZeRO-3 and FSDP also weights."""
        states = self.gradients + self.optimiser
        if launch == "ddp":
            return self.weights + states + self.activations
        if launch == "deepspeed_zero2":
            return self.weights + states // gpus + self.activations
        return (self.weights + states) // gpus + self.activations


class DryRun(Record):
    """The size of a run before it starts."""

    base: str
    mode: Mode
    samples: int
    """Number of traces to train on."""
    held_out: int
    """Number of held-out traces."""
    left_out: tuple[LeftOut, ...]
    context: int
    """The context of the base, in tokens."""
    tokens: int
    """Number of tokens of all samples."""
    trainable: int
    """Number of tokens that are trained on."""
    vision: int
    """Number of vision tokens."""
    longest: Size
    """The size of the longest sample."""
    parameters: int
    trained: int
    """Number of trained parameters."""
    steps: int
    memory: tuple[Memory, ...]
    """The memory of each mode."""
    launch: Launch
    gpus: int
    command: str
    """The command line that starts the run."""

    @property
    def masked_share(self) -> float:
        """The share of tokens that are not trained on."""
        return 1 - self.trainable / self.tokens

    def table(self) -> Table:
        """Return a table for a terminal."""
        from rich.markup import escape
        from rich.table import Table

        table = Table("", "", title=f"{self.base}, mode {self.mode}", show_header=False)
        held_out = f", and {self.held_out:,} held out" if self.held_out else ""
        vision = f"{self.vision / self.tokens:.1%}"
        longest = self.longest
        table.add_row("samples", f"{self.samples:,}{held_out}")
        for sentence in describe_left_out(self.left_out, self.context):
            number, _, rest = sentence.partition(" left out, ")
            table.add_row("[red]left out[/]", escape(f"{number}, {rest}"))
        table.add_row("tokens", f"{self.tokens:,} ({vision} vision tokens)")
        table.add_row("masked", f"{self.masked_share:.1%} ({self.trainable:,} tokens are trained on)")
        table.add_row("longest sample", f"{longest.id}: {longest.tokens:,} tokens, {longest.frames} frames")
        table.add_row("parameters", f"{self.parameters:,} ({self.trained:,} trained)")
        table.add_row("steps", f"{self.steps:,} on {self.gpus} GPUs")
        for memory in self.memory:
            table.add_row(f"memory, {memory.mode}", self._memory_row(memory))
        table.add_row("start it with", self.command)
        return table

    def _memory_row(self, memory: Memory) -> str:
        parts = (
            f"{format_bytes(memory.weights, binary=True)} weights",
            f"{format_bytes(memory.gradients, binary=True)} gradients",
            f"{format_bytes(memory.optimiser, binary=True)} optimiser",
            f"{format_bytes(memory.activations, binary=True)} activations",
        )
        per_gpu = format_bytes(memory.per_gpu(self.launch, self.gpus), binary=True)
        return f"{' + '.join(parts)}; {per_gpu} per GPU with {self.launch}"


def dry_run(
    traces: Iterable[Trace],
    settings: SftSettings,
    *,
    corpus: str = "CORPUS",
    out: str = "OUT",
    graph: Config | None = None,
    gpus: int = 8,
    gpu_gib: float = 80,
    launch: Launch | None = None,
) -> DryRun:
    """Count the tokens that `finetune` would train on, and estimate its memory and steps.

    Args:
        traces: The traces of the corpus.
        settings: The settings of the run.
        corpus: The path of the corpus, for the command.
        out: The run's folder, for the command.
        graph: The graph that answers held-out questions during training; None for no such evaluation.
        gpus: The number of GPUs.
        gpu_gib: The memory of each GPU, in GiB.
        launch: One of the shipped accelerate configs. Default: data parallelism if the whole run fits on one
            GPU; else ZeRO-2 if held-out questions are asked and it fits; else FSDP.

    Raises:
        CorpusError: No trace is left to train on.
        ConfigError: `lora_targets` names a layer that the base does not have.
        WeightsError: The base cannot be read.
    """
    folder = cached_folder(settings.base)
    packer, context = open_base(folder)
    samples = read_samples(traces, reader_of(packer, settings, graph), settings, context)
    model = meta_model(folder)
    longest = max(samples.sizes, key=lambda size: size.tokens)
    memory: dict[Mode, Memory] = {}
    for mode in get_args(Mode):
        memory[mode] = estimate(model, settings.model_copy(update={"mode": mode}), longest)
    launch = launch or _choose_launch(memory[settings.mode], settings, gpus, gpu_gib)
    batches = math.ceil(len(samples.lines) / (settings.batch * gpus))
    steps = math.ceil(settings.epochs * math.ceil(batches / settings.accumulate))
    return DryRun(
        base=settings.base,
        mode=settings.mode,
        samples=len(samples.lines),
        held_out=len(samples.held_out),
        left_out=tuple(samples.left_out),
        context=context,
        tokens=sum(s.tokens for s in samples.sizes),
        trainable=sum(s.trainable for s in samples.sizes),
        vision=sum(s.vision for s in samples.sizes),
        longest=longest,
        parameters=_parameters(model),
        trained=trained_parameters(model, settings),
        steps=settings.max_steps or steps,
        memory=tuple(memory.values()),
        launch=launch,
        gpus=gpus,
        command=launch_command(settings, corpus, out, launch, gpus),
    )


def _choose_launch(memory: Memory, settings: SftSettings, gpus: int, gpu_gib: float) -> Launch:
    # Questions can only be asked during training if each process holds all weights.
    candidates: tuple[Launch, ...] = ("ddp", "deepspeed_zero2") if settings.eval_samples else ("ddp",)
    for launch in candidates:
        if memory.per_gpu(launch, gpus) <= USABLE_SHARE * gpu_gib * 2**30:
            return launch
    return "fsdp"


def meta_model(folder: str) -> Any:
    """Return the base's modules without weights, on the meta device."""
    import torch
    from transformers import AutoConfig, Qwen3VLForConditionalGeneration

    with torch.device("meta"):
        return Qwen3VLForConditionalGeneration(AutoConfig.from_pretrained(folder))


def trained_parameters(model: Any, settings: SftSettings) -> int:
    """Return the number of trained parameters."""
    if settings.mode != "full":
        return lora_parameters(model, settings)
    total = _parameters(model)
    return total - _parameters(model.model.visual) if settings.freeze_vision else total


def _parameters(model: Any) -> int:
    return sum(int(p.numel()) for p in model.parameters())


def estimate(model: Any, settings: SftSettings, longest: Size) -> Memory:
    """Return the memory of the settings' mode by the formulas of this module, for batches of longest samples.

    Args:
        model: The `meta_model` of the base.
        settings: The settings of the run.
        longest: The size of the longest sample.
    """
    n = _parameters(model)
    m = trained_parameters(model, settings)
    base_bytes = 4 if settings.device == "cpu" or settings.bf16 is False else 2
    if settings.mode == "full":
        weights, gradients, optimiser = 4 * n, 4 * m, 8 * m
    elif settings.mode == "lora":
        weights, gradients, optimiser = base_bytes * n + 4 * m, 4 * m, 8 * m
    else:
        quantised = _quantised_parameters(model)
        weights = int(NF4_BYTES * quantised) + 2 * (n - quantised) + 2 * m
        gradients, optimiser = 2 * m, 4 * m
    activations = settings.batch * _activations(model, settings, longest, base_bytes)
    return Memory(
        mode=settings.mode, weights=weights, gradients=gradients, optimiser=optimiser, activations=activations
    )


def _quantised_parameters(model: Any) -> int:
    """Return the number of parameters of all linear layers except the head."""
    import torch

    total = 0
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module.weight is not model.lm_head.weight:
            total += module.weight.numel()
    return total


def _activations(model: Any, settings: SftSettings, sample: Size, c: int) -> int:
    """Return the bytes of one sample, for numbers of `c` bytes. The letters are defined at the top."""
    text, vision = model.config.text_config, model.config.vision_config
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    layers, h, f = text.num_hidden_layers, text.hidden_size, text.intermediate_size
    q, k = text.num_attention_heads * head_dim, text.num_key_value_heads * head_dim
    layer = c * (4 * h + 3 * q + 3 * k + 4 * f)
    if settings.mode != "full":
        layer += 4 * _adapted_inputs(model, settings) // layers
    block = c * (14 * vision.hidden_size + 2 * vision.intermediate_size)
    if settings.gradient_checkpointing:
        token = layers * c * h + layer
        tower = vision.depth * c * vision.hidden_size + block
    else:
        token = layers * layer
        tower = vision.depth * block
    if settings.freeze_vision:
        tower = block
    positions, words = TILE
    logits = c * min(positions, sample.trainable) * min(words, text.vocab_size) + 4 * sample.trainable * h
    return int(sample.tokens * token + sample.patches * tower + logits)


def _adapted_inputs(model: Any, settings: SftSettings) -> int:
    """Return the number of inputs of all adapted layers of the language model."""
    layers = dict(model.named_modules())
    language = settings.model_copy(update={"freeze_vision": True})
    return sum(layers[name].in_features for name in lora_targets(model, language))


def config_file(launch: Launch) -> str:
    """Return the path of a shipped accelerate config."""
    return str(files("act2see.training.sft") / "accelerate" / f"{launch}.yaml")


def launch_command(settings: SftSettings, corpus: str, out: str, launch: Launch, gpus: int = 8) -> str:
    """Return the command that starts the run, quoted for a shell.

    Args:
        settings: The settings of the run.
        corpus: The path of the corpus.
        out: The run's folder.
        launch: One of the shipped accelerate configs.
        gpus: The number of GPUs.
    """
    words = ["accelerate", "launch", "--config_file", config_file(launch)]
    if gpus != 8:  # the number in the shipped configs
        words += ["--num_processes", str(gpus)]
    words += ["-m", "act2see", "sft", corpus, "--out", out]
    return shlex.join([*words, *settings.cli_options()])
