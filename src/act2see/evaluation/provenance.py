"""Where a score comes from: the commit of the source, the revisions of the weights, the machine."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from pathlib import Path

import act2see
from act2see.errors import WeightsError
from act2see.graphs.config import Config
from act2see.tools.runtime.text import first_line
from act2see.tools.runtime.weights import find_weights, is_of_hub

_HEAD = 1 << 20  # bytes of a file that its fingerprint reads: headers differ between trainings
_WAIT = 10  # seconds for git


def find_commit() -> str | None:
    """Return the commit of the source, with `-dirty` behind it if files of the package were changed.

    None for an installed package, or where git is not installed.
    """
    package = Path(act2see.__file__).parent
    root = package.parents[1]
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return None
    changed = _git(root, "status", "--porcelain", "--", str(package))
    return f"{commit}-dirty" if changed else commit


def _git(folder: Path, *words: str) -> str | None:
    command = ["git", "-C", str(folder), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_WAIT, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def find_revisions(config: Config) -> dict[str, str]:
    """Return the weights of each part, as `name@revision`.

    The revision is the commit in the hub's cache; for a folder, a fingerprint of its files. The weights of a
    server or a provider have none here: the name then stands alone.
    """
    names = {"reasoner": config.reasoner.weights, "encoder": config.encoder.weights}
    if config.reasoner.adapter:
        names["adapter"] = config.reasoner.adapter
    for tag, tool in config.tools.items():
        if isinstance(weights := tool.options.get("weights"), str):
            names[tag] = weights
    found = {}
    for part, name in names.items():
        local = part != "reasoner" or config.reasoner.use in ("transformers", "vllm")
        revision = find_revision(name) if local and name else ""
        found[part] = f"{name.partition('@')[0]}@{revision}" if revision else name
    return found


def find_revision(name: str) -> str:
    """Return the revision of weights on this machine; empty if they are not here."""
    try:
        folder = find_weights(name)
    except WeightsError:
        return ""
    # a folder of the hub's cache is named after its commit
    return folder.name if is_of_hub(name) else fingerprint(folder)


def fingerprint(folder: Path) -> str:
    """Return a hash of the names, the sizes and the beginnings of a folder's files."""
    digest = hashlib.blake2b(digest_size=6)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            digest.update(f"{path.relative_to(folder)} {path.stat().st_size}".encode())
            with path.open("rb") as file:
                digest.update(file.read(_HEAD))
    return digest.hexdigest()


def describe_machine() -> str:
    """Return the processor, its cores, and the GPU if there is one."""
    processor = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    except OSError:
        pass  # another system than Linux
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{processor}, {cores} cores{_describe_gpu()}"


def _describe_gpu() -> str:
    import torch

    try:
        return f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    except RuntimeError as e:  # a driver that does not fit
        return f", a GPU that cannot be used ({first_line(e)})"
