"""Converts an OpenAI chat into a rollout: the text that the model reads, piece by piece, and its pictures.

Each turn becomes `<|im_start|>role`, its parts and `<|im_end|>`. Each part becomes a separate piece, so a
chat that sends the pieces of `agent/rollout.py` as parts is tokenized into the same ids. The generation
prompt, `<|im_start|>assistant` and `<think>`, follows the last turn. With `continue_final_message` it is left
out, and the model continues the assistant's last turn, images included.

Only the server writes control tokens; in a user's turn they are plain text. In the assistant's turns
`<think>` and `</think>` are control tokens, except in the parts that the request lists in `plain_parts`
(text that a tool returned).

Pictures must be data URLs: the server fetches nothing and opens no files. A picture is freed when the last
request that uses it ends.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from act2see.agent.rollout import ImagePiece, Piece, Rollout, TextPiece
from act2see.serve.openai.wire import ChatRequest, ImagePart, ProtocolError
from act2see.tools.frames import FrameRef
from act2see.tools.runtime.forks import Lock
from act2see.tools.video.limits import MAX_PIXELS as VIDEO_PIXELS
from act2see.tools.video.pixels import opaque
from act2see.tools.video.store import Pixels, frame_digest

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 80_000_000
"""The maximum number of pixels in a request; 256 frames of 448 x 448 have 51 million."""
MAX_PICTURE = VIDEO_PIXELS
"""The maximum number of pixels of one picture: as many as a video's may have."""
_LARGE = (
    4_000_000  # pixels of a picture that is decoded alone, because decoding takes up to 25 bytes for each
)
_MAX_ASPECT = 200  # the limit of Qwen's preprocessor
_DATA = re.compile(r"data:image/[a-z.+-]+;base64,")


class RequestPictures:
    """The pictures of the current requests, as a `FrameSource` for the reasoner."""

    def __init__(self) -> None:
        self._pixels: WeakValueDictionary[str, Pixels] = WeakValueDictionary()
        self._lock = Lock()
        self.alone = Lock()
        """Held while a large picture is decoded."""

    def add(self, pixels: Pixels) -> tuple[FrameRef, Pixels]:
        """Add a picture. It stays available until its array is garbage-collected.

        Args:
            pixels: The picture, `(height, width, 3)` uint8.

        Returns:
            The reference, and the array that the caller must hold. Requests with the same picture share it.
        """
        digest = frame_digest(pixels)
        with self._lock:
            held = self._pixels.setdefault(digest, pixels)
        height, width, _ = pixels.shape
        return FrameRef(digest=digest, width=width, height=height, seconds=0.0), held

    def __call__(self, frame: FrameRef) -> Pixels:
        with self._lock:
            return self._pixels[frame.digest]

    def __len__(self) -> int:
        return len(self._pixels)


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A rollout with its pictures."""

    rollout: Rollout
    pixels: tuple[Pixels, ...]
    """The arrays that keep the pictures available in `RequestPictures`."""


def build_prompt(request: ChatRequest, pictures: RequestPictures) -> ChatPrompt:
    """Return the prompt of a chat.

    Args:
        request: The chat.
        pictures: The collection to which the chat's pictures are added.

    Raises:
        ProtocolError: 400, a picture cannot be read.
    """
    pieces: list[Piece] = []
    pixels: list[Pixels] = []
    pixels_left = MAX_PIXELS
    session = hashlib.blake2b(digest_size=16)
    last = len(request.messages) - 1
    for n, message in enumerate(request.messages):
        role = "system" if message.role == "developer" else message.role
        pieces.append(TextPiece(f"<|im_start|>{role}\n", "control"))
        for m, part in enumerate(message.parts):
            if isinstance(part, ImagePart):
                image = decode_picture(
                    part.image_url.url, f"messages.{n}.content.{m}", pictures.alone, pixels_left
                )
                pixels_left -= image.shape[0] * image.shape[1]
                frame, held = pictures.add(image)
                pixels.append(held)
                pieces.append(TextPiece("<|vision_start|>", "control"))
                pieces.append(ImagePiece(frame))
                pieces.append(TextPiece("<|vision_end|>", "control"))
                content = frame.digest
            else:
                plain = role != "assistant" or (n == last and m in request.plain_parts)
                pieces.append(TextPiece(part.text, "plain" if plain else "model"))
                content = part.text
            if message.role == "user" and n <= 1:
                session.update(f"{len(content)}:{content}".encode())
        if n < last or not request.continue_final_message:
            pieces.append(TextPiece("<|im_end|>\n", "control"))
    if not request.continue_final_message:
        pieces.append(TextPiece("<|im_start|>assistant\n<think>\n", "control"))
    # The protocol has no sessions. Chats that begin with the same user message are treated as one run and
    # share a row of the cache. If they are different runs, their ids differ later, and the row is recomputed
    # from there.
    return ChatPrompt(Rollout(tuple(pieces), session.hexdigest()), tuple(pixels))


def decode_picture(
    url: str, field: str, alone: AbstractContextManager[Any], max_pixels: int = MAX_PIXELS
) -> Pixels:
    """Return the picture of a data URL, `(height, width, 3)` uint8.

    Args:
        url: The data URL.
        field: The field of the request, for error messages.
        alone: Held while a large picture is decoded, so that several do not fill the memory.
        max_pixels: The number of pixels that the request may still have.

    Raises:
        ProtocolError: 400, the picture cannot be read, or is too large or too narrow.
    """
    from PIL import Image

    def refusal(why: str) -> ProtocolError:
        return ProtocolError(400, f"{field}: {why}", "invalid_image", field)

    head = _DATA.match(url)
    if not head:
        raise refusal(
            "send the picture as a data URL (data:image/png;base64,...): "
            "this server fetches nothing and opens no files"
        )
    try:
        data = base64.b64decode(url[head.end() :], validate=True)
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PICTURE:
                raise refusal(f"the picture has more than {MAX_PICTURE:,} pixels: send a smaller one")
            if width * height > max_pixels:
                raise refusal(
                    f"the pictures of a request have more than {MAX_PIXELS:,} pixels: "
                    "send fewer or smaller ones"
                )
            if max(width, height) >= _MAX_ASPECT * min(width, height):
                raise refusal(
                    f"the picture is too narrow ({width} x {height}): "
                    f"the longer side must be less than {_MAX_ASPECT} times the shorter"
                )
            with alone if width * height > _LARGE else nullcontext():
                return np.array(opaque(image))
    except binascii.Error as e:
        raise refusal(f"the base64 is invalid ({e})") from e
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:  # Pillow's errors
        raise refusal(f"the picture cannot be read: send {', '.join(FORMATS)} ({type(e).__name__})") from e
