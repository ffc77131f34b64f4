"""From traces to batches: how a trace is read for training, how long it is, and what is left out.

Every trace is measured before the first step. One that is longer than the context, or in which the model
wrote nothing, is left out and named; nothing is ever cut. A trace may be varied each time it is seen (`vary`:
its options shuffled, say); the variation is drawn from the seed, the epoch and the trace, so that a resumed
run sees the same.
"""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from act2see.agent.packing import Packer
from act2see.agent.prompt import prompt_of
from act2see.agent.rollout import Rollout, render
from act2see.errors import CorpusError, StoreError
from act2see.tools.frames import Record
from act2see.tools.video.store import FrameStore
from act2see.trace.trace import Trace
from act2see.training.sft.collate import collate
from act2see.training.sft.settings import SftSettings

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
Vary = Callable[[Trace, random.Random], Trace]
PATCHES_KEPT = 256 << 20  # bytes of preprocessed frames that stay in memory; the 8B model's are 5 MB each


class LeftOut(Record):
    """A trace that is not trained on, and why."""

    id: str
    tokens: int
    why: str


class Size(Record):
    """One sample: tokens in all, those that are learnt, those that are vision tokens, frames, patches,
    patches of its largest frame."""

    id: str
    tokens: int
    learnt: int
    vision: int
    frames: int
    patches: int
    largest: int


@dataclass(slots=True)
class Reader:
    """Reads a trace as the reasoner reads it. `usages` maps tags to what the prompt says of them."""

    packer: Packer
    style: str
    usages: Mapping[str, str] = field(default_factory=dict)

    def rollout(self, trace: Trace) -> Rollout:
        """The closed rollout, with the prompt of the tools that the trace's run had."""
        return render(trace, prompt_of(trace, self.style, self.usages), end_of_turn=True)

    def size(self, trace: Trace) -> Size:
        packed = self.packer.pack(self.rollout(trace))
        patches = [rows * columns for _, rows, columns in packed.grids]
        return Size(
            id=trace.id,
            tokens=len(packed.ids),
            learnt=sum(packed.trainable) + (packed.ids[-1] == self.end_of_turn),
            vision=packed.ids.count(self.packer.image_token_id),
            frames=len(packed.images),
            patches=sum(patches),
            largest=max(patches, default=0),
        )

    @property
    def end_of_turn(self) -> int:
        return int(self.packer.codec.tokenizer.convert_tokens_to_ids("<|im_end|>"))


@dataclass(slots=True)
class Samples:
    """What is trained on, as JSON lines with their sizes; what is held out, whole; what is left out."""

    lines: list[str] = field(default_factory=list)
    sizes: list[Size] = field(default_factory=list)
    held_out: list[Trace] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """A short hash of all traces, in their order."""
        digest = hashlib.blake2b(digest_size=6)
        for line in self.lines:
            digest.update(line.encode())
        return digest.hexdigest()


def read_samples(traces: Iterable[Trace], reader: Reader, settings: SftSettings, context: int) -> Samples:
    """Measure every trace, hold out `eval_samples` of them, leave out what cannot be trained on.

    Whole videos are held out, so that nothing about a held-out video is trained on: it may be a few more than
    asked for. Raises `CorpusError` where nothing is left to train on.
    """
    found = Samples()
    videos: dict[str, list[int]] = {}
    most = min(settings.max_context, context)
    for trace in traces:
        size = reader.size(trace)
        if size.tokens > most:
            found.left_out.append(
                LeftOut(id=trace.id, tokens=size.tokens, why=f"longer than the context of {most} tokens")
            )
        elif not size.learnt:
            found.left_out.append(
                LeftOut(id=trace.id, tokens=size.tokens, why="the model wrote nothing in it")
            )
        else:
            videos.setdefault(trace.video.digest, []).append(len(found.lines))
            found.lines.append(trace.to_json())
            found.sizes.append(size)
    for one in found.left_out:
        log.warning("%s is left out: %s (it has %d tokens)", one.id, one.why, one.tokens)
    _hold_out(found, videos, settings)
    if not found.lines:
        raise CorpusError(
            f"nothing is left to train on: {len(found.left_out)} traces were left out, {len(found.held_out)} held out"
        )
    return found


def _hold_out(found: Samples, videos: Mapping[str, list[int]], settings: SftSettings) -> None:
    order = sorted(videos)
    random.Random(settings.seed).shuffle(order)
    held: set[int] = set()
    for video in order:
        if len(held) >= settings.eval_samples:
            break
        held.update(videos[video])
    found.held_out = [Trace.from_json(found.lines[i]) for i in sorted(held)]
    kept = [i for i in range(len(found.lines)) if i not in held]
    found.lines, found.sizes = [found.lines[i] for i in kept], [found.sizes[i] for i in kept]


def check_frames(samples: Samples, store: FrameStore) -> None:
    """Every frame must be there before the first step, not found missing hours later. Raises `StoreError`."""
    for line in samples.lines:
        trace = Trace.from_json(line)
        for frame in trace.shown:
            if frame.digest not in store:
                raise StoreError(
                    f"frame {frame.digest} of {trace.id} is not in {store.url}: give the store that the traces were made with"
                )


def keep_patches(packer: Packer, sizes: Sequence[Size]) -> None:
    """Bound the packer's cache by bytes: micro's frames all stay, of the 8B model's some fifty."""
    p = packer.image_processor
    each = max((s.largest for s in sizes), default=0) * 3 * p.temporal_patch_size * p.patch_size**2 * 4
    packer.cached_images = PATCHES_KEPT // each if each else 0


class RolloutCollator:
    """Rows of the data set become a batch. `epoch` is set by the trainer; rows with a negative number are
    never varied."""

    def __init__(
        self, reader: Reader, store: FrameStore, settings: SftSettings, context: int, vary: Vary | None = None
    ) -> None:
        self.reader, self.store, self.settings, self.vary = reader, store, settings, vary
        self.most = min(settings.max_context, context)
        self.epoch = 0

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        traces = [self._trace(row) for row in rows]
        packer = self.reader.packer
        rollouts = [self.reader.rollout(t) for t in traces]
        tokenizer = packer.codec.tokenizer
        batch = collate(
            packer,
            rollouts,
            self.store,
            tokenizer.pad_token_id,
            self.reader.end_of_turn,
        )
        if self.settings.loss_on_frames:
            for i, (trace, rollout) in enumerate(zip(traces, rollouts, strict=True)):
                prompt = self.reader.rollout(trace.model_copy(update={"segments": ()}))
                first, last = len(packer.pack(prompt).ids), len(packer.pack(rollout).ids)
                batch["labels"][i, first:last] = batch["input_ids"][i, first:last]
        return batch

    def _trace(self, row: Mapping[str, Any]) -> Trace:
        trace = Trace.from_json(row["trace"])
        if self.vary is None or row["number"] < 0:
            return trace
        varied = self.vary(trace, random.Random(f"{self.settings.seed} {self.epoch} {row['number']}"))
        if len(self.reader.packer.pack(self.reader.rollout(varied)).ids) > self.most:
            log.warning(
                "%s grew beyond the context of %d tokens when it was varied: it is trained on as it was",
                trace.id,
                self.most,
            )
            return trace
        return varied


class LikeLengths:
    """A sampler: every number once an epoch, neighbours alike in length, in an order that seed and epoch
    alone decide.

    Batches of like length have little padding; which samples meet in one, and the order of batches, are drawn
    anew each epoch. With a batch of one it is a plain shuffle.
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int) -> None:
        self.lengths, self.batch, self.seed, self.epoch = lengths, batch, seed, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Any:
        rng = random.Random(f"{self.seed} {self.epoch}")
        ranks = sorted(range(len(self.lengths)), key=lambda i: self.lengths[i])
        jittered = [
            i for _, i in sorted((n + rng.uniform(0, 4 * self.batch), i) for n, i in enumerate(ranks))
        ]
        groups = [jittered[i : i + self.batch] for i in range(0, len(jittered), self.batch)]
        rng.shuffle(groups)
        return iter([i for group in groups for i in group])
