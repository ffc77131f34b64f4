"""An interrupted run resumes from its last complete checkpoint and ends like an uninterrupted one."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from tests.training.rollouts import QUICK, draw_trace

from act2see.errors import ConfigError
from act2see.micro.questions import FAMILIES
from act2see.micro.recipe.corpus import shuffle_options
from act2see.tools.video.store import FrameStore
from act2see.trace.trace import Trace
from act2see.training.sft.finetune import finetune
from act2see.training.sft.result import SftResult
from act2see.training.sft.samples import LengthSampler

# An epoch has two steps, so the interruption is in the middle of the second epoch.
RUN = QUICK.model_copy(update={"max_steps": 5, "save_steps": 3, "schedule": "cosine", "warmup": 1})


class Interruption(Exception):
    """The error that ends a run like a killed process."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    return FrameStore(tmp_path_factory.mktemp("frames"))


@pytest.fixture(scope="module")
def run(store: FrameStore) -> Any:
    traces = [draw_trace(f, store) for f in FAMILIES]

    def start(
        out: Path,
        stop_at: int | None = None,
        resume: bool = False,
        given: list[Trace] = traces,
        **changes: Any,
    ) -> SftResult:
        def progress(_: str, step: int, *__: Any) -> None:
            if step == stop_at:
                raise Interruption

        return finetune(
            given,
            store,
            out,
            RUN.model_copy(update=changes),
            vary=shuffle_options,
            resume=resume,
            progress=progress,
        )

    return start


def test_a_resumed_run_equals_an_uninterrupted_one(run: Any, store: FrameStore, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    whole = run(tmp_path / "whole")
    with pytest.raises(Interruption):
        run(tmp_path / "cut", stop_at=4)
    # An incomplete checkpoint, which the process was writing when it died, must be ignored.
    (tmp_path / "cut" / "checkpoint-4").mkdir()
    resumed = run(tmp_path / "cut", resume=True)
    assert resumed.steps == whole.steps == 5
    assert dict(resumed.losses) == pytest.approx(dict(whole.losses), abs=1e-5)
    a, b = (load_file(tmp_path / f / "adapter_model.safetensors") for f in ("whole", "cut"))
    assert a.keys() == b.keys()
    assert all((a[k] - b[k]).abs().max() < 1e-5 for k in a)
    assert max(t.abs().max() for k, t in a.items() if "lora_B" in k) > 1e-3, "nothing was learnt"

    with pytest.raises(ConfigError, match="holds a run with checkpoint-5: resume it, or use another folder"):
        run(tmp_path / "cut")
    with pytest.raises(ConfigError, match=r"learning_rate was 0\.002, now 0\.1: restore it"):
        run(tmp_path / "cut", resume=True, learning_rate=0.1)
    with pytest.raises(ConfigError, match="other samples"):
        run(tmp_path / "cut", resume=True, given=[draw_trace("observe", store, 3)])


def test_resume_without_a_checkpoint_starts_the_run(run: Any, tmp_path: Path) -> None:
    assert run(tmp_path / "new", resume=True, max_steps=1).steps == 1


def test_sample_order_depends_on_seed_and_epoch() -> None:
    lengths = [random.Random(n).randrange(1000) for n in range(64)]
    orders = [LengthSampler(lengths, 4, seed) for seed in (0, 0, 1)]
    assert list(orders[0]) == list(orders[1]) != list(orders[2])
    assert sorted(orders[0]) == list(range(64))
    first = list(orders[0])
    orders[0].epoch = 1
    assert list(orders[0]) != first
    # The lengths in a batch are similar: their spread is a fraction of that of any four samples.
    spread = [max(b) - min(b) for i in range(0, 64, 4) if (b := [lengths[n] for n in first[i : i + 4]])]
    assert sum(spread) / len(spread) < 350
