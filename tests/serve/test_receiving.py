"""Uploads that a killed server has received do not stay."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from act2see.serve.ui.receiving import receiving_folder

SERVER = """
import sys, threading
from pathlib import Path
from act2see.serve.ui.receiving import receiving_folder
with receiving_folder(Path(sys.argv[1])) as folder:
    (folder / "film.mp4").write_text("private")
    print(folder, flush=True)
    threading.Event().wait()
"""


def test_the_next_server_removes_what_a_killed_one_received(tmp_path: Path) -> None:
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    with server:
        assert server.stdout
        theirs = Path(server.stdout.readline().strip())
        with receiving_folder(tmp_path) as ours:
            assert ours.is_dir()
            assert (theirs / "film.mp4").is_file()  # that server still runs
        assert sorted(os.listdir(tmp_path)) == sorted([theirs.name, f"{theirs.name}.lock"])
        server.kill()
        server.wait()
    with receiving_folder(tmp_path) as ours:
        assert not theirs.exists()
        assert sorted(os.listdir(tmp_path)) == sorted([ours.name, f"{ours.name}.lock"])
    assert os.listdir(tmp_path) == []


def test_a_folder_of_an_earlier_version_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".receiving-abc" / "film").mkdir(parents=True)
    with receiving_folder(tmp_path) as ours:
        assert not (tmp_path / ".receiving-abc").exists()
        assert ours.stat().st_mode & 0o777 == 0o700 or sys.platform == "win32"
