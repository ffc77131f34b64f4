"""Attempts to get through the door of a server: what is sent, and what must happen.

Each file `test_attempts_*.py` has a table for each door of one server. For every attempt the same holds: no
status 500, no traceback, no word of the secrets that lie around the served folder, and no file outside it
is read. `Secrets` watches the files by their time of access: it is set to 0, and a file system that keeps
such times renews it when the file is read.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

KEY = "sk-4f1c-the-key-of-the-operator"
"""The value of a variable in the server's environment."""
WORDS = "only the operator reads this file"
"""The content of a text file beside the served folder."""

OUTSIDE = (
    "@out/secret.mp4",
    "@out/secret.txt",
    "/etc/passwd",
    "/proc/self/environ",
    "/dev/zero",
    "/dev/stdin",
    "@in/../secret.mp4",
    "@in/./way/secret.mp4",
    "@in/way.mp4",
    "@in/way.mp4#t=1,2",
    "@in/clip.mp4#/../../secret.mp4",
    "@in/pipe.mp4",
    "@in",
    "file://@out/secret.mp4",
    "http://127.0.0.1:9@out/secret.mp4",
    "concat:@out/secret.mp4|@out/secret.mp4",
    "subfile,,start,0,end,0,,:@out/secret.mp4",
    "@in\\..\\secret.mp4",
    "@in/\0@out/secret.mp4",
    "@out/secret.mp4\n@in/clip.mp4",
    "~/secret.mp4",
    "",
    "x" * 5_000,
)
"""Names that lead out of the served folder (`@in`) in all ways, or to something that is no file."""
LISTS = ("@in/list.m3u8", "@in/list.mp4", "@in/concat.mp4")
"""Files in the served folder that list a file outside it."""


@dataclass(frozen=True)
class Secrets:
    """Files beside the served folder: a video, a picture and a text. Links in the folder lead to them."""

    folder: Path
    served: Path

    @classmethod
    def around(cls, served: Path, video: Path) -> Secrets:
        """Write the files beside the served folder, and links to them into it."""
        secrets = cls(served.parent, served)
        shutil.copy(video, secrets.video)
        secrets.text.write_text(WORDS)
        (served / "way.mp4").symlink_to(secrets.video)
        (served / "way").symlink_to(secrets.folder)
        (served / "list.m3u8").write_text(f"#EXTM3U\n#EXTINF:6,\n{secrets.video}\n")
        (served / "list.mp4").write_text(f"#EXTM3U\n#EXTINF:6,\n{secrets.video}\n")
        (served / "concat.mp4").write_text(f"ffconcat version 1.0\nfile {secrets.video}\n")
        os.mkfifo(served / "pipe.mp4")
        for path in (secrets.video, secrets.text):
            os.utime(path, (0, path.stat().st_mtime))
        return secrets

    @property
    def video(self) -> Path:
        return self.folder / "secret.mp4"

    @property
    def text(self) -> Path:
        return self.folder / "secret.txt"

    def place(self, sent: str) -> str:
        """Return what is sent, with the folders instead of `@in` and `@out`."""
        return sent.replace("@in", str(self.served)).replace("@out", str(self.folder))

    def assert_unread(self) -> None:
        assert [path.name for path in (self.video, self.text) if path.stat().st_atime] == []


def assert_reveals_nothing(reply: str) -> None:
    """Fail if a reply holds a secret, or what a program says to its programmer."""
    for secret in (KEY, WORDS, "Traceback", "root:x:", "site-packages"):
        assert secret not in reply
