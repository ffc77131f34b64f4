"""The zero of a file's time: where a player starts to count.

Players begin with whichever comes first, the sound or the picture. If the sound comes first, the first frame
is not at 0 but as much later as the picture begins: then subtitles, which are timed by the player's clock,
and `#t=` mean the same moments as frames do. Without sound, or if the picture comes first, the first frame is
at 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

_MICROSECONDS = 1e6  # of a container's length


def picture_delay(container: InputContainer, stream: VideoStream, first: int | None) -> float:
    """Return the time of the first frame by a player's clock, in seconds.

    Args:
        container: The open container.
        stream: The video stream.
        first: Presentation timestamp of the first frame, in ticks of the stream; None without timestamps.
    """
    sounds = [
        float(sound.start_time * sound.time_base)
        for sound in container.streams.audio
        if sound.start_time is not None and sound.time_base
    ]
    if first is None or not sounds or not stream.time_base:
        return 0.0
    # Sound before 0 fills the decoder and is not heard.
    delay = float(first * stream.time_base) - max(0.0, min(sounds))
    # A delay longer than the file is an error in its timestamps.
    return delay if 0 < delay < (container.duration or 0) / _MICROSECONDS else 0.0
