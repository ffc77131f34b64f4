"""From an OpenAI chat to a rollout: what the model reads, piece by piece, and the pictures in it.

Each turn becomes `<|im_start|>role`, its parts and `<|im_end|>`; each part is a piece of its own, so that a
chat which sends the pieces of `agent/rollout.py` one by one has their ids, token for token. After the last
turn stands the generation prompt, `<|im_start|>assistant` and `<think>`, or, with `continue_final_message`,
nothing: the assistant's last turn stays open, and what the model writes goes on with it, images and all.

Only the server writes marks. What stands in a user's turn is plain text, whatever it spells out; in the
assistant's turns `<think>` and `</think>` are marks, but for parts that the request names in `plain_parts`
(what a tool returned).

Pictures come as data URLs alone: nothing is fetched, and no file is opened. They live as long as a request
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
from numpy.typing import NDArray

from act2see.agent.rollout import ImagePiece, Piece, Rollout, TextPiece
from act2see.serve.openai.wire import ChatRequest, ImagePart, ProtocolError
from act2see.tools.frames import FrameRef
from act2see.tools.runtime.forks import Lock
from act2see.tools.video.store import frame_digest

Pixels = NDArray[np.uint8]
FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 80_000_000  # of all pictures of a request: 256 frames of 448 x 448 are 51 million
_ASPECT = 200  # what Qwen's preprocessor takes
_DATA = re.compile(r"data:image/[a-z.+-]+;base64,")


class Pictures:
    """Pixels by digest, for the reasoner: those of the requests that are under way."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[str, Pixels] = WeakValueDictionary()
        self._lock = Lock()

    def add(self, pixels: Pixels) -> tuple[FrameRef, Pixels]:
        """A reference, and the array to hold on to: one for all requests that show the same picture."""
        digest = frame_digest(pixels)
        with self._lock:
            kept = self._known.setdefault(digest, pixels)
        return FrameRef(digest=digest, width=pixels.shape[1], height=pixels.shape[0], seconds=0.0), kept

    def get(self, digest: str) -> Pixels:
        with self._lock:
            return self._known[digest]

    def __len__(self) -> int:
        return len(self._known)


@dataclass(frozen=True, slots=True)
class Prompted:
    """A rollout, and its pictures, which are known to `Pictures` as long as this is held."""

    rollout: Rollout
    held: tuple[Pixels, ...]


def prompted(request: ChatRequest, pictures: Pictures) -> Prompted:
    """The rollout of a chat. Raises `ProtocolError`, 400, for a picture that cannot be shown."""
    pieces: list[Piece] = []
    held: list[Pixels] = []
    left = MAX_PIXELS
    session = hashlib.blake2b(digest_size=16)
    last = len(request.messages) - 1
    for n, message in enumerate(request.messages):
        role = "system" if message.role == "developer" else message.role
        pieces.append(TextPiece(f"<|im_start|>{role}\n", "control"))
        for m, part in enumerate(message.parts):
            if isinstance(part, ImagePart):
                pixels = picture(part.image_url.url, f"messages.{n}.content.{m}", left)
                left -= pixels.shape[0] * pixels.shape[1]
                frame, kept = pictures.add(pixels)
                held.append(kept)
                pieces += [
                    TextPiece("<|vision_start|>", "control"),
                    ImagePiece(frame),
                    TextPiece("<|vision_end|>", "control"),
                ]
                said = frame.digest
            else:
                plain = role != "assistant" or (n == last and m in request.plain_parts)
                pieces.append(TextPiece(part.text, "plain" if plain else "model"))
                said = part.text
            if message.role == "user" and n <= 1:
                session.update(f"{len(said)}:{said}".encode())
        if not (n == last and request.continue_final_message):
            pieces.append(TextPiece("<|im_end|>\n", "control"))
    if not request.continue_final_message:
        pieces.append(TextPiece("<|im_start|>assistant\n<think>\n", "control"))
    # The protocol knows no sessions. Chats that begin alike are taken for one run, whose row of the cache is
    # gone on with; where that is wrong the ids differ, and the row is read anew from there.
    return Prompted(Rollout(tuple(pieces), session.hexdigest()), tuple(held))


def picture(url: str, where: str, most: int = MAX_PIXELS) -> Pixels:
    """`(height, width, 3)` uint8 of a data URL. Raises `ProtocolError`, 400."""
    from PIL import Image

    def refused(why: str) -> ProtocolError:
        return ProtocolError(400, f"{where}: {why}", "invalid_image", where)

    head = _DATA.match(url)
    if not head:
        raise refused(
            "pictures must be data URLs (data:image/png;base64,...): this server fetches nothing and opens no files"
        )
    try:
        with Image.open(
            io.BytesIO(base64.b64decode(url[head.end() :], validate=True)), formats=FORMATS
        ) as image:
            width, height = image.size
            if width * height > most:
                raise refused(
                    f"the pictures of a request may have {MAX_PIXELS} pixels together: send fewer, or smaller ones"
                )
            if max(width, height) >= _ASPECT * min(width, height):
                raise refused(
                    f"{width} x {height} is too narrow a picture: one side may be {_ASPECT} times the other"
                )
            return np.array(image.convert("RGB"))
    except binascii.Error as e:
        raise refused(f"the base64 is damaged ({e})") from e
    except (
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
    ) as e:  # what Pillow raises for what is no picture
        raise refused(f"the picture cannot be read: send {', '.join(FORMATS)} ({type(e).__name__})") from e
