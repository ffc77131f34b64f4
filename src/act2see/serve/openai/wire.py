"""The wire format of the OpenAI chat protocol, as far as `act2see serve openai` supports it.

Unknown fields are ignored, except unsupported fields that would change the answer (`REFUSED`): these are
errors, because an answer that only looks right is worse than an error. Three fields are those of vLLM:
`continue_final_message`, `add_generation_prompt`, `include_stop_str_in_output`. `plain_parts` is our own.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from act2see.agent.reasoners.base import Done
from act2see.tools.runtime.text import first_problem

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
"""Fields that a request must not set."""
MAX_STOPS = 16
"""The maximum number of stop strings."""
MAX_VALUES = 250_000
"""The maximum number of values in a request's JSON, whose objects take up to 1 kB each. The marks between
values are counted, also those inside strings."""


class ProtocolError(Exception):
    """An error in the format that OpenAI's clients expect: an HTTP status, and JSON that describes the error.

    Args:
        status: The HTTP status.
        message: The description of the error.
        code: OpenAI's code of the error, such as "model_not_found".
        param: The field of the request that caused the error.
    """

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param

    @property
    def body(self) -> dict[str, Any]:
        """The JSON of the response."""
        default = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(self.status, default)
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


class Wire(BaseModel):
    """Base class of the objects that clients send. Unknown fields are ignored."""

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
        """The content as a list of parts."""
        if isinstance(self.content, str):
            return [TextPart(type="text", text=self.content)]
        return list(self.content)


class StreamOptions(Wire):
    include_usage: bool | None = None


_StopList = Annotated[list[str], Field(max_length=MAX_STOPS)]
# One text is read as a list of it: for a union, an error would be about the type that was not meant.
_Stops = Annotated[
    _StopList,
    BeforeValidator(
        lambda sent: [sent] if isinstance(sent, str) else sent, json_schema_input_type=str | _StopList
    ),
]


class ChatRequest(Wire):
    """A request for a chat completion."""

    model_config = ConfigDict(extra="allow", frozen=True)

    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: _Stops | None = None
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
    """Indices of the parts of the last message in which `<think>` is plain text (`docs/models.md`)."""

    @model_validator(mode="after")
    def _check_final_message(self) -> ChatRequest:
        if self.continue_final_message:
            if self.messages[-1].role != "assistant":
                raise ValueError("continue_final_message=true needs an assistant message at the end")
            if self.add_generation_prompt:
                raise ValueError("set continue_final_message or add_generation_prompt, not both")
        elif self.add_generation_prompt is False:
            raise ValueError("add_generation_prompt=false needs continue_final_message=true")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """The non-empty stop strings."""
        return tuple(stop for stop in self.stop or () if stop)


def read_request(body: bytes) -> ChatRequest:
    """Return the request in an HTTP body.

    Raises:
        ProtocolError: The request has too many values (413), or a field is invalid or not supported (400).
            The message names the first such field.
    """
    if sum(body.count(mark) for mark in (b"{", b"[", b",")) > MAX_VALUES:
        raise ProtocolError(413, f"the request has more than {MAX_VALUES:,} values: send fewer parts")
    try:
        request = ChatRequest.model_validate_json(body)
    except ValidationError as e:
        field, problem = first_problem(e)
        message = f"{field}: {problem}" if field else problem
        raise ProtocolError(400, message, param=field or None) from e
    for name in REFUSED:
        given = (request.model_extra or {}).get(name)
        if given and given != {"type": "text"}:
            raise ProtocolError(400, f"{name} is not supported by this server", "unsupported_parameter", name)
    return request


class Reply:
    """Builds the JSON of one answer, as the chunks of a stream or as one object.

    Args:
        model: The model's name.
    """

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
        """Return a chunk of a stream.

        Args:
            text: The piece of text. None in the last chunk.
            finish: OpenAI's reason for the end. None before the last chunk.
            stopped_by: The stop string that ended the text, if any.
            first: Whether it is the first chunk.
        """
        delta: dict[str, Any] = {"role": "assistant"} if first else {}
        if text is not None:
            delta["content"] = text
        choice: dict[str, Any] = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        if finish:
            choice["stop_reason"] = stopped_by
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}

    def usage_chunk(self, done: Done) -> dict[str, Any]:
        """Return the chunk with the token counts, which follows the last chunk of the text."""
        return {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": usage(done)}

    def whole(self, text: str, finish: str, stopped_by: str | None, done: Done) -> dict[str, Any]:
        """Return the whole answer as one object.

        Args:
            text: The whole text.
            finish: OpenAI's reason for the end.
            stopped_by: The stop string that ended the text, if any.
            done: The token counts.
        """
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
    """Return OpenAI's token counts. The prompt's count includes the tokens from the cache."""
    prompt = done.prefilled + done.cached
    return {
        "prompt_tokens": prompt,
        "completion_tokens": done.decoded,
        "total_tokens": prompt + done.decoded,
        "prompt_tokens_details": {"cached_tokens": done.cached},
    }


class StopStrings:
    """Finds the first stop string in a text that arrives in pieces.

    The end of the text is held back while it may be the beginning of a stop string.

    Args:
        stops: The stop strings. If there are none, all text is passed on at once.
        keep: Whether to pass on the stop string itself. If so, nothing is held back.
    """

    def __init__(self, stops: Sequence[str], keep: bool = False) -> None:
        self.found: str | None = None
        """The stop string that ended the text."""
        self._stops = tuple(stops)
        self._keep = keep
        self._text = ""
        self._passed = 0  # the number of characters that were passed on

    def feed(self, piece: str) -> str:
        """Add a piece and return the text to pass on. After a stop string, pieces are ignored."""
        if self.found is not None:
            return ""
        before = len(self._text)
        self._text += piece
        hits = []
        for stop in self._stops:
            start = self._text.find(stop, max(0, before - len(stop) + 1))
            if start >= 0:
                hits.append((start + len(stop), start, stop))
        if hits:
            end, start, self.found = min(hits)
            return self._pass(end if self._keep else start)
        held = 0
        if not self._keep:
            held = max((_overlap(self._text, stop) for stop in self._stops), default=0)
        return self._pass(len(self._text) - held)

    def rest(self) -> str:
        """Return the text that is still held back when the input ends."""
        return "" if self.found is not None else self._pass(len(self._text))

    def _pass(self, end: int) -> str:
        """Return the text up to `end` that was not passed on yet."""
        end = max(end, self._passed)
        text = self._text[self._passed : end]
        self._passed = end
        return text


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest proper prefix of `stop` that the text ends with."""
    longest = min(len(stop) - 1, len(text))
    for length in range(longest, 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
