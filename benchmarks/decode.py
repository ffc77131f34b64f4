"""Speed and memory of reading frames from a video.

    python -m benchmarks.decode [--quick] [--out FILE]

Frames at 3 fps, longest side 364, are read from generated H.264 clips: 2 and 10 minutes of 720p and 2 of
1080p, at 25 fps with a keyframe every 250 frames. The baseline decodes at full size and resizes with Pillow,
in two ways: *whole* decodes the clip and then resizes, as is common; *streamed* resizes each frame as it is
decoded. All ways use all cores. Each measurement is a separate process; its memory is the peak above its
memory before the clip was opened. The 10-minute clip is measured once, without *whole*, which takes 9 GiB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from act2see.tools.runtime.markdown import markdown_table
from benchmarks import at_least, at_most, kib, machine as describe_machine

Pixels = NDArray[np.uint8]
FPS, SIDE, RATE, UNIQUE = 3, 364, 25, 20
GOAL_SPEED, GOAL_MEMORY = 2.0, 300
# Width, height and seconds.
CLIPS = {
    "720p, 2 min": (1280, 720, 120),
    "720p, 10 min": (1280, 720, 600),
    "1080p, 2 min": (1920, 1080, 120),
}
QUICK_CLIPS = {"720p, 20 s": (1280, 720, 20)}


def texture(rng: np.random.Generator, width: int, height: int) -> Pixels:
    """Return noise at four scales: smooth colours, grain and everything between."""
    out = np.zeros((height, width, 3), np.float32)
    for scale, strength in ((64, 90), (16, 50), (4, 30), (1, 14)):
        noise = rng.random((height // scale + 1, width // scale + 1, 3), dtype=np.float32)
        out += np.kron(noise, np.ones((scale, scale, 1), np.float32))[:height, :width] * strength
    return out.clip(0, 255).astype(np.uint8)


def write_clip(path: Path, width: int, height: int, seconds: int) -> None:
    """Write a clip of a camera that pans over a texture while a patch moves across it.

    The packets of 20 seconds (two groups of pictures) are repeated: a longer clip takes longer to decode, but
    not to encode.

    Args:
        path: The file to write.
        width: Width in pixels.
        height: Height in pixels.
        seconds: Length of the clip, a multiple of 20.
    """
    import av

    rng = np.random.default_rng(0)
    ground, patch = texture(rng, width + 512, height + 512), texture(rng, width // 5, height // 4)
    once = path.with_suffix(".once.mp4")
    with av.open(str(once), "w") as container:
        # PyAV requests slice threads, whose streams no camera and no other encoder writes.
        options = {"g": "250", "preset": "medium", "crf": "23", "x264-params": "sliced-threads=0"}
        stream: Any = container.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(UNIQUE * RATE):
            x = int(256 + 250 * np.sin(i / 60))
            y = int(256 + 250 * np.cos(i / 85))
            frame = ground[y : y + height, x : x + width].copy()
            x = int((width - patch.shape[1]) * (0.5 + 0.5 * np.sin(i / 23)))
            y = int((height - patch.shape[0]) * (0.5 + 0.5 * np.cos(i / 31)))
            frame[y : y + patch.shape[0], x : x + patch.shape[1]] = patch
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(path), "w") as out:
        target: Any = None
        for n in range(seconds // UNIQUE):
            with av.open(str(once)) as source:
                target = target or out.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(video=0):
                    if packet.dts is None or packet.pts is None:
                        continue
                    offset = round(n * UNIQUE / packet.time_base)
                    packet.pts += offset
                    packet.dts += offset
                    packet.stream = target
                    out.mux(packet)
    once.unlink()


def small_size(width: int, height: int) -> tuple[int, int]:
    """Return the even width and height whose longer one is `SIDE`."""
    scale = SIDE / max(width, height)
    return round(width * scale / 2) * 2, round(height * scale / 2) * 2


def read_with_act2see(path: str, decoder: Any = "pyav") -> int:
    """Read the frames with `Video.read`; return their number."""
    from act2see.tools.video.reader import frames_at, open_video

    video = open_video(path, decoder=decoder)
    wanted = frames_at(video.timestamps, np.arange(int(video.seconds * FPS)) / FPS)
    return sum(1 for _ in video.read(wanted, small_size(video.width, video.height)))


def read_with_pillow(path: str, whole: bool) -> int:
    """Decode frames at full size and resize them; return their number.

    With `whole`, all frames are decoded before the first is resized.
    """
    import av
    from PIL import Image

    def resize(pixels: Any) -> Pixels:
        height, width, _ = pixels.shape
        size = small_size(width, height)
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))

    def decode(container: Any) -> Iterator[Any]:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        wanted = {int(t / FPS * RATE + 1e-3) for t in range(stream.frames * FPS // RATE)}
        for i, frame in enumerate(container.decode(stream)):
            if i in wanted:
                yield frame.to_ndarray(format="rgb24")

    with av.open(path) as container:
        frames: Iterable[Any] = decode(container)
        if whole:
            frames = np.stack(list(frames))
        return sum(1 for _ in map(resize, frames))


METHODS: dict[str, Callable[[str], int]] = {
    "act2see": read_with_act2see,
    "act2see, decord": lambda path: read_with_act2see(path, "decord"),
    "whole, then Pillow": lambda path: read_with_pillow(path, whole=True),
    "streamed, then Pillow": lambda path: read_with_pillow(path, whole=False),
}


def measure(method: str, path: str) -> dict[str, float]:
    """Return the seconds from a file name to the last small frame, and the MiB above the imports.

    This runs in a separate process, so that the peak is that of the method.
    """
    import av
    import decord
    import PIL.Image

    import act2see.tools.video.reader

    del av, decord, PIL, act2see
    memory, started, cpu = kib("VmRSS"), time.perf_counter(), time.process_time()
    frames = METHODS[method](path)
    return {
        "frames": frames,
        "seconds": time.perf_counter() - started,
        "cpu": time.process_time() - cpu,
        "mib": (kib("VmHWM") - memory) / 1024,
    }


def machine() -> dict[str, Any]:
    """Describe the machine and the versions of the packages that read video."""
    packages = {name: version(name) for name in ("decord2", "av", "pillow", "numpy")}
    return {**describe_machine(), "packages": packages}


def measure_in_child(method: str, path: Path) -> dict[str, float]:
    """Run `measure` in a new process."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.decode", "--measure", method, str(path)],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def run(quick: bool = False) -> dict[str, Any]:
    """Measure the fastest of three runs of each method (quick: one run on a 20-second clip)."""
    clips = QUICK_CLIPS if quick else CLIPS
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for clip, (width, height, seconds) in clips.items():
            path = Path(folder) / "clip.mp4"
            write_clip(path, width, height, seconds)
            found: dict[str, dict[str, float]] = {}
            for _ in range(3 if seconds == 120 else 1):
                for method in METHODS:
                    if method.startswith("whole") and seconds > 120:
                        continue
                    new = measure_in_child(method, path)
                    if method not in found or new["seconds"] < found[method]["seconds"]:
                        found[method] = new
            for method, value in found.items():
                figures = {name: round(figure, 2) for name, figure in value.items()}
                times = round(value["seconds"] / found["act2see"]["seconds"], 2)
                rows.append({"clip": clip, "method": method, **figures, "times": times})
    speed_ups = [r["times"] for r in rows if r["method"].startswith("whole")]
    memory = [r["mib"] for r in rows if r["method"] == "act2see"]
    return {
        "benchmark": "decode",
        "machine": machine(),
        "rows": rows,
        "goals": {
            "times faster than full size, then resize": at_least(min(speed_ups), GOAL_SPEED),
            "MiB above the baseline": at_most(max(memory), GOAL_MEMORY),
        },
    }


def table(result: dict[str, Any]) -> str:
    """Return the rows as a Markdown table."""
    header = ("clip", "method", "frames", "seconds", "CPU seconds", "peak MiB", "times act2see's")
    rows = []
    for r in result["rows"]:
        seconds = [f"{r[name]:.2f}" for name in ("seconds", "cpu")]
        rows.append(
            [r["clip"], r["method"], f"{r['frames']:.0f}", *seconds, f"{r['mib']:.0f}", f"{r['times']:.2f}"]
        )
    return markdown_table(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--quick",
        action="store_true",
        help="measure a 20-second clip once; write a result only with --out",
    )
    parser.add_argument(
        "--out", type=Path, help="file for the result (default: benchmarks/results/decode.json)"
    )
    parser.add_argument("--measure", nargs=2, metavar=("METHOD", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure)))
        return
    result = run(arguments.quick)
    print(table(result), end="")
    print(json.dumps(result["goals"], indent=1))
    out = arguments.out or (None if arguments.quick else Path(__file__).parent / "results" / "decode.json")
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
