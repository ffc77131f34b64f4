"""Turn a rollout into text for a server, so that the server still tokenises it piece by piece.

A rollout is tokenised one piece at a time, so that no token spans two pieces and a spelled-out control token
stays plain text (`agent/rollout.py`). A server takes one string and tokenises it as a whole: `</retrieve>`
and `<frame>` would share the token `><`, on which no model was trained, and a spelled-out `<|im_start|>`
would begin a turn. So pieces are joined with a separator, a Unicode noncharacter that is removed from their
texts. The server gets the model's own tokenizer with one more rule: split at the separator, and drop it. Its
ids are then those of `Packer`.

With `exact=False`, for a server with the plain tokenizer, pieces are joined without a separator. Spelled-out
tokens are then broken by a space, and the few tokens that span two pieces differ from those of training.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from act2see.agent.rollout import OTHER_CALLS, ImagePiece, Piece, TextPiece
from act2see.errors import WeightsError
from act2see.tools.frames import FrameRef
from act2see.tools.runtime.revisions import revision_of, split_revision
from act2see.tools.runtime.text import first_line

SEPARATOR = "\ufdd0"
FORBIDDEN = (
    "<|im_start|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    *OTHER_CALLS,
)
"""Marks that a model must never write: of turns, frames and another tool protocol, except the end of its
turn."""
_SPECIAL = re.compile(r"<\|[^<>|]*\|>|</?(?:tool_call|tool_response)>|(</?think>)")
# The first character of an added token; group 1 matches if it is one of those that a model may write.
_ADDED_TOKEN = re.compile(r"<(?=\|[^<>|]*\|>|/?(?:tool_call|tool_response)>|(/?think>))")


def escape_piece(piece: TextPiece, exact: bool = True) -> str:
    """Return the text of a piece, with the added tokens broken that its author may not write.

    Args:
        piece: The piece.
        exact: Whether the server splits at `SEPARATOR`.
    """
    text = piece.text.replace(SEPARATOR, "")
    if piece.trust == "control":
        return text
    broken = f"<{SEPARATOR if exact else ' '}"
    return _ADDED_TOKEN.sub(lambda m: m[0] if m[1] and piece.trust == "model" else broken, text)


def escape_pieces(pieces: Sequence[Piece], exact: bool = True) -> list[str | FrameRef]:
    """Return the texts and the frames of a rollout in order, with consecutive texts joined.

    Args:
        pieces: The pieces of a rollout.
        exact: Whether the server splits at `SEPARATOR`.
    """
    separator = SEPARATOR if exact else ""
    parts: list[str | FrameRef] = []
    for piece in pieces:
        if isinstance(piece, ImagePiece):
            parts.append(piece.frame)
        elif parts and isinstance(parts[-1], str):
            parts[-1] += separator + escape_piece(piece, exact)
        else:
            parts.append(escape_piece(piece, exact))
    return parts


def safe_texts(pieces: Sequence[Piece]) -> list[str]:
    """Return the texts before, between and behind the frames, for a server that parses special tokens.

    A special token is left only where its author may write it; a space goes into any other, also into one
    that two pieces spell together.

    Args:
        pieces: The pieces of a rollout.

    Returns:
        One text more than there are frames.
    """
    texts: list[str] = []
    run: list[TextPiece] = []
    for piece in pieces:
        if isinstance(piece, TextPiece):
            run.append(piece)
            continue
        texts.append(_safe_text(run))
        run = []
    return [*texts, _safe_text(run)]


def _safe_text(run: Sequence[TextPiece]) -> str:
    """The text of consecutive pieces, with a space in each special token that its author may not write."""
    text = "".join(piece.text for piece in run)
    allowed = _allowed_tokens(run)
    cuts = []
    position = 0
    while match := _SPECIAL.search(text, position):
        if match.span() in allowed:
            position = match.end()
        else:
            position = match.start() + 1
            cuts.append(position)
    for cut in reversed(cuts):
        text = f"{text[:cut]} {text[cut:]}"
    return text


def _allowed_tokens(run: Sequence[TextPiece]) -> set[tuple[int, int]]:
    """The places of the special tokens that stand whole in one piece whose author may write them."""
    places = set()
    offset = 0
    for piece in run:
        for match in _SPECIAL.finditer(piece.text):
            if piece.trust == "control" or (piece.trust == "model" and match[1]):
                places.add((offset + match.start(), offset + match.end()))
        offset += len(piece.text)
    return places


def write_tokenizer(weights: str, folder: Path) -> Path:
    """Write a model's tokenizer with the separator's rule to a folder.

    Args:
        weights: The model's folder or hub name.
        folder: The folder to write. It is returned.

    Raises:
        WeightsError: The tokenizer cannot be fetched or read.
    """
    tokenizer = _read_json(weights, "tokenizer.json")
    settings = _read_json(weights, "tokenizer_config.json")
    rule = {"type": "Split", "pattern": {"String": SEPARATOR}, "behavior": "Removed", "invert": False}
    rules = [rule]
    if own := tokenizer.get("pre_tokenizer"):
        rules.append(own)
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": rules}
    # A class named after a model builds its own rules and would drop this one; the general class uses the
    # file as it is.
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    for key in ("auto_map", "chat_template", "backend", "is_local", "local_files_only"):
        settings.pop(key, None)
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in (("tokenizer.json", tokenizer), ("tokenizer_config.json", settings)):
        (folder / name).write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    return folder


def _read_json(weights: str, name: str) -> dict[str, Any]:
    """Return the data of a JSON file in a folder or a hub repository."""
    path = Path(weights) / name
    if not Path(weights).is_dir():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            path = Path(hf_hub_download(split_revision(weights)[0], name, revision=revision_of(weights)))
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as e:
            raise WeightsError(
                f"the tokenizer of {weights} cannot be fetched ({first_line(e)}): "
                "name a folder that holds the weights"
            ) from e
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise WeightsError(f"{weights} holds no readable {name} ({e}): save or download it again") from e
    return data
