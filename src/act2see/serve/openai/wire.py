"""The wire format of the OpenAI chat protocol, as far as `act2see serve openai` speaks it.

Fields that change nothing here are ignored; those that would change the answer, and are not understood, are
refused (`REFUSED`), for an answer that looks right and is not is worse than an error. Three fields come from
vLLM, under the same names: `continue_final_message`, `add_generation_prompt`, `include_stop_str_in_output`.
One is our own: `plain_parts`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from act2see.agent.reasoners.base import Done

REFUSED = (
    "tools",
    "functions",
    "logprobs",
    "logit_bias",
    "response_format",
    "audio",
    "frequency_penalty",
    "presence_penalty",
)
MAX_STOPS = 16


class ProtocolError(Exception):
    """An error as an OpenAI client expects it: an HTTP status, and JSON that says what was wrong."""

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param

    @property
    def body(self) -> dict[str, Any]:
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(self.status)
        kind = kind or ("server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


class Wire(BaseModel):
    model_config = ConfigDict(frozen=True)


class TextPart(Wire):
    type: Literal["text"]
    text: str


class ImageUrl(Wire):
    url: str


class ImagePart(Wire):
    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Message(Wire):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]

    @property
    def parts(self) -> list[TextPart | ImagePart]:
        return (
            [TextPart(type="text", text=self.content)]
            if isinstance(self.content, str)
            else list(self.content)
        )


class StreamOptions(Wire):
    include_usage: bool | None = None


class ChatRequest(Wire):
    """A request for a chat completion. `plain_parts`: see `docs/models.md`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: str | Annotated[list[str], Field(max_length=MAX_STOPS)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    n: Literal[1] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    include_stop_str_in_output: bool | None = None
    plain_parts: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _goes_on(self) -> ChatRequest:
        if self.continue_final_message:
            if self.messages[-1].role != "assistant":
                raise ValueError("continue_final_message needs a last message of the assistant")
            if self.add_generation_prompt:
                raise ValueError("continue_final_message and add_generation_prompt exclude each other")
        elif self.add_generation_prompt is False:
            raise ValueError(
                "without a generation prompt, set continue_final_message: there is no turn to write"
            )
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(s for s in given if s)


def read_request(body: bytes) -> ChatRequest:
    """The request of an HTTP body. Raises `ProtocolError`, 400, which names the first field that is wrong."""
    try:
        request = ChatRequest.model_validate_json(body)
    except ValidationError as e:
        first = e.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(p) for p in first["loc"])
        raise ProtocolError(400, f"{f'{where}: ' if where else ''}{first['msg']}", param=where or None) from e
    for name in REFUSED:
        given = (request.model_extra or {}).get(name)
        if given and given != {"type": "text"}:
            raise ProtocolError(400, f"{name} is not supported by this server", "unsupported_parameter", name)
    return request


class Reply:
    """Builds the parts of one answer: chunks of a stream, or the whole."""

    def __init__(self, model: str) -> None:
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def chunk(
        self,
        text: str | None,
        finish: str | None = None,
        stopped_by: str | None = None,
        *,
        first: bool = False,
    ) -> dict[str, Any]:
        delta: dict[str, Any] = {"role": "assistant"} if first else {}
        if text is not None:
            delta["content"] = text
        choice: dict[str, Any] = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        if finish:
            choice["stop_reason"] = stopped_by
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}

    def usage_chunk(self, done: Done) -> dict[str, Any]:
        return {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": usage(done)}

    def whole(self, text: str, finish: str, stopped_by: str | None, done: Done) -> dict[str, Any]:
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": finish,
            "stop_reason": stopped_by,
        }
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": usage(done)}


def usage(done: Done) -> dict[str, Any]:
    """The tokens of one continuation; those served from the cache are part of the prompt's."""
    read = done.prefilled + done.cached
    return {
        "prompt_tokens": read,
        "completion_tokens": done.decoded,
        "total_tokens": read + done.decoded,
        "prompt_tokens_details": {"cached_tokens": done.cached},
    }


class StopStrings:
    """Finds the first of some strings in text that comes in pieces, and holds back what may be the beginning
    of one.

    With `keep`, the string that was found is part of the text, and nothing is held back. Without stop strings
    all text passes.
    """

    def __init__(self, stops: Sequence[str], keep: bool = False) -> None:
        self.found: str | None = None
        self._stops, self._keep = tuple(stops), keep
        self._text, self._said = "", 0

    def feed(self, piece: str) -> str:
        """What can be said now. Nothing is read once a string was found."""
        if self.found is not None:
            return ""
        before = len(self._text)
        self._text += piece
        hits = []
        for stop in self._stops:
            at = self._text.find(stop, max(0, before - len(stop) + 1))
            if at >= 0:
                hits.append((at + len(stop), at, stop))
        if hits:
            end, at, self.found = min(hits)
            return self._upto(end if self._keep else at)
        held = 0 if self._keep else max((_overlap(self._text, s) for s in self._stops), default=0)
        return self._upto(len(self._text) - held)

    def rest(self) -> str:
        """What was held back, at the end of the text."""
        return "" if self.found is not None else self._upto(len(self._text))

    def _upto(self, end: int) -> str:
        said, self._said = self._text[self._said : max(end, self._said)], max(end, self._said)
        return said


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
