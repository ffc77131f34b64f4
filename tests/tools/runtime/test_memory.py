"""A process that retains freed memory asks the kernel for fewer pages; callers test `in_halves`."""

import platform
import subprocess
import sys

import pytest

# Prints the number of page faults for thirty blocks of 1 to 30 MiB, each freed before the next.
FAULTS = """
import resource, sys
import torch
from act2see.tools.runtime.memory import retain_freed_memory
if sys.argv[1] == "keep":
    retain_freed_memory()
torch.ones(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for mib in range(1, 31):
    torch.ones(mib * 2**18)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is of the GNU C library")
def test_retained_memory_causes_fewer_page_faults() -> None:
    def faults(how: str) -> int:
        command = [sys.executable, "-c", FAULTS, how]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert faults("keep") < faults("leave") / 4
