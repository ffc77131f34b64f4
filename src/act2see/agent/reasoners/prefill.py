"""Read (prefill) the new part of a rollout into its row of the cache, in one forward or in several.

The caller says how many tokens a forward may read, so that others can decode between two forwards. If memory
does not allow that many, they are read in two halves, and each half in halves again. A frame is never cut,
since its pixels and its tokens belong to one forward. Positions are those of the whole rollout, so the parts
write the same keys and values as one forward would.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from act2see.agent.packing import Packed, Packer
from act2see.agent.parser import StopReason
from act2see.agent.reasoners.base import Done
from act2see.agent.reasoners.jobs import Job
from act2see.agent.reasoners.kv import RowCache
from act2see.tools.runtime.memory import out_of_memory, release
from act2see.tools.video.store import FrameSource

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
Span = tuple[int, int]
"""The index of a frame's first vision token, and the index after its last."""


def frame_spans(packed: Packed, merge: int) -> list[Span]:
    """Return the span of each frame's vision tokens; `merge` x `merge` patches become one token."""
    spans = []
    for first, (_, rows, columns) in zip(packed.starts, packed.grids, strict=True):
        spans.append((first, first + rows * columns // merge**2))
    return spans


def count_known_tokens(known: Sequence[int], keys: Sequence[int], spans: Sequence[Span]) -> int:
    """Return how many leading tokens of a rollout are in the cache already.

    At least the last token is read again, since its logits are needed, and a frame is read as a whole or not
    at all.

    Args:
        known: The keys (`Packed.keys`) of the tokens in the cache.
        keys: The keys of the rollout.
        spans: The spans of the rollout's frames.
    """
    count = 0
    for old, new in zip(known, keys[:-1], strict=False):
        if old != new:
            break
        count += 1
    for first, stop in spans:
        if first < count < stop:
            return first
    return count


@dataclass(frozen=True, slots=True)
class _Inputs:
    """The tensors of a whole rollout. Each forward reads a part of them."""

    ids: torch.Tensor
    """The token ids, `(1, tokens)`."""
    grids: torch.Tensor
    """The number of patches of each frame in time, height and width, `(frames, 3)`."""
    positions: torch.Tensor
    """The M-RoPE positions, `(3, 1, tokens)`."""
    spans: list[Span]


@dataclass(slots=True)
class Prefill:
    """Reads one rollout into one row of the cache, and counts what it reads in `job.done`."""

    model: Any
    """A Qwen3-VL model of transformers."""
    cache: RowCache
    packer: Packer
    """The model's packer."""
    frames: FrameSource
    """Returns the pixels of a frame."""
    job: Job
    """The rollout's job."""
    packed: Packed
    """The rollout."""
    known: Sequence[int]
    """The keys of the tokens that are in the row: those that begin the rollout too are not read again."""
    done: int = field(init=False)
    """The number of the rollout's tokens that are in the row."""
    device: Any = field(init=False)
    """The torch device of the model."""
    keys: list[int] = field(init=False)
    """The rollout's tokens as keys (`Packed.keys`)."""
    next_position: int = field(init=False)
    """The position of the token after the rollout."""
    _inputs: _Inputs = field(init=False)
    _row: int = field(init=False)

    def __post_init__(self) -> None:
        import torch

        self.keys = self.packed.keys()
        spans = frame_spans(self.packed, self.packer.merge)
        self.done = count_known_tokens(self.known, self.keys, spans)
        new = len(self.keys) - self.done
        repeated = max(0, min(len(self.known), len(self.keys)) - self.done)
        self.job.done = Done(StopReason.EOS, prefilled=new, cached=self.done, repeated=repeated)
        self.device = device = next(self.model.parameters()).device
        ids = torch.tensor([self.packed.ids], device=device)  # (1, tokens)
        types = (ids == self.packer.image_token_id).int()
        grids = torch.tensor(self.packed.grids, device=device).reshape(-1, 3)  # (frames, 3)
        # Positions (time, height, width) are those of the whole rollout: (3, 1, tokens).
        positions, _ = self.model.model.get_rope_index(ids, types, grids if len(grids) else None)
        self.next_position = int(positions.max()) + 1
        self._inputs = _Inputs(ids, grids, positions, spans)

    def advance(self, row: int, most: int | None = None) -> torch.Tensor | None:
        """Read the next tokens.

        Args:
            row: The row of the cache to write. Between two calls its content may be moved to another row.
            most: The most tokens to read, but at least one frame; None for all.

        Returns:
            The logits of the rollout's last token, `(vocabulary,)`; None if tokens are left.
        """
        self._row = row
        total = len(self.packed.ids)
        self.cache.reserve(total)  # at once: it would grow, and be copied, again and again
        stop = total if most is None else find_stop(self.done, most, total, self._inputs.spans)
        logits = self._read_range(self._inputs, self.done, stop)
        self.done = stop
        return logits if stop == total else None

    def _read_range(self, inputs: _Inputs, first: int, stop: int) -> torch.Tensor:
        """Read tokens `first` to `stop`, in halves if memory runs out. Return the last token's logits."""
        try:
            return self._forward(inputs, first, stop)
        except Exception as e:
            if not out_of_memory(e) or (cut := find_cut(first, stop, inputs.spans)) is None:
                raise
        # Outside the `except`: the error's traceback would keep the tensors of the failed forward alive.
        release()
        sizes = stop - first, cut - first, stop - cut
        log.warning("out of memory reading %d tokens at once; reading %d, then %d", *sizes)
        self._read_range(inputs, first, cut)
        return self._read_range(inputs, cut, stop)

    def _forward(self, inputs: _Inputs, first: int, stop: int) -> torch.Tensor:
        """Read tokens `first` to `stop` in one forward. Return the last token's logits, `(vocabulary,)`."""
        import torch

        device = inputs.ids.device
        frames = [i for i, (begin, _) in enumerate(inputs.spans) if first <= begin < stop]
        vision: dict[str, Any] = {}
        if frames:
            images = [self.packed.images[i] for i in frames]
            vision["pixel_values"] = self.packer.patches(images, self.frames, self.job.patches).to(device)
            vision["image_grid_thw"] = inputs.grids[frames]
        self.cache.aim(self._row, [first], stop - first)
        # Token `first + i` sees all tokens up to itself.
        mask = torch.ones(stop - first, stop, dtype=torch.bool, device=device).tril(first)
        out = self.model(
            input_ids=inputs.ids[:, first:stop],
            position_ids=inputs.positions[:, :, first:stop],
            attention_mask=mask[None, None],  # (1, 1, new, so far)
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
            **vision,
        )
        return out.logits[0, -1]  # type: ignore[no-any-return]


def find_stop(first: int, most: int, total: int, spans: Sequence[Span]) -> int:
    """Return where a forward from token `first` on ends: after `most` tokens at most, but never in a frame.

    A frame of more than `most` tokens is read as a whole.
    """
    stop = min(first + most, total)
    for begin, end in spans:
        if begin < stop < end:
            return begin if begin > first else end
    return stop


def find_cut(first: int, stop: int, spans: Sequence[Span]) -> int | None:
    """Return where to cut tokens `first` to `stop` in two: near the middle, and not inside a frame.

    Returns:
        The index of the second part's first token; None if the tokens cannot be cut.
    """
    middle = (first + stop) // 2
    for begin, end in spans:
        if begin < middle < end:
            middle = begin if begin > first else end
    return middle if first < middle < stop else None
