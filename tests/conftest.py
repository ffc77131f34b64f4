"""What every test may rely on: no network, no shared cache, and workers that do not fight over the cores.

The variables are set when pytest loads this file, before any test imports a library that reads them; child
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

# Torch and BLAS take all cores by default; with one process a core that is slower than one thread each.
if "PYTEST_XDIST_WORKER" in os.environ:
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = "1"


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of indexes and frames for this process: empty when the tests begin, never the user's own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACT2SEE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def frame() -> Callable[..., FrameRef]:
    """`frame(n)`: a reference to a picture of its own."""
    from act2see.tools.frames import FrameRef

    def make(n: int, seconds: float = 0.0, width: int = 48, height: int = 48) -> FrameRef:
        return FrameRef(digest=f"{n:08x}" + f"{n + 1:024x}", width=width, height=height, seconds=seconds)

    return make


@pytest.fixture(scope="session")
def trace() -> Callable[..., Trace]:
    """`trace(question=..., initial=..., segments=...)` about a clip that nobody opens."""
    from act2see.trace.record import Video
    from act2see.trace.trace import Trace

    video = Video(path="clip.mp4", digest="0" * 32, seconds=4.0, width=48, height=48, frames=48, fps=12.0)
    return lambda **fields: Trace(**{"id": "run", "video": video, **fields})


@pytest.fixture(scope="session")
def source() -> Callable[[FrameRef], NDArray[np.uint8]]:
    """The picture behind a reference: noise that its digest alone decides."""
    import numpy as np

    def picture(ref: FrameRef) -> NDArray[np.uint8]:
        rng = np.random.default_rng(int(ref.digest[:8], 16))
        return rng.integers(0, 256, (ref.height, ref.width, 3), dtype=np.uint8)

    return picture
