"""Before a run: does the vLLM server have this model, our template and tokenizer, and room for what the
config may send?

Four small requests, none of which costs more than one frame: the list of models, a word (does the template
pass it through as it is?), two signs with the separator between (are pieces read apart?), one blank frame of
the largest size (is it taken, and how many tokens is it?), and as many tiny frames as a run may show, with
more text than the server takes, so that it is turned down after the frames were counted and before any was
looked at.

Everything that is wrong is said in one error, with what to change.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from act2see.agent.reasoners.pieces import SEPARATOR
from act2see.errors import ContextError, ReasonerError, SetupError

if TYPE_CHECKING:
    from act2see.agent.reasoners.vllm.http import VLLMHTTPReasoner

FRAME_TEXT = 16  # tokens around a frame: its time, its marks, the tags of a tool's answer
QUESTION = 1024  # tokens of the question, its options and the instruction


@dataclass(frozen=True, slots=True)
class Needs:
    """The most that a run of a config may send: frames, their longer side in pixels, tokens that are
    written."""

    images: int
    side: int
    tokens: int

    def context(self, frame_tokens: int) -> int:
        """Tokens that the server must have room for, where a frame takes so many."""
        return self.images * (frame_tokens + FRAME_TEXT) + QUESTION + self.tokens


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server said: its context, what the largest frame takes of it, and how many frames it takes
    (None: enough)."""

    context: int
    frame_tokens: int
    images: int | None = None


async def preflight(server: VLLMHTTPReasoner, needs: Needs) -> Limits:
    """The server's limits. Raises `SetupError` where a run could fail on them, `ReasonerError` where it
    cannot be asked."""
    context = await _model(server)
    wrong: list[str] = []
    word = await _tokens(server, "x")
    if word != 1:
        raise SetupError(
            f"{server.url} makes {word} tokens of a prompt of one: its chat template is not ours; start it with `act2see serve vllm`, "
            "which passes --chat-template"
        )
    if server.exact and await _tokens(server, f">{SEPARATOR}<") != 2:
        wrong.append(
            "its tokenizer does not keep pieces apart: start it with `act2see serve vllm`, which passes --tokenizer, or set "
            "reasoner.options.exact: false, which reads a few tokens otherwise than at training"
        )
    images = await _image_limit(server, needs.images, context)
    if images is not None:
        wrong.append(
            f"it takes {images} images in a prompt and a run may show {needs.images}: start it with "
            f"""--limit-mm-per-prompt '{{"image": {needs.images}}}', or lower view.max_frames, budget.calls or the tools' max_frames"""
        )
    frame = await _tokens(server, _blank(needs.side)) if images != 0 else 0
    if (needed := needs.context(frame)) > context:
        room = (context - QUESTION - needs.tokens) // (frame + FRAME_TEXT)
        fewer = f"show at most {room} frames in all (view.max_frames), or smaller ones (view.max_side)"
        wrong.append(
            f"its context is {context} tokens and a run may need {needed} ({needs.images} frames of {frame}, {needs.tokens} written): "
            f"start it with --max-model-len {needed}, or {fewer if room > 0 else 'lower budget.tokens'}"
        )
    if wrong:
        raise SetupError(f"the vLLM server at {server.url} cannot serve this config: {'; and '.join(wrong)}")
    return Limits(context, frame, images)


async def _model(server: VLLMHTTPReasoner) -> int:
    """The context of the configured model, which the server must have."""
    cards: list[dict[str, Any]] = (await server.get("/models")).get("data") or []
    ids = [str(card.get("id")) for card in cards]
    listed = ", ".join(ids) or "none"
    if server.name not in ids:
        if server.name != server.model:
            raise SetupError(
                f"{server.url} has not loaded the adapter {server.name} (it has {listed}): start it with `act2see serve vllm`, which "
                f"passes --lora-modules, with --lora {server.name}=FOLDER, or set reasoner.adapter to one it has"
            )
        raise SetupError(
            f"{server.url} serves {listed}, and the config wants {server.name}: set reasoner.weights to that, or serve the other one"
        )
    card = cards[ids.index(server.name)]
    own = card.get("max_model_len") or next(
        (c["max_model_len"] for c in cards if c.get("max_model_len")), None
    )
    if not own:
        raise SetupError(
            f"{server.url} does not say how long a prompt may be: it is no vLLM server; use `reasoner.use: chat` for others"
        )
    return int(own)


async def _tokens(server: VLLMHTTPReasoner, part: str | dict[str, Any]) -> int:
    """How many tokens a prompt of this part alone has."""
    block = {"type": "text", "text": part} if isinstance(part, str) else part
    said = await server.post("/chat/completions", _body(server, [block]))
    return int((said.get("usage") or {}).get("prompt_tokens") or 0)


async def _image_limit(server: VLLMHTTPReasoner, wanted: int, context: int) -> int | None:
    """How many images a prompt may have, None where that is `wanted` or more."""
    tiny, long = _blank(32), {"type": "text", "text": " x" * (context + 1)}
    try:
        await server.post("/chat/completions", _body(server, [*[tiny] * wanted, long]))
    except ReasonerError as e:
        said = str(e.__cause__ or e)
        if found := re.search(r"at most (\d+) image", said, re.IGNORECASE):
            return int(found[1])
        if isinstance(e, ContextError):
            return None
        raise
    return None


def _body(server: VLLMHTTPReasoner, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "model": server.name,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 1,
        "temperature": 0.0,
        "add_generation_prompt": False,
    }


def _blank(side: int) -> dict[str, Any]:
    from act2see.agent.reasoners.vllm.wire import image_part
    from act2see.tools.video.store import encode_png

    pixels = np.zeros((side, side, 3), np.uint8)
    return image_part(
        encode_png(pixels), hashlib.blake2b(f"blank {side}".encode(), digest_size=16).hexdigest()
    )
