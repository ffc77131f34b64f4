"""BLIP-2 as a frame encoder: image-text contrastive features, by transformers.

The vision side gives each frame 32 query-token vectors, the text side one vector per phrase; all are
L2-normalised. It is the computation of LAVIS's `blip2_image_text_matching` (weights
`Salesforce/blip2-itm-vit-g-coco`, which TFVTG uses): LAVIS 1.0.2 itself cannot be imported beside
transformers 5.

Frames come squashed to the model's square: the video reader makes that size while it decodes. Nothing here
knows of videos or indexes.
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


class Blip2Encoder:
    """Encodes frames and phrases. Thread-safe: one forward at a time.

    Args:
        weights: A folder.
        device: Where the model is.
        dtype: Of the model.

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
        # One model for both sides: the split classes would hold the Q-Former twice.
        model = Blip2ForImageTextRetrieval.from_pretrained(weights, dtype=self.dtype, use_safetensors=True)
        self.model: Any = model.to(device).eval()
        self.size: int = config.vision_config.image_size
        self.tokens: int = config.num_query_tokens
        self.dim: int = config.image_text_hidden_size
        # Below this a frame does not show what the text says: calibrated with the weights, else TFVTG's 0.2.
        self.no_match: float = getattr(config, "act2see_no_match", 0.2)
        mean, std = normalisation(weights)
        self._mean = torch.tensor(mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(std, device=device).view(1, 3, 1, 1)
        self.id = fingerprint(self.model)
        self._lock = Lock()

    @natively
    def frames(self, pixels: Sequence[Pixels]) -> NDArray[np.float16]:
        """`(frames, query tokens, dim)`, L2-normalised, fp16. Frames of another size are squashed to the
        model's."""
        import torch
        from torch.nn.functional import normalize

        m = self.model
        batch = torch.from_numpy(np.stack([squash(p, self.size) for p in pixels])).to(self.device)
        with self._lock, torch.inference_mode():
            x = (batch.permute(0, 3, 1, 2).float() / 255 - self._mean) / self._std
            seen = m.vision_model(pixel_values=x.to(self.dtype))[0]
            queries = m.query_tokens.expand(len(pixels), -1, -1)
            read = m.qformer(query_embeds=queries, encoder_hidden_states=seen)[0]
            out = normalize(m.vision_projection(read.to(m.vision_projection.weight.dtype)), dim=-1)
        return out.to(torch.float16).cpu().numpy()

    @natively
    def phrases(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """`(phrases, dim)`, L2-normalised; text beyond 35 tokens is cut, as the weights were trained."""
        import torch
        from torch.nn.functional import normalize

        m = self.model
        tokens = self.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=TEXT_TOKENS, return_tensors="pt"
        ).to(self.device)
        with self._lock, torch.inference_mode():
            embeds = m.embeddings(input_ids=tokens["input_ids"])
            mask = tokens["attention_mask"]
            read = m.qformer(query_embeds=embeds, query_length=0, attention_mask=mask)[0]
            first = read[:, 0].to(m.text_projection.weight.dtype)  # (phrases, hidden)
            out = normalize(m.text_projection(first), dim=-1)
        return out.float().cpu().numpy()


def squash(pixels: Pixels, size: int) -> Pixels:
    """A frame as a square of this side, whatever its aspect."""
    if pixels.shape[:2] == (size, size):
        return pixels
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC))


def normalisation(weights: str | Path) -> tuple[list[float], list[float]]:
    """Mean and deviation of each channel, from the checkpoint's preprocessor file.

    Raises:
        WeightsError: There is no such file.
    """
    from transformers.utils import cached_file

    path = cached_file(str(weights), "preprocessor_config.json", _raise_exceptions_for_missing_entries=False)
    if path is None:
        raise WeightsError(
            f"{weights} has no preprocessor_config.json; fetch the whole repository, not the weights alone"
        )
    config = json.loads(Path(path).read_text())
    return config["image_mean"], config["image_std"]


def fingerprint(*models: torch.nn.Module) -> str:
    """A short id of the weights: an index that other weights made must not be searched with these."""
    digest = hashlib.blake2b(digest_size=8)
    for model in models:
        for name, p in model.named_parameters():
            digest.update(f"{name}{tuple(p.shape)}".encode())
            digest.update(p.detach().flatten()[:64].float().cpu().numpy().tobytes())
    return digest.hexdigest()
