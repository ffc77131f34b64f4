"""Encoders with one vector a frame and one a text: CLIP, SigLIP, SigLIP-2, and sentence-transformers models.

BLIP-2 gives a frame 32 vectors. With one, the index is a thirty-second of the size, and small things in a
frame weigh less. The computation is the checkpoint's own; scores are the cosine that the model itself would
give.

Frames come squashed to a square, as SigLIP was trained. CLIP was trained on the middle of its pictures:
squashed, the sides of a wide frame are seen too. No threshold is known for these models, so every frame
passes unless the weights' config has `act2see_no_match`, or the tool's `no_match` is set: look at the scores
of `act2see find` on videos like yours first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from act2see.errors import ConfigError, WeightsError
from act2see.tools.runtime.forks import Lock, natively
from act2see.tools.runtime.quiet import quiet
from act2see.tools.search.blip2 import fingerprint, normalisation, squash
from act2see.tools.video.store import Pixels

PASSES = -1.0  # a cosine is never under it


class DualEncoder:
    """CLIP, SigLIP and their like, by transformers. Thread-safe: one forward at a time.

    Args:
        weights: A folder.
        device: Where the model is.
        dtype: Of the model.

    Raises:
        WeightsError: The checkpoint does not embed pictures and texts.
    """

    @quiet()
    def __init__(self, weights: str | Path, *, device: str = "cpu", dtype: str = "float32") -> None:
        import torch
        from transformers import AutoConfig, AutoModel, AutoTokenizer

        self.device, self.dtype = device, getattr(torch, dtype)
        config = AutoConfig.from_pretrained(weights)
        model = AutoModel.from_pretrained(weights, dtype=self.dtype, use_safetensors=True)
        self.model: Any = model.to(device).eval()
        if not (hasattr(self.model, "get_image_features") and hasattr(self.model, "get_text_features")):
            raise WeightsError(
                f"{weights} is a {config.model_type} checkpoint; `encoder.use: transformers` needs one that "
                "embeds pictures and texts, as CLIP and SigLIP do"
            )
        self.tokenizer = AutoTokenizer.from_pretrained(weights)
        self.kind: str = config.model_type
        vision, text = config.vision_config, config.text_config
        # SigLIP-2 comes in two builds: of a fixed size (`siglip`), and of a number of patches (`siglip2`,
        # NaFlex).
        self.naflex = self.kind == "siglip2"
        self.patch: int = vision.patch_size
        self.size: int = vision.image_size
        if self.naflex:
            self.size = int(vision.num_patches**0.5) * self.patch
        self.tokens: int = text.max_position_embeddings
        self.no_match: float = getattr(config, "act2see_no_match", PASSES)
        mean, std = normalisation(weights)
        self._mean = torch.tensor(mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(std, device=device).view(1, 3, 1, 1)
        self.id = f"{self.kind}-{fingerprint(self.model)}"
        self._lock = Lock()

    @natively
    def frames(self, pixels: Sequence[Pixels]) -> NDArray[np.float16]:
        """`(frames, 1, dim)`, L2-normalised, fp16. Frames of another size are squashed to the model's."""
        import torch

        batch = torch.from_numpy(np.stack([squash(p, self.size) for p in pixels])).to(self.device)
        with self._lock, torch.inference_mode():
            x = ((batch.permute(0, 3, 1, 2).float() / 255 - self._mean) / self._std).to(self.dtype)
            given = self._patches(x) if self.naflex else {"pixel_values": x}
            features = _unit(self.model.get_image_features(**given))[:, None]
            out: NDArray[np.float16] = features.to(torch.float16).cpu().numpy()
        return out

    @natively
    def phrases(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """`(phrases, dim)`, L2-normalised; text is cut at the model's length."""
        import torch

        siglip = self.kind.startswith("siglip")
        # SigLIP was trained on lower-case texts, all padded to one length and without a mask.
        given = [t.lower() for t in texts] if siglip else list(texts)
        tokens = self.tokenizer(
            given,
            padding="max_length" if siglip else True,
            truncation=True,
            max_length=self.tokens,
            return_tensors="pt",
        ).to(self.device)
        names = ("input_ids",) if siglip else ("input_ids", "attention_mask")
        inputs = {name: tokens[name] for name in names if name in tokens}
        with self._lock, torch.inference_mode():
            out: NDArray[np.float32] = _unit(self.model.get_text_features(**inputs)).cpu().numpy()
        return out

    def _patches(self, x: Any) -> dict[str, Any]:
        """`(n, channels, size, size)` as NaFlex takes it: flat patches, by rows, and how many there are."""
        import torch

        n, _, size, _ = x.shape
        side = size // self.patch
        cut = x.view(n, -1, side, self.patch, side, self.patch).permute(0, 2, 4, 3, 5, 1)
        return {
            "pixel_values": cut.reshape(n, side * side, -1),
            "pixel_attention_mask": torch.ones(n, side * side, dtype=torch.int32, device=x.device),
            "spatial_shapes": torch.full((n, 2), side, dtype=torch.long, device=x.device),
        }


class SentenceTransformersEncoder:
    """A sentence-transformers model that embeds pictures and texts. Thread-safe: one forward at a time.

    Args:
        weights: A folder.
        device: Where the model is.
        dtype: Of the model.

    Raises:
        ConfigError: sentence-transformers is not installed.
        WeightsError: The model embeds texts alone.
    """

    @quiet()
    def __init__(self, weights: str | Path, *, device: str = "cpu", dtype: str = "float32") -> None:
        import torch

        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as e:
            raise ConfigError(
                "`encoder.use: sentence-transformers` needs that package: pip install sentence-transformers"
            ) from e
        self.model: Any = SentenceTransformer(
            str(weights),
            device=device,
            model_kwargs={"dtype": getattr(torch, dtype), "use_safetensors": True},
        )
        if not self.model.supports("image"):
            raise WeightsError(
                f"{weights} embeds texts alone; the encoder needs a model for pictures and texts, "
                "as clip-ViT-B-32"
            )
        config = getattr(self.model[0], "config", None)
        self.size: int = getattr(getattr(config, "vision_config", None), "image_size", 224)
        self.no_match: float = getattr(config, "act2see_no_match", PASSES)
        self.id = f"st-{fingerprint(self.model)}"
        self._lock = Lock()

    def frames(self, pixels: Sequence[Pixels]) -> NDArray[np.float16]:
        """`(frames, 1, dim)`, L2-normalised, fp16. Frames of another size are squashed to the model's."""
        from PIL import Image

        images = [Image.fromarray(squash(p, self.size)) for p in pixels]
        return self._encode(images)[:, None].astype(np.float16)

    def phrases(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """`(phrases, dim)`, L2-normalised."""
        return self._encode(list(texts))

    @natively
    def _encode(self, inputs: list[Any]) -> NDArray[np.float32]:
        with self._lock:
            out = self.model.encode(
                inputs, batch_size=len(inputs), normalize_embeddings=True, show_progress_bar=False
            )
        return np.asarray(out, np.float32)


def _unit(features: Any) -> Any:
    from torch.nn.functional import normalize

    return normalize(getattr(features, "pooler_output", features).float(), dim=-1)
