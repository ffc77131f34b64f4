"""Gemini's own agentic video mode as a way of working: the provider gets the file and looks by itself.

The protocol is that of Google's page "Video understanding", as of 2026-09-24
(ai.google.dev/gemini-api/docs/video-understanding). It has been tested against a local server that implements
it, not against the service.

- `POST /v1beta/interactions` with the video and `"processing": "agentic"`, then the question. `store` is
  false, so that the provider keeps neither.
- A small file is sent with the request. A larger one is uploaded first, once for all questions about it
  (resumable upload), and is deleted at the end.
- `steps` of the reply are thoughts, `processing_call` and `processing_result` (the model has loaded a part of
  the video), and `model_output`. A trace has them as thought, calls and answer. The provider does not say
  which part was loaded, so a trace has no frames.
- Loaded frames, sound and transcripts are `total_tool_use_tokens`, which a trace counts as read, since a
  model's frames are. Navigation is `total_thought_tokens`.

The mode takes whole files only, so a question about a part of one is refused. Frames, calls and tokens of the
configuration's budget do not reach the provider.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import random
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from act2see.agent.grammar import Grammar
from act2see.agent.parser import StopReason
from act2see.agent.prompt import Prompt
from act2see.agent.reasoners.chat.setup import KEYS
from act2see.agent.reasoners.connection import check_status, is_local
from act2see.agent.reasoners.faults import Backoff, to_reasoner_error
from act2see.errors import ConfigError, QuestionError, ReasonerError, VideoError
from act2see.evaluation.asking import Question
from act2see.graphs.config import Config
from act2see.graphs.parts import build_resources
from act2see.tools.frames import Video
from act2see.tools.runtime.plain_json import parse_json
from act2see.tools.video.store import FrameStore
from act2see.tools.video.window import Window
from act2see.trace.record import Answer, Call, Frames, Loop, Question as Asked, Segment, Text, Usage, Versions
from act2see.trace.trace import Trace

log = logging.getLogger(__name__)
GOOGLE = "https://generativelanguage.googleapis.com"
TAG = "processing"
"""The tag of the provider's looks in a trace."""
UNTOLD = "The provider loaded a part of the video, and does not say which."
INLINE = 14 << 20
"""The largest file that is sent with a request, in bytes: requests are limited to 20 MB, and base64 adds a
third."""
_LASTS = 40 * 3600.0  # seconds; the provider deletes files after 48 hours
_PIECE = 8 << 20
_SILENCE = 900.0  # seconds until an answer comes: the model looks several times before it writes
_BACKOFF = Backoff(requests=4)
_MIME = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mpeg": "video/mpeg",
    ".mpg": "video/mpg",
    ".mov": "video/mov",
    ".avi": "video/avi",
    ".flv": "video/x-flv",
    ".webm": "video/webm",
    ".wmv": "video/wmv",
    ".3gp": "video/3gpp",
}
"""The types that the page lists, by the ending of a file."""


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A file at the provider."""

    name: str
    uri: str
    at: float


class GeminiArm:
    """Gemini's agentic video mode, with the chat model of a configuration.

    Args:
        config: Its `reasoner.weights` name the model, `google_genai:gemini-...`; its `options` may hold
            `base_url` and `google_api_key`.
        name: The name in tables.
        inline: The largest file that is sent with a request, in bytes.
        poll: The seconds between two looks at a file that the provider still prepares.

    Raises:
        ConfigError: The reasoner is no Gemini, or there is no key.
    """

    def __init__(self, config: Config, name: str, *, inline: int = INLINE, poll: float = 2.0) -> None:
        provider, _, model = config.reasoner.weights.partition(":")
        if config.reasoner.use != "chat" or provider != "google_genai" or not model:
            raise ConfigError(
                f"gemini-agentic needs a Gemini as the reasoner, not {config.reasoner.weights!r}: "
                "use --preset api, or reasoner.weights google_genai:MODEL"
            )
        options = config.reasoner.options
        self.name = name
        self.model = model
        self._key = _find_key(options)
        self._url = str(options.get("base_url") or GOOGLE).rstrip("/")
        self._prompt = Prompt({}, config.reasoner.prompt_style)
        self._library = build_resources(config).finder.library
        self._inline, self._poll = inline, poll
        self._uploads: dict[str, Uploaded] = {}
        self._names: list[str] = []
        about = "Gemini's agentic video mode: the provider chooses what it sees, and no budget reaches it"
        named = {"name": f"{config.name}, gemini-agentic", "about": about, "tools": {}}
        self.config = config.model_copy(update=named)

    @property
    def store(self) -> FrameStore | None:
        """None: the provider shows no frames."""
        return None

    async def ask(self, question: Question) -> Trace:
        """Let the provider answer.

        Raises:
            QuestionError: The question is about a part of a file.
            ReasonerError: The provider failed.
            VideoError: The file cannot be read, or the provider does not take it.
        """
        window = Window.resolve(question.video)
        if not window.whole:
            raise QuestionError(
                f"{question.video}: Gemini's agentic mode takes whole files only: cut this part out, or "
                "leave the question out"
            )
        video = (await asyncio.to_thread(self._library.probe, question.video)).info
        asked = Asked(text=question.text, options=question.options)
        body = {
            "model": self.model,
            "store": False,
            "input": [
                {**await self._file(Path(window.path), video), "processing": "agentic"},
                {"type": "text", "text": self._prompt.question(asked).strip()},
            ],
        }
        began = time.perf_counter()
        reply = await self._send("POST", "/v1beta/interactions", json=body)
        seconds = time.perf_counter() - began
        segments = read_steps(reply, self.model)
        loop = read_usage(reply, seconds)
        return Trace(
            id=question.name or f"gemini-{video.digest}",
            video=video,
            question=asked,
            segments=segments,
            usage=Usage(loops=(loop,), node_seconds={"reason": seconds}),
            versions=Versions(
                reasoner=f"{reply.get('model') or self.model}, agentic video",
                config=self.config.hash,
                seed=question.seed,
            ),
        )

    async def close(self) -> None:
        """Delete what was uploaded. What cannot be deleted, the provider deletes after two days."""
        for name in self._names:
            try:
                await self._send("DELETE", f"/v1beta/{name}")
            except ReasonerError as e:
                log.warning("%s could not be deleted at the provider: %s", name, e)
        self._names.clear()
        self._uploads.clear()

    async def _file(self, path: Path, video: Video) -> dict[str, Any]:
        """Return the video as the request has it. Two first questions about it may both upload it."""
        mime = _MIME.get(path.suffix.lower())
        if mime is None:
            raise VideoError(
                f"{path} is of no type that Gemini takes ({', '.join(_MIME)}): convert it to MP4"
            )
        size = await asyncio.to_thread(os.path.getsize, path)
        if size <= self._inline:
            data = await asyncio.to_thread(path.read_bytes)
            return {"type": "video", "data": base64.b64encode(data).decode(), "mime_type": mime}
        known = self._uploads.get(video.digest)
        if known is None or time.monotonic() - known.at > _LASTS:
            known = await self._upload(path, size, mime)
            self._uploads[video.digest] = known
        return {"type": "video", "uri": known.uri, "mime_type": mime}

    async def _upload(self, path: Path, size: int, mime: str) -> Uploaded:
        """Upload a file, and wait until the provider has prepared it."""
        start = {
            "x-goog-upload-protocol": "resumable",
            "x-goog-upload-command": "start",
            "x-goog-upload-header-content-length": str(size),
            "x-goog-upload-header-content-type": mime,
        }
        begun = await self._exchange(
            "POST", "/upload/v1beta/files", json={"file": {"display_name": "video"}}, headers=start
        )
        to = begun.headers.get("x-goog-upload-url")
        if not to:
            raise ReasonerError(f"{self.model}: the provider named no address to upload to: try again")
        headers = {
            "content-length": str(size),
            "x-goog-upload-offset": "0",
            "x-goog-upload-command": "upload, finalize",
        }
        # Sent once: the pieces of the file cannot be sent again from the middle.
        sent = await self._exchange("POST", to, content=_read_pieces(path), headers=headers, once=True)
        file = _object(sent, self.model).get("file") or {}
        name, uri = str(file.get("name") or ""), str(file.get("uri") or "")
        if not name or not uri:
            raise ReasonerError(f"{self.model}: the provider did not name the uploaded file: try again")
        self._names.append(name)
        while (state := file.get("state")) == "PROCESSING":
            await asyncio.sleep(self._poll)
            file = await self._send("GET", f"/v1beta/{name}")
        if state != "ACTIVE":
            raise VideoError(f"{path} could not be prepared by Gemini ({state}): convert it to MP4")
        return Uploaded(name, uri, time.monotonic())

    async def _send(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        return _object(await self._exchange(method, path, **request), self.model)

    async def _exchange(
        self, method: str, path: str, *, once: bool = False, **request: Any
    ) -> httpx.Response:
        """Send a request, and again after a fault that may pass. Its connection is its own."""
        headers = dict(request.pop("headers", {}))
        url = path
        if path.startswith("/"):  # an address that the provider named does not get the key
            url = f"{self._url}{path}"
            headers["x-goog-api-key"] = self._key
        limits = httpx.Timeout(_SILENCE, connect=5.0)
        sent = 0
        while True:
            sent += 1
            try:
                async with httpx.AsyncClient(timeout=limits, trust_env=not is_local(url)) as client:
                    response = await client.request(method, url, headers=headers, **request)
                    await check_status(response)
                    return response
            except Exception as e:  # a status, or one of the many errors of a connection
                wait = None if once else _BACKOFF.wait(e, sent, random.Random(sent))
                if wait is None:
                    raise to_reasoner_error(e, self.model, began=False, silence=_SILENCE) from e
            await asyncio.sleep(wait)


def read_steps(reply: Mapping[str, Any], model: str) -> tuple[Segment, ...]:
    """Return the segments of a trace from the steps of an interaction.

    Raises:
        ReasonerError: It failed.
    """
    status = str(reply.get("status") or "completed")
    segments: list[Segment] = []
    for step in reply.get("steps") or ():
        kind = step.get("type")
        if kind == "thought" and (text := _words(step.get("summary"))):
            segments.append(Text(text=text))
        elif kind == "processing_call":
            segments.append(Call(text="", tag=TAG, query=""))
        elif kind == "processing_result":
            segments.append(Frames(tag=TAG, note=UNTOLD))
        elif kind == "model_output":
            if error := step.get("error"):
                raise ReasonerError(f"{model}: {error.get('message') or error}")
            segments += _read_answer(_words(step.get("content")))
    if status not in ("completed", "incomplete", "budget_exceeded"):
        raise ReasonerError(f"{model}: the interaction ended as {status!r}: ask again")
    return tuple(segments)


def read_usage(reply: Mapping[str, Any], seconds: float) -> Loop:
    """Return what an interaction cost. Missing counts are 0."""
    usage = reply.get("usage") or {}

    def count(name: str) -> int:
        return int(usage.get(f"total_{name}_tokens") or 0)

    cached = count("cached")
    return Loop(
        prefilled=max(0, count("input") - cached) + count("tool_use"),
        cached=cached,
        decoded=count("output"),
        thinking=count("thought"),
        seconds=seconds,
        stop=str(reply.get("status") or "completed"),
    )


def _read_answer(text: str) -> Sequence[Text | Call | Answer]:
    parser = Grammar(()).parser(thinking=False)
    parser.feed(text)
    parser.finish(StopReason.EOS)
    return parser.segments


def _words(content: Sequence[Mapping[str, Any]] | None) -> str:
    return "".join(str(part.get("text") or "") for part in content or () if part.get("type") == "text")


def _object(response: httpx.Response, model: str) -> dict[str, Any]:
    """Return the JSON object of a reply; that of an empty one is empty."""
    if not response.content:
        return {}
    try:
        data = parse_json(response.content)
    except ValueError as e:
        raise ReasonerError(f"{model}: the provider sent something else than JSON: try again") from e
    if not isinstance(data, dict):
        raise ReasonerError(f"{model}: the provider sent no JSON object: try again")
    return data


async def _read_pieces(path: Path) -> AsyncGenerator[bytes]:
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, _PIECE):
            yield piece


def _find_key(options: Mapping[str, Any]) -> str:
    """Return the key of the options or of the environment."""
    for option in ("google_api_key", "api_key"):
        if key := str(options.get(option) or "").strip():
            return key
    for variable in KEYS["google_genai"]:
        if key := os.environ.get(variable, "").strip():
            return key
    variable = KEYS["google_genai"][0]
    raise ConfigError(f"gemini-agentic has no key: export {variable}=... (the key of your account)")
