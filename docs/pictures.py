"""The pictures in the README, made from the models in the package: `make pictures` (needs Chromium or Chrome)."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from act2see import ask, create_act2see
from act2see.agent.view import trace_html
from act2see.cli.demo import ITEMS
from act2see.graphs.config import load_config
from act2see.graphs.parts import cached_parts
from act2see.micro.questions import make_item
from act2see.micro.world import write_clip

WIDTH, TALLEST = 900, 4000


def shoot(page: Path, picture: Path) -> None:
    """Photograph an HTML page at its own height."""
    browser = next((b for b in ("chromium", "chromium-browser", "google-chrome") if shutil.which(b)), None)
    if browser is None:
        raise SystemExit("pictures need Chromium or Chrome on the PATH")
    options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={WIDTH},{TALLEST}", f"--screenshot={picture}"]
    subprocess.run([browser, *options, page.as_uri()], check=True, capture_output=True)
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    rows = np.flatnonzero((pixels != pixels[-1, 0]).any(axis=(1, 2)))
    Image.fromarray(pixels[: int(rows[-1]) + 24]).quantize(128).save(picture, optimize=True)


def main() -> None:
    config = load_config("micro")
    graph, store = create_act2see(config), cached_parts(config).resources.store
    item = make_item("both", dict(ITEMS)["both"], "test")
    with tempfile.TemporaryDirectory() as temporary:
        trace = ask(graph, write_clip(item.clip, Path(temporary) / "clip.mp4"), item.text, item.options)
        page = Path(temporary) / "trace.html"
        page.write_text(trace_html(trace, lambda ref: store.get(ref.digest)), encoding="utf-8")
        shoot(page, Path(__file__).parent / "img" / "trace.png")


if __name__ == "__main__":
    main()
