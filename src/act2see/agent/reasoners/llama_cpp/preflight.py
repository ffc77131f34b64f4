"""Before a run: has the llama.cpp server the configured model, can it see, has it room for a run?

`/props` gives the model, the slots, the context of one and the marker that stands for a frame; one request of
a single token with the largest frame tells how many tokens such a frame takes. What is wrong is said in one
error, with what to change.

`act2see serve llama-cpp` gives the server the configured name. A server that was started otherwise names its
file, so names are compared without folders, signs and capitals: `Qwen/Qwen3-VL-2B-Thinking-GGUF:Q8_0` is
`Qwen3VL-2B-Thinking-Q8_0.gguf`. Only certainly different models are refused.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from act2see.agent.reasoners.base import FRAME_TEXT, QUESTION, Needs
from act2see.agent.reasoners.connection import ServerConnection, StatusError
from act2see.agent.reasoners.llama_cpp.wire import FIELDS
from act2see.agent.reasoners.pieces import FORBIDDEN
from act2see.errors import SetupError
from act2see.tools.video.store import encode_png

_OLD_MARKER = "<__media__>"  # of servers that do not name theirs
_QUANTISATION = re.compile(r"(?:^|[-_.:])((?:ud-)?(?:i?q\d\w*|bf16|f16|f32|mxfp4\w*))$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server says of itself."""

    model: str
    """Its name for the model."""
    file: str
    """The path of the model's file on the server."""
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
    if isinstance(props, dict) and props.get("role") == "router":
        raise SetupError(
            f"the llama-server at {connection.url} was started without a model: start it with `act2see serve "
            "llama-cpp`"
        )
    settings = props.get("default_generation_settings") if isinstance(props, dict) else None
    if not isinstance(settings, dict) or "n_ctx" not in settings:
        raise SetupError(
            f"{connection.url} is not a llama.cpp server: set reasoner.options.url, or start one with "
            "`act2see serve llama-cpp`"
        )
    return ServerFacts(
        model=str(props.get("model_alias") or PurePath(str(props.get("model_path") or "")).name),
        file=str(props.get("model_path") or ""),
        context=int(settings["n_ctx"]),
        slots=int(props.get("total_slots") or 1),
        marker=str(props.get("media_marker") or _OLD_MARKER),
        vision=bool((props.get("modalities") or {}).get("vision")),
        forbidden=await _forbidden(connection),
    )


def check_model(url: str, facts: ServerFacts, configured: str) -> None:
    """Check that the server has the configured model.

    Args:
        url: The server's address.
        facts: What the server says of itself.
        configured: `reasoner.weights` of the configuration.

    Raises:
        SetupError: It has another model.
    """
    if not facts.model or configured in (facts.model, facts.file):
        return
    if any(_may_be_same(served, configured) for served in (facts.model, facts.file)):
        return
    raise SetupError(
        f"{url} serves {facts.model}, and the config names {configured}: stop it and start `act2see serve "
        f"llama-cpp` with the same --preset or --config, or set `reasoner.weights: {facts.model}`"
    )


def _may_be_same(served: str, configured: str) -> bool:
    """Whether two names may mean the same model in the same quantisation."""
    served_name, served_bits = _split_model(served)
    name, bits = _split_model(configured)
    if served_bits and bits and served_bits != bits:
        return False
    return bool(served_name and name) and (served_name in name or name in served_name)


def _split_model(name: str) -> tuple[str, str]:
    """Return a model's name in small letters and digits, and its quantisation; empty if it has none."""
    stem = re.split(r"[/\\]", name.partition("@")[0])[-1]
    stem = re.sub(r"(-\d{5}-of-\d{5})?\.gguf$", "", stem, flags=re.IGNORECASE)
    found = _QUANTISATION.search(stem)
    bits = found[1].lower() if found else ""
    stem = stem[: found.start()] if found else stem
    stem = re.sub(r"[-_.]gguf$", "", stem, flags=re.IGNORECASE)
    return re.sub(r"[^a-z0-9]", "", stem.lower()), bits


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
        raise SetupError(
            f"a slot of {connection.url} holds {facts.context} tokens and a run may need {needed} "
            f"({needs.images} frames of {tokens}, {needs.tokens} written): "
            f"{await _more_room(connection, facts, needed)}{_need_less(facts, needs, tokens)}"
        )


async def _more_room(connection: ServerConnection, facts: ServerFacts, needed: int) -> str:
    """Return how to start the server with slots that hold a run; empty if its model cannot hold one."""
    if await _trained_context(connection) <= facts.context:
        return ""  # the server gives no slot more
    return (
        "start it with `act2see serve llama-cpp` and the same --preset or --config, or with "
        f"`--parallel 1 --ctx-size {needed}`; or "
    )


def _need_less(facts: ServerFacts, needs: Needs, tokens: int) -> str:
    """Return how to make a run fit, with frames of `tokens` tokens."""
    room = (facts.context - QUESTION - needs.tokens) // (tokens + FRAME_TEXT)
    if room <= 0:
        return "lower budget.tokens"
    return f"show at most {room} frames in all (view.max_frames), or smaller ones (view.max_side)"


async def _trained_context(connection: ServerConnection) -> float:
    """Return the context with which the server's model was trained; infinite if it is not known."""
    try:
        listed = await connection.json("GET", "/v1/models")
        return float(listed["data"][0]["meta"]["n_ctx_train"])
    except (StatusError, LookupError, TypeError, ValueError):
        return math.inf


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
