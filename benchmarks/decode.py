"""How fast frames come out of a video, and how much memory that takes.

    python benchmarks/decode.py [--quick] [--out FILE]

Frames at 3 a second, longest side 364, from H.264 clips made on the spot: 2 and 10 minutes of 720p, 2 of
1080p, 25 frames a second, a keyframe every 250. Measured against decoding at full size and resizing with
Pillow, in two ways: *whole* decodes the clip, then resizes, as is mostly done; *streamed* resizes each frame
as it comes. All use all cores. Each measurement is a process of its own; memory is its peak above what it
took before the clip was opened. The 10-minute clip is measured once, and not decoded whole: that takes 9 GiB.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
FPS, SIDE, RATE, UNIQUE = 3, 364, 25, 20
GOAL_SPEED, GOAL_MEMORY = 2.0, 300


def texture(rng: np.random.Generator, width: int, height: int) -> Pixels:
    """Smooth colours, grain and everything between: noise at four scales."""
    out = np.zeros((height, width, 3), np.float32)
    for scale, strength in ((64, 90), (16, 50), (4, 30), (1, 14)):
        noise = rng.random((height // scale + 1, width // scale + 1, 3), dtype=np.float32)
        out += np.kron(noise, np.ones((scale, scale, 1), np.float32))[:height, :width] * strength
    return out.clip(0, 255).astype(np.uint8)


def write_clip(path: Path, width: int, height: int, seconds: int) -> None:
    """A camera that pans over a texture while a patch moves across it. The packets of 20 seconds, two groups
    of pictures, are repeated: a longer clip takes no longer to encode and as long to decode."""
    import av

    rng = np.random.default_rng(0)
    ground, patch = texture(rng, width + 512, height + 512), texture(rng, width // 5, height // 4)
    once = path.with_suffix(".once.mp4")
    with av.open(str(once), "w") as container:
        # PyAV asks for threads by slices, which no camera and no other encoder writes.
        options = {"g": "250", "preset": "medium", "crf": "23", "x264-params": "sliced-threads=0"}
        stream: Any = container.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(UNIQUE * RATE):
            x, y = int(256 + 250 * np.sin(i / 60)), int(256 + 250 * np.cos(i / 85))
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
                    later = round(n * UNIQUE / packet.time_base)
                    packet.pts, packet.dts, packet.stream = packet.pts + later, packet.dts + later, target
                    out.mux(packet)
    once.unlink()


def ours(path: str, decoder: Any = "pyav") -> int:
    from act2see.tools.video.reader import frames_at, open_video

    video = open_video(path, decoder=decoder)
    wanted = frames_at(video.timestamps, np.arange(int(video.seconds * FPS)) / FPS)
    scale = SIDE / max(video.width, video.height)
    size = round(video.width * scale / 2) * 2, round(video.height * scale / 2) * 2
    return sum(1 for _ in video.read(wanted, size))


def pillow(path: str, whole: bool) -> int:
    import av
    from PIL import Image

    def small(pixels: Any) -> Pixels:
        scale = SIDE / max(pixels.shape)
        size = round(pixels.shape[1] * scale / 2) * 2, round(pixels.shape[0] * scale / 2) * 2
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))

    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        wanted = {int(t / FPS * RATE + 1e-3) for t in range(stream.frames * FPS // RATE)}
        frames = (f.to_ndarray(format="rgb24") for i, f in enumerate(container.decode(stream)) if i in wanted)
        return (
            len([small(f) for f in np.stack(list(frames))])
            if whole
            else sum(1 for f in frames if small(f).any())
        )


METHODS: dict[str, Callable[[str], int]] = {
    "act2see": ours,
    "act2see, decord": lambda path: ours(path, "decord"),
    "whole, then Pillow": lambda path: pillow(path, whole=True),
    "streamed, then Pillow": lambda path: pillow(path, whole=False),
}


def memory(field: str) -> float:
    """MiB of this process: VmRSS now or VmHWM at most."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith(field))


def measure(method: str, path: str) -> dict[str, float]:
    """In a process of its own: seconds from a file name to the last small frame, MiB above the imports."""
    import av
    import decord
    import PIL.Image

    import act2see.tools.video.reader

    del av, decord, PIL, act2see
    before, start, cpu = memory("VmRSS"), time.perf_counter(), time.process_time()
    frames = METHODS[method](path)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {"frames": frames, "seconds": seconds, "cpu": cpu, "mib": memory("VmHWM") - before}


def machine() -> dict[str, Any]:
    cpu = next(
        (
            x.split(":")[1].strip()
            for x in Path("/proc/cpuinfo").read_text().splitlines()
            if x.startswith("model name")
        ),
        "?",
    )
    packages = {name: version(name) for name in ("decord2", "av", "pillow", "numpy")}
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": packages,
    }


def run(quick: bool = False) -> dict[str, Any]:
    """Measure everything; the fastest of three runs each; `quick` takes a 20-second clip only, once."""
    clips = {"720p, 20 s": (1280, 720, 20)} if quick else {}
    if not quick:
        clips = {
            "720p, 2 min": (1280, 720, 120),
            "720p, 10 min": (1280, 720, 600),
            "1080p, 2 min": (1920, 1080, 120),
        }
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
                    done = subprocess.run(
                        [sys.executable, __file__, "--measure", method, str(path)],
                        check=True,
                        capture_output=True,
                        text=True,
                        env=os.environ,
                    )
                    new = json.loads(done.stdout)
                    if method not in found or new["seconds"] < found[method]["seconds"]:
                        found[method] = new
            for method, value in found.items():
                times = round(value["seconds"] / found["act2see"]["seconds"], 2)
                rows.append(
                    {
                        "clip": clip,
                        "method": method,
                        **{k: round(v, 2) for k, v in value.items()},
                        "times": times,
                    }
                )
    against = [r["times"] for r in rows if r["method"].startswith("whole")]
    used = [r["mib"] for r in rows if r["method"] == "act2see"]
    return {
        "benchmark": "decode",
        "machine": machine(),
        "rows": rows,
        "goals": {
            "times faster than full size, then resize": {
                "goal": GOAL_SPEED,
                "lowest": min(against),
                "met": min(against) >= GOAL_SPEED,
            },
            "MiB above the baseline": {
                "goal": GOAL_MEMORY,
                "highest": max(used),
                "met": max(used) <= GOAL_MEMORY,
            },
        },
    }


def table(result: dict[str, Any]) -> str:
    lines = [
        "| clip | method | frames | seconds | CPU seconds | peak MiB | times act2see's |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in result["rows"]:
        lines.append(
            f"| {r['clip']} | {r['method']} | {r['frames']:.0f} | {r['seconds']:.2f} | {r['cpu']:.2f} | {r['mib']:.0f} | {r['times']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a 20-second clip, measured once; nothing is written unless --out is given",
    )
    parser.add_argument(
        "--out", type=Path, help="where the result goes (default: benchmarks/results/decode.json)"
    )
    parser.add_argument("--measure", nargs=2, metavar=("METHOD", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure)))
        return
    result = run(arguments.quick)
    print(table(result))
    print(json.dumps(result["goals"], indent=1))
    out = arguments.out or (None if arguments.quick else Path(__file__).parent / "results" / "decode.json")
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
