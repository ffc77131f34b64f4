"""Libraries are silent while we load and run their models, and restored afterwards."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

import act2see
from act2see.micro.questions import make_item
from act2see.micro.world import write_clip
from act2see.tools.runtime.quiet import quiet

SILENT = {
    "TRANSFORMERS_VERBOSITY",
    "DIFFUSERS_VERBOSITY",
    "HF_HUB_VERBOSITY",
    "HF_HUB_DISABLE_PROGRESS_BARS",
    "TQDM_DISABLE",
}


def test_a_script_prints_only_its_own_output(tmp_path: Path) -> None:
    """Load every model, as in a notebook: without environment variables and without helpers."""
    clip = write_clip(make_item("both", 1, "test", seconds=6).clip, tmp_path / "clip.mp4")
    code = f"""
import asyncio, logging
import act2see
before = logging.root.handlers[:], dict(logging.root.manager.loggerDict)
from act2see import ask, create_act2see, load_config
from act2see.graphs.parts import cached_parts
from act2see.tools.base import ToolContext
trace = ask(create_act2see("micro"), {str(clip)!r}, "Which shape blinks?")
tool = cached_parts(load_config("micro")).tools["generate"]
asyncio.run(tool.call("the ring is red " * 80, ToolContext({str(clip)!r})))
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging
print(diffusers_logging.is_progress_bar_enabled(), transformers_logging.is_progress_bar_enabled())
print(diffusers_logging.get_verbosity() == transformers_logging.get_verbosity() == logging.WARNING)
"""
    environment = {k: v for k, v in os.environ.items() if k not in SILENT}
    environment |= {
        "PYTHONPATH": str(Path(act2see.__file__).parents[1]),
        "ACT2SEE_CACHE": str(tmp_path / "cache"),
    }
    run = subprocess.run(
        [sys.executable, "-W", "default", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stderr == ""
    assert run.stdout.split() == ["True"] * 3


def test_the_last_of_overlapping_blocks_restores_the_settings() -> None:
    import transformers

    logger = logging.getLogger("transformers")
    transformers.logging.set_verbosity_warning()
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with quiet("diffusers"):
            inside.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with quiet():
        thread.start()
        inside.wait()
        assert logger.level == logging.ERROR
    assert logger.level == logging.ERROR  # the other block has not ended
    leave.set()
    thread.join()
    assert logger.level == logging.WARNING
    assert not [f for f in warnings.filters if "diffusers" in str(f[3])]


def test_only_warnings_of_libraries_are_silenced() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        with quiet():
            warnings.warn_explicit("theirs", FutureWarning, "x.py", 1, module="transformers.models.clip")
            warnings.warn_explicit("ours", UserWarning, "x.py", 1, module="mine")
    assert [str(w.message) for w in caught] == ["ours"]


def test_a_log_level_that_the_user_chose_is_kept() -> None:
    logger = logging.getLogger("transformers")
    before = logger.level
    try:
        logger.setLevel(logging.INFO)
        with quiet():
            assert logger.level == logging.INFO
    finally:
        logger.setLevel(before)


def test_an_error_inside_the_block_is_raised() -> None:
    with pytest.raises(ValueError, match="wrong"), quiet():
        raise ValueError("wrong")
