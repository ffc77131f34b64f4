"""TRL's `SFTTrainer` on rollouts, with PEFT's LoRA.

TRL must not change the batches. Its rows hold a trace as JSON, without the text, images or messages that it
would convert. It uses our collator and only the tokenizer (a Qwen3-VL processor needs torchvision), and its
preparation, packing and truncation are off. Its fused head then computes loss, entropy and token accuracy on
the trainable positions. This module adds evaluation through the graph, an order of samples that a resumed run
repeats, and saved folders that load on any machine.

PEFT silently ignores a target name without a layer if another name has one. Here every target name must have
a layer; otherwise an error lists the names of the layers before training starts.
"""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from functools import cache
from pathlib import Path
from typing import Any

from act2see.agent.reasoners.adapters import BASE_FILE, Base
from act2see.errors import ConfigError
from act2see.training.sft.held_out import GraphEvaluation, Scores
from act2see.training.sft.loop import Progress
from act2see.training.sft.samples import LengthSampler, RolloutCollator, Samples
from act2see.training.sft.settings import SftSettings


def trainer_arguments(settings: SftSettings, out: Path) -> Any:
    """Return TRL's arguments.

    They must exist before the model is loaded, since DeepSpeed's third stage shards the model while it loads.

    Raises:
        ConfigError: TRL rejects the settings on this machine, or this process sees several GPUs.
    """
    from trl.trainer.sft_config import SFTConfig

    cpu = settings.device == "cpu"
    try:
        args = SFTConfig(
            output_dir=str(out),
            learning_rate=settings.learning_rate,
            per_device_train_batch_size=settings.batch,
            per_device_eval_batch_size=settings.batch,
            gradient_accumulation_steps=settings.accumulate,
            num_train_epochs=settings.epochs,
            max_steps=settings.max_steps or -1,
            warmup_steps=settings.warmup,
            lr_scheduler_type=settings.schedule,
            weight_decay=settings.weight_decay,
            bf16=has_bf16(settings),
            use_cpu=cpu,
            activation_checkpointing=settings.gradient_checkpointing,
            max_length=None,
            packing=False,
            dataset_kwargs={"skip_prepare_dataset": True},
            remove_unused_columns=False,
            dataloader_num_workers=settings.workers,
            dataloader_pin_memory=not cpu and _cuda(),
            # With a sample without frames, a trainable vision tower has no gradients.
            ddp_find_unused_parameters=not settings.freeze_vision,
            seed=settings.seed,
            save_steps=settings.save_steps,
            save_total_limit=settings.save_limit,
            logging_steps=settings.log_steps,
            logging_first_step=True,
            prediction_loss_only=True,
            report_to=settings.report_to,
            disable_tqdm=True,
        )
    except (ValueError, ImportError) as e:
        problem = " ".join(str(e).split())
        raise ConfigError(f"TRL rejects these settings on this machine, change them: {problem}") from e
    if args.n_gpu > 1:
        raise ConfigError(
            "one process sees several GPUs: start the run with `accelerate launch` (see `--dry-run`), "
            "or set CUDA_VISIBLE_DEVICES"
        )
    return args


def has_bf16(settings: SftSettings) -> bool:
    """Whether to compute in bfloat16: the value of the settings or, if it is None, whether the GPU supports
    it."""
    import torch

    if settings.bf16 is not None:
        return settings.bf16
    return settings.device == "auto" and _cuda() and torch.cuda.is_bf16_supported()


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def lora_targets(model: Any, settings: SftSettings) -> list[str]:
    """Return the full names of the linear layers to adapt: those of the language model that are named in
    `lora_targets`, and those of the vision tower unless it is frozen.

    Raises:
        ConfigError: The language model has no linear layer with a name in `lora_targets`.
    """
    import torch

    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    language = [name for name in linear if "language_model" in name.split(".")]
    known = sorted({_last_part(name) for name in language})
    missing = [name for name in settings.lora_targets if name not in known]
    if missing:
        head = "; lm_head cannot be adapted" if "lm_head" in missing else ""
        raise ConfigError(
            f"lora_targets: the language model has no layer {', '.join(missing)}: "
            f"use {', '.join(known)}{head}"
        )
    targets = [name for name in language if _last_part(name) in settings.lora_targets]
    if not settings.freeze_vision:
        targets += [name for name in linear if "visual" in name.split(".")]
    return targets


def lora_config(model: Any, settings: SftSettings) -> Any:
    """Return PEFT's config. If the vision tower is frozen, the targets are last parts of names, which most
    loaders support."""
    from peft import LoraConfig

    targets = lora_targets(model, settings)
    if settings.freeze_vision:
        targets = sorted(set(map(_last_part, targets)))
    return LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
        base_model_name_or_path=model.config._name_or_path or None,
    )


def lora_parameters(model: Any, settings: SftSettings) -> int:
    """Return the number of trained parameters: the sum of rank x (inputs + outputs) over adapted layers."""
    layers = dict(model.named_modules())
    total = 0
    for name in lora_targets(model, settings):
        total += settings.lora_rank * (layers[name].in_features + layers[name].out_features)
    return total


def _last_part(name: str) -> str:
    return name.rpartition(".")[2]


def build_data_set(lines: Sequence[str], lengths: Sequence[int] | None = None) -> Any:
    """Return a data set whose rows are a number, a trace as JSON and its length.

    Args:
        lines: The traces as JSON.
        lengths: Their lengths in tokens. None for held-out traces, whose numbers are negative.
    """
    from datasets import Dataset

    if lengths is None:
        numbers = range(-1, -len(lines) - 1, -1)
        lengths = [0] * len(lines)
    else:
        numbers = range(len(lines))
    return Dataset.from_dict({"number": list(numbers), "trace": list(lines), "length": list(lengths)})


def build_trainer(
    model: Any,
    args: Any,
    collator: RolloutCollator,
    samples: Samples,
    settings: SftSettings,
    base: Base,
    *,
    peft_config: Any = None,
    evaluation: GraphEvaluation | None = None,
    progress: Progress | None = None,
) -> Any:
    """Build the trainer, ready for `train()`.

    Args:
        model: A Qwen3-VL.
        args: The `trainer_arguments`.
        collator: The collator of the data set's rows.
        samples: The samples and the held-out traces.
        settings: The settings of the run.
        base: The base model, which is recorded in every saved adapter.
        peft_config: The `lora_config`; None trains the model itself.
        evaluation: The held-out questions, which are asked at every evaluation.
        progress: Called at every logged step.
    """
    from transformers import PrinterCallback

    sizes = [size.tokens for size in samples.sizes]
    sampler = LengthSampler(sizes, settings.batch * settings.accumulate, settings.seed)
    held_out = [trace.to_json() for trace in samples.held_out]
    has_evaluation = evaluation is not None or bool(held_out)
    callbacks = [
        _follow_epochs(sampler, collator),
        _report_progress(progress),
        _schedule_evaluation(settings.eval_steps if has_evaluation else None),
    ]
    with warnings.catch_warnings():
        # PEFT uses a deprecated name of transformers.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        trainer = _trainer_class()(
            model=model,
            args=args,
            data_collator=collator,
            train_dataset=build_data_set(samples.lines, sizes),
            eval_dataset=build_data_set(held_out) if held_out else None,
            processing_class=collator.reader.packer.codec.tokenizer,
            peft_config=peft_config,
            callbacks=callbacks,
        )
    trainer.sampler = sampler
    trainer.evaluation = evaluation
    trainer.base = base
    trainer.remove_callback(PrinterCallback)
    return trainer


@cache
def _trainer_class() -> Any:
    """Return the trainer's class, defined on first use: the import of its base from TRL takes seconds."""
    from trl.trainer.sft_trainer import SFTTrainer

    class RolloutTrainer(SFTTrainer):  # type: ignore[misc, unused-ignore]
        control: Any
        sampler: LengthSampler
        evaluation: GraphEvaluation | None
        base: Base

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return self.sampler

        def evaluate(
            self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
        ) -> dict[str, float]:
            """Compute the loss on held-out traces, then ask the questions through the graph. The random state
            is restored, so that an evaluation does not change the training."""
            import torch

            metrics: dict[str, float] = {}
            with torch.random.fork_rng():
                if eval_dataset is not None or self.eval_dataset is not None:
                    metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
                if self.evaluation is not None:
                    answered = self._ask(self.evaluation)
                    self.model.eval()  # TRL logs training or evaluation figures depending on the mode
                    self.log(dict(answered))
                    metrics |= answered
                    self.control = self.callback_handler.on_evaluate(
                        self.args, self.state, self.control, metrics
                    )
            return metrics

        def _ask(self, evaluation: GraphEvaluation) -> dict[str, float]:
            """Ask this process's share of the questions; return the metrics over all processes."""
            import torch

            started = time.perf_counter()
            unwrapped = self.accelerator.unwrap_model(self.model)
            inner = unwrapped.get_base_model() if hasattr(unwrapped, "get_base_model") else unwrapped
            own = evaluation(
                inner,
                f"step-{self.state.global_step}",
                rank=self.accelerator.process_index,
                world=self.accelerator.num_processes,
            )
            counts = torch.tensor(astuple(own), device=self.accelerator.device)
            summed = self.accelerator.reduce(counts, "sum").tolist()
            return Scores(*map(int, summed)).metrics(time.perf_counter() - started)

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            super()._save(output_dir, state_dict)
            if self.args.should_save:
                folder = Path(output_dir or self.args.output_dir)
                complete_folder(folder, self.data_collator.reader.packer, self.base)

        def create_model_card(self, *_: Any, **__: Any) -> None:
            """Do nothing: `finetune` writes the card at the end of the run."""

        def _send_telemetry(self) -> None:
            """Do nothing: TRL would report each run to its developers."""

    return RolloutTrainer


def _follow_epochs(sampler: LengthSampler, collator: RolloutCollator) -> Any:
    """Return a callback that sets the epoch of the sampler and the collator, also in a resumed run."""
    from transformers import TrainerCallback

    class FollowEpochs(TrainerCallback):  # type: ignore[misc, unused-ignore]
        def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            # `state.epoch` is a float: 0.9999999 is epoch 1.
            sampler.epoch = collator.epoch = math.floor((state.epoch or 0.0) + 1e-6)

    return FollowEpochs()


def _schedule_evaluation(steps: int | None) -> Any:
    """Return a callback that starts an evaluation every `steps` steps and at the end, or never if None."""
    from transformers import TrainerCallback

    class ScheduleEvaluation(TrainerCallback):  # type: ignore[misc, unused-ignore]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if steps is None:
                return
            if state.global_step % steps == 0 or state.global_step >= state.max_steps:
                control.should_evaluate = True

    return ScheduleEvaluation()


def _report_progress(progress: Progress | None) -> Any:
    """Return a callback that reports each logged loss, only in the first process."""
    from transformers import TrainerCallback

    class ReportProgress(TrainerCallback):  # type: ignore[misc, unused-ignore]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if progress and state.is_world_process_zero and logs and "loss" in logs:
                progress("sft", state.global_step, state.max_steps, float(logs["loss"]))

    return ReportProgress()


@contextmanager
def without_mask(model: Any) -> Iterator[None]:
    """Within the context, ignore the mask of a Qwen3-VL's batch.

    Padding is on the right, and no other token attends to it. Without a mask, attention uses its causal path,
    and a micro step takes a quarter less time. The mask stays in the batch, since TRL counts tokens with it.
    Masks of the reasoner, which have four dimensions, still apply.
    """

    def drop_mask(_: Any, args: Any, given: dict[str, Any]) -> Any:
        mask = given.get("attention_mask")
        if mask is not None and mask.dim() == 2:  # (B, T)
            given = {**given, "attention_mask": None}
        return args, given

    hook = model.model.register_forward_pre_hook(drop_mask, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def complete_folder(folder: Path, packer: Any, base: Base) -> None:
    """Add the preprocessor to a saved folder and, for an adapter, the name and digest of its base."""
    packer.image_processor.save_pretrained(folder)
    file = folder / "adapter_config.json"
    if file.exists():
        # PEFT writes the path of the base on this machine, which other machines do not have.
        config = json.loads(file.read_text(encoding="utf-8")) | {"base_model_name_or_path": base.name}
        file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (folder / BASE_FILE).write_text(base.model_dump_json(indent=1) + "\n", encoding="utf-8")


def is_sharded(trainer: Any) -> bool:
    """Whether the weights are sharded, so that a single process cannot ask the model questions."""
    plugin = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
    return bool(trainer.is_fsdp_enabled or (plugin is not None and plugin.zero_stage == 3))


def last_checkpoint(out: Path) -> Path | None:
    """Return the newest complete checkpoint in a run's folder; None if there is none."""
    by_step: dict[int, Path] = {}
    for folder in out.glob("checkpoint-*"):
        step = folder.name.partition("-")[2]
        # The trainer's state is written last, so an incomplete checkpoint does not have it.
        if step.isdecimal() and (folder / "trainer_state.json").is_file():
            by_step[int(step)] = folder
    return by_step[max(by_step)] if by_step else None
