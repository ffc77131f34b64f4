"""Read (prefill) the new part of a rollout into its row of the cache, in one forward if memory allows it.

If memory does not allow it, the part is read in two halves, and each half in halves again. A frame is never
cut, since its pixels and its tokens belong to one forward. Positions are those of the whole rollout, so the
halves write the same keys and values as one forward would.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from act2see.agent.packing import Packed
from act2see.agent.reasoners.kv import RowCache
from act2see.tools.runtime.memory import out_of_memory, release

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
    """Reads one rollout into one row of the cache."""

    model: Any
    """A Qwen3-VL model of transformers."""
    cache: RowCache
    row: int
    """The row of the cache to write."""
    packed: Packed
    """The rollout."""
    image: int
    """The id of a vision token."""
    merge: int
    """`merge` x `merge` patches become one token."""
    patches: Callable[[Sequence[int]], Any]
    """Returns the pixel values of the frames with these indices."""

    def read(self, start: int) -> tuple[torch.Tensor, int]:
        """Read the rollout from token `start` on; the tokens before it are in the row already.

        Returns:
            The logits of the last token, `(vocabulary,)`, and the position of the next token.
        """
        import torch

        device = next(self.model.parameters()).device
        ids = torch.tensor([self.packed.ids], device=device)  # (1, tokens)
        types = (ids == self.image).int()
        grids = torch.tensor(self.packed.grids, device=device).reshape(-1, 3)  # (frames, 3)
        # Positions (time, height, width) are those of the whole rollout: (3, 1, tokens).
        positions, _ = self.model.model.get_rope_index(ids, types, grids if len(grids) else None)
        spans = frame_spans(self.packed, self.merge)
        logits = self._read_range(_Inputs(ids, grids, positions, spans), start, len(self.packed.ids))
        return logits, int(positions.max()) + 1

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
            vision["pixel_values"] = self.patches(frames).to(device)
            vision["image_grid_thw"] = inputs.grids[frames]
        self.cache.aim(self.row, [first], stop - first)
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
