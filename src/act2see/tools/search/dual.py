"""Encoders with one vector per frame and per text: CLIP, SigLIP, SigLIP-2, sentence-transformers models.

BLIP-2 has 32 vectors per frame. With one vector the index is 32 times smaller, and small things in a frame
have less weight. The computation is that of the checkpoint, and scores are the model's own cosine
similarities.

Frames are squashed to a square, as in the training of SigLIP. CLIP was trained on the central square of
pictures; squashing keeps the sides of a wide frame visible. No threshold is known for these models, so every
frame is a match until `act2see calibrate` has found one, unless the weights' config has `act2see_no_match` or
the tool's option `no_match` is set.
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
from act2see.tools.search.thresholds import NO_THRESHOLD
from act2see.tools.video.store import Pixels


class DualEncoder:
    """CLIP, SigLIP and similar models, by transformers. Thread-safe: one forward at a time.

    Args:
        weights: The folder of the weights.
        device: The device of the model.
        dtype: The data type of the model.

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
        # SigLIP-2 exists with a fixed size (model type `siglip`), and with a fixed number of patches and any
        # aspect ratio (NaFlex, model type `siglip2`).
        self.naflex = self.kind == "siglip2"
        self.patch: int = vision.patch_size
        self.size: int = vision.image_size
        if self.naflex:
            self.size = int(vision.num_patches**0.5) * self.patch
        self.tokens: int = text.max_position_embeddings
        self.no_match: float = getattr(config, "act2see_no_match", NO_THRESHOLD)
        mean, std = normalisation(weights)
        self._mean = torch.tensor(mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(std, device=device).view(1, 3, 1, 1)
        self.id = f"{self.kind}-{fingerprint(self.model)}"
        self._lock = Lock()

    @natively
    def frames(self, pixels: Sequence[Pixels]) -> NDArray[np.float16]:
        """Encode frames, `(height, width, 3)` uint8 each. Other sizes than the model's are squashed to it.

        Returns:
            `(frames, 1, dim)` fp16, L2-normalised.
        """
        import torch

        batch = torch.from_numpy(np.stack([squash(p, self.size) for p in pixels])).to(self.device)
        with self._lock, torch.inference_mode():
            x = (batch.permute(0, 3, 1, 2).float() / 255 - self._mean) / self._std  # (n, 3, size, size)
            x = x.to(self.dtype)
            inputs = self._to_patches(x) if self.naflex else {"pixel_values": x}
            features = _normalise(self.model.get_image_features(**inputs))[:, None]  # (n, 1, dim)
            out: NDArray[np.float16] = features.to(torch.float16).cpu().numpy()
        return out

    @natively
    def phrases(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts. Text beyond the model's length is cut.

        Returns:
            `(phrases, dim)`, L2-normalised.
        """
        import torch

        siglip = self.kind.startswith("siglip")
        # SigLIP was trained on lower-case texts, padded to one length, without a mask.
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
            out: NDArray[np.float32] = _normalise(self.model.get_text_features(**inputs)).cpu().numpy()
        return out

    def _to_patches(self, x: Any) -> dict[str, Any]:
        """Convert `(n, channels, size, size)` to the inputs of NaFlex: flat patches, row by row."""
        import torch

        n, _, size, _ = x.shape
        side = size // self.patch  # patches per side
        # (n, rows, columns, patch height, patch width, channels)
        patches = x.view(n, -1, side, self.patch, side, self.patch).permute(0, 2, 4, 3, 5, 1)
        return {
            "pixel_values": patches.reshape(n, side * side, -1),
            "pixel_attention_mask": torch.ones(n, side * side, dtype=torch.int32, device=x.device),
            "spatial_shapes": torch.full((n, 2), side, dtype=torch.long, device=x.device),
        }


class SentenceTransformersEncoder:
    """A sentence-transformers model that embeds pictures and texts. Thread-safe: one forward at a time.

    Args:
        weights: The folder of the weights.
        device: The device of the model.
        dtype: The data type of the model.

    Raises:
        ConfigError: sentence-transformers is not installed.
        WeightsError: The model embeds only texts.
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
                f"{weights} embeds only texts; the encoder needs a model for pictures and texts, "
                "such as clip-ViT-B-32"
            )
        config = getattr(self.model[0], "config", None)
        self.size: int = getattr(getattr(config, "vision_config", None), "image_size", 224)
        self.no_match: float = getattr(config, "act2see_no_match", NO_THRESHOLD)
        self.id = f"st-{fingerprint(self.model)}"
        self._lock = Lock()

    def frames(self, pixels: Sequence[Pixels]) -> NDArray[np.float16]:
        """Encode frames, `(height, width, 3)` uint8 each. Other sizes than the model's are squashed to it.

        Returns:
            `(frames, 1, dim)` fp16, L2-normalised.
        """
        from PIL import Image

        images = [Image.fromarray(squash(p, self.size)) for p in pixels]
        return self._encode(images)[:, None].astype(np.float16)

    def phrases(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts.

        Returns:
            `(phrases, dim)`, L2-normalised.
        """
        return self._encode(list(texts))

    @natively
    def _encode(self, inputs: list[Any]) -> NDArray[np.float32]:
        with self._lock:
            out = self.model.encode(
                inputs, batch_size=len(inputs), normalize_embeddings=True, show_progress_bar=False
            )
        return np.asarray(out, np.float32)


def _normalise(features: Any) -> Any:
    """Return `(n, dim)` float32, L2-normalised. `features` is a tensor or an output with a pooled one."""
    from torch.nn.functional import normalize

    return normalize(getattr(features, "pooler_output", features).float(), dim=-1)
