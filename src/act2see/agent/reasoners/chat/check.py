"""The chat model of a configuration, looked up in its server's list of models before the first run.

A model that the provider does not have is refused before a video is decoded and indexed. So is an address
that lists no models, while the same address with or without `/v1` does. A list that cannot be had, or that
may not be complete, refuses nothing: servers of one's own may load models that they do not list.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from act2see.agent.reasoners.chat.probe import (
    TIMEOUT,
    Listing,
    address_of,
    look_up,
    model_id,
    read_names,
)
from act2see.agent.reasoners.chat.reasoner import ChatModelReasoner
from act2see.agent.reasoners.chat.setup import chat_model, provider_of, reasoner_options
from act2see.agent.reasoners.connection import is_local
from act2see.errors import SetupError
from act2see.tools.video.store import FrameSource

log = logging.getLogger(__name__)
_ADDRESS = "base_url"
"""The option with the address of one's own server, for OpenAI's, Google's and Ollama's packages."""
_COMPLETE = frozenset({"anthropic", "google_genai", "groq", "mistralai", "openai"})
"""Providers that answer 404 for a model that they do not have."""
_OPENAI = "api.openai.com"
_LONGEST = 20.0  # seconds that the requests may take that follow the list
_EXAMPLES = 3  # models that a message names, if none is similar


@dataclass(slots=True)
class CheckedChatModel(ChatModelReasoner):
    """A chat model that is looked up in its server's list of models before the first run."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """The options of the configuration."""
    _is_listed: bool = field(default=False, init=False)

    @classmethod
    def from_options(
        cls, name: str, frames: FrameSource, options: Mapping[str, Any], *, continuation: bool = False
    ) -> CheckedChatModel:
        """Build it from a config's `reasoner.weights` and `reasoner.options`.

        Args:
            name: The model as `provider:model`.
            frames: Gives the pixels of a frame.
            options: The options of the provider's chat model.
            continuation: Whether the server can continue an unfinished turn.

        Raises:
            ConfigError: A package or the key is missing, or the model or an option does not exist.
        """
        model = chat_model(name, reasoner_options(name, options), "reasoner.weights")
        return cls(
            model,
            frames,
            name,
            continuation=continuation,
            in_background=True,
            ask_first=True,
            options=options,
        )

    async def check(self) -> None:
        """Check once that the server answers, accepts the key and has the model.

        Raises:
            SetupError: The server cannot be reached, refuses the key or does not have the model.
        """
        try:
            await ChatModelReasoner.check(self)
        except SetupError as e:
            raise SetupError(with_start(str(e), self.model)) from e
        if self.ask_first and not self._is_listed:
            await check_listed(self.model, self.name, self.options)
            self._is_listed = True


@dataclass(frozen=True, slots=True)
class ListAnswer:
    """The answer of a server that was asked for its models."""

    status: int | None
    """The HTTP status; None if there was no answer."""
    models: list[str] | None = None
    """The names of the models; None if the answer is no list of models."""


async def check_listed(model: Any, name: str, options: Mapping[str, Any]) -> None:
    """Look a chat model up in its server's list of models.

    Args:
        model: The LangChain chat model.
        name: Its name in the configuration, as `provider:model`.
        options: The options of the configuration.

    Raises:
        SetupError: The provider does not have the model, or the address of one's own server is wrong.
    """
    listing = await find_model(model, name)
    try:
        async with asyncio.timeout(_LONGEST):
            problem = await _find_problem(model, name, options, listing)
    except TimeoutError:
        log.debug("%s: its server took too long to list its models", name)
        return
    if problem:
        raise SetupError(problem)


async def _find_problem(model: Any, name: str, options: Mapping[str, Any], listing: Listing) -> str:
    """Return the reason why a run with this chat model would certainly fail; empty if there is none."""
    if listing.exists:
        return ""
    if listing.exists is None:
        wrong = await address_problem(model, name, options)
        return f"{name}: {wrong.finding}: {wrong.fix}" if wrong and wrong.better else ""
    knows_all = provider_of(model) in _COMPLETE and not is_own_server(model)
    if not knows_all or (await ask_list(model, f"/{quote(model_id(model, name))}")).status != 404:
        log.warning("%s: its server does not list this model", name)
        return ""
    return ": ".join(await missing_model(model, name, listing))


async def find_model(model: Any, name: str) -> Listing:
    """Look a chat model up in its server's list of models.

    Args:
        model: The LangChain chat model.
        name: Its name in the configuration, as `provider:model`.

    Raises:
        SetupError: The server cannot be reached, or refuses the key.
    """
    listing = await look_up(model, name)
    if listing.exists is not False or ":" not in model_id(model, name) or is_own_server(model):
        return listing
    return Listing(exists=None)  # a variant (`model:free`) or a fine-tuned model; not all of them are listed


async def missing_model(model: Any, name: str, listing: Listing) -> tuple[str, str]:
    """Return the problem with a model that its server does not list, and what to write.

    Args:
        model: The LangChain chat model.
        name: Its name in the configuration, as `provider:model`.
        listing: What the server says of it.
    """
    provider, colon, _ = name.partition(":")
    names = listing.nearest
    if is_own_server(model):
        finding = f"{name}: its server does not list this model"
        names = names or tuple((await ask_list(model)).models or ())[:_EXAMPLES]
    else:
        finding = f"{name}: its provider has no such model for this key"
    fix = "set `reasoner.weights` in a config file to a model that it has"
    if names:
        fix += f", such as {' or '.join(f'{provider}{colon}{known}' if colon else known for known in names)}"
    return finding, fix


def with_start(problem: str, model: Any) -> str:
    """Return a problem, with how to start a server of one's own if none was reached."""
    if "cannot be reached" in problem and is_own_server(model):
        return f"{problem}; start the server there (LM Studio: `lms server start`; MLX: `mlx_vlm.server`)"
    return problem


def is_own_server(model: Any) -> bool:
    """Whether a chat model is on a server of one's own with OpenAI's protocol, as LM Studio or MLX."""
    if provider_of(model) != "openai":
        return False
    address = address_of(model, "openai")
    return address is not None and not (urlsplit(address.url).hostname or "").endswith(_OPENAI)


def local_server(model: Any) -> str:
    """Return the address of a server on this machine that runs the model; empty if there is none."""
    address = address_of(model, provider_of(model))
    may_run = is_own_server(model) or provider_of(model) == "ollama"
    return address.host if may_run and address is not None and is_local(address.url) else ""


async def ask_list(model: Any, path: str = "") -> ListAnswer:
    """Ask a chat model's server for its models, or for what is at `path` below the list."""
    import httpx

    address = address_of(model, provider_of(model))
    if address is None:
        return ListAnswer(None)
    try:
        async with asyncio.timeout(2 * TIMEOUT):
            async with httpx.AsyncClient(timeout=TIMEOUT, trust_env=not is_local(address.url)) as client:
                response = await client.get(f"{address.url}{path}", headers=dict(address.headers))
    except (TimeoutError, OSError, httpx.HTTPError, httpx.InvalidURL) as e:
        log.debug("asking %s for its models: %s", address.host, e)
        return ListAnswer(None)
    return ListAnswer(response.status_code, read_names(response))


@dataclass(frozen=True, slots=True)
class AddressProblem:
    """What is wrong with the address of a server, and what to write."""

    finding: str
    fix: str
    better: str = ""
    """An address at which the same server lists its models; empty if none was found."""


async def address_problem(model: Any, name: str, options: Mapping[str, Any]) -> AddressProblem | None:
    """Return what is wrong with the address of one's own server, of which no list of models was had.

    The address is tried with and without `/v1`.

    Args:
        model: The LangChain chat model.
        name: Its name in the configuration, as `provider:model`.
        options: The options of the configuration.

    Returns:
        The problem; None if nothing certain is wrong.
    """
    given = str(options.get(_ADDRESS) or "")
    if not given:
        return None
    answer = await ask_list(model)
    if answer.models is not None:
        if answer.models or not is_own_server(model):
            return None
        return AddressProblem(
            f"the server at {given} has no model",
            "load a model there (LM Studio: `lms load NAME`; MLX: `mlx_vlm.server --model NAME`)",
        )
    # LM Studio answers 200, with an error, at a wrong path.
    if answer.status != 404 and not (answer.status == 200 and is_own_server(model)):
        return None
    asked = address_of(model, provider_of(model))
    where = asked.url if asked else given
    for candidate in _other_addresses(given):
        other = chat_model(name, {**options, _ADDRESS: candidate}, "reasoner.weights")
        if (await ask_list(other)).models is not None:
            finding = f"{where} is no list of models (status {answer.status}), but {candidate} has one"
            return AddressProblem(finding, f"set `reasoner.options.{_ADDRESS}: {candidate}`", candidate)
    if answer.status == 200:
        return None  # it answers something else, so it may be asked all the same
    return AddressProblem(
        f"{where} is no list of models (status {answer.status}), with or without /v1",
        f"set `reasoner.options.{_ADDRESS}` to the address of the server that has the model (LM Studio: "
        "http://localhost:1234/v1, MLX: http://localhost:8080/v1, Ollama: http://localhost:11434)",
    )


def _other_addresses(given: str) -> Iterator[str]:
    """Yield the addresses that may be meant: with `/v1`, without it, and those of the bare host."""
    parts = urlsplit(given)
    root = f"{parts.scheme}://{parts.netloc}"
    stem = re.sub(r"(/v1|/v1beta|/chat/completions|/models|/api/chat|/api/tags|/api|/)+$", "", given)
    candidates = dict.fromkeys([f"{stem}/v1", stem, f"{root}/v1", root])
    yield from (address for address in candidates if address != given.rstrip("/"))
