"""A client that sends the page raw HTTP requests, with any value in any event, as an attacker could."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from act2see.serve.ui.server import Site, served

SESSION = "attack"


@dataclass
class Client:
    """Sends requests to the page. `config` is Gradio's description of its components and events."""

    http: httpx.Client
    config: dict[str, Any]

    def function(self, *inputs: str) -> int:
        """Return the id of the first event whose inputs are these controls, named by `elem_id`."""
        ids = {c["id"]: c["props"].get("elem_id") for c in self.config["components"]}
        for event in self.config["dependencies"]:
            if event["backend_fn"] and [ids.get(i) for i in event["inputs"] if ids.get(i)] == list(inputs):
                return int(event["id"])
        raise AssertionError(f"no event has the inputs {inputs}")

    def load(self) -> int:
        """Return the id of the event that the page sends when it is opened."""
        [event] = [e for e in self.config["dependencies"] if [t[1] for t in e["targets"]] == ["load"]]
        return int(event["id"])

    def join(self, function: Any, data: Any, **more: Any) -> httpx.Response:
        """Send an event. Python's JSON may contain NaN and lone surrogates."""
        body = json.dumps({"data": data, "fn_index": function, "session_hash": SESSION, **more})
        return self.http.post(
            "/gradio_api/queue/join", content=body, headers={"content-type": "application/json"}
        )

    def outcome(self, function: int, data: Any, **more: Any) -> str:
        """Return the result of an event as text: the refusal, or all messages until the event has ended."""
        answer = self.join(function, data, **more)
        assert answer.status_code in (200, 400), (answer.status_code, answer.text)
        if answer.status_code == 400:
            return str(answer.json()["detail"])
        messages = ""
        with self.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": SESSION}) as stream:
            for line in stream.iter_lines():
                messages += line
                if '"process_completed"' in line:
                    break
        return messages

    def upload(self, name: str | bytes, content: bytes) -> httpx.Response:
        """Send a file under a name that may be any bytes."""
        raw = name.encode("utf-8", "surrogatepass") if isinstance(name, str) else name
        head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="' + raw + b'"\r\n\r\n'
        return self.form(head + content + b"\r\n--b--\r\n")

    def form(self, body: bytes, kind: str = "multipart/form-data; boundary=b") -> httpx.Response:
        return self.http.post("/gradio_api/upload", content=body, headers={"content-type": kind})


@contextmanager
def page_client(site: Site) -> Iterator[Client]:
    """Serve the page on this machine and yield a client of it. A request that hangs fails after 30 s."""
    with served(site) as address, httpx.Client(base_url=address, timeout=30) as http:
        yield Client(http, http.get("/config").json())


def file_at(path: object, **more: object) -> dict[str, object]:
    """Return an uploaded file in the format that the page's scripts send."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}
