"""A forward pass of Qwen3-VL for training that never waits for the device.

The forward of transformers reads numbers back from the device (grids, masks, lengths of attention), loops
over frames and rows in Python, and takes most of the time of a tiny model's step. Here everything that
depends on the contents of a batch is computed once, on the CPU, where the batch is made (`ready`): positions,
the places of the vision tokens and the places with labels. `last_hidden` then runs the model's own layers and
returns what transformers' forward returns.

Padding is on the right, and no other token attends to it. So there is no mask, and attention is causal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Batch = dict[str, "torch.Tensor"]
"""Tensors by their names."""
Lesson = Callable[[int], Batch]
"""Return the batch with this number. Each batch has its own seed, so that any process can make it."""

_IGNORED = -100


@dataclass(frozen=True, slots=True)
class Ready:
    """A lesson whose batches are ready for the device, so that worker processes do all of the work."""

    lesson: Lesson

    def __call__(self, number: int) -> Batch:
        return ready(self.lesson(number))


def ready(batch: Batch) -> Batch:
    """Return what `last_hidden` and the loss need of a batch of `collate`; a ready batch is unchanged.

    Returns:
        `input_ids` (B, T); `position_ids` (3, B, T); `places` (N,), the indices into B x T of the tokens that
        predict the N `targets`. If there are frames, also `pixel_values`, `image_grid_thw`, and their tokens'
        indices into B x T, `image_places`.
    """
    import torch

    if "places" in batch:
        return batch
    ids, labels = batch["input_ids"], batch["labels"]
    # A token predicts the next one, so no token predicts the first one of a row.
    following = torch.full_like(labels, _IGNORED)
    following[:, :-1] = labels[:, 1:]
    following = following.flatten()
    places = (following != _IGNORED).nonzero().squeeze(1)
    out = {"input_ids": ids, "places": places, "targets": following[places]}
    if "pixel_values" not in batch:
        positions = torch.arange(ids.shape[1]).expand(3, *ids.shape)
        return {**out, "position_ids": positions.contiguous()}
    is_image = batch["mm_token_type_ids"] == 1
    image_places = is_image.flatten().nonzero().squeeze(1)
    grids = batch["image_grid_thw"]
    return {
        **out,
        "position_ids": _positions(is_image, image_places, grids),
        "pixel_values": batch["pixel_values"],
        "image_grid_thw": grids,
        "image_places": image_places,
    }


def _merge_of(grids: torch.Tensor, tokens: int) -> int:
    """Return how many patches of a row become one token."""
    return isqrt(int(grids.prod(-1).sum()) // tokens)


def _positions(is_image: torch.Tensor, image_places: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
    """Return the positions in time, height and width (3, B, T).

    Text advances all three by one. The tokens of a frame share its time, their heights and widths count from
    there, and the text after it goes on beyond the largest of them.

    Args:
        is_image: Whether a token is one of a frame (B, T).
        image_places: The indices of those tokens.
        grids: The number of patches of each frame (frames, 3).
    """
    import torch

    merge = _merge_of(grids, len(image_places))
    rows, columns = grids[:, 1] // merge, grids[:, 2] // merge  # (frames,)
    counts = rows * columns
    frame = torch.repeat_interleave(torch.arange(len(grids)), counts)  # (tokens,): the frame of each token
    within = torch.arange(len(frame)) - (counts.cumsum(0) - counts)[frame]  # the token's number in its frame
    # A frame advances the position only by its longer side: its last token takes back the rest.
    steps = torch.ones(is_image.shape, dtype=torch.long).flatten()
    steps[image_places[within == counts[frame] - 1]] += torch.maximum(rows, columns) - counts
    steps = steps.view(is_image.shape)
    before = (steps.cumsum(1) - steps).flatten()  # (B x T): the position at which each token begins
    positions = before.expand(3, -1).clone()
    start = before[image_places] - within
    positions[0, image_places] = start
    positions[1, image_places] = start + within // columns[frame]
    positions[2, image_places] = start + within % columns[frame]
    return positions.view(3, *is_image.shape)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Copy a ready batch to a device without waiting for it. The grids stay on the CPU, which reads them."""
    if device.type == "cpu":
        return batch
    out = {}
    for name, tensor in batch.items():
        if name == "image_grid_thw":
            out[name] = tensor
            continue
        pinned = tensor if tensor.is_pinned() else tensor.pin_memory()
        out[name] = pinned.to(device, non_blocking=True)
    return out


def last_hidden(model: Any, batch: Batch) -> torch.Tensor:
    """Return the last hidden states (B, T, D) of a ready batch on the model's device.

    Args:
        model: A Qwen3-VL, as transformers loads it.
        batch: The batch; only `places` and `targets` are not used.
    """
    from torch.nn import functional as F

    text = model.model.language_model
    hidden = text.embed_tokens(batch["input_ids"])  # (B, T, D)
    deep: list[torch.Tensor] = []
    places = batch.get("image_places")
    if places is not None:
        merged, deep = see(model.model.visual, batch["pixel_values"], batch["image_grid_thw"])
        hidden = _flat(hidden).index_copy(0, places, merged.to(hidden.dtype)).view(hidden.shape)
    cos, sin = text.rotary_emb(hidden, batch["position_ids"])
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)  # (B, 1, T, head_dim)
    for number, layer in enumerate(text.layers):
        own = layer.self_attn
        x = _norm(layer.input_layernorm, hidden)
        shape = (*x.shape[:2], -1, own.head_dim)
        q = _norm(own.q_norm, own.q_proj(x).view(shape)).transpose(1, 2)  # (B, heads, T, head_dim)
        k = _norm(own.k_norm, own.k_proj(x).view(shape)).transpose(1, 2)
        v = own.v_proj(x).view(shape).transpose(1, 2)
        q, k = (_rotate(t, cos, sin).to(v.dtype) for t in (q, k))
        k, v = (t.repeat_interleave(own.num_key_value_groups, 1) for t in (k, v))
        x = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=own.scaling)
        hidden = hidden + own.o_proj(x.transpose(1, 2).reshape(*x.shape[:1], x.shape[2], -1))
        hidden = hidden + layer.mlp(_norm(layer.post_attention_layernorm, hidden))
        if number < len(deep):
            assert places is not None
            added = _flat(hidden).index_add(0, places, deep[number].to(hidden.dtype))
            hidden = added.view(hidden.shape)
    out: torch.Tensor = _norm(text.norm, hidden)
    return out


def see(visual: Any, patches: torch.Tensor, grids: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Run a vision tower on frames, in one pass for each size of frame.

    Args:
        visual: The vision tower of a Qwen3-VL.
        patches: The patches of all frames (patches, values).
        grids: The number of patches of each frame (frames, 3), on the CPU.

    Returns:
        The merged tokens of all frames (tokens, D), and as many for each layer with DeepStack.
    """
    import torch

    sizes = [(h, w) for t, h, w in grids.tolist() for _ in range(t)]
    if len(set(sizes)) == 1:
        return _see_equal(visual, patches, sizes[0])
    parts = torch.split(patches, [h * w for h, w in sizes])
    found: dict[int, list[torch.Tensor]] = {}
    for size in dict.fromkeys(sizes):
        chosen = [i for i, other in enumerate(sizes) if other == size]
        merged, deep = _see_equal(visual, torch.cat([parts[i] for i in chosen]), size)
        by_frame = [t.chunk(len(chosen)) for t in (merged, *deep)]
        for i, *tokens in zip(chosen, *by_frame, strict=True):
            found[i] = tokens
    merged, *deep = (torch.cat(tokens) for tokens in zip(*(found[i] for i in range(len(sizes))), strict=True))
    return merged, deep


def _see_equal(
    visual: Any, patches: torch.Tensor, size: tuple[int, int]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Run a vision tower on frames of equal size, `(rows, columns)` of patches."""
    import torch
    from torch.nn import functional as F

    length = size[0] * size[1]
    # The kernel of the convolution is as large as a patch, so it is a matrix product.
    proj = visual.patch_embed.proj
    hidden = F.linear(patches.to(proj.weight.dtype), proj.weight.flatten(1), proj.bias)  # (n, D)
    positions, cos, sin = _frame_positions(visual, size)
    hidden = (hidden.view(-1, length, hidden.shape[-1]) + positions).view(hidden.shape)
    layers = list(visual.deepstack_visual_indexes)
    deep: list[torch.Tensor] = [torch.empty(0)] * len(layers)
    for number, block in enumerate(visual.blocks):
        own = block.attn
        # (3, frames, heads, length, head_dim)
        qkv = (
            own.qkv(block.norm1(hidden))
            .view(-1, length, 3, own.num_heads, own.head_dim)
            .permute(2, 0, 3, 1, 4)
        )
        q, k, v = qkv.unbind(0)
        q, k = (_rotate(t, cos, sin).to(v.dtype) for t in (q, k))
        x = F.scaled_dot_product_attention(q, k, v, scale=own.scaling)
        hidden = hidden + own.proj(x.transpose(1, 2).reshape(hidden.shape))
        hidden = hidden + block.mlp(block.norm2(hidden))
        if number in layers:
            at = layers.index(number)
            deep[at] = visual.deepstack_merger_list[at](hidden)
    merged: torch.Tensor = visual.merger(hidden)
    return merged, deep


def _frame_positions(visual: Any, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the learned positions (patches, D) of one frame, and the cosine and sine of its rotations.

    Patches are in the order in which they are merged: those of one token follow each other.
    """
    import torch
    from torch.nn import functional as F

    table = visual.pos_embed.weight  # (side x side, D)
    side, merge = visual.num_grid_per_side, visual.spatial_merge_size
    rows, columns = size
    grid = table.view(1, side, side, -1).permute(0, 3, 1, 2)
    drawn = F.interpolate(grid, size, mode="bilinear", align_corners=True)[0]  # (D, rows, columns)
    blocks = (rows // merge, merge, columns // merge, merge)
    positions = drawn.view(-1, *blocks).permute(1, 3, 2, 4, 0).reshape(rows * columns, -1)
    frequencies = visual.rotary_pos_emb.inv_freq.float()
    y, x = (torch.arange(n, device=table.device) for n in size)
    places = torch.stack([y[:, None].expand(size), x.expand(size)], -1)  # (rows, columns, 2)
    places = places.view(*blocks, 2).transpose(1, 2).reshape(rows * columns, 2, 1)
    angles = (places * frequencies).flatten(1)  # (patches, head_dim / 2)
    angles = torch.cat([angles, angles], -1)
    return positions, angles.cos(), angles.sin()


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate the halves of the last dimension against each other."""
    import torch

    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def _norm(norm: Any, x: torch.Tensor) -> torch.Tensor:
    """Run a layer's RMS norm as one kernel."""
    from torch.nn import functional as F

    return F.rms_norm(x.float(), norm.weight.shape, norm.weight, norm.variance_epsilon)


def _flat(x: torch.Tensor) -> torch.Tensor:
    """Return (B, T, D) as (B x T, D)."""
    return x.reshape(-1, x.shape[-1])
