"""The whole recipe, from nothing to shipped weights: `act2see micro train`.

Stages, each with its own seed and its own folder, so that one can be made again alone:

    base       the VLM learns to see: *observe* and to name what is in view
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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from act2see.errors import ConfigError
from act2see.training.sft import Progress

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
STAGES = ("base", "encoder", "generator", "corpus", "vlm")
FULL = {"base": 360, "encoder": 800, "vae": 1500, "generator": 4000, "corpus": 1900, "vlm": 620}
QUICK = {"base": 5, "encoder": 4, "vae": 4, "generator": 4, "corpus": 8, "vlm": 4}


def train(
    out: Path, quick: bool = False, progress: Progress | None = None, stages: Sequence[str] = STAGES, seed: int = 0
) -> dict[str, float]:
    """Run `stages` into `out`; returns seconds by stage. `quick` takes a few steps of each, to see that all runs."""
    unknown = [s for s in stages if s not in STAGES]
    if unknown:
        raise ConfigError(f"there is no stage {unknown[0]!r} (known: {', '.join(STAGES)})")
    counts = QUICK if quick else FULL
    out.mkdir(parents=True, exist_ok=True)
    makers: dict[str, Callable[[], None]] = {
        "base": lambda: _base(out, counts["base"], seed, progress),
        "encoder": lambda: _encoder(out, counts["encoder"], seed, progress),
        "generator": lambda: _generator(out, counts["vae"], counts["generator"], seed, progress),
        "corpus": lambda: _corpus(out, counts["corpus"], quick),
        "vlm": lambda: _vlm(out, counts["vlm"], seed, progress),
    }
    seconds = {}
    for stage in STAGES:
        if stage in stages:
            started = time.perf_counter()
            makers[stage]()
            seconds[stage] = round(time.perf_counter() - started, 1)
            log.info("stage %s took %.0f s", stage, seconds[stage])
    halve(out)
    (out / "recipe.json").write_text(json.dumps({"seed": seed, "steps": counts, "seconds": seconds}, indent=1) + "\n")
    return seconds


def halve(folder: Path) -> None:
    """Cast every weight file below `folder` to float16, in place."""
    import torch
    from safetensors.torch import load_file, save_file

    for file in folder.rglob("*.safetensors"):
        tensors = load_file(file)
        if any(t.dtype == torch.float32 for t in tensors.values()):
            half = {k: t.half() if t.dtype == torch.float32 else t for k, t in tensors.items()}
            save_file(half, file, metadata={"format": "pt"})


def _base(out: Path, steps: int, seed: int, progress: Progress | None) -> None:
    from act2see.micro.learn_vlm import save, train_base

    model, packer = train_base(steps, seed=seed, progress=progress)
    save(model, packer, out / "base")


def _encoder(out: Path, steps: int, seed: int, progress: Progress | None) -> None:
    from act2see.micro.learn_encoder import learn

    learn(out / "encoder", steps, seed, progress)


def _generator(out: Path, vae_steps: int, steps: int, seed: int, progress: Progress | None) -> None:
    from act2see.micro.learn_generator import learn

    learn(out / "generator", vae_steps, steps, seed, progress)


def _corpus(out: Path, count: int, quick: bool) -> None:
    from act2see.micro.corpus import build_corpus, corpus_config

    folder = out / "corpus"
    shutil.rmtree(folder, ignore_errors=True)
    config = corpus_config(folder, out)
    path, dropped = build_corpus(config, count, folder, processes=1 if quick else 2)
    log.info("%d chains, dropped: %s", len(path.read_text().splitlines()), dict(dropped))


def _vlm(out: Path, steps: int, seed: int, progress: Progress | None, batch: int = 32) -> None:
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    from act2see.agent.packing import Packer
    from act2see.agent.trace import load_traces
    from act2see.micro.corpus import corpus_config
    from act2see.micro.learn_vlm import save
    from act2see.tools.store import FrameStore
    from act2see.training.sft import fit

    torch.manual_seed(seed)
    config = corpus_config(out / "corpus", out)
    store = FrameStore(str(Path(config.cache or "") / "frames"))
    packer = Packer.from_pretrained(out / "base")
    packer.cached_images = 200_000
    model: Any = Qwen3VLForConditionalGeneration.from_pretrained(out / "base", dtype=torch.float32)
    traces = list(load_traces(out / "corpus" / "traces.jsonl"))
    # First the chains without imagining, which are shorter and of which every one needs the view alone; then all.
    plain = [t for t in traces if "tipped" not in t.question.text]
    fit(model, _batches(plain, packer, store, batch, seed), steps // 3, rate=1e-3, warmup=40, name="vlm, first", progress=progress)
    fit(model, _batches(traces, packer, store, batch, seed), steps - steps // 3, rate=1e-3, warmup=40, name="vlm", progress=progress)
    save(model, packer, out / "vlm")


def _batches(traces: list[Any], packer: Any, store: Any, batch: int, seed: int) -> Iterator[dict[str, torch.Tensor]]:
    """Endless shuffled batches of traces of like length, so that little is padding; options in a new order each time."""
    from act2see.agent.prompt import Prompt
    from act2see.agent.rollout import render
    from act2see.micro.corpus import shuffle_options
    from act2see.training.collate import collate

    tokenizer = packer.codec.tokenizer
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")

    def rollout(trace: Any) -> Any:
        return render(trace, Prompt(dict.fromkeys(trace.versions.tools, ""), "short"), end_of_turn=True)

    order = sorted(range(len(traces)), key=lambda i: len(packer.pack(rollout(traces[i])).ids))
    rng = random.Random(seed)
    while True:
        # Neighbours in length, after a jitter so that batches differ from epoch to epoch.
        jittered = [i for _, i in sorted((n + rng.uniform(0, 4 * batch), i) for n, i in enumerate(order))]
        groups = [jittered[i : i + batch] for i in range(0, len(jittered), batch)]
        rng.shuffle(groups)
        for group in groups:
            mixed = [rollout(shuffle_options(traces[i], rng)) for i in group]
            yield collate(packer, mixed, lambda ref: store.get(ref.digest), tokenizer.pad_token_id, end)
