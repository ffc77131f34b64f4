"""Check before a run that the vLLM server has the model, act2see's template and tokenizer, and enough room.

The check sends a few small requests, each no more costly than one frame:

- the list of models, which has the server's context;
- one letter, which must be one token if the template passes text through;
- two signs with the separator between them, which must be two tokens if pieces are tokenised separately;
- as many tiny frames as a run may show, with a text that is longer than the context. The server counts the
  frames and then refuses the text, so it never reads the frames;
- one blank frame of the largest size, whose tokens are counted.

One error lists all problems, each with its remedy.
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
    """The parts of a vLLM client that the check uses."""

    url: str
    name: str
    """The model, or the adapter, that a run uses."""
    model: str
    """The base model."""
    exact: bool
    """Whether the server should have act2see's tokenizer."""

    async def get(self, path: str) -> dict[str, Any]:
        """Return the JSON at `path`. Raises `ReasonerError`."""

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send JSON to `path` and return the JSON of the reply. Raises `ReasonerError`."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """The limits of a server."""

    context: int
    """The maximum number of tokens of a prompt and its answer."""
    frame_tokens: int
    """The number of tokens of the largest frame."""
    images: int | None = None
    """The maximum number of images in a prompt; None if it is enough for a run."""


async def preflight(server: Server, needs: Needs) -> ServerLimits:
    """Check that a server can serve a run, and return the server's limits.

    Args:
        server: The server.
        needs: The most that a run may send.

    Raises:
        SetupError: A run could fail: the model is missing, or the server is set up for less than `needs`.
        ReasonerError: The server cannot be reached.
    """
    context = await _find_context(server)
    await _check_template(server)
    problems: list[str] = []
    if server.exact and await _count_tokens(server, f">{SEPARATOR}<") != 2:
        problems.append(
            "its tokenizer joins the pieces of a rollout: start it with `act2see serve vllm`, which passes "
            "`--tokenizer`, or set `reasoner.options.exact: false`, which tokenises a few places differently "
            "from training"
        )
    images = await _find_image_limit(server, needs.images, context)
    if images is not None:
        count = f"{images} image{'' if images == 1 else 's'}"
        option = f"""--limit-mm-per-prompt '{{"image": {needs.images}}}'"""
        problems.append(
            f"it accepts {count} in a prompt, and a run may show {needs.images}: start it with `{option}`, "
            "or lower view.max_frames, budget.calls or the tools' max_frames"
        )
    frame_tokens = await _count_tokens(server, _blank_frame(needs.side)) if images != 0 else 0
    if needs.context(frame_tokens) > context:
        problems.append(_describe_short_context(needs, context, frame_tokens))
    if problems:
        raise SetupError(
            f"the vLLM server at {server.url} cannot serve this config: {'; and '.join(problems)}"
        )
    return ServerLimits(context, frame_tokens, images)


async def _check_template(server: Server) -> None:
    """Raise `SetupError` if the server's chat template adds tokens to a prompt."""
    count = await _count_tokens(server, "x")
    if count != 1:
        raise SetupError(
            f"{server.url} turns a one-token prompt into {count} tokens, so it does not use act2see's chat "
            "template: start it with `act2see serve vllm`, which passes `--chat-template`"
        )


async def _find_context(server: Server) -> int:
    """Return the context of the configured model. Raise `SetupError` if the server does not have it."""
    cards: list[dict[str, Any]] = (await server.get("/models")).get("data") or []
    ids = [str(card.get("id")) for card in cards]
    listed = ", ".join(ids) or "none"
    if server.name not in ids and server.name != server.model:
        raise SetupError(
            f"{server.url} has not loaded the adapter {server.name} (it has {listed}): start it with "
            f"`act2see serve vllm --lora {server.name}=FOLDER`, which passes `--lora-modules`, or set "
            "reasoner.adapter to one that it has"
        )
    if server.name not in ids:
        raise SetupError(
            f"{server.url} serves {listed}, and the config names {server.name}: set reasoner.weights to a "
            "model that it serves, or serve the one the config names"
        )
    # An adapter's card has no length; the length of its base model applies.
    lengths = [card.get("max_model_len") for card in (cards[ids.index(server.name)], *cards)]
    length = next((n for n in lengths if n), None)
    if length is None:
        raise SetupError(
            f"{server.url} does not report `max_model_len`, so it is not a vLLM server: set "
            "`reasoner.use: chat` for other servers"
        )
    return int(length)


async def _count_tokens(server: Server, part: str | dict[str, Any]) -> int:
    """Return the number of tokens of a prompt with only this part."""
    block = {"type": "text", "text": part} if isinstance(part, str) else part
    reply = await server.post("/chat/completions", _make_body(server, [block]))
    return int((reply.get("usage") or {}).get("prompt_tokens") or 0)


async def _find_image_limit(server: Server, needed: int, context: int) -> int | None:
    """Return how many images a prompt may have; None if `needed` images are allowed.

    Args:
        server: The server.
        needed: The number of images that a run may show.
        context: The server's context, in tokens.
    """
    tiny = _blank_frame(32)
    too_long = {"type": "text", "text": " x" * (context + 1)}
    try:
        await server.post("/chat/completions", _make_body(server, [*[tiny] * needed, too_long]))
    except ReasonerError as e:
        if found := re.search(r"at most (\d+) image", str(e.__cause__ or e), re.IGNORECASE):
            return int(found[1])
        if not isinstance(e, ContextError):
            raise
    return None


def _describe_short_context(needs: Needs, context: int, frame_tokens: int) -> str:
    """Return the problem with a context that is too short, and its remedy."""
    needed = needs.context(frame_tokens)
    room = (context - QUESTION - needs.tokens) // (frame_tokens + FRAME_TEXT)
    remedy = "lower budget.tokens"
    if room > 0:
        remedy = f"show at most {room} frames in all (view.max_frames), or smaller ones (view.max_side)"
    return (
        f"its context is {context} tokens, and a run may need {needed} ({needs.images} frames of "
        f"{frame_tokens}, {needs.tokens} written): start it with `--max-model-len {needed}`, or {remedy}"
    )


def _make_body(server: Server, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "model": server.name,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 1,
        "temperature": 0.0,
        "add_generation_prompt": False,
    }


def _blank_frame(side: int) -> dict[str, Any]:
    """Return a black frame of `side` x `side` pixels as a part of a message."""
    name = hashlib.blake2b(f"blank {side}".encode(), digest_size=16).hexdigest()
    return image_part(encode_png(np.zeros((side, side, 3), np.uint8)), name)
