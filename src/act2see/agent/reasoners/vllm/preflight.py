"""Before a run: does the vLLM server have this model, our template and tokenizer, and room for a run?

Four small requests, none of which costs more than one frame: the list of models; a word (does the template
pass it through as it is?); two signs with the separator between (are pieces tokenised apart?); one blank
frame of the largest size (is it taken, and how many tokens is it?); and as many tiny frames as a run may
show, with more text than the server takes, so that it is refused after the frames were counted and before any
was looked at.

All that is wrong is said in one error, with what to change.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from act2see.agent.reasoners.base import FRAME_TEXT, QUESTION, Needs
from act2see.agent.reasoners.pieces import SEPARATOR
from act2see.agent.reasoners.vllm.wire import image_part
from act2see.errors import ContextError, ReasonerError, SetupError
from act2see.tools.video.store import encode_png


class Server(Protocol):
    """A vLLM server, as far as it is asked here."""

    url: str
    name: str
    """The model, or the adapter, that a run uses."""
    model: str
    exact: bool
    """Whether the server should have our tokenizer."""

    async def get(self, path: str) -> dict[str, Any]:
        """JSON from the server. Raises `ReasonerError`."""

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """JSON from the server for JSON. Raises `ReasonerError`."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """The limits of a server."""

    context: int
    """The most tokens of a prompt and its answer."""
    frame_tokens: int
    """Tokens of the largest frame."""
    images: int | None = None
    """The most images of a prompt; None if that is enough."""


async def preflight(server: Server, needs: Needs) -> ServerLimits:
    """The server's limits.

    Raises:
        SetupError: A run that needs as much could fail.
        ReasonerError: The server cannot be asked.
    """
    context = await _context(server)
    word = await _count_tokens(server, "x")
    if word != 1:
        raise SetupError(
            f"{server.url} makes {word} tokens of a prompt of one: its chat template is not ours; start it "
            "with `act2see serve vllm`, which passes --chat-template"
        )
    wrong: list[str] = []
    if server.exact and await _count_tokens(server, f">{SEPARATOR}<") != 2:
        wrong.append(
            "its tokenizer does not keep pieces apart: start it with `act2see serve vllm`, which passes "
            "--tokenizer, or set reasoner.options.exact: false, which reads a few tokens otherwise than at "
            "training"
        )
    images = await _image_limit(server, needs.images, context)
    if images is not None:
        limit = f"""--limit-mm-per-prompt '{{"image": {needs.images}}}'"""
        wrong.append(
            f"it takes {images} images in a prompt and a run may show {needs.images}: start it with {limit}, "
            "or lower view.max_frames, budget.calls or the tools' max_frames"
        )
    frame_tokens = await _count_tokens(server, _blank(needs.side)) if images != 0 else 0
    if needs.context(frame_tokens) > context:
        wrong.append(_too_short(needs, context, frame_tokens))
    if wrong:
        raise SetupError(f"the vLLM server at {server.url} cannot serve this config: {'; and '.join(wrong)}")
    return ServerLimits(context, frame_tokens, images)


async def _context(server: Server) -> int:
    """The context of the configured model. Raises `SetupError` if the server does not have the model."""
    cards: list[dict[str, Any]] = (await server.get("/models")).get("data") or []
    ids = [str(card.get("id")) for card in cards]
    listed = ", ".join(ids) or "none"
    if server.name not in ids and server.name != server.model:
        raise SetupError(
            f"{server.url} has not loaded the adapter {server.name} (it has {listed}): start it with "
            f"`act2see serve vllm`, which passes --lora-modules, with --lora {server.name}=FOLDER, or set "
            "reasoner.adapter to one it has"
        )
    if server.name not in ids:
        raise SetupError(
            f"{server.url} serves {listed}, and the config wants {server.name}: set reasoner.weights to "
            "that, or serve the other one"
        )
    # An adapter's card gives no length: its base model's holds.
    lengths = [card.get("max_model_len") for card in (cards[ids.index(server.name)], *cards)]
    length = next((n for n in lengths if n), None)
    if length is None:
        raise SetupError(
            f"{server.url} does not say how long a prompt may be, so it is not a vLLM server; use "
            "`reasoner.use: chat` for others"
        )
    return int(length)


async def _count_tokens(server: Server, part: str | dict[str, Any]) -> int:
    """How many tokens a prompt of this part alone has."""
    block = {"type": "text", "text": part} if isinstance(part, str) else part
    reply = await server.post("/chat/completions", _body(server, [block]))
    return int((reply.get("usage") or {}).get("prompt_tokens") or 0)


async def _image_limit(server: Server, wanted: int, context: int) -> int | None:
    """How many images a prompt may have; None if `wanted` are allowed."""
    tiny, long = _blank(32), {"type": "text", "text": " x" * (context + 1)}
    try:
        await server.post("/chat/completions", _body(server, [*[tiny] * wanted, long]))
    except ReasonerError as e:
        if found := re.search(r"at most (\d+) image", str(e.__cause__ or e), re.IGNORECASE):
            return int(found[1])
        if not isinstance(e, ContextError):
            raise
    return None


def _too_short(needs: Needs, context: int, frame_tokens: int) -> str:
    """What is wrong with a context, in words, and what to change."""
    needed = needs.context(frame_tokens)
    room = (context - QUESTION - needs.tokens) // (frame_tokens + FRAME_TEXT)
    fewer = f"show at most {room} frames in all (view.max_frames), or smaller ones (view.max_side)"
    return (
        f"its context is {context} tokens and a run may need {needed} ({needs.images} frames of "
        f"{frame_tokens}, {needs.tokens} written): start it with --max-model-len {needed}, or "
        f"{fewer if room > 0 else 'lower budget.tokens'}"
    )


def _body(server: Server, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "model": server.name,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 1,
        "temperature": 0.0,
        "add_generation_prompt": False,
    }


def _blank(side: int) -> dict[str, Any]:
    """A black frame of `side` x `side` pixels."""
    name = hashlib.blake2b(f"blank {side}".encode(), digest_size=16).hexdigest()
    return image_part(encode_png(np.zeros((side, side, 3), np.uint8)), name)
