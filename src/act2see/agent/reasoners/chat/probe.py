"""Check before a run that the chat model's server answers and accepts the key.

The check is one small request for the list of models, which is free and which the common providers answer. It
is sent by plain HTTP in a separate thread: the clients of the providers' packages retry for a long time, and
resolving an unknown host name can block a thread for minutes. Before a run, only certain problems are
reported: a refused key, a server that cannot be reached, a model that Ollama does not have. Other problems
appear when the question is asked. `act2see doctor` also compares the model's name with the list (`look_up`).

The caller may give up before the thread does: it is cancelled, or a server that was reached sends its answer
byte by byte. The thread's result is then dropped.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from act2see.agent.reasoners.chat.setup import KEYS, provider_of
from act2see.errors import SetupError
from act2see.tools.runtime.batching import settle
from act2see.tools.runtime.plain_json import parse_json
from act2see.tools.runtime.text import first_line

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)
TIMEOUT = 4.0
"""The default limit for connecting, and again for the answer, in seconds."""
_ALL = 1000  # the largest page of Google and of Anthropic, which holds all models of either
_GOOGLE = "https://generativelanguage.googleapis.com"


@dataclass(frozen=True, slots=True)
class Address:
    """The request for a server's list of models."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    size: str = ""
    """The parameter that limits the length of the list; empty if the server has none."""
    pulled: str = ""
    """The model that an Ollama server must have; empty for other servers."""

    @property
    def host(self) -> str:
        """The scheme, the host name and the port of the URL."""
        return "/".join(self.url.split("/", 3)[:3])


async def probe(model: Any, name: str, seconds: float = TIMEOUT) -> None:
    """Ask the model's server for its list of models.

    Args:
        model: A LangChain chat model.
        name: The model's name in messages.
        seconds: The limit for connecting, and again for the answer.

    Raises:
        SetupError: The server cannot be reached, refuses the key, or does not have the model.
    """
    await _ask(model, name, seconds, count=1)


@dataclass(frozen=True, slots=True)
class Listing:
    """What a provider says of a model."""

    exists: bool | None
    """Whether it has the model; None if it does not say."""
    nearest: tuple[str, ...] = ()
    """The most similar names of its models, if it does not have this one."""


async def look_up(model: Any, name: str, seconds: float = TIMEOUT) -> Listing:
    """Look a chat model up in its provider's list of models.

    Args:
        model: A LangChain chat model.
        name: The model as `provider:model`.
        seconds: The limit for connecting, and again for each answer.

    Raises:
        SetupError: The server cannot be reached, refuses the key, or does not have the model.
    """
    response = await _ask(model, name, seconds, count=_ALL)
    names = read_names(response) if response is not None else None
    if not names or provider_of(model) == "ollama":  # `_ask` has found the model at Ollama
        return Listing(exists=True if names else None)
    wanted = model_id(model, name)
    if wanted in names:
        return Listing(exists=True)
    # Lists leave out aliases, which some providers resolve when they are asked for one model.
    answer = await _ask(model, name, seconds, count=1, path=f"/{wanted}")
    if answer is not None and answer.status_code == 200:
        return Listing(exists=True)
    return Listing(exists=False, nearest=tuple(get_close_matches(wanted, names, n=3, cutoff=0.3)))


def model_id(model: Any, name: str) -> str:
    """Return the id of a model at its provider, which may contain colons: `google/gemma-3-27b-it:free`."""
    sent = _text(model, "model_name") or _text(model, "model") or name.partition(":")[2] or name
    return sent.removeprefix("models/")


def read_names(response: httpx.Response) -> list[str] | None:
    """Return the names in a list of models; None if the response is no such list."""
    if response.status_code != 200:
        return None
    try:
        listed = parse_json(response.content)
        # Google and Ollama name the list `models` and its items `name`; the others `data` and `id`, where
        # `name` is a title. Some servers send the items alone.
        if isinstance(listed, dict):
            listed = listed["data"] if "data" in listed else listed["models"]
        names = [str(item.get("id") or item.get("name") or "") for item in listed or ()]
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
    return [found.removeprefix("models/") for found in names if found]


async def _ask(model: Any, name: str, seconds: float, count: int, path: str = "") -> httpx.Response | None:
    """Ask for `count` models, or for the one at `path` below the list.

    Returns:
        The answer; None if the provider is unknown or did not answer.
    """
    provider = provider_of(model)
    address = address_of(model, provider)
    if address is None:
        return None
    if path:
        address = replace(address, url=address.url + quote(path), size="")
    done: Future[httpx.Response | None] = Future()
    reached = threading.Event()
    arguments = (done, reached, address, name, provider, seconds, count)
    # A daemon, so that a blocked name resolution does not keep the process from ending.
    threading.Thread(target=_run_probe, args=arguments, name="act2see-probe", daemon=True).start()
    try:
        return await asyncio.wait_for(asyncio.wrap_future(done), 2 * seconds)
    except TimeoutError:
        if reached.is_set():
            log.debug("%s sent no list of models in %g s", address.host, 2 * seconds)
            return None
        raise SetupError(
            f"{name} cannot be reached: {address.host} was not found in {2 * seconds:g} s; check the "
            "connection or the proxy"
        ) from None


def address_of(model: Any, provider: str) -> Address | None:
    """Return the address at which a chat model's server lists its models; None for unknown providers."""
    if provider == "google_genai":
        if getattr(model, "vertexai", None) or getattr(model, "project", None):
            return None  # Vertex AI authenticates by Google Cloud credentials
        key = _secret(model, "google_api_key")
        base = _text(model, "base_url") or _GOOGLE
        url = f"{base.rstrip('/')}/v1beta/models"
        return Address(url, {"x-goog-api-key": key}, size="pageSize") if key else None
    if provider == "anthropic":
        key = _secret(model, "anthropic_api_key")
        base = _text(model, "anthropic_api_url")
        url = f"{base.rstrip('/')}/v1/models"
        headers = {"x-api-key": key, "anthropic-version": "2023-06-01"}
        return Address(url, headers, size="limit") if key else None
    if provider == "ollama":
        base = _text(model, "base_url") or os.environ.get("OLLAMA_HOST", "") or "http://127.0.0.1:11434"
        base = base if "://" in base else f"http://{base}"
        return Address(f"{base.rstrip('/')}/api/tags", pulled=_text(model, "model"))
    if provider == "mistralai":
        return _bearer(_text(model, "endpoint"), _secret(model, "mistral_api_key"))
    if provider == "groq":
        base = _text(model, "groq_api_base") or "https://api.groq.com"
        return _bearer(f"{base.rstrip('/')}/openai/v1", _secret(model, "groq_api_key"))
    # The packages of many providers use OpenAI's client. Azure's client has other authentication headers.
    client: Any = getattr(model, "root_async_client", None)
    if client is None or "azure" in type(client).__name__.lower() or not isinstance(client.api_key, str):
        return None
    return _bearer(str(client.base_url), client.api_key)


def _bearer(base: str, key: str) -> Address | None:
    return Address(f"{base.rstrip('/')}/models", {"Authorization": f"Bearer {key}"}) if base and key else None


def _run_probe(
    done: Future[httpx.Response | None],
    reached: threading.Event,
    address: Address,
    name: str,
    provider: str,
    seconds: float,
    count: int,
) -> None:
    result: httpx.Response | SetupError | None = None
    try:
        result = _request(reached, address, name, provider, seconds, count)
    except SetupError as e:
        result = e
    except BaseException as e:  # no certain problem: another one would appear when the question is asked
        log.debug("asking %s for its models: %s", address.host, e)
    settle(done, result)


def _request(
    reached: threading.Event, address: Address, name: str, provider: str, seconds: float, count: int
) -> httpx.Response | None:
    """Return the server's answer; None if it was late or broke off, which is transient.

    `reached` is set once the server has accepted the connection.

    Raises:
        SetupError: A certain problem.
    """
    import httpx

    unreachable = (
        httpx.ConnectError,
        httpx.ConnectTimeout,
        httpx.ProxyError,
        httpx.UnsupportedProtocol,
        httpx.InvalidURL,
    )
    headers = dict(address.headers)
    query = {address.size: count} if address.size else None

    def follow(step: str, facts: object) -> None:
        if step == "connection.connect_tcp.complete":
            reached.set()

    try:
        with httpx.Client(timeout=seconds, follow_redirects=False) as client:
            response = client.get(address.url, params=query, headers=headers, extensions={"trace": follow})
    except unreachable as e:
        start = "; start it with `ollama serve`" if provider == "ollama" else ""
        raise SetupError(
            f"{name} cannot be reached: {address.host} does not answer ({first_line(e, 120)}); check the "
            f"connection, the proxy or the address{start}"
        ) from e
    except httpx.HTTPError as e:
        log.debug("asking %s for its models: %s", address.host, e)
        return None
    if _refuses_key(response):
        status = response.status_code
        raise SetupError(f"{name}: {address.host} refuses the key (status {status}): {_key_advice(provider)}")
    if address.pulled and response.status_code == 200:
        names = read_names(response)
        if names is None:
            raise SetupError(
                f"{name}: {address.host} sends no list of models, so it is no Ollama server: check the "
                "address (base_url in the options, or OLLAMA_HOST)"
            )
        # The tag is `latest` if the name has none.
        if (address.pulled if ":" in address.pulled else f"{address.pulled}:latest") not in names:
            raise SetupError(
                f"{name}: Ollama at {address.host} does not have the model {address.pulled}: run "
                f"`ollama pull {address.pulled}`"
            )
    return response


def _refuses_key(response: httpx.Response) -> bool:
    text = response.text.lower()
    if response.status_code == 401:
        # A valid key may lack the right to list the models; the server's message then says so.
        return "scope" not in text and "permission" not in text
    return response.status_code == 400 and "api key" in text  # Gemini's answer


def _key_advice(provider: str) -> str:
    variables = KEYS.get(provider, ())
    used = [v for v in variables if os.environ.get(v)] or variables
    return f"export {used[0]}=... (a valid key)" if used else "check the key in the options"


def _secret(model: Any, name: str) -> str:
    """Return a secret of a chat model; empty if the attribute is missing or not a secret."""
    value: Any = getattr(model, name, None)
    return str(value.get_secret_value()) if hasattr(value, "get_secret_value") else ""


def _text(model: Any, name: str) -> str:
    """Return a string attribute of a chat model; empty if it is missing or not a string."""
    value = getattr(model, name, None)
    return value if isinstance(value, str) else ""
