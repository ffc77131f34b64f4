"""How a rollout crosses to a server as text and is still read piece by piece.

A rollout is tokenised one piece at a time, so that no token spans two pieces and a control token that
somebody spells out stays plain text (`agent/rollout.py`). A server takes one string and tokenises it whole:
there `</retrieve>` and `<frame>` share the token `><`, which no model was trained on, and a spelled-out
`<|im_start|>` begins a turn. So pieces are joined with a separator, a character that Unicode keeps out of
text, and the server gets the model's own tokenizer with one rule more: split there, and leave the character
out. Its ids are then those of `Packer`.

Where a server has the plain tokenizer there is no separator (`exact=False`). Spelled-out tokens are then
broken by a space, and the few tokens that span two pieces differ from those of training.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from act2see.agent.rollout import ImagePiece, Piece, TextPiece
from act2see.errors import WeightsError
from act2see.tools.frames import FrameRef

SEPARATOR = "\ufdd0"
FORBIDDEN = ("<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
"""What a model must never write: turn and vision marks, the end of its turn aside."""
ENDS = ("<|im_end|>", "<|endoftext|>")
_SPELLED = re.compile(r"<(?=\|[^<>|]*\|>|/?(?:tool_call|tool_response)>|(/?think>))")


def spelled(piece: TextPiece, exact: bool = True) -> str:
    """A piece's text, in which only trusted pieces can hold added tokens."""
    text = piece.text.replace(SEPARATOR, "")
    if piece.trust == "control":
        return text
    cut = f"<{SEPARATOR if exact else ' '}"
    return _SPELLED.sub(lambda m: m[0] if m[1] and piece.trust == "model" else cut, text)


def spelled_parts(pieces: Sequence[Piece], exact: bool = True) -> list[str | FrameRef]:
    """Texts and frames in turn; pieces of text that follow one another are one text."""
    parts: list[str | FrameRef] = []
    for piece in pieces:
        if isinstance(piece, ImagePiece):
            parts.append(piece.frame)
        elif parts and isinstance(parts[-1], str):
            parts[-1] += (SEPARATOR if exact else "") + spelled(piece, exact)
        else:
            parts.append(spelled(piece, exact))
    return parts


def write_tokenizer(weights: str, folder: Path) -> Path:
    """The tokenizer of `weights`, a folder or hub name, with the separator's rule, written to `folder`."""
    whole, settings = (_read(weights, name) for name in ("tokenizer.json", "tokenizer_config.json"))
    rule = {"type": "Split", "pattern": {"String": SEPARATOR}, "behavior": "Removed", "invert": False}
    own = whole.get("pre_tokenizer")
    whole["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [rule, *([own] if own else [])]}
    # A class named after a model builds its own rules and would drop this one; the general one takes the file
    # as it is.
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    for key in ("auto_map", "chat_template", "backend", "is_local", "local_files_only"):
        settings.pop(key, None)
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in (("tokenizer.json", whole), ("tokenizer_config.json", settings)):
        (folder / name).write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    return folder


def _read(weights: str, name: str) -> dict[str, Any]:
    path = Path(weights) / name
    if not Path(weights).is_dir():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            path = Path(hf_hub_download(weights, name))
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as e:
            said = next(iter(str(e).splitlines()), type(e).__name__)[:200]
            raise WeightsError(
                f"the tokenizer of {weights} cannot be fetched ({said}); name a folder that holds the weights"
            ) from e
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise WeightsError(f"{weights} holds no readable {name} ({e})") from e
    return data
