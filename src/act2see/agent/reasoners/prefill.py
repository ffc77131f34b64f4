"""Read (prefill) what is new of a rollout into its row of the cache: in one forward where memory allows it.

Where it does not, in two halves, and those in halves again; a frame is never cut, since its pixels and its
tokens belong to one forward. Positions are those of the whole rollout, so the halves write what the whole
would have written.
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
    """The logits of the last token, and the position of the next. Tokens before `start` are in the row
    already.

    `patches` gives the pixel values of the frames with these numbers; `image` is the id of their token.
    """
    import torch

    device = next(model.parameters()).device
    ids = torch.tensor([packed.ids], device=device)
    types = (ids == image).int()
    grids = torch.tensor(packed.grids, device=device).reshape(-1, 3)
    positions, _ = model.model.get_rope_index(ids, types, grids if len(grids) else None)
    spans = [
        (first, first + grid[1] * grid[2] // merge**2)
        for first, grid in zip(packed.starts, packed.grids, strict=True)
    ]

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
            attention_mask=mask,
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
        log.warning(
            "out of memory reading %d tokens at once; reading %d, then %d",
            stop - first,
            cut - first,
            stop - cut,
        )
        read(first, cut)
        return read(cut, stop)

    return read(start, len(packed.ids)), int(positions.max()) + 1


def between(first: int, stop: int, spans: Sequence[tuple[int, int]]) -> int | None:
    """Where to cut in two, near the middle and in no frame; None where there is no such place."""
    middle = (first + stop) // 2
    for begin, end in spans:
        if begin < middle < end:
            middle = begin if begin > first else end
    return middle if first < middle < stop else None
