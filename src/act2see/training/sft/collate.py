"""Batches for SFT: rollouts packed by the inference packer, with labels on the model's own text alone.

The loss mask is the paper's: trainable is all that the model wrote, calls with their queries and closing tags
included, and the end of its turn. Masked are the prompt, the initial frames, and everything inside
`<frame>...</frame>`: vision tokens, timestamps, marks and notes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from act2see.agent.packing import Packer
from act2see.agent.rollout import Rollout
from act2see.tools.video.store import FrameSource

if TYPE_CHECKING:
    import torch

IGNORED = -100


def collate(
    packer: Packer, rollouts: Sequence[Rollout], source: FrameSource, pad: int, end_of_turn: int
) -> dict[str, torch.Tensor]:
    """Right-padded inputs and labels for `Qwen3VLForConditionalGeneration`.

    Args:
        packer: The inference packer.
        rollouts: B of them.
        source: From a frame to its pixels.
        pad: The id of the padding token.
        end_of_turn: The id of the token that ends a turn.

    Returns:
        `input_ids`, `labels`, `attention_mask` and `mm_token_type_ids`, each (B, T); if there are frames,
        also `pixel_values` and `image_grid_thw` of all of them, one after another.
    """
    import torch

    packed = [packer.pack(r) for r in rollouts]
    longest = max(len(p.ids) for p in packed)
    ids = torch.full((len(packed), longest), pad)  # (B, T)
    labels = torch.full((len(packed), longest), IGNORED)
    mask = torch.zeros(len(packed), longest, dtype=torch.long)
    for row, p in enumerate(packed):
        n = len(p.ids)
        ids[row, :n] = torch.tensor(p.ids)
        mask[row, :n] = 1
        trainable = torch.tensor(p.trainable)
        # The renderer wrote the end of the turn, but the model must learn to write it.
        trainable[-1] |= p.ids[-1] == end_of_turn
        labels[row, :n] = torch.where(trainable, ids[row, :n], IGNORED)
    batch = {
        "input_ids": ids,
        "labels": labels,
        "attention_mask": mask,
        "mm_token_type_ids": (ids == packer.image_token_id).int(),
    }
    if frames := [f for p in packed for f in p.images]:
        batch["pixel_values"] = packer.patches(frames, source)
        batch["image_grid_thw"] = torch.tensor([g for p in packed for g in p.grids])
    return batch


@contextmanager
def equal_frames(model: Any) -> Iterator[None]:
    """Run the vision tower's attention once for all frames, not once for each.

    transformers attends to each image in a Python loop, which is most of a micro step's time. This applies to
    batches whose frames all have one size; other batches use the original.
    """
    from types import MethodType

    import torch
    from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb_vision

    def forward(
        self: Any,
        hidden_states: torch.Tensor,
        cu_seqlens: torch.Tensor,
        position_embeddings: Any = None,
        **rest: Any,
    ) -> torch.Tensor:
        lengths = cu_seqlens.diff()
        if not bool((lengths == lengths[0]).all()):
            original: torch.Tensor = type(self).forward(
                self, hidden_states, cu_seqlens, position_embeddings=position_embeddings, **rest
            )
            return original
        n, length = hidden_states.shape[0], int(lengths[0])  # patches of all frames, and of one
        q, k, v = self.qkv(hidden_states).reshape(n, 3, self.num_heads, -1).permute(1, 0, 2, 3).unbind(0)
        q, k = apply_rotary_pos_emb_vision(q, k, *position_embeddings)
        # (frames, heads, length, head_dim)
        q, k, v = (t.reshape(n // length, length, self.num_heads, -1).transpose(1, 2) for t in (q, k, v))
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=self.scaling)
        return self.proj(out.transpose(1, 2).reshape(n, -1))  # type: ignore[no-any-return]

    layers = [block.attn for block in model.model.visual.blocks]
    for layer in layers:
        layer.forward = MethodType(forward, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
