"""Supervised fine-tuning of a Qwen3-VL on traces: TRL's trainer, PEFT's LoRA, our renderer and collator.

    traces + frame store -> samples (measured; some held out, some left out) -> trainer -> folder

The folder holds an adapter (in mode `full`, a model) with tokenizer and preprocessor, which the graph loads
as `reasoner.adapter` (or `reasoner.weights`). It also holds the inputs of the run (`run.json`), its result
(`sft.json`), its card (`README.md`), and the checkpoints from which it resumes.

LoRA keeps the base in bfloat16 on a GPU, and its own matrices in float32. Mode `full` trains in float32 with
bfloat16 products: with the paper's learning rate of 2.5e-6, bfloat16 weights have too few bits to change.
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
    PATCH_CACHE_BYTES,
    Reader,
    RolloutCollator,
    Samples,
    Vary,
    check_frames,
    read_samples,
)
from act2see.training.sft.settings import SftSettings
from act2see.training.sft.trainer import (
    build_trainer,
    has_bf16,
    is_sharded,
    last_checkpoint,
    lora_config,
    trainer_arguments,
    without_mask,
)

PACKAGES = ("act2see", "torch", "transformers", "trl", "peft", "accelerate")
"""The packages whose versions the result records."""


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
        store: The store that holds their frames.
        out: The run's folder.
        settings: The settings of the run.
        graph: The graph that answers held-out questions during training; None for no such evaluation.
        questions: The held-out questions. Default: those of the held-out traces.
        vary: Called each time that a trace is trained on, to vary it.
        corpus: The name of the corpus, for the card.
        resume: Continue from the last complete checkpoint in `out`, if there is one.
        progress: Called at every logged step.
        model: A loaded model, which is used instead of the base's weights.

    Returns:
        The result, which is also in `out`.

    Raises:
        ConfigError: The settings cannot be used on this machine, or differ from those of the resumed run.
        CorpusError: No trace is left to train on, or the disk failed.
        StoreError: A frame is missing, or a file cannot be written.
        WeightsError: The base cannot be loaded.
    """
    _check_settings(settings, graph)
    out = Path(out)
    folder = local_weights("the base", settings.base)
    packer, context = open_base(folder)
    reader = reader_of(packer, settings, graph)
    samples = _prepare_samples(traces, reader, store, settings, context)
    args = trainer_arguments(settings, out)  # before the model is loaded: DeepSpeed needs them
    inputs = RunInputs(settings=settings, samples=samples.digest, processes=args.world_size)
    checkpoint = _checkpoint_to_resume(out, inputs, resume)
    model = load_base(folder, settings) if model is None else model
    peft_config = _choose_parameters(model, settings)
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
        peft_config=peft_config,
        evaluation=evaluation,
        progress=progress,
    )
    _check_evaluation(trainer, evaluation)
    seconds = _train(trainer, model, checkpoint)
    names = {"corpus": corpus, "graph": graph.name if graph else "", "folder": str(out)}
    result = _result(trainer, samples, settings, base, seconds).model_copy(update=names)
    with _explain_errors():
        trainer.save_model(str(out))
    if args.should_save:
        _write_result(result, out)
    return result


@quiet()
def open_base(folder: str) -> tuple[Packer, int]:
    """Return the base's packer and its context in tokens, without loading its weights.

    Raises:
        WeightsError: The folder is not a Qwen3-VL, or cannot be read.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder).get_text_config()
        return Packer.from_pretrained(folder), int(config.max_position_embeddings)
    except (OSError, ValueError) as e:
        raise WeightsError(
            f"cannot read the base {folder} ({first_line(e)}): give the folder of a Qwen3-VL"
        ) from e


def reader_of(packer: Packer, settings: SftSettings, graph: Config | None) -> Reader:
    """Return a reader with the prompt style of the settings and the usage lines of the graph's tools."""
    usages = {tag: tool.usage for tag, tool in build_parts(graph).tools.items()} if graph else {}
    return Reader(packer, settings.prompt, usages)


@quiet()
def load_base(folder: str, settings: SftSettings) -> Any:
    """Load the base in float32, or in bfloat16 if it is frozen and the GPU supports it.

    Raises:
        WeightsError: The base cannot be loaded.
    """
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    is_half = settings.mode != "full" and has_bf16(settings) and torch.cuda.is_available()
    dtype = torch.bfloat16 if is_half else torch.float32
    options: dict[str, Any] = {"dtype": dtype}
    if settings.mode == "qlora":
        from transformers import BitsAndBytesConfig

        # NF4 with double quantisation (QLoRA, arXiv 2305.14314). FSDP can shard only storage in `dtype`.
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
        raise WeightsError(
            f"cannot load the base {settings.base} ({first_line(e)}): download it again, or use another base"
        ) from e


def _check_settings(settings: SftSettings, graph: Config | None) -> None:
    """Check packages, hardware and prompt style before anything is loaded.

    Raises:
        ConfigError: The settings cannot be used.
    """
    packages = ["trl", "peft", "datasets"]
    if settings.report_to != "none":
        packages.append(settings.report_to)
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"fine-tuning needs the package {package}: `pip install 'act2see[train]' {package}`"
            )
    if settings.mode == "qlora":
        _check_qlora()
    if graph and graph.reasoner.prompt_style != settings.prompt:
        raise ConfigError(
            f"the graph's prompt style is {graph.reasoner.prompt_style!r}, but training uses "
            f"{settings.prompt!r}: set `prompt` to the graph's style"
        )


def _check_qlora() -> None:
    import torch

    if not torch.cuda.is_available():
        missing = "a CUDA GPU"
    elif importlib.util.find_spec("bitsandbytes") is None:
        missing = "the package bitsandbytes"
    else:
        return
    raise ConfigError(f"mode qlora needs {missing}: use mode lora, which differs only in its 16-bit base")


def _check_evaluation(trainer: Any, evaluation: GraphEvaluation | None) -> None:
    if evaluation and is_sharded(trainer):
        raise ConfigError(
            "each process holds only a part of the model, which cannot answer questions during training: "
            "use ddp.yaml or deepspeed_zero2.yaml, or set `eval_samples: 0` and evaluate the checkpoints"
        )


def _choose_parameters(model: Any, settings: SftSettings) -> Any:
    """Select the parameters to train; return the `lora_config`, or None in mode `full`."""
    if settings.mode != "full":
        return lora_config(model, settings)
    model.requires_grad_(True)
    model.model.visual.requires_grad_(not settings.freeze_vision)
    return None


def _prepare_samples(
    traces: Iterable[Trace], reader: Reader, store: FrameStore, settings: SftSettings, context: int
) -> Samples:
    """Read the samples, check their frames, and limit the cache of the reader's packer."""
    samples = read_samples(traces, reader, settings, context)
    check_frames(samples, store)
    reader.packer.cache_bytes = PATCH_CACHE_BYTES
    return samples


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
    """Return the checkpoint to resume from; None starts a new run.

    Raises:
        ConfigError: `out` holds a run and `resume` is not set, or the run has other settings, samples or
            processes.
        CorpusError: The inputs of the run cannot be read.
    """
    checkpoint = last_checkpoint(out)
    if checkpoint is None:
        return None
    if not resume:
        raise ConfigError(f"{out} holds a run with {checkpoint.name}: resume it, or use another folder")
    if (out / RUN).is_file():
        _check_same_inputs(out, inputs)
    return checkpoint


def _check_same_inputs(out: Path, inputs: RunInputs) -> None:
    file = out / RUN
    try:
        before = RunInputs.model_validate_json(file.read_text(encoding="utf-8"))
    except ValueError as e:
        raise CorpusError(
            f"cannot read {file} ({first_line(e)}): use another folder, or delete this one"
        ) from e
    if key := before.settings.first_difference(inputs.settings):
        old = getattr(before.settings, key)
        new = getattr(inputs.settings, key)
        raise ConfigError(
            f"{out} holds a run with other settings, {key} was {old!r}, now {new!r}: "
            "restore it, or use another folder"
        )
    if before.samples != inputs.samples:
        raise ConfigError(
            f"{out} holds a run with other samples: give the corpus that the run started with, "
            "or use another folder"
        )
    if before.processes != inputs.processes:
        raise ConfigError(
            f"{out} holds a run with {before.processes} processes, now {inputs.processes}: "
            f"resume it with {before.processes}"
        )


def _train(trainer: Any, model: Any, checkpoint: Path | None) -> float:
    """Run the trainer; return its duration in seconds."""
    started = time.perf_counter()
    with _explain_errors(), equal_frames(model), without_mask(model):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return time.perf_counter() - started


@contextmanager
def _explain_errors() -> Iterator[None]:
    """Within the context, convert errors of memory and disk into errors that name the remedy."""
    import torch
    from safetensors import SafetensorError

    remedy = "check the disk and its free space, then resume the run"
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
        # torch.save raises a RuntimeError with this word if it cannot write a file.
        if "StreamWriter" not in str(e):
            raise
        raise CorpusError(f"the run stopped ({first_line(e)}): {remedy}") from e


def _result(trainer: Any, samples: Samples, settings: SftSettings, base: Base, seconds: float) -> SftResult:
    """Return the result of a trained run, without the names of corpus, graph and folder."""
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


def _write_result(result: SftResult, out: Path) -> None:
    """Write the result and the card."""
    write_text(out / RESULT, result.model_dump_json(indent=1) + "\n")
    write_text(out / CARD, model_card(result))
