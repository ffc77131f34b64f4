"""Run another program until it ends, and end it when this one is told to end.

A service manager, or `kill`, tells only this process. A server that went on would keep its port, and answer
the questions that are meant for the next one.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from types import FrameType

_PASSED_ON = ("SIGTERM", "SIGHUP")  # Windows has no SIGHUP
_GRACE = 10.0
"""Seconds in which a program ends by itself after Ctrl-C, which a terminal sends to both."""


def run_program(command: Sequence[str]) -> int:
    """Run a program, and return its exit status as a shell does: 128 + n if signal n ended it.

    Args:
        command: The program and its arguments.
    """
    program = subprocess.Popen(command)

    def pass_on(number: int, frame: FrameType | None) -> None:
        program.send_signal(number)

    before = {}
    for name in _PASSED_ON:
        if number := getattr(signal, name, None):
            before[number] = signal.signal(number, pass_on)
    try:
        status = _wait(program)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status


def _wait(program: subprocess.Popen[bytes]) -> int:
    """Wait until a program has ended, also after Ctrl-C."""
    try:
        return program.wait()
    except KeyboardInterrupt:
        try:
            return program.wait(_GRACE)
        except subprocess.TimeoutExpired:
            program.terminate()
            return program.wait()
