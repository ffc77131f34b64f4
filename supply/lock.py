"""Writes the lock: every package that `make setup` installs, with its version and the hashes of its files.

`uv pip compile` resolves once, for every platform and for Python 3.11.5 and newer (some tools of the site
need that), within `constraints.txt`. The result is in three files: each target installs what it needs.

- `core.txt`: what act2see needs at run time, and what builds it
- `more.txt`: every extra, and the development tools
- `torch.txt`: torch, and the CUDA packages that its build on Linux brings

`torch.txt` is apart because a Linux machine without a GPU installs PyTorch's CPU build instead. That build
has other files at another index, so its hashes are not here. The format is that of requirements files and not
`uv.lock`: pip reads it, so that a fresh clone needs only Python and make, and it names no index, so that a
mirror serves as well.

    python -m supply.lock     (or `make lock`; a network is needed)
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "supply"
LOWEST_PYTHON = "3.11.5"
BUILD = ("hatchling", "editables")
"""The build system of pyproject.toml, and what it needs for an editable install."""
APART = {"pip": "the environment brings it, and replacing it while it runs is unsafe"}
CUDA = re.compile(r"torch|triton|cuda-[\w-]+|nvidia-[\w-]+")
_NAME = re.compile(r"([A-Za-z0-9._-]+)==([^\s;]+)(?:\s*;\s*([^\\\n]+?))?\s*(?:\\|$)", re.M)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Locked:
    """One package of the lock."""

    name: str
    version: str
    marker: str
    """The platforms that install it, as an environment marker; empty for all."""
    hashes: tuple[str, ...]
    """SHA-256 of its files, one of which is installed."""
    text: str
    """Its lines."""

    @property
    def pin(self) -> str:
        """The package and its version, without hashes. Platforms may have different versions."""
        return f"{self.name}=={self.version}" + (f" ; {self.marker}" if self.marker else "")


def read_lock(text: str) -> list[Locked]:
    """Return the packages of a lock.

    Raises:
        ValueError: A line is not a pinned package.
    """
    packages = []
    whole = re.sub(r"(?m)^#.*\n", "", text)
    for lines in filter(str.strip, re.split(r"\n(?=\S)", whole)):
        match = _NAME.match(lines)
        if match is None:
            raise ValueError(f"not a pinned package: {lines.splitlines()[0]}")
        hashes = tuple(_HASH.findall(lines))
        packages.append(Locked(match[1], match[2], (match[3] or "").strip(), hashes, lines.strip()))
    return packages


def locked() -> list[Locked]:
    """Return all packages of the lock."""
    files = ("core.txt", "more.txt", "torch.txt")
    return [package for file in files for package in read_lock((FOLDER / file).read_text())]


def canonical(name: str) -> str:
    """Return the name of a package as indexes spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _compile(*arguments: str) -> list[Locked]:
    """Resolve requirements with uv. Exits with uv's error if they have no solution."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes"]
    command += ["--python-version", LOWEST_PYTHON, "--no-header", "--no-annotate", *arguments]
    command += [word for name in APART for word in ("--no-emit-package", name)]
    run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if run.returncode:
        raise SystemExit(run.returncode)
    return read_lock(run.stdout)


def _write(file: str, subject: str, packages: list[Locked]) -> None:
    head = f"# {subject}. Written by `make lock` from pyproject.toml and constraints.txt: do not edit.\n"
    lines = "\n".join(package.text for package in sorted(packages, key=lambda package: package.name))
    (FOLDER / file).write_text(f"{head}{lines}\n")
    print(f"{file}: {len(packages)} packages")


def main() -> None:
    """Resolve, split and write."""
    with tempfile.TemporaryDirectory() as folder:
        build, alone, pins = (Path(folder, name) for name in ("build.in", "alone.in", "pins.txt"))
        build.write_text("\n".join(BUILD) + "\n")
        alone.write_text("dashscope\n")  # installed without its dependencies, see the Makefile
        ours = ["--constraints", "constraints.txt", "pyproject.toml", str(build)]
        everything = _compile(*ours, "--extra", "dev")
        pins.write_text("".join(f"{one.pin}\n" for one in everything))
        needed = {one.name for one in _compile(*ours, "--constraints", str(pins))}
        single = _compile(str(alone), "--no-deps", "--constraints", "constraints.txt")
    cuda = [one for one in everything if CUDA.fullmatch(one.name)]
    rest = [one for one in everything if not CUDA.fullmatch(one.name)]
    _write("core.txt", "What act2see needs", [one for one in rest if one.name in needed])
    _write(
        "more.txt", "Extras and development tools", [one for one in rest if one.name not in needed] + single
    )
    _write("torch.txt", "torch, with CUDA on Linux", cuda)


if __name__ == "__main__":
    main()
