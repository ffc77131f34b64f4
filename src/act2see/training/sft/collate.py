"""Batches for SFT: rollouts that the inference packer packs, with labels only on the model's own text.

The loss mask is the paper's. Trained on are all tokens that the model wrote, including calls with their
queries and closing tags, and the end of its turn. Masked are the prompt, the initial frames, and everything
inside `<frame>...</frame>`: vision tokens, timestamps, marks and notes.
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
    """Return right-padded inputs and labels for `Qwen3VLForConditionalGeneration`.

    Args:
        packer: The inference packer.
        rollouts: The B rollouts of the batch.
        source: The source of the frames' pixels.
        pad: The id of the padding token.
        end_of_turn: The id of the token that ends a turn.

    Returns:
        `input_ids`, `labels`, `attention_mask` and `mm_token_type_ids`, each (B, T). If there are frames,
        also the concatenated `pixel_values` (patches, values) and `image_grid_thw` (frames, 3).
    """
    import torch

    packed = [packer.pack(r) for r in rollouts]
    longest = max(len(p.ids) for p in packed)
    ids = torch.full((len(packed), longest), pad)  # (B, T)
    labels = torch.full((len(packed), longest), IGNORED)  # (B, T)
    mask = torch.zeros(len(packed), longest, dtype=torch.long)  # (B, T)
    for row, p in enumerate(packed):
        n = len(p.ids)
        ids[row, :n] = torch.tensor(p.ids)
        mask[row, :n] = 1
        trainable = torch.tensor(p.trainable)
        # The renderer adds the end of the turn, but the model must learn to write it.
        trainable[-1] |= p.ids[-1] == end_of_turn
        labels[row, :n] = torch.where(trainable, ids[row, :n], IGNORED)
    batch = {
        "input_ids": ids,
        "labels": labels,
        "attention_mask": mask,
        "mm_token_type_ids": (ids == packer.image_token_id).int(),
    }
    frames = [frame for p in packed for frame in p.images]
    if frames:
        batch["pixel_values"] = packer.patches(frames, source)
        batch["image_grid_thw"] = torch.tensor([grid for p in packed for grid in p.grids])
    return batch


@contextmanager
def equal_frames(model: Any) -> Iterator[None]:
    """Within the context, run the vision tower's attention once for all frames, instead of once per frame.

    The attention of transformers loops over the images in Python, which takes most of the time of a micro
    step. Only batches whose frames have equal sizes can skip the loop; other batches use the original method.
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
        n = hidden_states.shape[0]  # patches of all frames
        length = int(lengths[0])  # patches of one frame
        qkv = self.qkv(hidden_states).reshape(n, 3, self.num_heads, -1)  # (n, 3, heads, head_dim)
        q, k, v = qkv.unbind(1)
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
