"""The whole recipe, from nothing to shipped weights: `act2see micro train`.

Stages, each with its own seed and its own folder, so that one can be made again alone:

    base       the VLM learns to see, to describe every second of a view, and to answer from what it has described
    encoder    BLIP-2 learns to score frames against phrases
    generator  the VAE, then Stable Diffusion 3 as a world model of tipping boards
    corpus     reference chains through the real graph, with the encoder and generator just trained
    vlm        SFT of the base model on the corpus, loss on the model's own text alone

Weights are saved in float16, which is half the size, and run in float32.
"""

from __future__ import annotations

import json
import logging
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from act2see.errors import ConfigError
from act2see.training.sft.loop import Progress

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
LANES = (("base",), ("encoder", "generator"))
STAGES = ("base", "encoder", "generator", "corpus", "vlm")
FULL = {
    "base": 3200,
    "answers": 490,
    "encoder": 1500,
    "vae": 1500,
    "generator": 5000,
    "corpus": 3000,
    "vlm": 1000,
}
QUICK = {"base": 16, "answers": 2, "encoder": 4, "vae": 4, "generator": 4, "corpus": 8, "vlm": 4}


def train(
    out: Path,
    quick: bool = False,
    progress: Progress | None = None,
    stages: Sequence[str] = STAGES,
    seed: int = 0,
) -> dict[str, float]:
    """Run `stages` into `out`; returns seconds by stage. `quick` takes a few steps of each, to see that all
    runs.

    The base model and the two tools need nothing of each other: they are learnt side by side, in two
    processes.
    """
    unknown = [s for s in stages if s not in STAGES]
    if unknown:
        raise ConfigError(f"there is no stage {unknown[0]!r} (known: {', '.join(STAGES)})")
    counts = QUICK if quick else FULL
    out.mkdir(parents=True, exist_ok=True)
    lanes = [[s for s in lane if s in stages] for lane in LANES]
    seconds = _side_by_side([lane for lane in lanes if lane], out, counts, seed, progress)
    for stage in ("corpus", "vlm"):
        if stage in stages:
            seconds[stage] = _run(stage, out, counts, seed, progress)
    halve(out)
    (out / "recipe.json").write_text(
        json.dumps({"seed": seed, "steps": counts, "seconds": seconds}, indent=1) + "\n"
    )
    return seconds


def _run(stage: str, out: Path, counts: dict[str, int], seed: int, progress: Progress | None) -> float:
    """One stage; returns its seconds."""
    started = time.perf_counter()
    if stage == "base":
        _base(out, counts["base"], counts["answers"], seed, progress)
    elif stage == "encoder":
        _encoder(out, counts["encoder"], seed, progress)
    elif stage == "generator":
        _generator(out, counts["vae"], counts["generator"], seed, progress)
    elif stage == "corpus":
        _corpus(out, counts["corpus"])
    else:
        _vlm(out, counts["vlm"], seed, progress)
    seconds = round(time.perf_counter() - started, 1)
    log.info("stage %s took %.0f s", stage, seconds)
    return seconds


def _side_by_side(
    lanes: list[list[str]], out: Path, counts: dict[str, int], seed: int, progress: Progress | None
) -> dict[str, float]:
    """Each lane's stages one after another, the lanes at once, on an equal share of the cores."""
    import os
    from multiprocessing import Manager
    from queue import Empty

    from act2see.micro.recipe.processes import deaf, pool_of

    if not lanes:
        return {}
    threads = max(1, (os.cpu_count() or 1) // len(lanes))
    with Manager() as manager, pool_of(len(lanes)) as pool:
        told: Any = manager.Queue()
        with deaf():
            jobs = [pool.submit(_lane, lane, out, counts, seed, threads, told) for lane in lanes]
        while not (all(j.done() for j in jobs) and told.empty()):
            try:
                news = told.get(timeout=0.5)
            except Empty:
                continue
            if progress:
                progress(*news)
        return {stage: seconds for job in jobs for stage, seconds in job.result().items()}


def _lane(
    lane: list[str], out: Path, counts: dict[str, int], seed: int, threads: int, told: Any
) -> dict[str, float]:
    import torch

    torch.set_num_threads(threads)
    return {stage: _run(stage, out, counts, seed, lambda *news: told.put(news)) for stage in lane}


def halve(folder: Path) -> None:
    """Cast every weight file below `folder` to float16, in place."""
    import torch
    from safetensors.torch import load_file, save_file

    for file in folder.rglob("*.safetensors"):
        tensors = load_file(file)
        if any(t.dtype == torch.float32 for t in tensors.values()):
            half = {k: t.half() if t.dtype == torch.float32 else t for k, t in tensors.items()}
            save_file(half, file, metadata={"format": "pt"})


def _base(out: Path, steps: int, answers: int, seed: int, progress: Progress | None) -> None:
    from act2see.micro.recipe.learn_vlm import save, train_base

    model, packer = train_base(steps, answers, seed=seed, progress=progress)
    save(model, packer, out / "base")


def _encoder(out: Path, steps: int, seed: int, progress: Progress | None) -> None:
    from act2see.micro.recipe.learn_encoder import learn

    learn(out / "encoder", steps, seed, progress)


def _generator(out: Path, vae_steps: int, steps: int, seed: int, progress: Progress | None) -> None:
    from act2see.micro.recipe.learn_generator import learn

    learn(out / "generator", vae_steps, steps, seed, progress)


def _corpus(out: Path, count: int) -> None:
    from act2see.micro.recipe.corpus import build_corpus, corpus_config

    folder = out / "corpus"
    shutil.rmtree(folder, ignore_errors=True)
    config = corpus_config(folder, out)
    path, dropped = build_corpus(config, count, folder)
    log.info("%d chains, dropped: %s", len(path.read_text().splitlines()), dict(dropped))


def _vlm(out: Path, steps: int, seed: int, progress: Progress | None, batch: int = 32) -> None:
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    from act2see.agent.packing import Packer
    from act2see.micro.recipe.corpus import after_view, corpus_config
    from act2see.micro.recipe.learn_vlm import base_batches, facts_batches, save
    from act2see.tools.video.store import FrameStore
    from act2see.trace.trace import load_traces
    from act2see.training.sft.loop import fit

    torch.manual_seed(seed)
    config = corpus_config(out / "corpus", out)
    store = FrameStore(str(Path(config.cache or "") / "frames"))
    packer = Packer.from_pretrained(out / "base")
    packer.cached_images = 200_000
    model: Any = Qwen3VLForConditionalGeneration.from_pretrained(out / "base", dtype=torch.float32)
    model.model.visual.requires_grad_(False)
    traces = list(load_traces(out / "corpus" / "traces.jsonl"))
    tokenizer = packer.codec.tokenizer
    pad, end = tokenizer.pad_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")
    observing = base_batches(packer, pad, end, batch, seed + 3, (6, 10))
    recalling = facts_batches(packer, pad, end, batch, seed + 4, (4, 8))

    chains = _batches(traces, packer, store, batch, seed)
    ends = _batches([after_view(t) for t in traces], packer, store, batch, seed + 1)

    def mixed() -> Iterator[dict[str, torch.Tensor]]:
        # A chain is mostly description, which the base model knows: what comes after it, alone, is most of
        # what is new. One batch in four is the base model's, or what it sees and recalls would wear away.
        while True:
            for replay in (observing, recalling):
                yield from (next(chains), next(ends), next(ends), next(replay))

    fit(model, mixed(), steps, rate=1e-3, warmup=40, name="vlm", progress=progress)
    save(model, packer, out / "vlm")


def _batches(
    traces: list[Any], packer: Any, store: Any, batch: int, seed: int
) -> Iterator[dict[str, torch.Tensor]]:
    """Endless shuffled batches of traces of like length, so that little is padding; options in a new order
    each time."""
    from act2see.agent.prompt import Prompt
    from act2see.agent.rollout import render
    from act2see.micro.questions import draw_tags
    from act2see.micro.recipe.corpus import shuffle_options, with_tools
    from act2see.training.sft.collate import collate

    tokenizer = packer.codec.tokenizer
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")

    def rollout(trace: Any) -> Any:
        return render(trace, Prompt(dict.fromkeys(trace.versions.tools, ""), "short"), end_of_turn=True)

    def varied(trace: Any) -> Any:
        return rollout(with_tools(shuffle_options(trace, rng), draw_tags(rng), rng))

    order = sorted(range(len(traces)), key=lambda i: len(packer.pack(rollout(traces[i])).ids))
    rng = random.Random(seed)
    while True:
        # Neighbours in length, after a jitter so that batches differ from epoch to epoch.
        jittered = [i for _, i in sorted((n + rng.uniform(0, 4 * batch), i) for n, i in enumerate(order))]
        groups = [jittered[i : i + batch] for i in range(0, len(jittered), batch)]
        rng.shuffle(groups)
        for group in groups:
            mixed = [varied(traces[i]) for i in group]
            yield collate(packer, mixed, store, tokenizer.pad_token_id, end)
