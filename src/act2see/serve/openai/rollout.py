"""From an OpenAI chat to a rollout: what the model reads, piece by piece, and the pictures in it.

Each turn becomes `<|im_start|>role`, its parts and `<|im_end|>`. Each part is a piece of its own, so that a
chat which sends the pieces of `agent/rollout.py` one by one has their ids, token for token. The generation
prompt, `<|im_start|>assistant` and `<think>`, stands after the last turn. With `continue_final_message` it is
left out and the assistant's last turn stays open: the model continues it, images and all.

Only the server writes marks. A user's turn is plain text, whatever it spells out. In the assistant's turns
`<think>` and `</think>` are marks, except in the parts that the request names in `plain_parts` (what a tool
returned).

Pictures come as data URLs only: nothing is fetched, and no file is opened. They live as long as a request
holds them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
from dataclasses import dataclass
from weakref import WeakValueDictionary

import numpy as np

from act2see.agent.rollout import ImagePiece, Piece, Rollout, TextPiece
from act2see.serve.openai.wire import ChatRequest, ImagePart, ProtocolError
from act2see.tools.frames import FrameRef
from act2see.tools.runtime.forks import Lock
from act2see.tools.video.store import Pixels, frame_digest

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 80_000_000
"""Pixels of all pictures of a request: 256 frames of 448 x 448 are 51 million."""
_MAX_ASPECT = 200  # what Qwen's preprocessor takes
_DATA = re.compile(r"data:image/[a-z.+-]+;base64,")


class RequestPictures:
    """The pictures of the requests that are under way: a `FrameSource` for the reasoner."""

    def __init__(self) -> None:
        self._pixels: WeakValueDictionary[str, Pixels] = WeakValueDictionary()
        self._lock = Lock()

    def add(self, pixels: Pixels) -> tuple[FrameRef, Pixels]:
        """Add a picture, which lives as long as somebody holds its array.

        Returns:
            The reference, and the array to hold: one for all requests that show the same picture.
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
    """Holds the pictures in `RequestPictures`."""


def build_prompt(request: ChatRequest, pictures: RequestPictures) -> ChatPrompt:
    """The rollout of a chat.

    Args:
        pictures: Where the chat's pictures are added.

    Raises:
        ProtocolError: 400, a picture cannot be shown.
    """
    pieces: list[Piece] = []
    pixels: list[Pixels] = []
    room = MAX_PIXELS
    session = hashlib.blake2b(digest_size=16)
    last = len(request.messages) - 1
    for n, message in enumerate(request.messages):
        role = "system" if message.role == "developer" else message.role
        pieces.append(TextPiece(f"<|im_start|>{role}\n", "control"))
        for m, part in enumerate(message.parts):
            if isinstance(part, ImagePart):
                image = decode_picture(part.image_url.url, f"messages.{n}.content.{m}", room)
                room -= image.shape[0] * image.shape[1]
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
    # The protocol has no sessions. Chats with the same beginning are taken for one run, whose row of the
    # cache is continued. If they are not, their ids differ, and the row is read anew from there.
    return ChatPrompt(Rollout(tuple(pieces), session.hexdigest()), tuple(pixels))


def decode_picture(url: str, where: str, room: int = MAX_PIXELS) -> Pixels:
    """The picture of a data URL, `(height, width, 3)` uint8.

    Args:
        url: The data URL.
        where: The field of the request, for error messages.
        room: How many pixels the picture may have.

    Raises:
        ProtocolError: 400, the picture cannot be read, or is too large or too narrow.
    """
    from PIL import Image

    def refused(why: str) -> ProtocolError:
        return ProtocolError(400, f"{where}: {why}", "invalid_image", where)

    head = _DATA.match(url)
    if not head:
        raise refused(
            "pictures must be data URLs (data:image/png;base64,...): "
            "this server fetches nothing and opens no files"
        )
    try:
        data = base64.b64decode(url[head.end() :], validate=True)
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > room:
                raise refused(
                    f"the pictures of a request may have {MAX_PIXELS} pixels together: "
                    "send fewer, or smaller ones"
                )
            if max(width, height) >= _MAX_ASPECT * min(width, height):
                raise refused(
                    f"{width} x {height} is too narrow a picture: "
                    f"one side may be {_MAX_ASPECT} times the other"
                )
            return np.array(image.convert("RGB"))
    except binascii.Error as e:
        raise refused(f"the base64 is damaged ({e})") from e
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:  # Pillow's errors
        raise refused(f"the picture cannot be read: send {', '.join(FORMATS)} ({type(e).__name__})") from e
