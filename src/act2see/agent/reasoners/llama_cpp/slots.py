"""Which slot of a llama.cpp server a run uses. A slot caches the tokens of the last request that used it."""

from __future__ import annotations

ANY = -1
"""The server chooses."""


class Slots:
    """Gives each session a slot of its own while there are any. Not thread-safe."""

    def __init__(self) -> None:
        self._free: list[int] = []
        self._taken: dict[str, int] = {}

    def resize(self, count: int) -> None:
        """Start again with `count` free slots: the server was started anew."""
        self._free = list(range(count))
        self._taken = {}

    def take(self, session: str) -> int:
        """Return the session's slot: the one it has, else the one that has been free for longest, else
        `ANY`. A request without a session gets `ANY`."""
        if not session:
            return ANY
        if session not in self._taken:
            if not self._free:
                return ANY
            self._taken[session] = self._free.pop(0)
        return self._taken[session]

    def free(self, session: str) -> None:
        """The session needs its slot no longer."""
        if session in self._taken:
            self._free.append(self._taken.pop(session))
