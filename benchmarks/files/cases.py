"""A case of the matrix: a film, how it is changed, and what is known of it beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.files.changes import Change
from benchmarks.files.making import Film, write, write_palette
from benchmarks.files.pictures import UPRIGHT

_HOLE = 0b1111  # the first row if its dark block is transparent


@dataclass(frozen=True)
class Case:
    """A file of the matrix."""

    kind: str
    """The line of the table that it counts in."""
    name: str
    film: Film
    changes: tuple[Change, ...] = ()
    """What is done to the bytes."""
    then: tuple[Film, ...] = ()
    """Films whose files are appended to it."""
    gap: float = 0.0
    """Seconds by which these are later than the end of the one before."""

    @property
    def made(self) -> dict[int, float]:
        """The time at which each number was made, from the first one."""
        out = dict(self.film.times)
        for film in self.then:
            begin = max(out.values()) + float(1 / film.rate) + self.gap
            out |= {n: begin + t for n, t in film.times.items()}
        return out

    @property
    def delay(self) -> float:
        """The time of the first picture by a player's clock."""
        sound = self.film.sound
        return 0.0 if sound is None else max(0.0, self.film.start - sound)

    @property
    def upright(self) -> int:
        """The first row of an upright picture."""
        return _HOLE if self.film.see_through else UPRIGHT

    def write(self, folder: Path) -> Path:
        """Write the file to a folder."""
        path = self._write(self.film, folder / f"{self.name}.{self.film.suffix}")
        data = path.read_bytes()
        for n, film in enumerate(self.then):
            part = self._write(film, folder / f"{self.name}.part{n}.{film.suffix}")
            data += part.read_bytes()
            part.unlink()
        for change in self.changes:
            data = change(data)
        if self.then or self.changes:
            path.write_bytes(data)
        return path

    @staticmethod
    def _write(film: Film, path: Path) -> Path:
        return (write_palette if film.codec == "png" and film.pixels == "pal8" else write)(film, path)
