"""The three micro models: the paper's architectures at a thousandth of their size, from random weights.

Each builder returns an ordinary transformers or diffusers object that saves to, and loads from, an ordinary
folder. With these sizes two cores train the whole recipe within hours, and a GPU within minutes.

The VLM sees 48 x 48 pixels with patch 8 and merge 2, so one board cell is one vision token. Its head_dim is
32 because vLLM's attention kernels accept nothing smaller. The generator works at 48 x 48 with a 12 x 12 x 8
latent. In transformers, BLIP-2's `query_tokens` start at zero and would stay equal to each other, so here
they are drawn from a normal distribution.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, StableDiffusion3Img2ImgPipeline
    from transformers import Blip2ForImageTextRetrieval, Qwen3VLForConditionalGeneration

IMAGE = 48
"""Width and height of a frame in pixels."""
PATCH = 8
LATENT_CHANNELS = 8


def build_vae() -> AutoencoderKL:
    """Build a VAE between 48 x 48 x 3 pixels and 12 x 12 x 8 latents (0.25 M parameters)."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 32),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=IMAGE,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.0,
        scaling_factor=1.0,
    )


def build_generator(vae: AutoencoderKL, tokenizer: Any) -> StableDiffusion3Img2ImgPipeline:
    """Build Stable Diffusion 3 with two small CLIP text towers, no T5, and a six-layer MMDiT.

    The scheduler has no shift: with `shift=3`, eight steps at strength 0.5 would start at sigma 0.69, where
    too little of the source is left.
    """
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Img2ImgPipeline,
    )
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=48,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    transformer = SD3Transformer2DModel(
        sample_size=12,
        patch_size=2,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=6,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=96,
        caption_projection_dim=128,
        pooled_projection_dim=96,
        pos_embed_max_size=12,
    )
    return StableDiffusion3Img2ImgPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        vae=vae,
        text_encoder=CLIPTextModelWithProjection(text),
        tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(text),
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
    )


def build_encoder(vocabulary: int) -> Blip2ForImageTextRetrieval:
    """Build BLIP-2 for image-text retrieval: a small ViT and a Q-Former with eight query tokens."""
    import torch
    from transformers import Blip2Config, Blip2ForImageTextRetrieval

    config = Blip2Config(
        vision_config=dict(
            hidden_size=96,
            intermediate_size=256,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=IMAGE,
            patch_size=PATCH,
            initializer_range=0.02,
        ),
        qformer_config=dict(
            vocab_size=vocabulary,
            hidden_size=96,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=256,
            max_position_embeddings=64,
            encoder_hidden_size=96,
            use_qformer_text_input=True,
            cross_attention_frequency=1,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        ),
        text_config=dict(
            model_type="opt",
            vocab_size=vocabulary,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            ffn_dim=16,
            word_embed_proj_dim=16,
            max_position_embeddings=32,
        ),
        num_query_tokens=8,
        image_text_hidden_size=64,
    )
    model = Blip2ForImageTextRetrieval(config)
    torch.nn.init.normal_(model.query_tokens, std=0.5)
    torch.nn.init.normal_(model.vision_model.embeddings.position_embedding, std=0.3)
    return model


def build_vlm(tokenizer: Any) -> Qwen3VLForConditionalGeneration:
    """Build a Qwen3-VL of four layers, 128 wide, with a three-layer vision tower and DeepStack."""
    import torch
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    ids = tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config=dict(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=4096,
            rope_parameters=dict(
                rope_type="default", rope_theta=10_000.0, mrope_section=[8, 4, 4], mrope_interleaved=True
            ),
            eos_token_id=ids("<|im_end|>"),
            pad_token_id=ids("<|endoftext|>"),
        ),
        vision_config=dict(
            depth=3,
            hidden_size=96,
            intermediate_size=256,
            num_heads=4,
            patch_size=PATCH,
            spatial_merge_size=2,
            temporal_patch_size=2,
            out_hidden_size=128,
            num_position_embeddings=64,
            deepstack_visual_indexes=[1],
        ),
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    model = Qwen3VLForConditionalGeneration(config)
    # At the default 0.02, positions are ten times weaker than patches, and the model learns late to
    # distinguish cells.
    torch.nn.init.normal_(model.model.visual.pos_embed.weight, std=0.3)
    return model


def widen_ffn(model: Qwen3VLForConditionalGeneration, width: int) -> None:
    """Widen the feed-forward layers of a VLM's text model in place, without a change of what it computes.

    The new units have random inputs, and outputs of zero.

    Args:
        model: The model.
        width: The number of units of each layer.
    """
    import torch

    for layer in model.model.language_model.layers:
        mlp = layer.mlp
        for name in ("gate_proj", "up_proj"):
            narrow = getattr(mlp, name).weight.detach()  # (units, hidden)
            wide = narrow.new_empty(width, narrow.shape[1]).normal_(0, float(narrow.std()))
            wide[: len(narrow)] = narrow
            setattr(mlp, name, _linear(wide))
        narrow = mlp.down_proj.weight.detach()  # (hidden, units)
        wide = torch.zeros(narrow.shape[0], width, dtype=narrow.dtype, device=narrow.device)
        wide[:, : narrow.shape[1]] = narrow
        mlp.down_proj = _linear(wide)
        mlp.intermediate_size = width
    model.config.text_config.intermediate_size = width


def _linear(weight: torch.Tensor) -> torch.nn.Linear:
    import torch

    rows, columns = weight.shape
    linear = torch.nn.Linear(columns, rows, bias=False, device="meta")
    linear.weight = torch.nn.Parameter(weight)
    return linear


def encoder_image_processor() -> Any:
    """Return BLIP-2's preprocessing at 48 x 48."""
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    return BlipImageProcessorPil(
        size={"height": IMAGE, "width": IMAGE}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )


def vlm_image_processor() -> Any:
    """Return Qwen3-VL's preprocessing at 48 x 48, without torchvision."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    pixels = IMAGE * IMAGE
    return Qwen2VLImageProcessorPil(
        patch_size=PATCH,
        merge_size=2,
        temporal_patch_size=2,
        min_pixels=pixels,
        max_pixels=pixels,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
