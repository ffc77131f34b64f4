"""Encoders with one vector per frame, on CLIP and SigLIP models with random weights: the model's own cosine,
an index with one row per frame, and `retrieve` in the graph by two lines of config."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.graphs.doubles import Scripted

from act2see.errors import ConfigError, WeightsError
from act2see.graphs.ask import create_act2see
from act2see.graphs.config import load_config
from act2see.graphs.needs import needed_weights
from act2see.graphs.parts import build_parts
from act2see.micro.recipe.learn_generator import edit_texts
from act2see.micro.recipe.tokenizers import clip_tokenizer
from act2see.tools.base import ToolContext
from act2see.tools.frames import Retrieved
from act2see.tools.runtime.weights import resolve_weights
from act2see.tools.search.blip2 import Blip2Encoder
from act2see.tools.search.calibration import Query, calibrate, score_queries
from act2see.tools.search.dual import DualEncoder, SentenceTransformersEncoder
from act2see.tools.search.finder import Finder
from act2see.tools.search.index import read_index
from act2see.tools.search.thresholds import NO_THRESHOLD, save_calibration
from act2see.tools.video.library import VideoLibrary
from act2see.tools.video.store import FrameStore
from act2see.trace.trace import Trace

KINDS = ("clip", "siglip", "siglip2")
TEXTS = ["the red circle blinks", "a blue square"]
SIDE, DIM = 32, 24


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weight folders, one for each of `KINDS`."""
    import torch
    import transformers as tf
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    root = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    tokenizer = clip_tokenizer(edit_texts())
    tokenizer.pad_token = "<|endoftext|>"
    both = dict(intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    text = dict(
        both, vocab_size=len(tokenizer), max_position_embeddings=16, bos_token_id=tokenizer.bos_token_id
    )
    text |= dict(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    vision = dict(both, image_size=SIDE, patch_size=8)
    wide, narrow = dict(hidden_size=32), dict(hidden_size=DIM)
    crop = {"height": SIDE, "width": SIDE}
    clip = tf.CLIPConfig(text_config={**text, **wide}, vision_config={**vision, **wide}, projection_dim=DIM)
    siglip = tf.SiglipConfig(
        text_config={**text, **narrow, "projection_size": DIM}, vision_config={**vision, **narrow}
    )
    naflex = {**vision, **narrow, "num_patches": 16}
    siglip2 = tf.Siglip2Config(text_config={**text, **narrow, "projection_size": DIM}, vision_config=naflex)
    models = {
        "clip": tf.CLIPModel(clip),
        "siglip": tf.SiglipModel(siglip),
        "siglip2": tf.Siglip2Model(siglip2),
    }
    for name, model in models.items():
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
        images = (
            CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=crop)
            if name == "clip"
            else SiglipImageProcessorPil(size=crop)
        )
        images.save_pretrained(root / name)
    return root


@pytest.fixture(scope="module", params=KINDS)
def dual(request: pytest.FixtureRequest, checkpoints: Path) -> DualEncoder:
    return DualEncoder(checkpoints / request.param)


def pictures(n: int, side: int = SIDE) -> list[NDArray[np.uint8]]:
    return list(np.random.default_rng(1).integers(0, 256, (n, side, side, 3), dtype=np.uint8))


def test_shapes_and_lengths(dual: DualEncoder) -> None:
    frames, phrases = dual.frames(pictures(3)), dual.phrases(TEXTS)
    assert (frames.shape, frames.dtype) == ((3, 1, DIM), np.float16)
    assert (phrases.shape, phrases.dtype) == ((2, DIM), np.float32)
    assert np.linalg.norm(frames.astype(np.float32), axis=-1) == pytest.approx(1, abs=2e-3)
    assert np.linalg.norm(phrases, axis=-1) == pytest.approx(1, abs=1e-5)
    assert (dual.size, dual.no_match) == (SIDE, -1.0)
    # Any size of frame, and a text that is far too long.
    assert dual.frames([np.zeros((90, 160, 3), np.uint8)]).shape == (1, 1, DIM)
    assert dual.phrases(["a blue square " * 100]).shape == (1, DIM)


def test_scores_are_the_models_own_cosine(dual: DualEncoder, checkpoints: Path) -> None:
    """Compare with the model's forward on inputs of the checkpoint's own processors, as it documents."""
    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
    from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

    folder = checkpoints / dual.kind
    model = AutoModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if dual.kind == "clip":
        images = CLIPImageProcessorPil.from_pretrained(folder)(pictures(3), return_tensors="pt")
        texts = tokenizer(TEXTS, padding=True, return_tensors="pt")
    else:
        naflex = Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16)
        images = (naflex if dual.kind == "siglip2" else SiglipImageProcessorPil.from_pretrained(folder))(
            pictures(3), return_tensors="pt"
        )
        texts = tokenizer(
            [t.lower() for t in TEXTS],
            padding="max_length",
            truncation=True,
            max_length=16,
            return_tensors="pt",
        )
        texts.pop("attention_mask")
    with torch.no_grad():
        out = model(**images, **texts)
        cosine = (out.logits_per_image - getattr(model, "logit_bias", 0.0)) / model.logit_scale.exp()
    ours = dual.frames(pictures(3))[:, 0].astype(np.float32) @ dual.phrases(TEXTS).T
    assert ours == pytest.approx(cosine.numpy(), abs=2e-3)


def test_sentence_transformers_gives_the_same(checkpoints: Path, tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    there, here = SentenceTransformersEncoder(checkpoints / "clip"), DualEncoder(checkpoints / "clip")
    assert there.size == SIDE
    assert there.frames(pictures(3)).astype(np.float32) == pytest.approx(
        here.frames(pictures(3)).astype(np.float32), abs=2e-3
    )
    assert there.phrases(TEXTS) == pytest.approx(here.phrases(TEXTS), abs=1e-5)
    assert there.id != here.id
    # `doctor` and the loader also accept the library's own layout.
    there.model.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    assert SentenceTransformersEncoder(tmp_path / "saved").id == there.id
    config = load_config(
        "micro",
        encoder={"use": "sentence-transformers", "weights": str(tmp_path / "saved"), "dtype": "float32"},
    )
    [needed] = [n for n in needed_weights(config) if n.part == "encoder"]
    assert needed.memory == 4.0 * sum(p.numel() for p in there.model.parameters())


def test_every_back_end_has_an_index_of_its_own(
    checkpoints: Path, encoder: Blip2Encoder, clip: str, tmp_path: Path
) -> None:
    duals = [DualEncoder(checkpoints / k) for k in KINDS]
    finders = [
        Finder(VideoLibrary(tmp_path, FrameStore(tmp_path / "f"), 96), e, tmp_path, 3.0, 8)
        for e in (encoder, *duals)
    ]
    ids = [f.index(clip).id for f in finders]
    assert len(set(ids)) == 4
    assert [read_index(f.folder(i), i).tokens for f, i in zip(finders, ids, strict=True)] == [
        encoder.tokens,
        1,
        1,
        1,
    ]
    rows = [f.index(clip).rows.ntotal for f in finders]
    assert rows == [18 * encoder.tokens, 18, 18, 18]
    for finder in finders[1:]:
        [best] = finder.find(clip, TEXTS[0]).hits
        [(_, _, pixels)] = finder.library.decode(clip, [best.frame], (SIDE, SIDE))
        assert best.score == pytest.approx(finder.similarities([pixels], TEXTS[0])[0], abs=5e-3)


@pytest.fixture
def config(checkpoints: Path, tmp_path: Path) -> Callable[..., Any]:
    def make(use: str, name: str = "clip") -> Any:
        changes: dict[str, Any] = {
            "encoder": {"use": use, "weights": str(checkpoints / name)},
            "tools": {"generate": None},
        }
        return load_config("micro", cache=str(tmp_path / "cache"), view={"guard": None}, **changes)

    return make


@pytest.mark.parametrize("name", KINDS)
async def test_retrieve_in_the_graph_by_config_alone(
    config: Callable[..., Any], clip: str, name: str
) -> None:
    chosen = config("transformers", name)
    reasoner = Scripted(f"<retrieve>{TEXTS[0]}</retrieve>", "So.</think><answer>B</answer>")
    graph = create_act2see(chosen, parts=replace(build_parts(chosen), reasoner=reasoner))
    given: Any = {"video": clip, "question": "What?"}
    trace = Trace.model_validate((await graph.ainvoke(given))["trace"])
    [frame] = trace.shown[len(trace.initial) :]
    assert isinstance(frame.provenance, Retrieved)
    assert f"-{name}-" in frame.provenance.index_id
    assert trace.versions.tools["retrieve"].startswith(f"retrieve {name}-")


@pytest.mark.parametrize("name", ["siglip", "siglip2"])
async def test_siglip_has_a_threshold_once_it_is_calibrated(
    config: Callable[..., Any], clip: str, tmp_path: Path, name: str
) -> None:
    chosen = config("transformers", name)
    parts = build_parts(chosen)
    finder = parts.resources.finder
    assert finder.no_match == NO_THRESHOLD
    digest = finder.library.probe(clip).info.digest
    queries = [Query(f"{text} {n}", frozenset(("elsewhere",))) for text in TEXTS for n in range(5)]
    scored = score_queries(finder, {digest: clip}, queries)
    made = calibrate(finder, chosen.encoder.weights, scored, 0.1)
    save_calibration(finder.cache, made)
    assert made.encoder.startswith(f"{name}-")
    assert made.threshold > max(frame.score for query in scored for frame in query.others)
    retrieve = parts.tools["retrieve"]
    notes = [(await retrieve.call(query.text, ToolContext(clip))).note for query in queries]
    assert all(f"{made.threshold:.2f} is needed" in note for note in notes)
    again = build_parts(config("transformers", name)).resources.finder
    assert again.no_match == made.threshold


def test_a_wrong_checkpoint_names_the_right_encoder(config: Callable[..., Any], checkpoints: Path) -> None:
    with pytest.raises(
        WeightsError,
        match=r"is a clip checkpoint; the encoder needs BLIP-2 .* or `encoder\.use: transformers` for CLIP",
    ):
        build_parts(config("blip2")).resources.finder.encoder.phrases(["x"])
    with pytest.raises(ConfigError, match=r"encoder\.use: .*'sentence-transformers'"):
        config("openai")
    with pytest.raises(
        WeightsError, match=r"is a qwen3_vl checkpoint; `encoder\.use: transformers` needs one that embeds"
    ):
        DualEncoder(resolve_weights("micro:vlm"))
