"""The whole recipe, from random to shipped weights: `act2see micro train`.

Each stage has its own folder, so that it can be run again alone:

    base       the VLM learns to see, to describe every second of a view, and to answer from its description
    encoder    BLIP-2 learns to score frames against phrases
    generator  the VAE, then Stable Diffusion 3 as a world model of tipping boards
    corpus     reference chains through the real graph, with the new encoder and generator
    vlm        SFT of the base model on drawn chains, people's questions and the corpus, with the loss on the
               model's own text alone; then mostly on people's questions (`words`)

Weights are saved in float16, which halves their size, and run in float32.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from act2see.errors import ConfigError
from act2see.tools.runtime.files import write_text
from act2see.training.sft.loop import Progress

log = logging.getLogger(__name__)
STAGES = ("base", "encoder", "generator", "corpus", "vlm")
LANES = (("base",), ("encoder", "generator"))
"""Independent stages: the lanes run in parallel, in two processes."""
FULL = {
    "base": 3200,
    "answers": 490,
    "encoder": 1500,
    "vae": 1500,
    "generator": 5000,
    "corpus": 1400,
    "vlm": 2500,
    "words": 6000,
    "lines": 40_000,
}
"""The steps of each stage on a CPU, whose time they are chosen for; of `lines`, how many are read at most."""
FULL_ON_GPU = {**FULL, "base": 6400, "answers": 900, "encoder": 3000, "vlm": 24_000, "words": 24_000}
"""The steps on a GPU, where a step of the VLM takes a fiftieth of its time on two cores."""
QUICK = {
    "base": 16,
    "answers": 2,
    "encoder": 4,
    "vae": 4,
    "generator": 4,
    "corpus": 8,
    "vlm": 4,
    "words": 4,
    "lines": 40,
}
_QUICK_BATCH = 16
"""A batch of a quick run has one in this many of the boards, phrases, clips or questions of a full one."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What all stages of a run share."""

    out: Path
    """The folder of the weights."""
    counts: dict[str, int]
    """The steps of each stage."""
    part: int
    """A batch is divided by this number."""
    seed: int
    device: str


def train(
    out: Path,
    quick: bool = False,
    progress: Progress | None = None,
    stages: Sequence[str] = STAGES,
    seed: int = 0,
    device: str = "auto",
) -> dict[str, float]:
    """Run stages of the recipe.

    Args:
        out: The folder of the weights.
        quick: Whether to run only a few steps of each stage, to check that all of them work.
        progress: Called with a name, the step, the number of steps and the loss.
        stages: The stages to run; the results of the others are read from `out`.
        seed: The seed of all stages.
        device: `cpu`, `cuda`, or `auto`, which is a CUDA GPU if there is one.

    Returns:
        The seconds of each stage.

    Raises:
        ConfigError: If a stage or the device does not exist.
    """
    for stage in stages:
        if stage not in STAGES:
            raise ConfigError(f"there is no stage {stage!r} (known: {', '.join(STAGES)})")
    device = choose_device(device)
    counts = QUICK if quick else FULL_ON_GPU if device == "cuda" else FULL
    plan = _Plan(out, counts, _QUICK_BATCH if quick else 1, seed, device)
    out.mkdir(parents=True, exist_ok=True)
    lanes = [[stage for stage in lane if stage in stages] for lane in LANES]
    seconds = _run_lanes([lane for lane in lanes if lane], plan, progress)
    for stage in ("corpus", "vlm"):
        if stage in stages:
            seconds[stage] = _run(stage, plan, progress)
    halve(out)
    recipe = {"seed": seed, "device": device, "steps": counts, "seconds": seconds}
    write_text(out / "recipe.json", json.dumps(recipe, indent=1) + "\n")
    return seconds


def choose_device(wanted: str) -> str:
    """Return the device that trains: the wanted one, or for `auto` a CUDA GPU if there is one.

    Raises:
        ConfigError: If the device is unknown or missing.
    """
    import torch

    if wanted not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"there is no device {wanted!r} (known: auto, cpu, cuda)")
    found = torch.cuda.is_available()
    if wanted == "cuda" and not found:
        raise ConfigError("torch finds no CUDA GPU: install a CUDA build of torch, or train on the CPU")
    if wanted == "auto":
        return "cuda" if found else "cpu"
    return wanted


def _run(stage: str, plan: _Plan, progress: Progress | None) -> float:
    """Run one stage; return its seconds."""
    started = time.perf_counter()
    if stage == "base":
        _base(plan, progress)
    elif stage == "encoder":
        _encoder(plan, progress)
    elif stage == "generator":
        _generator(plan, progress)
    elif stage == "corpus":
        _corpus(plan)
    else:
        _vlm(plan, progress)
    seconds = round(time.perf_counter() - started, 1)
    log.info("stage %s took %.0f s", stage, seconds)
    return seconds


def _run_lanes(lanes: list[list[str]], plan: _Plan, progress: Progress | None) -> dict[str, float]:
    """Run the lanes in parallel, each on an equal share of the cores; return the seconds of each stage."""
    import os
    from multiprocessing import Manager
    from queue import Empty

    from act2see.micro.recipe.processes import ignore_interrupts, pool_of

    if not lanes:
        return {}
    threads = max(1, (os.cpu_count() or 1) // len(lanes))
    with Manager() as manager, pool_of(len(lanes)) as pool:
        reports: Any = manager.Queue()
        with ignore_interrupts():
            jobs = [pool.submit(_run_lane, lane, plan, threads, reports) for lane in lanes]
        while not (all(job.done() for job in jobs) and reports.empty()):
            try:
                report = reports.get(timeout=0.5)
            except Empty:
                continue
            if progress:
                progress(*report)
        seconds: dict[str, float] = {}
        for job in jobs:
            seconds |= job.result()
        return seconds


def _run_lane(lane: list[str], plan: _Plan, threads: int, reports: Any) -> dict[str, float]:
    import torch

    torch.set_num_threads(threads)

    def progress(*report: Any) -> None:
        reports.put(report)

    return {stage: _run(stage, plan, progress) for stage in lane}


def halve(folder: Path) -> None:
    """Cast every weight file below `folder` to float16, in place."""
    import torch
    from safetensors.torch import load_file, save_file

    for file in folder.rglob("*.safetensors"):
        tensors = load_file(file)
        if any(t.dtype == torch.float32 for t in tensors.values()):
            half = {k: t.half() if t.dtype == torch.float32 else t for k, t in tensors.items()}
            save_file(half, file, metadata={"format": "pt"})


def _base(plan: _Plan, progress: Progress | None) -> None:
    from act2see.micro.recipe.learn_vlm import save, train_base

    steps, answers = plan.counts["base"], plan.counts["answers"]
    model, packer = train_base(
        steps, answers, 32 // plan.part, seed=plan.seed, progress=progress, device=plan.device
    )
    save(model, packer, plan.out / "base")


def _encoder(plan: _Plan, progress: Progress | None) -> None:
    from act2see.micro.recipe.learn_encoder import learn

    learn(plan.out / "encoder", plan.counts["encoder"], 64 // plan.part, plan.seed, progress, plan.device)


def _generator(plan: _Plan, progress: Progress | None) -> None:
    from act2see.micro.recipe.learn_generator import learn

    steps = plan.counts["vae"], plan.counts["generator"]
    scores = learn(plan.out / "generator", *steps, plan.part, plan.seed, progress, plan.device)
    log.info("of the generator's pictures of new boards: %s", scores)


def _corpus(plan: _Plan) -> None:
    from act2see.micro.recipe.corpus import build_corpus, corpus_config

    folder = plan.out / "corpus"
    shutil.rmtree(folder, ignore_errors=True)
    config = corpus_config(folder, plan.out)
    path, dropped = build_corpus(config, plan.counts["corpus"], folder)
    log.info("%d chains, dropped: %s", len(path.read_text().splitlines()), dict(dropped))


def _vlm(plan: _Plan, progress: Progress | None) -> None:
    from act2see.micro.recipe.corpus import corpus_config
    from act2see.micro.recipe.learn_vlm import save, train_sft, train_words
    from act2see.tools.video.store import FrameStore
    from act2see.trace.trace import load_traces

    out, steps, words = plan.out, plan.counts["vlm"], plan.counts["words"]
    config = corpus_config(out / "corpus", out)
    store = FrameStore(str(Path(config.cache or "") / "frames"))
    traces = list(load_traces(out / "corpus" / "traces.jsonl"))
    model, packer = train_sft(
        out / "base",
        traces,
        store,
        steps,
        32 // plan.part,
        seed=plan.seed,
        progress=progress,
        device=plan.device,
    )
    train_words(
        model,
        packer,
        words,
        128 // plan.part,
        seed=plan.seed,
        progress=progress,
        lines=plan.counts["lines"],
    )
    save(model, packer, out / "vlm")
