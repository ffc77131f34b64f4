"""Before a run: does the chat model's server answer, and does it take the key?

One small request for the list of models, which costs nothing and which the common providers answer. It is
sent by plain HTTP in a thread of its own: the clients of the providers' packages retry for a long time, and a
name that cannot be resolved can hold a thread for longer than anyone wants to wait. Only what is certain is
reported: a key that is refused, a server that cannot be reached, a model that Ollama does not have. Anything
else will show when the question is asked.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from act2see.agent.reasoners.chat.setup import KEYS, provider_of
from act2see.errors import SetupError
from act2see.tools.runtime.text import first_line

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)
SECONDS = 4.0  # for connecting, and again for the answer
_GOOGLE = "https://generativelanguage.googleapis.com"


@dataclass(frozen=True, slots=True)
class Address:
    """Where and how to ask for the models."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    pulled: str = ""
    """The model that an Ollama server must have."""


async def probe(model: Any, name: str, seconds: float = SECONDS) -> None:
    """Ask the model's server for its models.

    Args:
        model: A LangChain chat model.
        name: Its name in messages.
        seconds: How long connecting may take, and again the answer.

    Raises:
        SetupError: The server cannot be reached, refuses the key, or lacks the model.
    """
    provider = provider_of(model)
    address = address_of(model, provider)
    if address is None:
        return
    done: Future[str | None] = Future()
    threading.Thread(
        target=_ask, args=(done, address, name, provider, seconds), name="act2see-probe", daemon=True
    ).start()
    wrong: str | None
    try:
        wrong = await asyncio.wait_for(asyncio.wrap_future(done), 2 * seconds)
    except TimeoutError:
        wrong = (
            f"{name} cannot be reached: {_host(address.url)} was not found in {2 * seconds:g} s; check the "
            "connection or the proxy"
        )
    if wrong:
        raise SetupError(wrong)


def address_of(model: Any, provider: str) -> Address | None:
    """Where a chat model's server lists its models; None for unknown providers."""
    if provider == "google_genai":
        if getattr(model, "vertexai", None) or getattr(model, "project", None):
            return None
        key, base = _secret(model, "google_api_key"), _text(model, "base_url") or _GOOGLE
        url = f"{base.rstrip('/')}/v1beta/models?pageSize=1"
        return Address(url, {"x-goog-api-key": key}) if key else None
    if provider == "anthropic":
        key, base = _secret(model, "anthropic_api_key"), _text(model, "anthropic_api_url")
        url = f"{base.rstrip('/')}/v1/models?limit=1"
        return Address(url, {"x-api-key": key, "anthropic-version": "2023-06-01"}) if key else None
    if provider == "ollama":
        base = _text(model, "base_url") or os.environ.get("OLLAMA_HOST", "") or "http://127.0.0.1:11434"
        base = base if "://" in base else f"http://{base}"
        return Address(f"{base.rstrip('/')}/api/tags", pulled=_text(model, "model"))
    if provider == "mistralai":
        return _bearer(_text(model, "endpoint"), _secret(model, "mistral_api_key"))
    if provider == "groq":
        base = _text(model, "groq_api_base") or "https://api.groq.com"
        return _bearer(f"{base.rstrip('/')}/openai/v1", _secret(model, "groq_api_key"))
    # The packages of many providers use OpenAI's client; Azure's authenticates by headers of its own.
    client: Any = getattr(model, "root_async_client", None)
    if client is None or "azure" in type(client).__name__.lower() or not isinstance(client.api_key, str):
        return None
    return _bearer(str(client.base_url), client.api_key)


def _bearer(base: str, key: str) -> Address | None:
    return Address(f"{base.rstrip('/')}/models", {"Authorization": f"Bearer {key}"}) if base and key else None


def _ask(done: Future[str | None], address: Address, name: str, provider: str, seconds: float) -> None:
    try:
        done.set_result(_wrong(address, name, provider, seconds))
    except BaseException as e:  # it is not known to be wrong: the question will show
        log.debug("asking %s for its models: %s", _host(address.url), e)
        done.set_result(None)


def _wrong(address: Address, name: str, provider: str, seconds: float) -> str | None:
    """What is certainly wrong, in one line; None if nothing is."""
    import httpx

    host = _host(address.url)
    try:
        response = httpx.get(
            address.url, headers=dict(address.headers), timeout=seconds, follow_redirects=False
        )
    except (
        httpx.ConnectError,
        httpx.ConnectTimeout,
        httpx.ProxyError,
        httpx.UnsupportedProtocol,
        httpx.InvalidURL,
    ) as e:
        start = "; start it with `ollama serve`" if provider == "ollama" else ""
        return (
            f"{name} cannot be reached: {host} does not answer ({first_line(e, 120)}); check the connection, "
            f"the proxy or the address{start}"
        )
    except httpx.HTTPError as e:
        log.debug("asking %s for its models: %s", host, e)  # slow, or cut off: that is transient
        return None
    if _refuses_key(response):
        return f"{name}: {host} refuses the key (status {response.status_code}): {_key_advice(provider)}"
    if address.pulled and response.status_code == 200:
        has = [str(m.get("name", "")) for m in response.json().get("models", [])]
        wanted = address.pulled if ":" in address.pulled else f"{address.pulled}:latest"
        if wanted not in has:
            pull = f"ollama pull {address.pulled}"
            return f"{name}: Ollama at {host} does not have the model {address.pulled}: {pull}"
    return None


def _refuses_key(response: httpx.Response) -> bool:
    text = response.text.lower()
    if response.status_code == 401:
        # A key may be valid for questions and not for the list of models; the server says so.
        return "scope" not in text and "permission" not in text
    return response.status_code == 400 and "api key" in text


def _key_advice(provider: str) -> str:
    variables = KEYS.get(provider, ())
    used = [v for v in variables if os.environ.get(v)] or variables
    return f"export {used[0]}=... (a valid key)" if used else "check the key in the options"


def _host(url: str) -> str:
    return "/".join(url.split("/", 3)[:3])


def _secret(model: Any, name: str) -> str:
    value: Any = getattr(model, name, None)
    return str(value.get_secret_value()) if hasattr(value, "get_secret_value") else ""


def _text(model: Any, name: str) -> str:
    value = getattr(model, name, None)
    return value if isinstance(value, str) else ""
