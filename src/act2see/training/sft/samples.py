"""Convert traces to batches: read and measure traces, hold some out, leave some out, and collate rows.

Every trace is measured before the first step. A trace that is longer than the context, or in which the model
wrote nothing, is left out and named; no trace is truncated. `vary` can change a trace each time that it is
trained on, for instance shuffle its options. The random numbers of a variation depend on the seed, the epoch
and the trace, so that a resumed run repeats them.
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
"""A function that returns a variation of a trace."""
PATCH_CACHE_BYTES = 256 << 20
"""Size of the cache of preprocessed frames: all frames of micro, but about 50 of the 8B model."""
_TOO_LONG = "longer than the context"
_NAMED = 5  # traces that a message names


class LeftOut(Record):
    """A trace that is not trained on."""

    id: str
    tokens: int
    why: str
    """The reason."""


class Size(Record):
    """The size of one sample."""

    id: str
    tokens: int
    trainable: int
    """Number of tokens that are trained on."""
    vision: int
    """Number of vision tokens."""
    frames: int
    patches: int
    """Number of patches of all frames."""
    largest: int
    """Number of patches of the largest frame."""


@dataclass(slots=True)
class Reader:
    """A reader that converts a trace into the rollout that the reasoner reads."""

    packer: Packer
    style: str
    """The style of the prompt."""
    usages: Mapping[str, str] = field(default_factory=dict)
    """Tag -> the usage line of the tool in the prompt."""

    def rollout(self, trace: Trace) -> Rollout:
        """Return the rollout with its end of turn; its prompt lists the tools of the trace's run."""
        return render(trace, prompt_of(trace, self.style, self.usages), end_of_turn=True)

    def size(self, trace: Trace) -> Size:
        """Return the size of a trace."""
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
    """JSON of the traces that are trained on."""
    sizes: list[Size] = field(default_factory=list)
    """Size of each line."""
    held_out: list[Trace] = field(default_factory=list)
    """Traces whose questions are asked during training."""
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """A short hash of all lines, in their order."""
        digest = hashlib.blake2b(digest_size=6)
        for line in self.lines:
            digest.update(line.encode())
        return digest.hexdigest()


def read_samples(traces: Iterable[Trace], reader: Reader, settings: SftSettings, context: int) -> Samples:
    """Measure every trace, leave out those that cannot be trained on, and hold out at least `eval_samples`.

    All traces of a video are held out together, so that nothing about a held-out video is trained on. More
    than `eval_samples` traces can therefore be held out.

    Args:
        traces: The traces.
        reader: The reader that measures them.
        settings: The settings; `max_context`, `eval_samples` and `seed` are used.
        context: The context of the model, in tokens.

    Raises:
        CorpusError: No trace is left to train on.
    """
    found = Samples()
    videos: dict[str, list[int]] = {}
    max_tokens = min(settings.max_context, context)
    for trace in traces:
        size = reader.size(trace)
        if size.tokens > max_tokens:
            why = f"{_TOO_LONG} of {max_tokens} tokens"
        elif not size.trainable:
            why = "the model wrote nothing in it"
        else:
            videos.setdefault(trace.video.digest, []).append(len(found.lines))
            found.lines.append(trace.to_json())
            found.sizes.append(size)
            continue
        found.left_out.append(LeftOut(id=trace.id, tokens=size.tokens, why=why))
    for reason in describe_left_out(found.left_out, context):
        log.warning("%d traces can be trained on; %s", len(found.lines), reason)
    _hold_out(found, videos, settings)
    if not found.lines:
        reasons = "; ".join(describe_left_out(found.left_out, context))
        raise CorpusError(
            f"no trace is left to train on, {len(found.left_out)} were left out and "
            f"{len(found.held_out)} held out: give more traces, or change `max_context` or `eval_samples`"
            + (f" ({reasons})" if reasons else "")
        )
    return found


def describe_left_out(left_out: Sequence[LeftOut], context: int) -> list[str]:
    """Return a sentence for each reason for which traces are left out, with the setting that keeps them.

    Args:
        left_out: The traces.
        context: The context of the model, in tokens.
    """
    by_reason: dict[str, list[LeftOut]] = {}
    for left in left_out:
        by_reason.setdefault(left.why, []).append(left)
    sentences = []
    for why, group in by_reason.items():
        names = ", ".join(f"{left.id} ({left.tokens:,})" for left in group[:_NAMED])
        if len(group) > _NAMED:
            names += f" and {len(group) - _NAMED:,} more"
        sentence = f"{len(group):,} left out, {why}: {names}"
        if why.startswith(_TOO_LONG):
            sentence += f"; {_how_to_keep(group, context)}"
        sentences.append(sentence)
    return sentences


def _how_to_keep(too_long: Sequence[LeftOut], context: int) -> str:
    """Return how to train on traces that are too long for the run."""
    longest = max(left.tokens for left in too_long)
    if longest <= context:
        return f"`max_context: {longest}` keeps all of them, in more memory"
    return (
        f"the base takes at most {context:,} tokens, so make the traces with fewer or smaller frames "
        "(`view.max_frames`, `view.max_side`)"
    )


def _hold_out(found: Samples, videos: Mapping[str, list[int]], settings: SftSettings) -> None:
    """Move the traces of randomly drawn videos from `lines` to `held_out`, until there are `eval_samples`.

    Args:
        found: The samples, which are changed in place.
        videos: Digest of a video -> the indices of its lines.
        settings: The settings; `eval_samples` and `seed` are used.
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
    """Check that the store holds every frame, since a missing frame would end the run hours later.

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


class RolloutCollator:
    """The collator of the trainer. A row with a negative number is held out and not varied.

    Args:
        reader: The reader of the traces.
        store: The store that holds their frames.
        settings: The settings of the run.
        context: The context of the model, in tokens.
        vary: Called each time that a trace is trained on, to vary it.
    """

    def __init__(
        self, reader: Reader, store: FrameStore, settings: SftSettings, context: int, vary: Vary | None = None
    ) -> None:
        self.reader = reader
        self.store = store
        self.settings = settings
        self.vary = vary
        self.max_tokens = min(settings.max_context, context)
        self.epoch = 0
        """The current epoch, which the trainer sets."""

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        traces = [self._trace(row) for row in rows]
        packer = self.reader.packer
        rollouts = [self.reader.rollout(trace) for trace in traces]
        tokenizer = packer.codec.tokenizer
        batch = collate(packer, rollouts, self.store, tokenizer.pad_token_id, self.reader.end_of_turn)
        if self.settings.loss_on_frames:
            for i, (trace, rollout) in enumerate(zip(traces, rollouts, strict=True)):
                prompt = self.reader.rollout(trace.model_copy(update={"segments": ()}))
                start = len(packer.pack(prompt).ids)
                stop = len(packer.pack(rollout).ids)
                batch["labels"][i, start:stop] = batch["input_ids"][i, start:stop]
        return batch

    def _trace(self, row: Mapping[str, Any]) -> Trace:
        trace = Trace.from_json(row["trace"])
        if self.vary is None or row["number"] < 0:
            return trace
        rng = random.Random(f"{self.settings.seed} {self.epoch} {row['number']}")
        varied = self.vary(trace, rng)
        packed = self.reader.packer.pack(self.reader.rollout(varied))
        if len(packed.ids) > self.max_tokens:
            log.warning(
                "the variation of %s is longer than the context of %d tokens: the original is used",
                trace.id,
                self.max_tokens,
            )
            return trace
        return varied


class LengthSampler:
    """A sampler that yields every index once per epoch, in batches of similar length.

    The order depends only on the seed and the epoch. With a batch of one it is a plain shuffle.

    Args:
        lengths: The lengths of the samples.
        batch: Samples per optimiser step.
        seed: The seed of the order.
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int) -> None:
        self.batch = batch
        self.seed = seed
        self.epoch = 0
        self._by_length = sorted(range(len(lengths)), key=lambda i: lengths[i])

    def __len__(self) -> int:
        return len(self._by_length)

    def __iter__(self) -> Iterator[int]:
        rng = random.Random(f"{self.seed} {self.epoch}")
        return chain.from_iterable(similar_batches(self._by_length, self.batch, rng))


def similar_batches(by_length: Sequence[int], batch: int, rng: random.Random) -> list[list[int]]:
    """Split indices into batches of similar length, which need little padding.

    The contents of the batches, by a jitter of the ranks, and their order are random.

    Args:
        by_length: The indices, sorted by length.
        batch: Indices per batch.
        rng: The source of random numbers.
    """
    jittered = sorted((rank + rng.uniform(0, 4 * batch), i) for rank, i in enumerate(by_length))
    order = [i for _, i in jittered]
    batches = [order[start : start + batch] for start in range(0, len(order), batch)]
    rng.shuffle(batches)
    return batches
