"""What a fine-tuning run would take, before it takes it: tokens, memory by mode, and the command that starts
it.

Nothing is loaded but the base's config, tokenizer and preprocessor; parameters are counted on the meta
device. Memory, in bytes, for N parameters of which M are trained, on T tokens (the longest sample times the
batch):

    weights      lora 2 N (4 N on a CPU) + 4 M    full 4 N    qlora 0.516 a quantised number, 2 each other one, + 2 M
    gradients    4 M (qlora 2 M)
    optimiser    8 M (two moments of AdamW; qlora 4 M)
    activations  c T (L h + A) with gradient checkpointing, c T L A without; c is 2 bytes in bfloat16, 4 in float32
                 A = 4 h + 3 q + 3 k + 4 f of a layer: norms, queries and output, keys and values, the gated MLP;
                 LoRA adds 4 bytes T for each input of an adapted layer;
                 besides one tile of logits, and one block of a frozen vision tower (all of one that learns)

with h the hidden size, q and k the widths of queries and keys, f the MLP's, L the layers. What allocators and
kernels take on top is not counted: plan for a fifth more.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal, get_args

from act2see.graphs.config import Config
from act2see.tools.frames import Record
from act2see.tools.runtime.weights import resolve_weights
from act2see.trace.trace import Trace
from act2see.training.sft.finetune import open_base, reader_of
from act2see.training.sft.lora import lora_parameters, lora_targets
from act2see.training.sft.samples import LeftOut, Size, read_samples
from act2see.training.sft.settings import Mode, SftSettings

if TYPE_CHECKING:
    from rich.table import Table

Launch = Literal["ddp", "deepspeed_zero2", "deepspeed_zero3", "fsdp"]
NF4 = 0.516  # bytes a number: four bits, and the doubly quantised scales of blocks of 64
TILE = 4096, 32_768  # positions and words whose logits TRL makes at once
ROOM = 0.8  # of a GPU's memory: the rest is the allocator's


class Memory(Record):
    """Bytes of one process that holds everything."""

    mode: Mode
    weights: int
    gradients: int
    optimiser: int
    activations: int

    def per_gpu(self, launch: Launch, gpus: int) -> int:
        """What each of `gpus` holds: ZeRO-2 divides gradients and optimiser, ZeRO-3 and FSDP the weights as
        well."""
        states = self.gradients + self.optimiser
        if launch == "ddp":
            return self.weights + states + self.activations
        if launch == "deepspeed_zero2":
            return self.weights + states // gpus + self.activations
        return (self.weights + states) // gpus + self.activations


class DryRun(Record):
    """What would be trained on, and what it would take."""

    base: str
    mode: Mode
    samples: int
    held_out: int
    left_out: tuple[LeftOut, ...]
    tokens: int
    learnt: int
    vision: int
    longest: Size
    parameters: int
    trained: int
    steps: int
    memory: tuple[Memory, ...]
    launch: Launch
    gpus: int
    command: str

    @property
    def masked(self) -> float:
        """The share of tokens that are read and not learnt."""
        return 1 - self.learnt / self.tokens

    def table(self) -> Table:
        from rich.table import Table

        table = Table("", "", title=f"{self.base}, mode {self.mode}", show_header=False)
        table.add_row(
            "samples", f"{self.samples:,}" + (f", and {self.held_out:,} held out" if self.held_out else "")
        )
        for why in dict.fromkeys(x.why for x in self.left_out):
            named = [f"{x.id} ({x.tokens:,})" for x in self.left_out if x.why == why]
            more = f" and {len(named) - 5:,} more" if len(named) > 5 else ""
            table.add_row("[red]left out[/]", f"{len(named):,}, {why}: {', '.join(named[:5])}{more}")
        table.add_row(
            "tokens", f"{self.tokens:,}, of which {self.vision / self.tokens:.1%} are vision tokens"
        )
        table.add_row("masked", f"{self.masked:.1%} ({self.learnt:,} are learnt)")
        table.add_row(
            "longest sample",
            f"{self.longest.id}: {self.longest.tokens:,} tokens, {self.longest.frames} frames",
        )
        table.add_row("parameters", f"{self.parameters:,}, of which {self.trained:,} are trained")
        table.add_row("steps", f"{self.steps:,} on {self.gpus} GPUs")
        for m in self.memory:
            parts = (
                (m.weights, "weights"),
                (m.gradients, "gradients"),
                (m.optimiser, "optimiser"),
                (m.activations, "activations"),
            )
            shown = " + ".join(f"{_size(n)} {what}" for n, what in parts)
            each = m.per_gpu(self.launch, self.gpus)
            table.add_row(f"memory, {m.mode}", f"{shown}; {_size(each)} a GPU with {self.launch}")
        table.add_row("start it with", self.command)
        return table


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
    """Count what `finetune` would train on with `gpus` GPUs of `gpu_gib`. Raises what it would raise before
    its first step.

    `launch` names one of the shipped accelerate configs; by default plain data parallelism where a whole run
    fits a GPU, else ZeRO-2 where held-out questions are to be asked and it fits so, else FSDP.
    """
    folder = resolve_weights(settings.base)
    packer, context = open_base(folder)
    samples = read_samples(traces, reader_of(packer, settings, graph), settings, context)
    model = meta_model(folder)
    longest = max(samples.sizes, key=lambda s: s.tokens)
    memory = tuple(
        estimate(model, settings.model_copy(update={"mode": mode}), longest) for mode in get_args(Mode)
    )
    own = next(m for m in memory if m.mode == settings.mode)
    # Only where each process holds all weights can the model be asked questions while it trains.
    whole: tuple[Launch, ...] = ("ddp", "deepspeed_zero2") if settings.eval_samples else ("ddp",)
    fits = [way for way in whole if own.per_gpu(way, gpus) <= ROOM * gpu_gib * 2**30]
    launch = launch or (fits[0] if fits else "fsdp")
    batches = math.ceil(len(samples.lines) / (settings.batch * gpus))
    steps = math.ceil(settings.epochs * math.ceil(batches / settings.accumulate))
    return DryRun(
        base=settings.base,
        mode=settings.mode,
        samples=len(samples.lines),
        held_out=len(samples.held_out),
        left_out=tuple(samples.left_out),
        tokens=sum(s.tokens for s in samples.sizes),
        learnt=sum(s.learnt for s in samples.sizes),
        vision=sum(s.vision for s in samples.sizes),
        longest=longest,
        parameters=sum(p.numel() for p in model.parameters()),
        trained=trained(model, settings),
        steps=settings.max_steps or steps,
        memory=memory,
        launch=launch,
        gpus=gpus,
        command=command(settings, corpus, out, launch, gpus),
    )


def meta_model(folder: str) -> Any:
    """The base's modules without weights."""
    import torch
    from transformers import AutoConfig, Qwen3VLForConditionalGeneration

    with torch.device("meta"):
        return Qwen3VLForConditionalGeneration(AutoConfig.from_pretrained(folder))


def trained(model: Any, settings: SftSettings) -> int:
    """How many numbers are learnt."""
    if settings.mode != "full":
        return lora_parameters(model, settings)
    frozen = sum(p.numel() for p in model.model.visual.parameters()) if settings.freeze_vision else 0
    return int(sum(p.numel() for p in model.parameters()) - frozen)


def estimate(model: Any, settings: SftSettings, longest: Size) -> Memory:
    """The formulas above for one mode, with the longest sample in every place of the batch."""
    import torch

    n, m = sum(p.numel() for p in model.parameters()), trained(model, settings)
    half = 4 if settings.device == "cpu" or settings.bf16 is False else 2
    if settings.mode == "full":
        weights, gradients, optimiser = 4 * n, 4 * m, 8 * m
    elif settings.mode == "lora":
        weights, gradients, optimiser = half * n + 4 * m, 4 * m, 8 * m
    else:
        head = id(model.lm_head.weight)
        packed = sum(
            x.weight.numel()
            for x in model.modules()
            if isinstance(x, torch.nn.Linear) and id(x.weight) != head
        )
        weights, gradients, optimiser = int(NF4 * packed) + 2 * (n - packed) + 2 * m, 2 * m, 4 * m
    activations = settings.batch * _activations(model, settings, longest, half)
    return Memory(
        mode=settings.mode, weights=weights, gradients=gradients, optimiser=optimiser, activations=activations
    )


def _activations(model: Any, settings: SftSettings, sample: Size, half: int) -> int:
    c, v = model.config.text_config, model.config.vision_config
    head = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    q, k = c.num_attention_heads * head, c.num_key_value_heads * head
    layer = half * (4 * c.hidden_size + 3 * q + 3 * k + 4 * c.intermediate_size)
    if settings.mode != "full":
        layers = dict(model.named_modules())
        inputs = sum(
            layers[t].in_features
            for t in lora_targets(model, settings.model_copy(update={"freeze_vision": True}))
        )
        layer += 4 * inputs // c.num_hidden_layers
    kept = (
        c.num_hidden_layers * half * c.hidden_size + layer
        if settings.gradient_checkpointing
        else c.num_hidden_layers * layer
    )
    logits = (
        half * min(TILE[0], sample.learnt) * min(TILE[1], c.vocab_size) + 4 * sample.learnt * c.hidden_size
    )
    block = half * (14 * v.hidden_size + 2 * v.intermediate_size)
    if settings.freeze_vision:
        tower = block
    else:
        tower = v.depth * half * v.hidden_size + block if settings.gradient_checkpointing else v.depth * block
    return int(sample.tokens * kept + sample.patches * tower + logits)


def config_file(launch: Launch) -> str:
    """The path of a shipped accelerate config."""
    return str(files("act2see.training.sft") / "accelerate" / f"{launch}.yaml")


def command(settings: SftSettings, corpus: str, out: str, launch: Launch, gpus: int = 8) -> str:
    """What to type, ready for a shell."""
    processes = [] if gpus == 8 else ["--num_processes", str(gpus)]
    start = [
        "accelerate",
        "launch",
        "--config_file",
        config_file(launch),
        *processes,
        "-m",
        "act2see",
        "sft",
        corpus,
        "--out",
        out,
    ]
    return shlex.join([*start, *settings.arguments()])


def _size(n: int) -> str:
    return f"{n / 2**30:.1f} GiB" if n >= 2**30 / 10 else f"{n / 2**20:.1f} MiB"
