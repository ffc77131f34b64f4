"""Split a batch into parts of similar length, so that padding takes no time.

A row's length is that of what its loss depends on: nothing after its last target counts. In micro's lessons
the longest row is nearly twice as long as the mean. A step over the parts has the gradient of the whole batch
and, on a CPU, half the time (`benchmarks/lengths.py`). On a GPU the whole batch is faster, since a micro step
is bound by the launches of its kernels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from act2see.training.sft.forward import Batch

if TYPE_CHECKING:
    import torch

PARTS = 6
"""The number of parts of a batch on a CPU."""


def split_by_length(batch: Batch, parts: int = PARTS) -> list[Batch]:
    """Return the rows of a ready batch, the shortest first, in up to `parts` ready batches without padding.

    Args:
        batch: A batch of `ready`.
        parts: The number of parts.

    Returns:
        The parts. Together they have the targets of the batch.
    """
    import torch

    rows, width = batch["input_ids"].shape
    lengths = _lengths(batch, rows, width)
    order = lengths.argsort(stable=True)
    groups = [chosen for chosen in torch.tensor_split(order, parts) if len(chosen)]
    return [_take(batch, chosen, int(lengths[chosen].max())) for chosen in groups]


def _lengths(batch: Batch, rows: int, width: int) -> torch.Tensor:
    """Return the length of each row up to its last target or frame (B,)."""
    import torch

    used = batch["places"]
    if "image_places" in batch:
        used = torch.cat([used, batch["image_places"]])
    lengths = torch.ones(rows, dtype=torch.long)
    return lengths.scatter_reduce(0, used // width, used % width + 1, "amax")


def _take(batch: Batch, chosen: torch.Tensor, length: int) -> Batch:
    """Return some rows of a batch, cut to a length."""
    import torch

    rows, width = batch["input_ids"].shape
    row_of = torch.full((rows,), -1)  # the new number of each row
    row_of[chosen] = torch.arange(len(chosen))

    def move(places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return which places are in the chosen rows, and where these are now."""
        row = row_of[places // width]
        kept = row >= 0
        return kept, row[kept] * length + places[kept] % width

    kept, places = move(batch["places"])
    part = {
        "input_ids": batch["input_ids"][chosen, :length],
        "position_ids": batch["position_ids"][:, chosen, :length],
        "places": places,
        "targets": batch["targets"][kept],
    }
    if "image_places" not in batch:
        return part
    # The frames stay in the order of the batch, and so do their tokens.
    kept, part["image_places"] = move(batch["image_places"])
    grids = batch["image_grid_thw"]
    patches = grids.prod(1)  # of each frame
    merge = int(patches.sum()) // len(kept)  # patches that become one token
    first = (patches.cumsum(0) - patches) // merge
    frames = kept[first]
    part["image_grid_thw"] = grids[frames]
    part["pixel_values"] = batch["pixel_values"][torch.repeat_interleave(frames, patches)]
    if not frames.any():
        for name in ("image_places", "image_grid_thw", "pixel_values"):
            del part[name]
    return part
