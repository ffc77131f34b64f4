"""Train the micro VLM: first to see (base), then to use its tools (SFT).

The base model learns to describe initial frames, to look up facts in the description, and to answer from it,
on boards drawn at its own resolution. It never sees a tool tag. SFT uses drawn chains (`chain_lessons`), and
traces that the real graph made with the real tools (`corpus`). Last, with wider feed-forward layers, the
model reads questions in people's words: these have far more words than the world, and are learned slowly.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from act2see.agent.packing import Packer
from act2see.micro.questions import EVERYDAY, FAMILIES, make_item, sentences
from act2see.micro.recipe.chain_lessons import (
    Chains,
    Ends,
    EvenEnds,
    Readings,
    Traces,
    render_trace,
)
from act2see.micro.recipe.learn_eyes import train_eyes
from act2see.micro.recipe.lessons import Answers, Clips, Facts, Glances
from act2see.micro.recipe.models import build_vlm, vlm_image_processor, widen_ffn
from act2see.micro.recipe.prefetch import Mix, Workers, processes_for
from act2see.micro.recipe.rehearsal import repeat_misread
from act2see.micro.recipe.tokenizers import qwen_tokenizer
from act2see.micro.wordings import Wordings, load_wordings
from act2see.tools.video.store import FrameStore
from act2see.trace.trace import Trace
from act2see.training.sft.forward import Lesson, Ready
from act2see.training.sft.loop import Progress, fit

if TYPE_CHECKING:
    from transformers import Qwen3VLForConditionalGeneration


VOCABULARY = 1500
"""Tokens of the VLM. The world has some 250 words; the others are parts of people's words."""
_LINES_IN_VOCABULARY = 6000
FFN = 768
"""Units of each feed-forward layer of the shipped VLM; the base has half as many."""
_KEPT = 0.15
"""The weight of the model before `train_words` in the mean with the one after it. Without it, the model
forgets colours of shapes that it was not trained on: 72 of 80 questions about held-out pairs were right, 74
with this mean, 75 with 0.3, which forgot new chains instead (11 of 16 about boards tipped again; here 23 of
24).
"""


def vocabulary_texts() -> Iterator[str]:
    """Yield the texts that the VLM's tokenizer is trained on: the world's sentences, and people's lines."""
    yield from sentences()
    rng = random.Random(0)
    wordings = load_wordings()
    families = (*FAMILIES, *EVERYDAY)
    for i in range(_LINES_IN_VOCABULARY):
        yield wordings.reword(make_item(families[i % len(families)], i), rng).text


def train_base(
    steps: int = 3200,
    answers: int = 490,
    batch: int = 32,
    seed: int = 0,
    progress: Progress | None = None,
    device: str = "cpu",
) -> tuple[Qwen3VLForConditionalGeneration, Packer]:
    """Train the base model from random weights.

    Args:
        steps: The number of steps of all lessons before answering.
        answers: The number of further steps, of answering.
        batch: The number of rollouts of whole clips in a step; there are more of shorter ones and of boards.
        seed: The seed of weights and data.
        progress: Called every 25 steps.
        device: The device to train on.

    Returns:
        The model and its packer.
    """
    import torch

    torch.manual_seed(seed)
    tokenizer = qwen_tokenizer(vocabulary_texts(), VOCABULARY)
    model: Any = build_vlm(tokenizer).to(device)
    packer = Packer(tokenizer, vlm_image_processor(), model.config.image_token_id, cache_bytes=128 << 20)
    part = steps // 16
    more = batch * 3 // 2

    with Workers(processes_for(device), pin=device == "cuda") as workers:

        def learn(name: str, lesson: Lesson, steps: int, warmup: int = 20) -> None:
            batches = workers.batches(Ready(lesson), steps)
            fit(model, batches, steps, rate=1e-3, warmup=warmup, name=name, progress=progress)

        train_eyes(model, packer, 2 * part, 3 * batch, seed=seed, progress=progress, workers=workers)
        # First single frames, with many in a step, then short clips, then whole ones. At twice this learning
        # rate the model does not learn to see at all.
        learn("frames", Glances(packer, more, seed), 2 * part, warmup=60)
        short = Clips(packer, batch, seed + 1, (2, 5), busy=1.0)
        learn("short clips", short, 2 * part)
        whole = Clips(packer, batch, seed + 2)
        learn("clips", Mix([whole] * 7 + [Glances(packer, more, seed + 2)]), 2 * part)
        # A place is the hardest thing to look up, since it comes before its shape: after 400 mixed steps it
        # is at chance. Its own lesson stays at chance for 550 steps, and is then learnt within 50.
        learn("recall", Facts(packer, more, seed + 5, (1, 2), with_events=False), 3 * part)
        few = Facts(packer, batch, seed + 3, (1, 3))
        many = Facts(packer, batch, seed + 4, (4, 8))
        # Clips stay in the mix, because the model soon forgets how to see when it is trained on text alone.
        learn("facts", Mix((few, many, few, many, whole)), steps - 11 * part)
        # Last, to answer from the view. The model learns this fast on text alone, but does not transfer it to
        # frames.
        text = Answers(packer, batch, seed + 6, shown=False)
        shown = Answers(packer, batch, seed + 7)
        learn("answers", Mix((text, shown, few, whole, text, shown, many)), answers)
    return model, packer


def train_sft(
    base: Path,
    traces: Sequence[Trace],
    store: FrameStore,
    steps: int,
    batch: int = 32,
    seed: int = 0,
    progress: Progress | None = None,
    device: str = "cpu",
) -> tuple[Qwen3VLForConditionalGeneration, Packer]:
    """Fine-tune the base model on traces.

    Args:
        base: The folder of the base model.
        traces: The traces of the corpus.
        store: The store of their frames.
        steps: The number of steps.
        batch: The number of traces in a step.
        seed: The seed of the data.
        progress: Called every 25 steps.
        device: The device to train on.

    Returns:
        The model and its packer.
    """
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    torch.manual_seed(seed)
    packer = Packer.from_pretrained(base)
    packer.cache_bytes = 256 << 20
    model: Any = Qwen3VLForConditionalGeneration.from_pretrained(base, dtype=torch.float32).to(device)
    model.model.visual.requires_grad_(False)
    lesson = sft_lesson(packer, traces, store, batch, seed)
    with Workers(processes_for(device), pin=device == "cuda") as workers:
        batches = workers.batches(Ready(lesson), steps)
        fit(model, batches, steps, rate=1e-3, warmup=40, name="vlm", progress=progress)
    return model, packer


def train_words(
    model: Qwen3VLForConditionalGeneration,
    packer: Packer,
    steps: int,
    batch: int = 128,
    seed: int = 0,
    progress: Progress | None = None,
    lines: int | None = None,
) -> None:
    """Go on with SFT in place: a third of the steps are readings, the others train what follows them.

    In the middle, all lines are read, and the misread ones come more often from there on (`rehearsal`). The
    result is the mean of the model before and after, in which the model after it counts more.

    Args:
        model: The fine-tuned model, on the device to train on.
        packer: Its packer.
        steps: The number of steps.
        batch: The number of questions in a step.
        seed: The seed of the data.
        progress: Called every 25 steps.
        lines: The number of lines that are read in the middle; all by default.
    """
    import torch

    widen_ffn(model, FFN)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    wordings = load_wordings()
    with Workers(processes_for(model.device.type), pin=model.device.type == "cuda") as workers:
        for part, first in enumerate(range(0, steps, (steps + 1) // 2)):
            count = min((steps + 1) // 2, steps - first)
            if part:
                wordings = repeat_misread(model, packer, wordings, seed, lines)
            lesson = words_lesson(packer, wordings, batch, seed + 10 * part)
            batches = workers.batches(Ready(lesson), count)
            fit(model, batches, count, rate=8e-4, warmup=60, name="words", progress=progress)
    with torch.no_grad():
        torch._foreach_lerp_(list(model.parameters()), before, _KEPT)


def words_lesson(packer: Packer, wordings: Wordings, batch: int, seed: int) -> Lesson:
    """Return the mix of lessons of `train_words`.

    Args:
        packer: The inference packer.
        wordings: The lines in people's words.
        batch: The number of questions in a step of readings; the other lessons have fewer rollouts.
        seed: The seed of the data.
    """
    reading = Readings(packer, batch, seed, wordings=wordings)
    chains, ends = Chains(packer, max(1, batch // 10), seed), Ends(packer, max(1, batch // 6), seed)
    even = EvenEnds(packer, max(1, batch // 5), seed + 1)
    few, many = Facts(packer, max(1, batch // 4), seed, (1, 2)), Facts(packer, max(1, batch // 8), seed + 1)
    clips = Clips(packer, max(1, batch // 10), seed)
    # The base model's lessons stay in the mix: with readings alone it forgets colours of shapes.
    others = (chains, even, few, even, chains, even, ends, even, many, chains, even, clips)
    pairs = [others[i : i + 2] for i in range(0, len(others), 2)]
    return Mix([lesson for pair in pairs for lesson in (*pair, reading)])


def sft_lesson(packer: Packer, traces: Sequence[Trace], store: FrameStore, batch: int, seed: int) -> Lesson:
    """Return the mix of lessons of SFT.

    Args:
        packer: The inference packer.
        traces: The traces of the corpus.
        store: The store of their frames.
        batch: The number of rollouts in a batch; four times as many in the lesson of readings.
        seed: The seed of the data.
    """
    by_length = sorted(traces, key=lambda trace: len(packer.pack(render_trace(trace)).ids))
    real = Traces(packer, batch, seed, by_length, store)
    chains = Chains(packer, batch, seed + 1)
    ends = Ends(packer, batch, seed + 2)
    reading = Readings(packer, 4 * batch, seed + 3)
    observing = Clips(packer, batch, seed + 4)
    recalling = Facts(packer, batch, seed + 5)
    # The base model's lessons stay in the mix, so that it does not forget them.
    return Mix((chains, ends, reading, real, ends, chains, observing, reading, ends, chains, recalling))


def save(model: Qwen3VLForConditionalGeneration, packer: Packer, folder: Path) -> None:
    """Save a model with its tokenizer and image processor in an ordinary folder."""
    model.save_pretrained(folder, safe_serialization=True)
    packer.codec.tokenizer.save_pretrained(folder)
    packer.image_processor.save_pretrained(folder)
