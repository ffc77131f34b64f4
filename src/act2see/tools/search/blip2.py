"""BLIP-2 as a frame encoder: image-text contrastive features, by transformers.

Each frame has 32 query-token vectors and each phrase one vector, all L2-normalised. The computation is that
of `blip2_image_text_matching` in LAVIS (weights `Salesforce/blip2-itm-vit-g-coco`, as in TFVTG). LAVIS 1.0.2
itself does not work with transformers 5.

Frames are squashed to the model's square; the video reader produces that size while it decodes. This module
does not depend on videos or indexes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from act2see.errors import WeightsError
from act2see.tools.runtime.forks import Lock, natively
from act2see.tools.runtime.quiet import quiet
from act2see.tools.video.store import Pixels

if TYPE_CHECKING:
    import torch

TEXT_TOKENS = 35
TFVTG_MASK = 0.2
"""The score at or below which TFVTG leaves a frame out. It is not a calibrated threshold of "no match": its
false-alarm rate is unknown. `act2see calibrate` finds one for your videos."""


class Blip2Encoder:
    """Encodes frames and phrases. Thread-safe: one forward at a time.

    Args:
        weights: The folder of the weights.
        device: The device of the model.
        dtype: The data type of the model.

    Raises:
        WeightsError: The checkpoint is not BLIP-2, or has no preprocessor file.
    """

    @quiet()
    def __init__(self, weights: str | Path, *, device: str = "cpu", dtype: str = "float32") -> None:
        import torch
        from transformers import AutoTokenizer, Blip2Config, Blip2ForImageTextRetrieval

        self.device, self.dtype = device, getattr(torch, dtype)
        config = Blip2Config.from_pretrained(weights)
        if config.model_type != "blip-2":
            raise WeightsError(
                f"{weights} is a {config.model_type} checkpoint; the encoder needs BLIP-2 for image-text "
                "retrieval, or `encoder.use: transformers` for CLIP and SigLIP"
            )
        self.tokenizer = AutoTokenizer.from_pretrained(weights)
        # One model for frames and texts: two separate ones would each have a copy of the Q-Former.
        model = Blip2ForImageTextRetrieval.from_pretrained(weights, dtype=self.dtype, use_safetensors=True)
        self.model: Any = model.to(device).eval()
        self.size: int = config.vision_config.image_size
        self.tokens: int = config.num_query_tokens
        self.dim: int = config.image_text_hidden_size
        # A frame with a lower score does not match. micro's weights have a threshold of their own.
        self.no_match: float = getattr(config, "act2see_no_match", TFVTG_MASK)
        mean, std = normalisation(weights)
        self._mean = torch.tensor(mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(std, device=device).view(1, 3, 1, 1)
        self.id = fingerprint(self.model)
        self._lock = Lock()

    @natively
    def frames(self, pixels: Sequence[Pixels]) -> NDArray[np.float16]:
        """Encode frames, `(height, width, 3)` uint8 each. Other sizes than the model's are squashed to it.

        Returns:
            `(frames, query tokens, dim)` fp16, L2-normalised.
        """
        import torch
        from torch.nn.functional import normalize

        m = self.model
        batch = torch.from_numpy(np.stack([squash(p, self.size) for p in pixels])).to(self.device)
        with self._lock, torch.inference_mode():
            x = (batch.permute(0, 3, 1, 2).float() / 255 - self._mean) / self._std  # (n, 3, size, size)
            patches = m.vision_model(pixel_values=x.to(self.dtype))[0]  # (n, patches, vision dim)
            queries = m.query_tokens.expand(len(pixels), -1, -1)  # (n, query tokens, hidden)
            hidden = m.qformer(query_embeds=queries, encoder_hidden_states=patches)[0]
            projected = m.vision_projection(hidden.to(m.vision_projection.weight.dtype))
            out = normalize(projected, dim=-1)  # (n, query tokens, dim)
        return out.to(torch.float16).cpu().numpy()

    @natively
    def phrases(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts. Text beyond 35 tokens is cut, as in the training of the weights.

        Returns:
            `(phrases, dim)`, L2-normalised.
        """
        import torch
        from torch.nn.functional import normalize

        m = self.model
        tokens = self.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=TEXT_TOKENS, return_tensors="pt"
        ).to(self.device)
        with self._lock, torch.inference_mode():
            embeds = m.embeddings(input_ids=tokens["input_ids"])
            mask = tokens["attention_mask"]
            hidden = m.qformer(query_embeds=embeds, query_length=0, attention_mask=mask)[0]
            first = hidden[:, 0].to(m.text_projection.weight.dtype)  # (phrases, hidden)
            out = normalize(m.text_projection(first), dim=-1)
        return out.float().cpu().numpy()


def squash(pixels: Pixels, size: int) -> Pixels:
    """Return a frame as a square of side `size`, without regard to its aspect ratio."""
    if pixels.shape[:2] == (size, size):
        return pixels
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC))


def normalisation(weights: str | Path) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel, from the checkpoint's preprocessor file.

    Raises:
        WeightsError: The checkpoint has no such file.
    """
    from transformers.utils import cached_file

    path = cached_file(str(weights), "preprocessor_config.json", _raise_exceptions_for_missing_entries=False)
    if path is None:
        raise WeightsError(
            f"{weights} has no preprocessor_config.json; download the whole repository, not only the weights"
        )
    config = json.loads(Path(path).read_text())
    return config["image_mean"], config["image_std"]


def fingerprint(*models: torch.nn.Module) -> str:
    """Return a short id of weights, so that an index is searched only with the weights that made it."""
    digest = hashlib.blake2b(digest_size=8)
    for model in models:
        for name, p in model.named_parameters():
            digest.update(f"{name}{tuple(p.shape)}".encode())
            digest.update(p.detach().flatten()[:64].float().cpu().numpy().tobytes())
    return digest.hexdigest()
