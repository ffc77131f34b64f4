"""TRL's `SFTTrainer` on rollouts.

TRL is given what it cannot spoil: rows that hold a trace as JSON and no text, images or messages of its own
kind, our collator, the tokenizer alone (a Qwen3-VL processor needs torchvision), no preparation, packing or
truncation. Its fused head then computes loss, entropy and token accuracy on the learnt positions. On top come
evaluation through the graph, an order of samples that a resumed run repeats, and folders that load anywhere.
"""

from __future__ import annotations

import json
import logging
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from act2see.agent.reasoners.adapters import BASE_FILE, Base
from act2see.errors import ConfigError
from act2see.training.sft.held_out import GraphEvaluation, Scores
from act2see.training.sft.loop import Progress
from act2see.training.sft.samples import LikeLengths, RolloutCollator, Samples
from act2see.training.sft.settings import SftSettings

log = logging.getLogger(__name__)


def arguments(settings: SftSettings, out: Path) -> Any:
    """TRL's arguments. Made before the model is loaded: DeepSpeed's third stage shards it while it loads."""
    from trl.trainer.sft_config import SFTConfig

    cpu = settings.device == "cpu"
    try:
        return SFTConfig(
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
            # A sample without frames leaves a tower that learns without gradients.
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
        raise ConfigError(f"these settings cannot be used here: {' '.join(str(e).split())}") from e


def has_bf16(settings: SftSettings) -> bool:
    """As set; left open, on GPUs that have it."""
    import torch

    if settings.bf16 is not None:
        return settings.bf16
    return settings.device == "auto" and _cuda() and torch.cuda.is_bf16_supported()


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def data_set(lines: Sequence[str], lengths: Sequence[int] | None = None) -> Any:
    """Rows of a number, a trace and its length; held-out rows have a negative number, and are never
    varied."""
    from datasets import Dataset

    numbers = range(len(lines)) if lengths is not None else range(-1, -len(lines) - 1, -1)
    return Dataset.from_dict(
        {"number": list(numbers), "trace": list(lines), "length": list(lengths or [0] * len(lines))}
    )


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
    """The trainer, ready for `train()`; its class is made here, for its base is TRL's."""
    from transformers import PrinterCallback, TrainerCallback
    from trl.trainer.sft_trainer import SFTTrainer

    sampler = LikeLengths(
        [s.tokens for s in samples.sizes], settings.batch * settings.accumulate, settings.seed
    )
    packer = collator.reader.packer

    class RolloutTrainer(SFTTrainer):  # type: ignore[misc, unused-ignore]
        control: Any

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return sampler

        def evaluate(
            self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
        ) -> dict[str, float]:
            """The loss on held-out traces, then what the graph answers. A look at the model does not change
            its training."""
            import torch

            metrics: dict[str, float] = {}
            with torch.random.fork_rng():
                if eval_dataset is not None or self.eval_dataset is not None:
                    metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
                if evaluation is not None:
                    asked = self._ask(evaluation)
                    self.model.eval()  # TRL tells by the mode what is logged
                    self.log(dict(asked))
                    metrics |= asked
                    self.control = self.callback_handler.on_evaluate(
                        self.args, self.state, self.control, metrics
                    )
            return metrics

        def _ask(self, evaluation: GraphEvaluation) -> dict[str, float]:
            import torch

            started = time.perf_counter()
            unwrapped = self.accelerator.unwrap_model(self.model)
            inner = unwrapped.get_base_model() if hasattr(unwrapped, "get_base_model") else unwrapped
            rank, world = self.accelerator.process_index, self.accelerator.num_processes
            s = evaluation(inner, f"step-{self.state.global_step}", rank=rank, world=world)
            counts = torch.tensor(
                [s.questions, s.right, s.called, s.calls, s.failed], device=self.accelerator.device
            )
            summed = self.accelerator.reduce(counts, "sum").tolist()
            return Scores(*map(int, summed)).metrics(time.perf_counter() - started)

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            super()._save(output_dir, state_dict)
            if self.args.should_save:
                complete(Path(output_dir or self.args.output_dir), packer, base)

        def create_model_card(self, *_: Any, **__: Any) -> None:
            """The card is written from the run, at its end."""

        def _send_telemetry(self) -> None:
            """TRL would report each run to its makers."""

    class Watch(TrainerCallback):  # type: ignore[misc, unused-ignore]
        def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            sampler.epoch = collator.epoch = math.floor((state.epoch or 0.0) + 1e-6)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            due = state.global_step % settings.eval_steps == 0 or state.global_step >= state.max_steps
            if due and (evaluation is not None or samples.held_out):
                control.should_evaluate = True

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if progress and state.is_world_process_zero and logs and "loss" in logs:
                progress("sft", state.global_step, state.max_steps, float(logs["loss"]))

    with warnings.catch_warnings():
        # PEFT asks transformers by a name that is on its way out.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        trainer = RolloutTrainer(
            model=model,
            args=args,
            data_collator=collator,
            train_dataset=data_set(samples.lines, [s.tokens for s in samples.sizes]),
            eval_dataset=data_set([t.to_json() for t in samples.held_out]) if samples.held_out else None,
            processing_class=packer.codec.tokenizer,
            peft_config=peft_config,
            callbacks=[Watch()],
        )
    trainer.remove_callback(PrinterCallback)
    return trainer


@contextmanager
def without_mask(model: Any) -> Iterator[None]:
    """Run a Qwen3-VL on batches of ours without their mask: padding stands on the right, where no token that
    counts looks.

    Attention then takes its causal path, a quarter less time for a micro step. TRL counts tokens by the mask,
    so it stays in the batch. Masks of the reasoner, which have four dimensions, pass.
    """

    def drop(_: Any, args: Any, given: dict[str, Any]) -> Any:
        mask = given.get("attention_mask")
        return args, given if mask is None or mask.dim() != 2 else {**given, "attention_mask": None}

    hook = model.model.register_forward_pre_hook(drop, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def complete(folder: Path, packer: Any, base: Base) -> None:
    """What a saved folder needs beside its weights: the preprocessor, and for an adapter its base by name and
    digest."""
    packer.image_processor.save_pretrained(folder)
    file = folder / "adapter_config.json"
    if file.exists():
        # PEFT writes the path of this machine.
        config = json.loads(file.read_text(encoding="utf-8")) | {"base_model_name_or_path": base.name}
        file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (folder / BASE_FILE).write_text(base.model_dump_json(indent=1) + "\n", encoding="utf-8")


def sharded(trainer: Any) -> bool:
    """Whether no process holds the whole model, so that none can ask it alone."""
    plugin = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
    return bool(trainer.is_fsdp_enabled or (plugin is not None and plugin.zero_stage == 3))


def last_checkpoint(out: Path) -> Path | None:
    """The newest whole checkpoint: the trainer's state is written last, so one cut short has none."""
    found = [
        p
        for p in out.glob("checkpoint-*")
        if p.name.partition("-")[2].isdecimal() and (p / "trainer_state.json").is_file()
    ]
    return max(found, key=lambda p: int(p.name.partition("-")[2]), default=None)
