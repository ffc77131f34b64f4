"""Supervised fine-tuning of a Qwen3-VL on traces: TRL's trainer, PEFT's LoRA, our renderer and collator.

    traces + frame store -> samples (measured, some held out, some left out) -> trainer -> folder + result + card

The folder is an ordinary one: an adapter (or, in mode `full`, a model) with tokenizer and preprocessor, which
the graph takes as `reasoner.adapter` (or `reasoner.weights`). Beside it stand `run.json`, what the run was
started with, `sft.json`, its result, `README.md`, its card, and the checkpoints from which it resumes.

LoRA keeps the base in the GPU's bfloat16 and its own matrices in float32; mode `full` learns in float32 with
bfloat16 products, since steps of 2.5e-6 vanish in bfloat16's eight bits.
"""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import Field

from act2see.agent.packing import Packer
from act2see.agent.reasoners.adapters import Base, weights_digest
from act2see.errors import ConfigError, CorpusError, WeightsError
from act2see.graphs.config import Config
from act2see.graphs.parts import build_parts
from act2see.tools.frames import Record
from act2see.tools.runtime.quiet import quiet
from act2see.tools.runtime.weights import local_weights
from act2see.tools.video.store import FrameStore
from act2see.trace.trace import Trace
from act2see.training.corpus.sources import Sample
from act2see.training.sft.collate import equal_frames
from act2see.training.sft.held_out import GraphEvaluation, questions_of
from act2see.training.sft.loop import Progress
from act2see.training.sft.lora import lora_config
from act2see.training.sft.result import model_card
from act2see.training.sft.samples import (
    LeftOut,
    Reader,
    RolloutCollator,
    Samples,
    Vary,
    check_frames,
    keep_patches,
    read_samples,
)
from act2see.training.sft.settings import SftSettings
from act2see.training.sft.trainer import (
    arguments,
    build_trainer,
    has_bf16,
    last_checkpoint,
    sharded,
    without_mask,
)

log = logging.getLogger(__name__)
RUN, RESULT, CARD = "run.json", "sft.json", "README.md"
PACKAGES = ("act2see", "torch", "transformers", "trl", "peft", "accelerate")


class Run(Record):
    """What a run was started with; it resumes with the same alone."""

    settings: SftSettings
    samples: str  # digest
    processes: int = 1


class SftResult(Record):
    """What came out. `history` is the Trainer's log: losses, and metrics where a step was evaluated."""

    base: Base
    settings: SftSettings
    corpus: str = ""
    digest: str = ""
    samples: int = 0
    held_out: int = 0
    left_out: tuple[LeftOut, ...] = ()
    tokens: int = 0
    learnt: int = 0
    steps: int = 0
    processes: int = 1
    seconds: float = 0.0
    peak_gib: float | None = None
    history: tuple[dict[str, float], ...] = ()
    versions: dict[str, str] = Field(default_factory=dict)
    graph: str = ""
    folder: str = ""

    @property
    def losses(self) -> list[tuple[int, float]]:
        return self.series("loss")

    def series(self, name: str) -> list[tuple[int, float]]:
        """A logged figure over steps: `loss`, `eval_accuracy`, `eval_call_rate`, ..."""
        return [(int(h["step"]), h[name]) for h in self.history if name in h]


def finetune(
    traces: Iterable[Trace],
    store: FrameStore,
    out: str | Path,
    settings: SftSettings,
    *,
    graph: Config | None = None,
    questions: Sequence[Sample] | None = None,
    vary: Vary | None = None,
    corpus: str = "",
    resume: bool = False,
    progress: Progress | None = None,
    model: Any = None,
) -> SftResult:
    """Fine-tune `settings.base` on traces whose frames are in `store`; everything that comes of it is in
    `out`.

    With `graph`, held-out questions are asked through it during training: `questions`, or those of
    `eval_samples` traces that are kept from training. `vary` changes a trace each time that it is seen.
    `resume` goes on from the last whole checkpoint in `out`, if there is one. `corpus` is a name for the
    card. `model` stands in for the base's weights.

    Raises `ConfigError` for settings that cannot work, `CorpusError` where nothing can be trained on,
    `WeightsError` for a base that cannot be loaded, `StoreError` for a frame that is missing.
    """
    _check(settings, graph)
    out = Path(out)
    folder = local_weights("the base", settings.base)
    packer, context = open_base(folder)
    reader = reader_of(packer, settings, graph)
    samples = read_samples(traces, reader, settings, context)
    check_frames(samples, store)
    keep_patches(packer, samples.sizes)
    args = arguments(settings, out)
    if args.n_gpu > 1:
        raise ConfigError(
            "one process sees several GPUs: start it with `accelerate launch` (see --dry-run), or set CUDA_VISIBLE_DEVICES"
        )
    run = Run(settings=settings, samples=samples.digest, processes=args.world_size)
    checkpoint = _begin(out, run, resume)
    loaded = model if model is not None else load_base(folder, settings)
    if settings.mode == "full":
        loaded.requires_grad_(True)
        loaded.model.visual.requires_grad_(not settings.freeze_vision)
    base = Base(name=settings.base, digest=weights_digest(folder))
    asked = questions if questions is not None else questions_of(samples.held_out)
    evaluation = GraphEvaluation(asked, graph, folder, settings.seed) if graph and asked else None
    adapter = None if settings.mode == "full" else lora_config(loaded, settings)
    if args.should_save:
        _write(out / RUN, run.model_dump_json(indent=1) + "\n")
    args.eval_on_start = evaluation is not None and checkpoint is None
    trainer = build_trainer(
        loaded,
        args,
        RolloutCollator(reader, store, settings, context, vary),
        samples,
        settings,
        base,
        peft_config=adapter,
        evaluation=evaluation,
        progress=progress,
    )
    if evaluation and sharded(trainer):
        raise ConfigError(
            "each process holds a part of the model, so none can ask it questions while it trains: use ddp.yaml or "
            "deepspeed_zero2.yaml, or evaluate the checkpoints afterwards (eval_samples 0)"
        )
    started = time.perf_counter()
    with _said(), equal_frames(loaded), without_mask(loaded):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        result = _result(trainer, samples, settings, base, corpus, graph, time.perf_counter() - started, out)
        trainer.save_model(str(out))
    if args.should_save:
        _write(out / RESULT, result.model_dump_json(indent=1) + "\n")
        _write(out / CARD, model_card(result))
    return result


@quiet()
def open_base(folder: str) -> tuple[Packer, int]:
    """The base's packer, and how many tokens it takes; its weights are not needed for that."""
    from transformers import AutoConfig

    try:
        return Packer.from_pretrained(folder), int(
            AutoConfig.from_pretrained(folder).get_text_config().max_position_embeddings
        )
    except (OSError, ValueError) as e:
        raise WeightsError(f"the base {folder} cannot be read: {str(e).splitlines()[0]}") from e


def reader_of(packer: Packer, settings: SftSettings, graph: Config | None) -> Reader:
    """Reads traces with the prompt of the settings, and with what the graph's tools say of themselves."""
    usages = {tag: tool.usage for tag, tool in build_parts(graph).tools.items()} if graph else {}
    return Reader(packer, settings.prompt, usages)


@quiet()
def load_base(folder: str, settings: SftSettings) -> Any:
    """The base in the precision that its mode learns in: float32, but bfloat16 for a frozen base on GPUs that
    have it."""
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    options: dict[str, Any] = {"dtype": torch.float32}
    if settings.mode != "full" and has_bf16(settings) and torch.cuda.is_available():
        options["dtype"] = torch.bfloat16
    if settings.mode == "qlora":
        from transformers import BitsAndBytesConfig

        # NF4 with double quantisation, as in the QLoRA paper; bfloat16 storage, so that FSDP can shard it.
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=options["dtype"],
            bnb_4bit_quant_storage=options["dtype"],
        )
        options["device_map"] = {"": torch.cuda.current_device()}
    try:
        return Qwen3VLForConditionalGeneration.from_pretrained(folder, **options)
    except (OSError, ValueError) as e:
        raise WeightsError(f"the base {settings.base} cannot be loaded: {str(e).splitlines()[0]}") from e


def _check(settings: SftSettings, graph: Config | None) -> None:
    """What can be known to fail before anything is loaded."""
    import torch

    for package in (
        "trl",
        "peft",
        "datasets",
        *([settings.report_to] if settings.report_to != "none" else []),
    ):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"fine-tuning needs the package {package}: pip install 'act2see[train]' {package}"
            )
    if settings.mode == "qlora" and not (
        torch.cuda.is_available() and importlib.util.find_spec("bitsandbytes")
    ):
        missing = "the package bitsandbytes" if torch.cuda.is_available() else "a CUDA GPU"
        raise ConfigError(
            f"mode qlora needs {missing}: use mode lora, which learns the same with a base in 16 bits"
        )
    if graph and graph.reasoner.prompt != settings.prompt:
        raise ConfigError(
            f"the graph prompts in the style {graph.reasoner.prompt!r} and training in {settings.prompt!r}: "
            "set prompt to the graph's, so that the model reads what it learnt"
        )


def _begin(out: Path, run: Run, resume: bool) -> Path | None:
    """The checkpoint to go on from. Refuses to write over a run, and to resume one with other settings or
    traces."""
    checkpoint, file = last_checkpoint(out), out / RUN
    if checkpoint and not resume:
        raise ConfigError(
            f"{out} holds a run that reached {checkpoint.name}: resume it, or name another folder"
        )
    if checkpoint and file.is_file():
        try:
            before = Run.model_validate_json(file.read_text(encoding="utf-8"))
        except ValueError as e:
            raise CorpusError(
                f"{file} cannot be read ({str(e).splitlines()[0]}): name another folder, or delete this one"
            ) from e
        if key := before.settings.differs(run.settings):
            was, now = getattr(before.settings, key), getattr(run.settings, key)
            raise ConfigError(
                f"the run in {out} has {key} {was!r}, not {now!r}: resume it with that, or name another folder"
            )
        if before.samples != run.samples:
            raise ConfigError(
                f"the run in {out} is on another corpus: give the one that it was started with, or name another folder"
            )
        if before.processes != run.processes:
            raise ConfigError(
                f"the run in {out} has {before.processes} processes, not {run.processes}: resume it with as many"
            )
    return checkpoint


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as e:
        raise CorpusError(f"cannot write {path} ({e}): free some space, or name another folder") from e


@contextmanager
def _said() -> Iterator[None]:
    """Out of memory, on the GPU or on the disk, is said in a line."""
    import torch
    from safetensors import SafetensorError

    disk = "mend what is wrong with the disk, then resume the run"
    try:
        yield
    except torch.OutOfMemoryError as e:
        raise ConfigError(
            f"the GPU's memory is full ({str(e).splitlines()[0]}): lower max_context or batch, keep gradient_checkpointing, "
            "use mode lora or qlora, or shard the model with fsdp.yaml"
        ) from e
    except (OSError, SafetensorError) as e:
        raise CorpusError(f"the run stopped ({e}): {disk}") from e
    except RuntimeError as e:
        if "StreamWriter" not in str(e):  # torch.save's words for a file that it could not write
            raise
        raise CorpusError(f"the run stopped ({str(e).splitlines()[0]}): {disk}") from e


def _result(
    trainer: Any,
    samples: Samples,
    settings: SftSettings,
    base: Base,
    corpus: str,
    graph: Config | None,
    seconds: float,
    out: Path,
) -> SftResult:
    import torch

    return SftResult(
        base=base,
        settings=settings,
        corpus=corpus,
        digest=samples.digest,
        samples=len(samples.lines),
        held_out=len(samples.held_out),
        left_out=tuple(samples.left_out),
        tokens=sum(s.tokens for s in samples.sizes),
        learnt=sum(s.learnt for s in samples.sizes),
        steps=trainer.state.global_step,
        processes=trainer.accelerator.num_processes,
        seconds=round(seconds, 1),
        peak_gib=round(torch.cuda.max_memory_allocated() / 2**30, 2) if torch.cuda.is_available() else None,
        history=tuple({k: float(v) for k, v in h.items()} for h in trainer.state.log_history),
        versions={p: version(p) for p in PACKAGES},
        graph=graph.name if graph else "",
        folder=str(out),
    )
