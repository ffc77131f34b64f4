"""The command `act2see` in a shell, without each command importing the model libraries again.

A process imports them once and forks for each command. The command has its own arguments, environment,
working folder, streams and exit code, like any other. Of the 11 s of processor time of a question, 7 s are
imports.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.cli.helpers import SOURCES

_CLIENT = """
import json, os, socket, sys
given = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
os.chdir(os.path.dirname(__file__))  # since the address of a socket must be short
with socket.socket(socket.AF_UNIX) as server:
    server.connect("socket")
    socket.send_fds(server, [given[:1]], [0, 1, 2])
    server.sendall(given[1:])
    server.shutdown(socket.SHUT_WR)
    code = server.recv(1)
sys.exit(code[0] if code else "the command's process could not be started")
"""


@contextmanager
def preloaded(folder: Path, environment: Mapping[str, str]) -> Iterator[Path]:
    """Yield the path of a command `act2see` while its server runs.

    Args:
        folder: The folder of the command and its socket; put it on PATH.
        environment: The environment with which the libraries are imported. A command's own may set other
            variables; those that a library reads when it is imported must be equal.
    """
    folder.mkdir()
    client = folder / "client.py"
    client.write_text(_CLIENT)
    command = folder / "act2see"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{client}" "$@"\n')
    command.chmod(0o755)
    root = str(Path(__file__).parents[1])
    given = {**environment, "PYTHONPATH": os.pathsep.join((SOURCES, root)), "OMP_NUM_THREADS": "1"}
    start = [sys.executable, "-m", "tests.preloaded", str(command)]
    with subprocess.Popen(start, env=given, cwd=folder, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            assert server.stdout.readline() == "ready\n"
            yield command
        finally:
            server.kill()


def serve(command: str) -> None:
    """Import the libraries; fork for each command, and run it in the fork."""
    import av  # noqa: F401
    import diffusers
    import faiss  # noqa: F401
    import transformers

    import act2see.cli.app
    import act2see.graphs.parts  # noqa: F401
    from act2see.tools.runtime.quiet import quiet

    with quiet():
        for library, name in (
            (transformers, "Qwen3VLForConditionalGeneration"),
            (transformers, "Blip2ForImageTextRetrieval"),
            (diffusers, "StableDiffusion3Img2ImgPipeline"),
        ):
            getattr(library, name)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind("socket")
    listening.listen()
    print("ready", flush=True)
    while True:
        connection, _ = listening.accept()
        first, streams, _, _ = socket.recv_fds(connection, 1, 3)
        if os.fork() == 0:
            if (child := os.fork()) == 0:
                break
            for stream in streams:
                os.close(stream)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            connection.sendall(bytes([status % 256]))
            os._exit(0)
        for stream in streams:
            os.close(stream)
        connection.close()
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    # A command.
    listening.close()
    sent = first
    while part := connection.recv(1 << 16):
        sent += part
    connection.close()
    arguments, folder, environment = json.loads(sent)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, "w" if n else "r", encoding="utf-8") for n in range(3))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [command, *arguments]
    # An installed command does not search the working folder, nor are the tests there.
    sys.path[:] = [place for place in sys.path if place and not os.path.isdir(os.path.join(place, "tests"))]
    from act2see.cli import main

    main()


if __name__ == "__main__":
    serve(sys.argv[1])
