"""Settings and fixtures of all tests: no network, a separate cache, and one thread per worker.

The variables are set when pytest loads this file, before any test imports a library that reads them. Child
processes inherit them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from act2see.tools.frames import FrameRef
    from act2see.trace.trace import Trace

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["LANGGRAPH_STRICT_MSGPACK"] = "true"

# Torch and BLAS use all cores by default. With a worker per core, one thread per worker is faster.
if "PYTEST_XDIST_WORKER" in os.environ:
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = "1"


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield the cache folder of this process: empty when the tests start, and never the user's own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACT2SEE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def frame() -> Callable[..., FrameRef]:
    """Return a function: `frame(n)` returns a reference to the n-th picture."""
    from act2see.tools.frames import FrameRef

    def make(n: int, seconds: float = 0.0, width: int = 48, height: int = 48) -> FrameRef:
        return FrameRef(digest=f"{n:08x}" + f"{n + 1:024x}", width=width, height=height, seconds=seconds)

    return make


@pytest.fixture(scope="session")
def trace() -> Callable[..., Trace]:
    """Return a function: `trace(question=..., ...)` returns a trace of a clip that does not exist."""
    from act2see.trace.record import Video
    from act2see.trace.trace import Trace

    video = Video(path="clip.mp4", digest="0" * 32, seconds=4.0, width=48, height=48, frames=48, fps=12.0)
    return lambda **fields: Trace(**{"id": "run", "video": video, **fields})


@pytest.fixture(scope="session")
def source() -> Callable[[FrameRef], NDArray[np.uint8]]:
    """Return a function: `source(ref)` returns noise that depends only on the digest of the reference."""
    import numpy as np

    def picture(ref: FrameRef) -> NDArray[np.uint8]:
        rng = np.random.default_rng(int(ref.digest[:8], 16))
        return rng.integers(0, 256, (ref.height, ref.width, 3), dtype=np.uint8)

    return picture
