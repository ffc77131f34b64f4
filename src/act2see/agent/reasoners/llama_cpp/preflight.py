"""Before a run: can the llama.cpp server see, has it room for a run, which marker stands for a frame?

`/props` gives the slots, the context of one and the marker; one request of a single token with the largest
frame tells how many tokens such a frame takes. All that is wrong is said in one error, with what to change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from act2see.agent.reasoners.base import FRAME_TEXT, QUESTION, Needs
from act2see.agent.reasoners.connection import ServerConnection, StatusError
from act2see.agent.reasoners.llama_cpp.wire import FIELDS
from act2see.agent.reasoners.pieces import FORBIDDEN
from act2see.errors import SetupError
from act2see.tools.video.store import encode_png

_OLD_MARKER = "<__media__>"  # of servers that do not name theirs


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server says of itself."""

    model: str
    """Its name for the model."""
    context: int
    """Tokens of one slot: a prompt and its answer."""
    slots: int
    """How many requests it works on at the same time."""
    marker: str
    """The string that stands for a frame in a prompt."""
    vision: bool
    """Whether it can read pictures."""
    forbidden: tuple[int, ...] = ()
    """Ids of the tokens that a model must never write."""


async def read_facts(connection: ServerConnection) -> ServerFacts:
    """Ask the server what it is.

    Raises:
        SetupError: It is not a llama.cpp server.
        StatusError, ValueError, OSError, httpx.TransportError: It cannot be asked.
    """
    props = await connection.json("GET", "/props")
    settings = props.get("default_generation_settings") if isinstance(props, dict) else None
    if not isinstance(settings, dict) or "n_ctx" not in settings:
        raise SetupError(
            f"{connection.url} is not a llama.cpp server: set reasoner.options.url, or start one with "
            "`act2see serve llama-cpp`"
        )
    return ServerFacts(
        model=str(props.get("model_alias") or props.get("model_path") or ""),
        context=int(settings["n_ctx"]),
        slots=int(props.get("total_slots") or 1),
        marker=str(props.get("media_marker") or _OLD_MARKER),
        vision=bool((props.get("modalities") or {}).get("vision")),
        forbidden=await _forbidden(connection),
    )


async def preflight(connection: ServerConnection, facts: ServerFacts, needs: Needs) -> None:
    """Check that a run fits.

    Raises:
        SetupError: A run that needs as much could fail.
        StatusError, ValueError, OSError, httpx.TransportError: The server cannot be asked.
    """
    if not facts.vision:
        raise SetupError(
            f"the model at {connection.url} ({facts.model}) reads no pictures: start the server with its "
            "--mmproj file, as `act2see serve llama-cpp` does"
        )
    tokens = await _frame_tokens(connection, facts, needs.side)
    needed = needs.context(tokens)
    if needed > facts.context:
        room = (facts.context - QUESTION - needs.tokens) // (tokens + FRAME_TEXT)
        fewer = f"show at most {room} frames in all (view.max_frames), or smaller ones (view.max_side)"
        raise SetupError(
            f"a slot of {connection.url} holds {facts.context} tokens and a run may need {needed} "
            f"({needs.images} frames of {tokens}, {needs.tokens} written): start the server with --ctx-size "
            f"{needed * facts.slots}, or {fewer if room > 0 else 'lower budget.tokens'}"
        )


async def _forbidden(connection: ServerConnection) -> tuple[int, ...]:
    """Ids of the marks that a model must never write, as far as its vocabulary has them."""
    ids = []
    for mark in FORBIDDEN:
        data = await connection.json("POST", "/tokenize", {"content": mark, "parse_special": True})
        tokens = data.get("tokens") or []
        if len(tokens) == 1:
            ids.append(int(tokens[0]))
    return tuple(ids)


async def _frame_tokens(connection: ServerConnection, facts: ServerFacts, side: int) -> int:
    """Tokens of a black frame of `side` x `side` pixels, with the marks around it."""
    from base64 import b64encode

    picture = b64encode(encode_png(np.zeros((side, side, 3), np.uint8))).decode()
    body: dict[str, Any] = {
        "prompt": {"prompt_string": facts.marker, "multimodal_data": [picture]},
        "n_predict": 1,
        "response_fields": list(FIELDS),
    }
    try:
        return int((await connection.json("POST", "/completion", body))["tokens_evaluated"])
    except StatusError as e:
        raise SetupError(
            f"{connection.url} refuses a frame of {side} x {side} pixels ({e.message[:160]}): lower "
            "view.max_side, or start the server with a larger --ctx-size"
        ) from e
