"""Pack a rollout for the model: token ids, the places of vision tokens, patches, and the trainable tokens.

The in-process reasoner and SFT share this code, so that ids at training equal ids at inference. Inputs are
packed directly and not through `Qwen3VLProcessor`, which needs torchvision; the image processor is the PIL
one of transformers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from act2see.agent.rollout import ImagePiece, Rollout, TextCodec, TextPiece
from act2see.errors import WeightsError
from act2see.tools.frames import FrameRef
from act2see.tools.runtime.forks import Lock
from act2see.tools.video.store import FrameSource

if TYPE_CHECKING:
    import torch

# Short texts repeat (tags, times, marks), so their ids are kept; long ones would only fill the memory. When
# the questions of strangers have filled the room, all are dropped: those that repeat are soon there again.
_MAX_KEPT_CHARACTERS = 64
PIECE_CACHE = 4 << 20
"""Bytes of short texts and their ids that a packer keeps, about."""
_PIECE_BYTES = 300  # the bytes of a kept text beside its characters and ids: dict, tuple, string and list
_ID_BYTES = 36  # an integer and its place in a list
PATCH_CACHE = 1 << 30
"""Bytes of patches that a packer keeps unless it is told otherwise: about 200 frames of Qwen3-VL at 448
pixels, beside an 8B model on a machine of 16 GB, or all frames of hundreds of micro's clips."""


@dataclass(slots=True)
class Packed:
    """The token ids of one rollout, and the frames among them."""

    ids: list[int]
    """All token ids, with the image token repeated for each vision token of a frame."""
    trainable: list[bool]
    """Whether the model wrote the token, for each id."""
    images: list[FrameRef]
    """The frames in the order in which the model reads them."""
    grids: list[tuple[int, int, int]]
    """The number of patches of each frame: (1, rows, columns)."""
    starts: list[int]
    """The index in `ids` of each frame's first vision token."""

    def keys(self) -> list[int]:
        """Return the ids with each vision token replaced by a number that identifies its frame.

        A cache compares these keys, since the vision tokens of all frames have the same id.
        """
        keys = list(self.ids)
        # A frame's tokens end before the next frame; a chat without frames has none.
        ends = [*self.starts, len(keys)][1:]
        for frame, first, stop in zip(self.images, self.starts, ends, strict=True):
            key = frame_key(frame)
            at = first
            while at < stop and self.ids[at] == self.ids[first]:
                keys[at] = key
                at += 1
        return keys


def frame_key(frame: FrameRef) -> int:
    """Return the number that stands for a frame's vision tokens in `Packed.keys`; no token id is negative."""
    return -1 - int(frame.digest[:12], 16)


class Packer:
    """Packs rollouts for a Qwen3-VL checkpoint of any size. Threads may share it: none waits for another."""

    def __init__(
        self, tokenizer: Any, image_processor: Any, image_token_id: int, cache_bytes: int = PATCH_CACHE
    ) -> None:
        """
        Args:
            tokenizer: The checkpoint's tokenizer.
            image_processor: The checkpoint's image processor.
            image_token_id: The id of a vision token.
            cache_bytes: The bytes of patches that are kept. The attribute can be changed later.
        """
        self.codec = TextCodec(tokenizer)
        self.image_processor = image_processor
        self.image_token_id = image_token_id
        self.merge = int(image_processor.merge_size)
        """`merge` x `merge` patches become one vision token."""
        self._pieces: dict[tuple[str, str], list[int]] = {}
        self._piece_bytes = 0
        self._patches: OrderedDict[str, torch.Tensor] = OrderedDict()
        self.cache_bytes = cache_bytes
        self.cached_bytes = 0
        """The bytes of the patches that are kept now."""
        self._lock = Lock()  # of the patches; never held while they are made

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is kept: another process makes it again, faster than it would be sent."""
        empty = {
            "_pieces": {},
            "_patches": OrderedDict(),
            "cached_bytes": 0,
            "_piece_bytes": 0,
            "_lock": None,
        }
        return {**self.__dict__, **empty}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = Lock()

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Packer:
        """Return a packer for a checkpoint.

        Args:
            folder: The checkpoint's folder or hub name.

        Raises:
            WeightsError: The checkpoint is not a Qwen3-VL one.
        """
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
        """Return the number of patches of a frame of this size in pixels: (1, rows, columns)."""
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
        """Return the ids of a rollout, tokenised piece by piece."""
        packed = Packed(ids=[], trainable=[], images=[], grids=[], starts=[])
        for piece in rollout.pieces:
            if isinstance(piece, ImagePiece):
                grid = self.grid(piece.frame.width, piece.frame.height)
                count = grid[1] * grid[2] // self.merge**2
                packed.images.append(piece.frame)
                packed.grids.append(grid)
                packed.starts.append(len(packed.ids))
                packed.ids += [self.image_token_id] * count
                packed.trainable += [False] * count
            else:
                ids = self._encode(piece)
                packed.ids += ids
                packed.trainable += [piece.trainable] * len(ids)
        return packed

    def _encode(self, piece: TextPiece) -> list[int]:
        key = piece.text, piece.trust
        ids = self._pieces.get(key)
        if ids is None:
            ids = self.codec.encode(piece.text, piece.trust)
            if len(piece.text) < _MAX_KEPT_CHARACTERS:
                if self._piece_bytes > PIECE_CACHE:
                    self._pieces, self._piece_bytes = {}, 0
                self._pieces[key] = ids
                self._piece_bytes += _PIECE_BYTES + len(piece.text) + _ID_BYTES * len(ids)
        return ids

    def missing(self, frames: Iterable[FrameRef]) -> list[FrameRef]:
        """Return the different frames whose patches are not kept."""
        return list({f.digest: f for f in frames if f.digest not in self._patches}.values())

    def patches(
        self,
        frames: Sequence[FrameRef],
        source: FrameSource,
        made: Mapping[str, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Return the patches of these frames, in order. Those used last are kept, up to `cache_bytes`.

        Args:
            frames: The frames; at least one.
            source: Returns the pixels of a frame.
            made: Patches that `make_patches` has made.

        Returns:
            Pixel values, `(patches, channels x temporal x patch x patch)`.

        Raises:
            ValueError: `frames` is empty.
        """
        import torch

        if not frames:
            raise ValueError("`frames` is empty: patches need at least one frame")
        with self._lock:
            kept = {f.digest: self._patches[f.digest] for f in frames if f.digest in self._patches}
        parts = {**(made or {}), **kept}
        if new := [f for f in frames if f.digest not in parts]:
            parts |= self.make_patches(new, source)
        with self._lock:
            for frame in frames:
                self._keep(frame.digest, parts[frame.digest])
            # The cache shrinks only now: one request may have more frames than it keeps.
            while self.cached_bytes > self.cache_bytes:
                _, dropped = self._patches.popitem(last=False)
                self.cached_bytes -= dropped.nbytes
        return torch.cat([parts[f.digest] for f in frames])

    def make_patches(self, frames: Iterable[FrameRef], source: FrameSource) -> dict[str, torch.Tensor]:
        """Return the patches of frames, by their digests, without keeping them.

        Args:
            frames: The frames; at least one.
            source: Returns the pixels of a frame.
        """
        unique = {f.digest: f for f in frames}
        images = [source(f) for f in unique.values()]
        made = self.image_processor(images=images, input_data_format="channels_last", return_tensors="pt")
        counts = made["image_grid_thw"].prod(-1).tolist()
        parts = made["pixel_values"].split(counts)
        # `split` returns views: a copy frees its memory when it is dropped, whatever else is kept.
        return {digest: part.clone() for digest, part in zip(unique, parts, strict=True)}

    def _keep(self, digest: str, part: torch.Tensor) -> None:
        """Keep patches as those used last. The lock is held."""
        if digest not in self._patches:
            self._patches[digest] = part
            self.cached_bytes += part.nbytes
        self._patches.move_to_end(digest)
