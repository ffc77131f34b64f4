"""python -m benchmarks.parity.lavis --python ENV/bin/python: BLIP-2's contrastive score in LAVIS and in
act2see, with the same random weights.

LAVIS 1.0.2 requires transformers below 4.27, so it needs an environment of its own (docs/parity.md describes
it), in which this file runs itself. There, `Blip2ITM` is assembled from LAVIS's own modules, since its
constructor would download weights: small, or with `--real` at the true size. Its weights are random, scaled
so that queries and words differ, and `forward(match_head="itc")` scores each picture with each text. Its
state dict, renamed to transformers' names, becomes a checkpoint folder that `Blip2Encoder` loads. Its
features score the same pairs from the same pixels.

The names and shapes of LAVIS's modules at the true size, after the same renaming, are compared too, on the
meta device. LAVIS imports many packages that a Q-Former does not use; empty modules replace those that its
environment lacks.
"""

from __future__ import annotations

import argparse
import importlib.machinery
import json
import os
import re
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

TEXTS = (
    "a red circle",
    "the blue square blinks at the west while the green ring moves north",
    "nothing",
    "where was the circle when it fell",
)
REAL = {
    "image": 224,
    "patch": 14,
    "width": 1408,
    "depth": 39,
    "heads": 16,
    "ratio": 4.3637,
    "hidden": 768,
    "layers": 12,
    "inner": 3072,
}
SMALL = {
    "image": 56,
    "patch": 14,
    "width": 176,
    "depth": 3,
    "heads": 2,
    "ratio": 4.3637,
    "hidden": 96,
    "layers": 4,
    "inner": 256,
}
QUERIES, DIM = 32, 256
RENAMED = (
    (r"^visual_encoder\.cls_token$", "vision_model.embeddings.class_embedding"),
    (r"^visual_encoder\.pos_embed$", "vision_model.embeddings.position_embedding"),
    (r"^visual_encoder\.patch_embed\.proj", "vision_model.embeddings.patch_embedding"),
    (r"^visual_encoder\.blocks", "vision_model.encoder.layers"),
    (r"^ln_vision", "vision_model.post_layernorm"),
    (r"\.norm(\d)\.", r".layer_norm\1."),
    (r"\.attn\.qkv", ".self_attn.qkv"),
    (r"\.attn\.proj", ".self_attn.projection"),
    (r"^Qformer\.bert\.embeddings\.LayerNorm", "qformer.layernorm"),
    (r"^Qformer\.bert\.embeddings", "embeddings"),
    (r"^Qformer\.bert", "qformer"),
    (r"attention\.self\.", "attention.attention."),
    (r"^(vision|text)_proj\.", r"\1_projection."),
)
UNUSED = re.compile(r"^Qformer\.cls\.|^temp$|position_ids$|[qv]_bias$")


def rename_tensors(state: dict[str, Any]) -> dict[str, Any]:
    """Return a LAVIS state dict with transformers' names. LAVIS has no bias of keys, so it is zero."""
    import torch

    out = {}
    for name, tensor in state.items():
        if name.endswith("attn.q_bias"):
            v = state[name.replace("q_bias", "v_bias")]
            block = re.sub(*RENAMED[3], name)
            bias = block.replace("attn.q_bias", "self_attn.qkv.bias")
            out[bias] = torch.cat((tensor, torch.zeros_like(v), v))
        if not UNUSED.search(name):
            for pattern, to in RENAMED:
                name = re.sub(pattern, to, name)
            out[name] = tensor.contiguous()
    return out


def build_lavis_model(sizes: dict[str, Any], vocabulary: int) -> Any:
    """Assemble `Blip2ITM` from LAVIS's modules, as its constructor does."""
    from functools import partial

    import torch
    from lavis.models.blip2_models.blip2 import LayerNorm  # type: ignore[import-not-found]
    from lavis.models.blip2_models.blip2_image_text_matching import Blip2ITM  # type: ignore[import-not-found]
    from lavis.models.blip2_models.Qformer import BertLMHeadModel  # type: ignore[import-not-found]
    from lavis.models.eva_vit import VisionTransformer  # type: ignore[import-not-found]
    from transformers import BertConfig

    model = Blip2ITM.__new__(Blip2ITM)
    torch.nn.Module.__init__(model)
    model.visual_encoder = VisionTransformer(
        img_size=sizes["image"],
        patch_size=sizes["patch"],
        use_mean_pooling=False,
        embed_dim=sizes["width"],
        depth=sizes["depth"],
        num_heads=sizes["heads"],
        mlp_ratio=sizes["ratio"],
        qkv_bias=True,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
    )
    model.ln_vision = LayerNorm(sizes["width"])
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=sizes["hidden"],
        num_hidden_layers=sizes["layers"],
        num_attention_heads=sizes["hidden"] // 64 or 1,
        intermediate_size=sizes["inner"],
    )
    config.encoder_width = sizes["width"]
    config.add_cross_attention = True
    config.cross_attention_freq = 2
    config.query_length = QUERIES
    model.Qformer = BertLMHeadModel(config)
    model.query_tokens = torch.nn.Parameter(torch.zeros(1, QUERIES, sizes["hidden"]))
    model.vision_proj = torch.nn.Linear(sizes["hidden"], DIM)
    model.text_proj = torch.nn.Linear(sizes["hidden"], DIM)
    model.itm_head = torch.nn.Linear(sizes["hidden"], 2)
    model.max_txt_len = 32
    return model.eval()


def install_stand_ins() -> None:
    """Replace modules that LAVIS imports, but an ITC score does not need, by empty ones.

    One of them registers torchvision's operators, which need its CUDA build.
    """
    for name in ("torchvision._meta_registrations", "spacy", "contexttimer", "opendatasets"):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        sys.modules[name] = module


class Tokens(dict):  # type: ignore[type-arg]
    """A tokenizer's output with the interface that LAVIS uses."""

    def __getattr__(self, name: str) -> Any:
        return self[name]

    def to(self, device: Any) -> Tokens:
        return self


def score_in_lavis(folder: Path) -> None:
    """Read `asked.json`, and write weights and scores to the folder. This runs in LAVIS's environment."""
    install_stand_ins()
    from unittest import mock

    import torch
    from safetensors.torch import save_file

    asked = json.loads((folder / "asked.json").read_text())
    torch.manual_seed(0)
    model = build_lavis_model(asked["sizes"], asked["vocabulary"])
    with torch.no_grad():
        for p in model.parameters():
            gain = p.dim() == 1 and bool((p == 1).all())  # a LayerNorm weight: about one
            p.normal_(std=0.2 if p.dim() < 2 else 2 / p.shape[-1] ** 0.5).add_(1.0 if gain else 0.0)
        model.query_tokens.normal_()
        pixels = torch.load(folder / "pixels.pt")
        scores = []
        for ids in asked["ids"]:
            tokens = Tokens(
                input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long)
            )
            model.tokenizer = lambda *_, tokens=tokens, **__: tokens
            row = []
            for picture in pixels:
                score = model({"image": picture[None], "text_input": ""}, match_head="itc")
                row.append(float(score))
            scores.append(row)
    save_file(
        rename_tensors(model.state_dict()), str(folder / "model.safetensors"), metadata={"format": "pt"}
    )
    with (
        torch.device("meta"),
        mock.patch("torch.linspace", lambda *a, linspace=torch.linspace: linspace(*a, device="cpu")),
    ):
        real = rename_tensors(build_lavis_model(REAL, 30_523).state_dict())
    (folder / "found.json").write_text(
        json.dumps({"scores": scores, "real": {name: list(t.shape) for name, t in real.items()}})
    )


def draw_pictures(size: int) -> list[Any]:
    """Return three pictures of 4 x 4 large patches, since fine noise looks the same everywhere."""
    import numpy as np

    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    return [c.repeat(size // 4, 0).repeat(size // 4, 1) for c in colours]


def write_inputs(folder: Path, sizes: dict[str, Any], real: bool, pictures: list[Any]) -> list[list[int]]:
    """Write a checkpoint folder without weights, and the inputs of LAVIS.

    Args:
        folder: The folder of both.
        sizes: The sizes of the model.
        real: Whether the model has BERT's whole vocabulary.
        pictures: The pictures, `(height, width, 3)` uint8.

    Returns:
        The token ids of each text.
    """
    import torch
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    from act2see.micro.questions import sentences
    from act2see.micro.recipe.tokenizers import bert_tokenizer

    tokenizer = bert_tokenizer([*sentences(), *TEXTS])
    vocabulary = 30_523 if real else len(tokenizer)
    blip2_config(sizes, vocabulary).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor = BlipImageProcessorPil()
    processor.save_pretrained(folder)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (processor.image_mean, processor.image_std))
    pixels = []
    for picture in pictures:
        scaled = torch.from_numpy(picture).permute(2, 0, 1) / 255
        pixels.append((scaled - mean) / std)
    torch.save(torch.stack(pixels), folder / "pixels.pt")
    ids = [tokenizer(text)["input_ids"] for text in TEXTS]
    (folder / "asked.json").write_text(json.dumps({"sizes": sizes, "vocabulary": vocabulary, "ids": ids}))
    return ids


def run_lavis(python: str, folder: Path) -> dict[str, Any]:
    """Run this file in LAVIS's environment; return the scores and the shapes of the true size."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run(
        [python, "-P", "-W", "ignore", __file__, "--inside", str(folder)],
        check=True,
        env=environment,
        cwd=folder,
    )
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found


def score_in_act2see(folder: Path, pictures: list[Any], ids: list[list[int]]) -> tuple[Any, Any]:
    """Return the scores `(texts, pictures)` of act2see, and those without its rounding of features to
    fp16."""
    import numpy as np
    import torch

    from act2see.tools.search.blip2 import Blip2Encoder

    encoder = Blip2Encoder(folder)
    features = encoder.frames(pictures).astype(np.float32)  # (pictures, queries, dim)
    ours = np.stack([(features @ phrase).max(axis=1) for phrase in encoder.phrases(TEXTS)])
    exact = []
    with torch.inference_mode():
        pixels = torch.load(folder / "pixels.pt")
        for i in ids:
            out = encoder.model(pixels, torch.tensor([i]), use_image_text_matching_head=False)
            exact.append(out.logits_per_text[0])
    return ours, torch.stack(exact).numpy()


def compare_shapes(real: dict[str, list[int]]) -> int | list[str]:
    """Compare LAVIS's tensors at the true size with those of transformers.

    Return their number if names and shapes are equal, else the names that only one side has.
    """
    import torch
    from transformers import Blip2ForImageTextRetrieval

    with torch.device("meta"):
        state = Blip2ForImageTextRetrieval(blip2_config(REAL, 30_523)).state_dict()
    ours = {name: list(tensor.shape) for name, tensor in state.items()}
    if real == ours:
        return len(ours)
    return sorted(set(ours) ^ set(real))


def run(python: str, real: bool) -> dict[str, Any]:
    """Score on both sides; return the figures of their agreement."""
    import numpy as np

    sizes: dict[str, Any] = REAL if real else SMALL
    pictures = draw_pictures(sizes["image"])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ids = write_inputs(folder, sizes, real, pictures)
        found = run_lavis(python, folder)
        ours, exact = score_in_act2see(folder, pictures, ids)
    theirs = np.array(found["scores"])
    return {
        "size": "real" if real else "small",
        "pairs": int(theirs.size),
        "scores, LAVIS": [float(theirs.min()), float(theirs.max())],
        "largest difference": float(abs(ours - theirs).max()),
        "largest difference, features not rounded to fp16": float(abs(exact - theirs).max()),
        "spread of the scores": float(theirs.std()),
        "same order of pictures for every text": bool((ours.argsort(1) == theirs.argsort(1)).all()),
        "tensors of the true size, names and shapes equal": compare_shapes(found["real"]),
    }


def blip2_config(sizes: dict[str, Any], vocabulary: int) -> Any:
    """Return transformers' config for these sizes."""
    from transformers import Blip2Config

    return Blip2Config(
        vision_config=dict(
            hidden_size=sizes["width"],
            num_hidden_layers=sizes["depth"],
            num_attention_heads=sizes["heads"],
            image_size=sizes["image"],
            patch_size=sizes["patch"],
            intermediate_size=int(sizes["width"] * sizes["ratio"]),
        ),
        qformer_config=dict(
            vocab_size=vocabulary,
            hidden_size=sizes["hidden"],
            num_hidden_layers=sizes["layers"],
            num_attention_heads=sizes["hidden"] // 64 or 1,
            intermediate_size=sizes["inner"],
            encoder_hidden_size=sizes["width"],
            use_qformer_text_input=True,
        ),
        text_config=dict(
            model_type="opt",
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            ffn_dim=16,
            word_embed_proj_dim=16,
        ),
        num_query_tokens=QUERIES,
        image_text_hidden_size=DIM,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--python", help="the interpreter of the environment with LAVIS")
    parser.add_argument(
        "--real", action="store_true", help="the true size: 5 GB of memory, a few minutes on a CPU"
    )
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        return score_in_lavis(arguments.inside)
    if not arguments.python:
        parser.error("--python is required: docs/parity.md describes LAVIS's environment")
    print(json.dumps(run(arguments.python, arguments.real), indent=1))


if __name__ == "__main__":
    main()
