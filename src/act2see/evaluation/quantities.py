"""Numbers with units, read from text: "26.4 m²", "two tables", "1,234", "half a minute" is not one.

A unit turns into a base unit of its kind, so that 50 cm and 0.5 m are the same. A number without a unit
agrees with any unit: the question usually names it. Words after a number that are no unit ("2 tables") are
ignored.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass

_LENGTH, _AREA, _TIME, _MASS, _SHARE, _SPEED = "length", "area", "time", "mass", "share", "speed"
_UNITS: dict[str, tuple[str, float]] = {
    **dict.fromkeys(("mm", "millimeters", "millimetres"), (_LENGTH, 0.001)),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetres", "厘米"), (_LENGTH, 0.01)),
    **dict.fromkeys(
        ("m", "meter", "meters", "metre", "metres", "米", "метра", "метров", "м"), (_LENGTH, 1.0)
    ),
    **dict.fromkeys(("km", "kilometer", "kilometers", "kilometres", "公里"), (_LENGTH, 1000.0)),
    **dict.fromkeys(("in", "inch", "inches"), (_LENGTH, 0.0254)),
    **dict.fromkeys(("ft", "foot", "feet"), (_LENGTH, 0.3048)),
    **dict.fromkeys(
        (
            "m2",
            "m^2",
            "sqm",
            "sq m",
            "sq. m",
            "square meter",
            "square meters",
            "square metres",
            "平方米",
            "平米",
        ),
        (_AREA, 1.0),
    ),
    **dict.fromkeys(("cm2", "cm^2", "square centimeters", "square centimetres"), (_AREA, 0.0001)),
    **dict.fromkeys(("ft2", "ft^2", "sq ft", "square feet"), (_AREA, 0.09290304)),
    **dict.fromkeys(("ms", "milliseconds"), (_TIME, 0.001)),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds", "秒", "секунд"), (_TIME, 1.0)),
    **dict.fromkeys(("min", "mins", "minute", "minutes", "分钟"), (_TIME, 60.0)),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours", "小时"), (_TIME, 3600.0)),
    **dict.fromkeys(("g", "gram", "grams"), (_MASS, 0.001)),
    **dict.fromkeys(("kg", "kilogram", "kilograms", "kilos"), (_MASS, 1.0)),
    **dict.fromkeys(("%", "percent", "per cent"), (_SHARE, 0.01)),
    **dict.fromkeys(("km/h", "kmh", "kph"), (_SPEED, 1 / 3.6)),
    **dict.fromkeys(("m/s",), (_SPEED, 1.0)),
}
_COUNTED = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen twenty""".split()  # noqa: SIM905 - as a list it would fill the page
_WORDS = {word: float(value) for value, word in enumerate(_COUNTED)}
_WORDS |= {"dozen": 12.0, "thirty": 30.0, "forty": 40.0, "fifty": 50.0, "hundred": 100.0, "once": 1.0}
_WORDS |= {"twice": 2.0, "两": 2.0} | {char: float(n) for n, char in enumerate("零一二三四五六七八九十")}
_FIGURE = (
    r"(?<![\w.,])[-+\u2212]?(?:\d{1,3}(?:[, \u00a0\u202f]\d{3})+(?:\.\d+)?|\d+(?:[.,]\d+)?)"
    r"(?:[eE][-+]?\d+)?(?!\d)"
)
_LATIN_WORD = r"\b(?:" + "|".join(word for word in _WORDS if word.isascii()) + r")\b"
_UNIT = "|".join(re.escape(unit) for unit in sorted(_UNITS, key=len, reverse=True))
_NUMBER = re.compile(
    rf"(?:(?P<a>{_FIGURE})\s*/\s*(?P<b>\d+)(?!\d)|(?P<figure>{_FIGURE})|(?P<word>{_LATIN_WORD}|"
    rf"(?<![\u4e00-\u9fff])[零一二三四五六七八九十两]))"
    rf"(?:[\s-]*(?P<unit>{_UNIT})(?![A-Za-z\u0400-\u04ff^/]))?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number in the base unit of its kind."""

    value: float
    kind: str = ""
    """What is measured; empty without a unit."""
    scale: float = 1.0
    """The factor of the unit that was written."""

    def agrees(self, other: Quantity, tolerance: float = 1e-6) -> bool:
        """Whether two quantities are equal, to a relative tolerance. Without a unit, the figures are
        compared.
        """
        if self.kind and other.kind:
            return self.kind == other.kind and math.isclose(self.value, other.value, rel_tol=tolerance)
        return math.isclose(self.value / self.scale, other.value / other.scale, rel_tol=tolerance)


def to_plain_digits(text: str) -> str:
    """Return the text in compatible form (full-width signs as plain ones), and digits of any script as 0 to
    9.
    """
    text = unicodedata.normalize("NFKC", text).replace("\u2044", "/")
    return "".join(str(unicodedata.decimal(c)) if c.isdecimal() and not c.isascii() else c for c in text)


def read_quantity(text: str) -> Quantity | None:
    """Return the one number that a text names; None if it names none or different ones.

    "3 (three)" is one number; "2 + 1 = 3" is what follows the sign of equality.
    """
    text = to_plain_digits(text)
    if "=" in text:
        text = text.rpartition("=")[2]
    found: list[Quantity] = []
    for match in _NUMBER.finditer(text):
        quantity = _convert(match)
        if not any(quantity.agrees(known) for known in found):
            found.append(quantity)
    return found[0] if len(found) == 1 else None


def _convert(match: re.Match[str]) -> Quantity:
    if match["word"]:
        value = _WORDS[match["word"].lower()]
    elif match["a"]:
        value = _figure(match["a"]) / (float(match["b"]) or math.nan)
    else:
        value = _figure(match["figure"])
    if not match["unit"]:
        return Quantity(value)
    kind, scale = _UNITS[match["unit"].lower()]
    return Quantity(value * scale, kind, scale)


def _figure(text: str) -> float:
    """Return the value of "1,234" (a comma before three digits parts thousands), "2,5" and "1 234.5"."""
    text = re.sub(r"[\u00a0\u202f ]", "", text.replace("\u2212", "-"))
    if re.fullmatch(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?", text):
        return float(text.replace(",", ""))
    return float(text.replace(",", "."))
