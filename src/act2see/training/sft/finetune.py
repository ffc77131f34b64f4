"""Supervised fine-tuning of a Qwen3-VL on traces: TRL's trainer, PEFT's LoRA, our renderer and collator.

    traces + frame store -> samples (measured; some held out, some left out) -> trainer -> folder

The folder is an ordinary one: an adapter (or, in mode `full`, a model) with tokenizer and preprocessor, which
the graph takes as `reasoner.adapter` (or `reasoner.weights`). Beside them are `run.json`, what the run was
started with, `sft.json`, its result, `README.md`, its card, and the checkpoints from which it resumes.

LoRA keeps the base in the GPU's bfloat16 and its own matrices in float32. Mode `full` trains in float32 with
bfloat16 products, since steps of the paper's 2.5e-6 vanish in bfloat16's eight bits.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from act2see.agent.packing import Packer
from act2see.agent.reasoners.adapters import Base, weights_digest
from act2see.errors import ConfigError, CorpusError, WeightsError
from act2see.graphs.config import Config
from act2see.graphs.parts import build_parts
from act2see.tools.runtime.files import write_text
from act2see.tools.runtime.quiet import quiet
from act2see.tools.runtime.text import first_line
from act2see.tools.runtime.weights import local_weights
from act2see.tools.video.store import FrameStore
from act2see.trace.trace import Trace
from act2see.training.corpus.sources import Sample
from act2see.training.sft.collate import equal_frames
from act2see.training.sft.held_out import GraphEvaluation, questions_of
from act2see.training.sft.loop import Progress
from act2see.training.sft.result import CARD, RESULT, RUN, RunInputs, SftResult, model_card
from act2see.training.sft.samples import (
    Reader,
    RolloutCollator,
    Samples,
    Vary,
    bound_patch_cache,
    check_frames,
    read_samples,
)
from act2see.training.sft.settings import SftSettings
from act2see.training.sft.trainer import (
    arguments,
    build_trainer,
    has_bf16,
    last_checkpoint,
    lora_config,
    sharded,
    without_mask,
)

PACKAGES = ("act2see", "torch", "transformers", "trl", "peft", "accelerate")
"""The packages whose versions the result notes."""


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
    """Fine-tune `settings.base` on traces.

    Args:
        traces: The traces.
        store: Where their frames are.
        out: The run's folder; everything is written there.
        settings: How to fine-tune.
        graph: Asks held-out questions during training; None for no such evaluation.
        questions: The held-out questions. Default: those of `eval_samples` traces, which are then kept from
            training.
        vary: Changes a trace each time that it is trained on.
        corpus: Its name, for the card.
        resume: Continue from the last complete checkpoint in `out`, if there is one.
        progress: Called at every logged step.
        model: Replaces the base's weights.

    Raises:
        ConfigError: The settings cannot work here.
        CorpusError: There is nothing to train on, or the run cannot continue on this disk.
        StoreError: A frame is missing, or a file cannot be written.
        WeightsError: The base cannot be loaded.
    """
    _check_settings(settings, graph)
    out = Path(out)
    folder = local_weights("the base", settings.base)
    packer, context = open_base(folder)
    reader = reader_of(packer, settings, graph)
    samples = read_samples(traces, reader, settings, context)
    check_frames(samples, store)
    bound_patch_cache(packer, samples.sizes)
    args = arguments(settings, out)
    if args.n_gpu > 1:
        raise ConfigError(
            "one process sees several GPUs: start it with `accelerate launch` (see --dry-run), "
            "or set CUDA_VISIBLE_DEVICES"
        )
    inputs = RunInputs(settings=settings, samples=samples.digest, processes=args.world_size)
    checkpoint = _checkpoint_to_resume(out, inputs, resume)
    if model is None:
        model = load_base(folder, settings)
    adapter = None
    if settings.mode == "full":
        model.requires_grad_(True)
        model.model.visual.requires_grad_(not settings.freeze_vision)
    else:
        adapter = lora_config(model, settings)
    base = Base(name=settings.base, digest=weights_digest(folder))
    evaluation = _graph_evaluation(questions, samples, graph, folder, settings)
    if args.should_save:
        write_text(out / RUN, inputs.model_dump_json(indent=1) + "\n")
    args.eval_on_start = evaluation is not None and checkpoint is None
    trainer = build_trainer(
        model,
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
            "each process holds a part of the model, so none can ask it questions while it trains: "
            "use ddp.yaml or deepspeed_zero2.yaml, or evaluate the checkpoints afterwards (eval_samples 0)"
        )
    started = time.perf_counter()
    with _explain_errors(), equal_frames(model), without_mask(model):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        result = _result(trainer, samples, settings, base, time.perf_counter() - started)
        trainer.save_model(str(out))
    result = result.model_copy(
        update={"corpus": corpus, "graph": graph.name if graph else "", "folder": str(out)}
    )
    if args.should_save:
        write_text(out / RESULT, result.model_dump_json(indent=1) + "\n")
        write_text(out / CARD, model_card(result))
    return result


@quiet()
def open_base(folder: str) -> tuple[Packer, int]:
    """The base's packer and its context in tokens; its weights are not loaded.

    Raises:
        WeightsError: The folder is no Qwen3-VL, or cannot be read.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder).get_text_config()
        return Packer.from_pretrained(folder), int(config.max_position_embeddings)
    except (OSError, ValueError) as e:
        raise WeightsError(f"the base {folder} cannot be read: {first_line(e)}") from e


def reader_of(packer: Packer, settings: SftSettings, graph: Config | None) -> Reader:
    """A reader with the prompt style of the settings, and with the usage lines of the graph's tools."""
    usages = {tag: tool.usage for tag, tool in build_parts(graph).tools.items()} if graph else {}
    return Reader(packer, settings.prompt, usages)


@quiet()
def load_base(folder: str, settings: SftSettings) -> Any:
    """Load the base in the precision of its mode: float32, but bfloat16 for a frozen base on GPUs that have
    it.

    Raises:
        WeightsError: It cannot be loaded.
    """
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    is_half = settings.mode != "full" and has_bf16(settings) and torch.cuda.is_available()
    dtype = torch.bfloat16 if is_half else torch.float32
    options: dict[str, Any] = {"dtype": dtype}
    if settings.mode == "qlora":
        from transformers import BitsAndBytesConfig

        # NF4 with double quantisation (QLoRA, arXiv 2305.14314); bfloat16 storage, so that FSDP can shard it.
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            bnb_4bit_quant_storage=dtype,
        )
        options["device_map"] = {"": torch.cuda.current_device()}
    try:
        return Qwen3VLForConditionalGeneration.from_pretrained(folder, **options)
    except (OSError, ValueError) as e:
        raise WeightsError(f"the base {settings.base} cannot be loaded: {first_line(e)}") from e


def _check_settings(settings: SftSettings, graph: Config | None) -> None:
    """Raise for what must fail, before anything is loaded."""
    import torch

    packages = ["trl", "peft", "datasets"]
    if settings.report_to != "none":
        packages.append(settings.report_to)
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"fine-tuning needs the package {package}: pip install 'act2see[train]' {package}"
            )
    if settings.mode == "qlora":
        missing = ""
        if not torch.cuda.is_available():
            missing = "a CUDA GPU"
        elif importlib.util.find_spec("bitsandbytes") is None:
            missing = "the package bitsandbytes"
        if missing:
            raise ConfigError(
                f"mode qlora needs {missing}: use mode lora, which learns the same with a base in 16 bits"
            )
    if graph and graph.reasoner.prompt != settings.prompt:
        raise ConfigError(
            f"the graph prompts in the style {graph.reasoner.prompt!r} and training in {settings.prompt!r}: "
            "set prompt to the graph's, so that the model reads what it was trained on"
        )


def _graph_evaluation(
    questions: Sequence[Sample] | None,
    samples: Samples,
    graph: Config | None,
    folder: str,
    settings: SftSettings,
) -> GraphEvaluation | None:
    if questions is None:
        questions = questions_of(samples.held_out)
    if graph is None or not questions:
        return None
    return GraphEvaluation(questions, graph, folder, settings.seed)


def _checkpoint_to_resume(out: Path, inputs: RunInputs, resume: bool) -> Path | None:
    """The checkpoint to resume from; None to begin.

    Raises:
        ConfigError: `out` holds a run and `resume` is not set, or the run has other settings, samples or
            processes.
    """
    checkpoint = last_checkpoint(out)
    if checkpoint is None:
        return None
    if not resume:
        raise ConfigError(
            f"{out} holds a run that reached {checkpoint.name}: resume it, or name another folder"
        )
    if (out / RUN).is_file():
        _check_same_inputs(out, inputs)
    return checkpoint


def _check_same_inputs(out: Path, inputs: RunInputs) -> None:
    file = out / RUN
    try:
        before = RunInputs.model_validate_json(file.read_text(encoding="utf-8"))
    except ValueError as e:
        raise CorpusError(
            f"{file} cannot be read ({first_line(e)}): name another folder, or delete this one"
        ) from e
    if key := before.settings.differs(inputs.settings):
        was, now = getattr(before.settings, key), getattr(inputs.settings, key)
        raise ConfigError(
            f"the run in {out} has {key} {was!r}, not {now!r}: resume it with that, or name another folder"
        )
    if before.samples != inputs.samples:
        raise ConfigError(
            f"the run in {out} is on another corpus: give the one that it was started with, "
            "or name another folder"
        )
    if before.processes != inputs.processes:
        raise ConfigError(
            f"the run in {out} has {before.processes} processes, not {inputs.processes}: "
            "resume it with as many"
        )


@contextmanager
def _explain_errors() -> Iterator[None]:
    """Turn running out of memory or disk into one line that says what to do."""
    import torch
    from safetensors import SafetensorError

    remedy = "mend what is wrong with the disk, then resume the run"
    try:
        yield
    except torch.OutOfMemoryError as e:
        raise ConfigError(
            f"the GPU's memory is full ({first_line(e)}): lower max_context or batch, "
            "keep gradient_checkpointing, use mode lora or qlora, or shard the model with fsdp.yaml"
        ) from e
    except (OSError, SafetensorError) as e:
        raise CorpusError(f"the run stopped ({e}): {remedy}") from e
    except RuntimeError as e:
        if "StreamWriter" not in str(e):  # torch.save's words for a file that it could not write
            raise
        raise CorpusError(f"the run stopped ({first_line(e)}): {remedy}") from e


def _result(trainer: Any, samples: Samples, settings: SftSettings, base: Base, seconds: float) -> SftResult:
    import torch

    peak_gib = None
    if torch.cuda.is_available():
        peak_gib = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    history = [{name: float(value) for name, value in entry.items()} for entry in trainer.state.log_history]
    return SftResult(
        base=base,
        settings=settings,
        digest=samples.digest,
        samples=len(samples.lines),
        held_out=len(samples.held_out),
        left_out=tuple(samples.left_out),
        tokens=sum(size.tokens for size in samples.sizes),
        trainable=sum(size.trainable for size in samples.sizes),
        steps=trainer.state.global_step,
        processes=trainer.accelerator.num_processes,
        seconds=round(seconds, 1),
        peak_gib=peak_gib,
        history=tuple(history),
        versions={package: version(package) for package in PACKAGES},
    )
