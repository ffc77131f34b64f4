"""A local hub that answers the HTTP requests of huggingface_hub, or fails."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.serving import serving

SHA = "0123456789abcdef0123456789abcdef01234567"
OLD = "89abcdef0123456789abcdef0123456789abcdef"


class Hub:
    """The state of the hub: its repositories, and its failures."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        """Files by owner/name of the repository."""
        self.revisions = {"main": SHA, SHA: SHA, "v1": OLD, OLD: OLD}
        """Commits by the names of revisions. Their files are the same."""
        self.gated: set[str] = set()
        self.cut: dict[str, int] = {}
        """Number of answers to break off half-way, by file."""
        self.down = False
        self.sent: dict[str, int] = {}
        self.ranges: list[tuple[str, str]] = []
        self.url = ""


@contextmanager
def hub_server() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path).strip("/").split("/")
            name = "/".join(path[2:4] if path[0] == "api" else path[:2])
            if hub.down:
                return self.refuse(503)
            if name not in hub.repos:
                return self.refuse(404, "RepoNotFound")
            asked = path[5:6] if path[0] == "api" else path[3:4]  # after "revision", "tree" or "resolve"
            commit = hub.revisions.get(asked[0] if asked else "main")
            if commit is None:
                return self.refuse(404, "RevisionNotFound")
            if path[0] == "api" and "tree" in path:
                return self.reply(
                    [
                        {"type": "file", "path": f, "size": len(d), "oid": etag(d)}
                        for f, d in hub.repos[name].items()
                    ]
                )
            if path[0] == "api":
                files = [{"rfilename": f, "size": len(d)} for f, d in hub.repos[name].items()]
                return self.reply(
                    {
                        "id": name,
                        "sha": commit,
                        "siblings": files,
                        "private": False,
                        "gated": name in hub.gated and "auto",
                    }
                )
            if name in hub.gated and self.headers.get("Authorization") != "Bearer accepted":
                return self.refuse(401, "GatedRepo")
            return self.file(name, "/".join(path[4:]), commit)

        def file(self, name: str, file: str, commit: str) -> None:
            if (data := hub.repos[name].get(file)) is None:
                return self.refuse(404, "EntryNotFound")
            start, asked = 0, self.headers.get("Range", "")
            if asked.startswith("bytes="):
                start = int(asked.removeprefix("bytes=").partition("-")[0])
                hub.ranges.append((file, asked))
            body = data[start:]
            self.send_response(206 if start else 200)
            for header, value in (
                ("X-Repo-Commit", commit),
                ("ETag", f'"{etag(data)}"'),
                ("Accept-Ranges", "bytes"),
            ):
                self.send_header(header, value)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            if hub.cut.get(file, 0) > 0:
                hub.cut[file] -= 1
                body = body[: len(body) // 2]
                self.close_connection = True
            hub.sent[file] = hub.sent.get(file, 0) + len(body)
            self.wfile.write(body)

        def reply(self, data: Any) -> None:
            body = json.dumps(data).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def refuse(self, status: int, code: str = "") -> None:
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
                self.send_header("X-Error-Message", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with serving(Handler) as hub.url:
        yield hub


def etag(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def folder_files(folder: str) -> dict[str, bytes]:
    """Return the files of a checkpoint folder as those of a repository."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}
