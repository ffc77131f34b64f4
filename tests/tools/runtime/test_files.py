"""Files and folders are replaced whole, reach the disk first, and the old ones survive every failure."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from act2see.errors import StoreError
from act2see.tools.runtime.files import replacing_file, replacing_folder, whole_folder, write_text


def run_folder(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "trace.json").write_text(text)
    return path


def fail_rename_to(target: Path, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Make the next renames of a new folder to `target` fail, as on a full or vanished disk."""
    real = Path.rename
    left = [times]

    def rename(self: Path, to: Path) -> Path:
        if Path(to) == target and left[0]:
            left[0] -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(self, to)

    monkeypatch.setattr(Path, "rename", rename)


def test_the_older_folder_stays_if_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_folder(tmp_path / "run", "older")
    fail_rename_to(run, monkeypatch, 1)
    with pytest.raises(StoreError, match="choose another folder"), whole_folder(run, "trace.json") as new:
        (new / "trace.json").write_text("newer")
    assert (run / "trace.json").read_text() == "older"
    assert os.listdir(tmp_path) == ["run"]


def test_the_error_names_the_older_folder_if_it_cannot_be_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_folder(tmp_path / "run", "older")
    fail_rename_to(run, monkeypatch, 2)
    with pytest.raises(StoreError, match="the older folder is now") as error, whole_folder(run, "trace.json"):
        pass
    [left] = tmp_path.iterdir()
    assert str(left) in str(error.value)
    assert (left / "trace.json").read_text() == "older"


def test_a_folder_that_another_process_put_there_meanwhile_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "index"
    with replacing_folder(target) as first, replacing_folder(target) as second:
        (first / "a").write_text("first")
        (second / "a").write_text("second")
    assert (target / "a").read_text() == "first"
    assert os.listdir(tmp_path) == ["index"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files have no names there")
def test_what_is_renamed_is_on_the_disk_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power cut, a file whose name was written before its content is empty or full of zeros."""
    order: list[str] = []
    real_sync, real_replace, real_rename = os.fsync, Path.replace, Path.rename

    def sync(number: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{number}")).name
        order.append(f"sync {name.partition('-')[2] or 'folder'}")
        real_sync(number)

    def replace(self: Path, to: Path) -> Path:
        order.append(f"name {Path(to).name}")
        return real_replace(self, to)

    def rename(self: Path, to: Path) -> Path:
        order.append(f"name {Path(to).name}")
        return real_rename(self, to)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(Path, "rename", rename)
    write_text(tmp_path / "trace.json", "{}")
    assert order == ["sync trace.json", "name trace.json", "sync folder"]
    order.clear()
    with replacing_folder(tmp_path / "run") as new:
        (new / "frames").mkdir()
        (new / "frames" / "x-1.png").write_text("1")
    assert "sync 1.png" in order[:-2]
    assert order[-2:] == ["name run", "sync folder"]
    order.clear()
    with replacing_file(tmp_path / "cached", durable=False) as file:
        file.write_text("can be made again")
    assert order == ["name cached"]


def test_a_block_that_fails_changes_nothing(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", "older")
    with pytest.raises(KeyError), whole_folder(run, "trace.json"):
        raise KeyError
    assert (run / "trace.json").read_text() == "older"
    assert os.listdir(run) == ["trace.json"]
    assert os.listdir(tmp_path) == ["run"]
