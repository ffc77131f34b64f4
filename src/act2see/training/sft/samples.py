"""From traces to batches: how a trace is read for training, how long it is, and what is left out.

Every trace is measured before the first step. A trace that is longer than the context, or in which the model
wrote nothing, is left out and named; none is ever cut. A trace may be varied each time it is trained on
(`vary`: its options shuffled, say). The variation is drawn from the seed, the epoch and the trace, so that a
resumed run sees the same.
"""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
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
PATCH_CACHE_BYTES = 256 << 20
"""Preprocessed frames that stay in memory; those of the 8B model have 5 MB each."""


class LeftOut(Record):
    """A trace that is not trained on."""

    id: str
    tokens: int
    why: str


class Size(Record):
    """The size of one sample."""

    id: str
    tokens: int
    trainable: int
    """Tokens that are trained on."""
    vision: int
    """Vision tokens."""
    frames: int
    patches: int
    """Of all frames."""
    largest: int
    """Patches of the largest frame."""


@dataclass(slots=True)
class Reader:
    """Reads a trace as the reasoner reads it."""

    packer: Packer
    style: str
    """The prompt's."""
    usages: Mapping[str, str] = field(default_factory=dict)
    """By tag: what the prompt says of a tool."""

    def rollout(self, trace: Trace) -> Rollout:
        """The rollout with its end of turn, and with the prompt of the tools that the trace's run had."""
        return render(trace, prompt_of(trace, self.style, self.usages), end_of_turn=True)

    def size(self, trace: Trace) -> Size:
        packed = self.packer.pack(self.rollout(trace))
        patches = [rows * columns for _, rows, columns in packed.grids]
        return Size(
            id=trace.id,
            tokens=len(packed.ids),
            trainable=sum(packed.trainable) + (packed.ids[-1] == self.end_of_turn),
            vision=packed.ids.count(self.packer.image_token_id),
            frames=len(packed.images),
            patches=sum(patches),
            largest=max(patches, default=0),
        )

    @property
    def end_of_turn(self) -> int:
        """The id of the token that ends a turn."""
        return int(self.packer.codec.tokenizer.convert_tokens_to_ids("<|im_end|>"))


@dataclass(slots=True)
class Samples:
    """The traces of a run."""

    lines: list[str] = field(default_factory=list)
    """Those that are trained on, as JSON."""
    sizes: list[Size] = field(default_factory=list)
    """Of each line."""
    held_out: list[Trace] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """A short hash of all lines, in their order."""
        digest = hashlib.blake2b(digest_size=6)
        for line in self.lines:
            digest.update(line.encode())
        return digest.hexdigest()


def read_samples(traces: Iterable[Trace], reader: Reader, settings: SftSettings, context: int) -> Samples:
    """Measure every trace, hold out `eval_samples` of them, leave out what cannot be trained on.

    Whole videos are held out, so that nothing about a held-out video is trained on. So more traces may be
    held out than `eval_samples`.

    Args:
        traces: The traces.
        reader: Measures them.
        settings: `max_context`, `eval_samples` and the seed are used.
        context: The model's, in tokens.

    Raises:
        CorpusError: Nothing is left to train on.
    """
    found = Samples()
    videos: dict[str, list[int]] = {}
    max_tokens = min(settings.max_context, context)
    for trace in traces:
        size = reader.size(trace)
        if size.tokens > max_tokens:
            why = f"longer than the context of {max_tokens} tokens"
        elif not size.trainable:
            why = "the model wrote nothing in it"
        else:
            videos.setdefault(trace.video.digest, []).append(len(found.lines))
            found.lines.append(trace.to_json())
            found.sizes.append(size)
            continue
        found.left_out.append(LeftOut(id=trace.id, tokens=size.tokens, why=why))
    for left in found.left_out:
        log.warning("%s is left out: %s (it has %d tokens)", left.id, left.why, left.tokens)
    _hold_out(found, videos, settings)
    if not found.lines:
        raise CorpusError(
            f"nothing is left to train on: {len(found.left_out)} traces were left out, "
            f"{len(found.held_out)} held out"
        )
    return found


def _hold_out(found: Samples, videos: Mapping[str, list[int]], settings: SftSettings) -> None:
    """Move the traces of enough videos, drawn at random, from `lines` to `held_out`.

    Args:
        found: Changed in place.
        videos: By video: the indices of its lines.
        settings: `eval_samples` and the seed are used.
    """
    order = sorted(videos)
    random.Random(settings.seed).shuffle(order)
    held: set[int] = set()
    for video in order:
        if len(held) >= settings.eval_samples:
            break
        held.update(videos[video])
    found.held_out = [Trace.from_json(found.lines[i]) for i in sorted(held)]
    kept = [i for i in range(len(found.lines)) if i not in held]
    found.lines = [found.lines[i] for i in kept]
    found.sizes = [found.sizes[i] for i in kept]


def check_frames(samples: Samples, store: FrameStore) -> None:
    """Check that every frame is there: a missing one would end the run hours later.

    Raises:
        StoreError: A frame is missing.
    """
    for line in samples.lines:
        trace = Trace.from_json(line)
        for frame in trace.shown:
            if frame.digest not in store:
                raise StoreError(
                    f"frame {frame.digest} of {trace.id} is not in {store.url}: "
                    "give the store that the traces were made with"
                )


def bound_patch_cache(packer: Packer, sizes: Sequence[Size]) -> None:
    """Bound the packer's cache by bytes: all of micro's frames stay in it, some fifty of the 8B model's."""
    processor = packer.image_processor
    patch_bytes = 3 * processor.temporal_patch_size * processor.patch_size**2 * 4  # RGB, float32
    frame_bytes = max((size.largest for size in sizes), default=0) * patch_bytes
    packer.cached_images = PATCH_CACHE_BYTES // frame_bytes if frame_bytes else 0


class RolloutCollator:
    """Turns rows of the data set into a batch. Rows with a negative number are held out and never varied.

    Args:
        reader: Reads the traces.
        store: Where their frames are.
        settings: Those of the run.
        context: The model's, in tokens.
        vary: Changes a trace each time that it is trained on.
    """

    def __init__(
        self, reader: Reader, store: FrameStore, settings: SftSettings, context: int, vary: Vary | None = None
    ) -> None:
        self.reader, self.store, self.settings, self.vary = reader, store, settings, vary
        self.max_tokens = min(settings.max_context, context)
        self.epoch = 0
        """Set by the trainer."""

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        traces = [self._trace(row) for row in rows]
        packer = self.reader.packer
        rollouts = [self.reader.rollout(trace) for trace in traces]
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
        if len(self.reader.packer.pack(self.reader.rollout(varied)).ids) > self.max_tokens:
            log.warning(
                "%s became longer than the context of %d tokens when it was varied: "
                "it is trained on unvaried",
                trace.id,
                self.max_tokens,
            )
            return trace
        return varied


class LengthSampler:
    """A sampler: every index once an epoch, in batches of similar length, in an order that the seed and the
    epoch alone decide. With a batch of one it is a plain shuffle.

    Args:
        lengths: Of the samples.
        batch: Samples of one optimiser step.
        seed: Of the order.
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int) -> None:
        self.batch, self.seed, self.epoch = batch, seed, 0
        self._by_length = sorted(range(len(lengths)), key=lambda i: lengths[i])

    def __len__(self) -> int:
        return len(self._by_length)

    def __iter__(self) -> Iterator[int]:
        rng = random.Random(f"{self.seed} {self.epoch}")
        return chain.from_iterable(similar_batches(self._by_length, self.batch, rng))


def similar_batches(by_length: Sequence[int], batch: int, rng: random.Random) -> list[list[int]]:
    """Cut indices, sorted by length, into batches of similar length, so that little is padding.

    Which samples meet in a batch (by a jitter of their places) and the order of the batches are random.
    """
    jittered = sorted((place + rng.uniform(0, 4 * batch), i) for place, i in enumerate(by_length))
    order = [i for _, i in jittered]
    batches = [order[start : start + batch] for start in range(0, len(order), batch)]
    rng.shuffle(batches)
    return batches
