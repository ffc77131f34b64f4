"""Read (prefill) the new part of a rollout into its row of the cache, in one forward if memory allows it.

If it does not, the part is read in two halves, and those in halves again. A frame is never cut, since its
pixels and its tokens belong to one forward. Positions are those of the whole rollout, so the halves write
what the whole would have written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from act2see.agent.packing import Packed
from act2see.agent.reasoners.kv import RowCache
from act2see.tools.runtime.memory import out_of_memory, release

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
Span = tuple[int, int]
"""The first vision token of a frame, and the token after its last."""


def frame_spans(packed: Packed, merge: int) -> list[Span]:
    """Where the vision tokens of each frame stand; `merge` x `merge` patches become one token."""
    return [
        (first, first + rows * columns // merge**2)
        for first, (_, rows, columns) in zip(packed.starts, packed.grids, strict=True)
    ]


def known_tokens(known: Sequence[int], keys: Sequence[int], spans: Sequence[Span]) -> int:
    """How many leading tokens of a rollout need not be read again.

    At least its last token is read, for its logits, and a frame is read as a whole or not at all.

    Args:
        known: The keys (`Packed.keys`) of the tokens in the cache.
        keys: Those of the rollout.
        spans: The rollout's frames.
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


def prefill(
    model: Any,
    cache: RowCache,
    row: int,
    packed: Packed,
    start: int,
    *,
    image: int,
    merge: int,
    patches: Callable[[Sequence[int]], Any],
) -> tuple[torch.Tensor, int]:
    """Read a rollout from token `start` on.

    Args:
        model: A Qwen3-VL model of transformers.
        cache: The cache to write.
        row: The row of it.
        packed: The rollout.
        start: The first token to read; those before it are in the row already.
        image: The id of a vision token.
        merge: `merge` x `merge` patches become one token.
        patches: Gives the pixel values of the frames with these numbers.

    Returns:
        The logits of the last token, `(vocabulary,)`, and the position of the next one.
    """
    import torch

    device = next(model.parameters()).device
    ids = torch.tensor([packed.ids], device=device)  # (1, tokens)
    types = (ids == image).int()
    grids = torch.tensor(packed.grids, device=device).reshape(-1, 3)  # (frames, 3)
    positions, _ = model.model.get_rope_index(ids, types, grids if len(grids) else None)  # (3, 1, tokens)
    spans = frame_spans(packed, merge)

    def forward(first: int, stop: int) -> torch.Tensor:
        new = [i for i, (begin, _) in enumerate(spans) if first <= begin < stop]
        vision: dict[str, Any] = {}
        if new:
            vision["pixel_values"] = patches(new).to(device)
            vision["image_grid_thw"] = grids[new]
        cache.aim(row, [first], stop - first)
        mask = torch.ones(stop - first, stop, dtype=torch.bool, device=device).tril(first)[None, None]
        out = model(
            input_ids=ids[:, first:stop],
            position_ids=positions[:, :, first:stop],
            attention_mask=mask,  # (1, 1, new, so far)
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
            **vision,
        )
        return out.logits[0, -1]  # type: ignore[no-any-return]

    def read(first: int, stop: int) -> torch.Tensor:
        try:
            return forward(first, stop)
        except Exception as e:
            if not out_of_memory(e) or (cut := between(first, stop, spans)) is None:
                raise
        release()
        sizes = stop - first, cut - first, stop - cut
        log.warning("out of memory reading %d tokens at once; reading %d, then %d", *sizes)
        read(first, cut)
        return read(cut, stop)

    return read(start, len(packed.ids)), int(positions.max()) + 1


def between(first: int, stop: int, spans: Sequence[Span]) -> int | None:
    """Where to cut tokens `first` to `stop` in two: near the middle, and in no frame. None if that is
    impossible."""
    middle = (first + stop) // 2
    for begin, end in spans:
        if begin < middle < end:
            middle = begin if begin > first else end
    return middle if first < middle < stop else None
