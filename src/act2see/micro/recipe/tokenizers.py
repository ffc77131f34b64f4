"""Tokenizers of the micro models, trained on the world's own sentences.

Each has the class and the file format of the large model's: byte-level BPE with Qwen's special tokens, BERT
WordPiece for BLIP-2, CLIP's lower-cased BPE. They tokenise any text, but only the world's words are single
tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

QWEN_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# Added but not special, as in Qwen3: decoding a text keeps them.
QWEN_ADDED = ("<think>", "</think>")


def _words(texts: Iterable[str]) -> list[str]:
    import re

    return sorted({w for t in texts for w in re.findall(r"[a-z0-9]+|[^\sa-z0-9]", t.lower())})


def qwen_tokenizer(texts: Iterable[str], vocabulary: int = 640) -> Any:
    """Train a byte-level BPE tokenizer as in Qwen3-VL."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import Qwen2TokenizerFast

    # Qwen's own pattern: words with their space, digits one by one, punctuation with a trailing newline.
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    learner.decoder = decoders.ByteLevel()
    learner.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        ),
    )
    import json

    model = json.loads(learner.to_str())["model"]
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
    tokenizer = Qwen2TokenizerFast(
        vocab=model["vocab"], merges=merges, unk_token=None, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(QWEN_SPECIAL)})
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=False) for t in QWEN_ADDED])
    tokenizer.model_max_length = 4096
    return tokenizer


def bert_tokenizer(texts: Iterable[str]) -> Any:
    """Make a WordPiece tokenizer as in BLIP-2's Q-Former; single characters cover all other words."""
    from transformers import BertTokenizerFast

    words = _words(texts)
    letters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *words]
    vocabulary += [p for p in (*letters, *(f"##{x}" for x in letters)) if p not in set(words)]
    return BertTokenizerFast(vocab={w: i for i, w in enumerate(vocabulary)}, model_max_length=35)


def clip_tokenizer(texts: Iterable[str], vocabulary: int = 700) -> Any:
    """Train CLIP's BPE. A text has at most 16 tokens, while the large model has 77."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import CLIPTokenizerFast

    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    learner.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            end_of_word_suffix="</w>",
            show_progress=False,
        ),
    )
    import json

    model = json.loads(learner.to_str())["model"]
    vocab: dict[str, int] = dict(model["vocab"])
    for letter in pre_tokenizers.ByteLevel.alphabet():
        vocab.setdefault(letter + "</w>", len(vocab))
    for token in ("<|startoftext|>", "<|endoftext|>"):
        vocab.setdefault(token, len(vocab))
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
    return CLIPTokenizerFast(vocab=vocab, merges=merges, model_max_length=16)
