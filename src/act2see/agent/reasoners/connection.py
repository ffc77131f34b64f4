"""HTTP to a model server: JSON requests, server-sent events, and the options that every such reasoner has.

A request has a connection of its own, so nothing is tied to one event loop, and closing a stream early closes
its connection, by which servers notice that nobody reads any more. What a refusal means is the business of
each reasoner; here it becomes a `StatusError` with the server's words.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import AsyncGenerator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from act2see.agent.reasoners.faults import Backoff, without_parameter
from act2see.errors import ConfigError
from act2see.tools.runtime.plain_json import parse_json
from act2see.tools.runtime.text import first_error, first_problem

BACKOFF = Backoff(requests=4, first=0.5, longest=30.0, accepted=30.0, silence=300.0)


class ServerOptions(BaseModel):
    """The keys of `reasoner.options` that every model server has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    """The server's address."""
    key_env: str | None = None
    """The environment variable that holds the server's key."""
    silence: Annotated[float, Field(gt=0)] = BACKOFF.silence
    """How many seconds the server may send nothing."""
    requests: Annotated[int, Field(ge=1)] = BACKOFF.requests
    """How often a request is sent at most."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        if urlsplit(url).scheme not in ("http", "https"):
            raise ValueError(f"{url!r} does not begin with http:// or https://: write http://{url}")
        return url

    @property
    def key(self) -> str | None:
        """The server's key.

        Raises:
            ConfigError: The variable that should hold it is not set.
        """
        if self.key_env is None:
            return None
        if self.key_env not in os.environ:
            raise ConfigError(
                f"the variable {self.key_env}, which reasoner.options.key_env names, is not set: export it"
            )
        return os.environ[self.key_env]


Options = TypeVar("Options", bound=ServerOptions)


def read_options(kind: type[Options], options: Mapping[str, Any]) -> Options:
    """Validate `reasoner.options`.

    Args:
        kind: The model of the options.
        options: The options as the config has them.

    Raises:
        ConfigError: An option is unknown or wrong.
    """
    try:
        return kind.model_validate(dict(options))
    except ValidationError as e:
        wrong, problem = first_problem(e)
        if first_error(e)["type"] == "extra_forbidden":
            problem = f"unknown key; {_explain_key(wrong, list(kind.model_fields))}"
        raise ConfigError(f"reasoner.options.{wrong}: {problem}") from e


def _explain_key(wrong: str, known: list[str]) -> str:
    """Return what to write instead of an option of a server that does not exist."""
    if wrong in ("num_ctx", "n_ctx", "ctx_size", "max_model_len"):
        return "`reasoner.context` sets the context"
    if wrong in ("base_url", "address", "host", "endpoint"):
        return "did you mean 'url'?"
    if wrong == "api_key":
        return "did you mean 'key_env', the name of the variable that holds the key?"
    near = get_close_matches(wrong, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"


class StatusError(Exception):
    """The server refused the request, or failed while it was streaming."""

    def __init__(self, response: httpx.Response, message: str, status: int | None = None) -> None:
        """
        Args:
            response: The response, whose headers `retry_after` reads.
            message: The server's words.
            status: The status of an error inside a stream.
        """
        super().__init__(message)
        self.response = response
        self.message = message
        self.status = status or response.status_code


class ServerConnection:
    """Sends requests to one server.

    Args:
        url: The server's address; paths are appended to it.
        key: The server's key, sent as a bearer token.
        silence: How many seconds the server may send nothing.
        connect: How many seconds connecting may take.
    """

    def __init__(self, url: str, *, key: str | None = None, silence: float = 300.0, connect: float = 5.0):
        self.url = url.rstrip("/")
        self.silence = silence
        self._key = key
        self._connect = connect
        self._ssl: ssl.SSLContext | None = None

    async def json(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Return the JSON with which the server answers.

        Raises:
            StatusError: The server refused the request.
            ValueError: The answer is not JSON.
            OSError, httpx.TransportError: The connection failed.
        """
        async with self._client() as client:
            response = await client.request(method, f"{self.url}{path}", json=body)
            await check_status(response)
            return parse_json(response.content)

    async def events(self, path: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """Yield the data of the server-sent events that answer a request.

        Raises:
            StatusError: The server refused the request, or sent an error as an event.
            ConnectionError: The server sent something else than JSON.
            TimeoutError: The server sent nothing for too long.
            OSError, httpx.TransportError: The connection failed.
        """
        async with (
            self._client() as client,
            client.stream("POST", f"{self.url}{path}", json=body) as response,
        ):
            await check_status(response)
            async for data in self._data(response):
                if error := data.get("error"):
                    raise _stream_error(response, error)
                yield data

    async def _data(self, response: httpx.Response) -> AsyncGenerator[dict[str, Any]]:
        lines = response.aiter_lines()
        while True:
            try:
                async with asyncio.timeout(self.silence):
                    line = await anext(lines, None)
            except TimeoutError:
                raise TimeoutError(f"sent nothing for {self.silence:g} s") from None
            if line is None or line.strip() == "data: [DONE]":
                return
            field, _, value = line.partition(":")
            if field not in ("data", "error"):
                continue  # an empty line, a comment that keeps the connection alive, an event's name
            try:
                data = parse_json(value)
            except ValueError as e:
                raise ConnectionError("sent a line that is not JSON") from e
            if field == "data" and not isinstance(data, dict):
                raise ConnectionError("sent an event that is not a JSON object")
            yield {"error": data} if field == "error" else data

    def _client(self) -> httpx.AsyncClient:
        # The context is made once, since loading the certificates takes longer than a request.
        self._ssl = self._ssl or ssl.create_default_context()
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        limits = httpx.Timeout(self.silence, connect=self._connect)
        use_proxy = not is_local(self.url)
        return httpx.AsyncClient(headers=headers, timeout=limits, verify=self._ssl, trust_env=use_proxy)


async def check_status(response: httpx.Response) -> None:
    """Raise `StatusError` if the status is not 200."""
    if response.status_code == 200:
        return
    body = await response.aread()
    try:
        message = _message_of(parse_json(body))
    except ValueError:
        message = body.decode(errors="replace")
    raise StatusError(response, without_parameter(" ".join(message.split()))[:500])


def is_slow(error: Exception) -> bool:
    """Return whether the server was reached and then sent nothing.

    It is still working on the request, so sending the request again would not help.
    """
    is_timeout = isinstance(error, TimeoutError | httpx.TimeoutException)
    return is_timeout and not isinstance(error, httpx.ConnectTimeout)


def is_unreachable(error: Exception) -> bool:
    """Return whether no server was found at the address."""
    return isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.UnsupportedProtocol)


def is_local(url: str) -> bool:
    """Return whether the server is on this machine; requests to it must not go through a proxy."""
    return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")


def _stream_error(response: httpx.Response, error: Any) -> StatusError:
    """Return the error of an event that arrives after the status 200."""
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) and code >= 400 else 500
    return StatusError(response, without_parameter(_message_of(error))[:500], status)


def _message_of(error: Any) -> str:
    """Return the message of an error, which the server may wrap in several objects."""
    while isinstance(error, dict):
        error = error.get("error") or error.get("message") or error.get("detail") or json.dumps(error)
    return str(error)
