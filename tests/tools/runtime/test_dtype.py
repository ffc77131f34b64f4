"""The data type that `auto` stands for, by device."""

from __future__ import annotations

import pytest

from act2see.tools.runtime.weights import has_fast_bfloat16, pick_dtype


@pytest.mark.parametrize(
    ("device", "fast", "dtype"),
    [
        ("cuda", False, "bfloat16"),
        ("cuda:1", False, "bfloat16"),
        ("mps", False, "float16"),
        ("cpu", True, "bfloat16"),
        ("cpu", False, "float32"),
    ],
)
def test_auto_depends_on_the_hardware(
    device: str, fast: bool, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("act2see.tools.runtime.weights.has_fast_bfloat16", lambda: fast)
    assert pick_dtype("auto", device) == dtype
    assert pick_dtype("float32", device) == "float32"


def test_the_test_of_this_cpu_agrees_with_its_flags() -> None:
    try:
        with open("/proc/cpuinfo", encoding="ascii") as file:
            flags = file.read().split()
    except OSError:
        pytest.skip("this system does not list the flags of its CPU")
    assert has_fast_bfloat16() == any(flag in flags for flag in ("avx512_bf16", "amx_tile"))
