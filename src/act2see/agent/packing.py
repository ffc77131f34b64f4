"""From rollout to tensors: token ids, the places of vision tokens, patches, and which tokens are trained on.

Shared by the in-process reasoner and by SFT, so that ids at training equal ids at inference. Inputs are
packed directly, not through `Qwen3VLProcessor` (which needs torchvision); the image processor is
transformers' own PIL one. `model_inputs` adds `mm_token_type_ids`, without which M-RoPE cannot be computed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from act2see.agent.rollout import ImagePiece, Rollout, TextCodec, TextPiece
from act2see.errors import WeightsError
from act2see.tools.frames import FrameRef
from act2see.tools.video.store import FrameSource

if TYPE_CHECKING:
    import torch

_SHORT, _KEPT = 64, 50_000  # the ids of so many pieces of fewer characters are kept


@dataclass(slots=True)
class Packed:
    """One rollout as ids."""

    ids: list[int]
    trainable: list[bool]
    """Of each id, whether the model wrote it."""
    images: list[FrameRef]
    grids: list[tuple[int, int, int]]
    """Of each image, its patches: (1, rows, columns)."""
    starts: list[int]
    """Of each image, the place of its first vision token."""

    def keys(self) -> list[int]:
        """The ids, with a number of the frame in place of each of its vision tokens.

        A cache is looked up by these: vision tokens are the same for all frames.
        """
        keys = list(self.ids)
        # A frame's tokens end before the next frame; a chat of text alone has none.
        ends = [*self.starts, len(keys)][1:]
        for frame, first, stop in zip(self.images, self.starts, ends, strict=True):
            mark = -1 - int(frame.digest[:12], 16)
            at = first
            while at < stop and self.ids[at] == self.ids[first]:
                keys[at] = mark
                at += 1
        return keys


class Packer:
    """Packs rollouts for Qwen3-VL checkpoints of any size. One thread at a time may use it."""

    def __init__(
        self, tokenizer: Any, image_processor: Any, image_token_id: int, cached_images: int = 4096
    ) -> None:
        """
        Args:
            tokenizer: The checkpoint's.
            image_processor: The checkpoint's.
            image_token_id: The id of a vision token.
            cached_images: How many frames' patches are kept; it may be set later.
        """
        self.codec = TextCodec(tokenizer)
        self.image_processor = image_processor
        self.image_token_id = image_token_id
        self.merge = int(image_processor.merge_size)
        """`merge` x `merge` patches become one vision token."""
        self._pieces: dict[tuple[str, str], list[int]] = {}
        self._patches: OrderedDict[str, torch.Tensor] = OrderedDict()
        self.cached_images = cached_images

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Packer:
        """From a checkpoint's folder or hub name. Raises `WeightsError` if it is not a Qwen3-VL one."""
        from transformers import AutoConfig, AutoTokenizer
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        config = AutoConfig.from_pretrained(folder)
        if not hasattr(config, "image_token_id"):
            raise WeightsError(
                f"{folder} is a {config.model_type} checkpoint; this reasoner needs a Qwen3-VL one"
            )
        return cls(
            AutoTokenizer.from_pretrained(folder),
            Qwen2VLImageProcessorPil.from_pretrained(folder),
            config.image_token_id,
        )

    def grid(self, width: int, height: int) -> tuple[int, int, int]:
        """The patches of a frame of this size in pixels: (1, rows, columns)."""
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

        p = self.image_processor
        h, w = smart_resize(
            height,
            width,
            factor=p.patch_size * p.merge_size,
            min_pixels=p.size["shortest_edge"],
            max_pixels=p.size["longest_edge"],
        )
        return 1, h // p.patch_size, w // p.patch_size

    def pack(self, rollout: Rollout) -> Packed:
        """Tokenise a rollout piece by piece."""
        out = Packed([], [], [], [], [])
        for piece in rollout.pieces:
            if isinstance(piece, ImagePiece):
                grid = self.grid(piece.frame.width, piece.frame.height)
                count = grid[1] * grid[2] // self.merge**2
                out.images.append(piece.frame)
                out.grids.append(grid)
                out.starts.append(len(out.ids))
                out.ids += [self.image_token_id] * count
                out.trainable += [False] * count
            else:
                ids = self._encode(piece)
                out.ids += ids
                out.trainable += [piece.trainable] * len(ids)
        return out

    def _encode(self, piece: TextPiece) -> list[int]:
        key = piece.text, piece.trust
        ids = self._pieces.get(key)
        if ids is None:
            ids = self.codec.encode(piece.text, piece.trust)
            if len(piece.text) < _SHORT and len(self._pieces) < _KEPT:
                self._pieces[key] = ids
        return ids

    def patches(self, frames: Sequence[FrameRef], source: FrameSource) -> torch.Tensor:
        """`(patches, channels x temporal x patch x patch)` of these frames, in order.

        Args:
            frames: At least one. Their patches are kept, by content.
            source: Gives the pixels of a frame.
        """
        import torch

        if not frames:
            raise ValueError("there is no frame to make patches of")
        missing = {f.digest: f for f in frames if f.digest not in self._patches}
        if missing:
            images = [source(f) for f in missing.values()]
            made = self.image_processor(images=images, input_data_format="channels_last", return_tensors="pt")
            sizes = made["image_grid_thw"].prod(-1).tolist()
            for digest, part in zip(missing, made["pixel_values"].split(sizes), strict=True):
                self._patches[digest] = part
        parts = [self._patches[f.digest] for f in frames]
        for f in frames:
            self._patches.move_to_end(f.digest)
        while len(self._patches) > self.cached_images:
            self._patches.popitem(last=False)
        return torch.cat(parts)
