"""The options of a question in the forms that files give them, and the right one among them.

A label is what the file calls an option: "B. west", {"B": "west"}, a column `option_2`. Options go in the
order of their labels, and the answer names an option by its label or its words, never by where it happens to
stand. Where that is not certain, the record is refused: a wrong truth cannot be seen in a score.
"""

from __future__ import annotations

import ast
import itertools
import re
import warnings
from collections.abc import Sequence
from typing import Any, Self

from act2see.evaluation.samples import FieldError, take_text
from act2see.tools.runtime.plain_json import parse_json
from act2see.tools.runtime.text import quote_text
from act2see.trace.options import LETTERS

FIELDS = ("options", "choices", "candidates", "option")
"""What files call a list of options; the first that is not empty is read."""
FORMS = "a JSON or Python list, one option a line, 'x|y', 'x;y' or '(A) x (B) y'"
"""How a text can hold options."""
_LABEL = re.compile(r"\s*\(?([A-Z])\)?\s*[.:)]+\s+|\s*\(?([a-z])[.:)]+\s+|\s*\(([A-Za-z])\)\s*")
_MARK = re.compile(r"(?:^|(?<=[\s;,]))(?:\(([A-Za-z])\)[.:]?|([A-Za-z])[.:)])\s+")
_LONE_LETTER = re.compile(r"[\s(\[]*([A-Za-z])[\s)\].:]*")
_COLUMN = re.compile(
    r"(|a|op|opt|options?|choices?|candidates?|answer[ _-]?(?:option|choice)s?)[ _-]?([a-z]|\d\d?)"
)
_LONGEST = 100_000  # characters of a Python list


class Choices(tuple[str, ...]):
    """Options without their labels, in the order of the labels."""

    labels: tuple[str, ...]
    """What the file calls each of them: letters in capitals, or numbers."""

    def __new__(cls, options: Sequence[str], labels: Sequence[str] = ()) -> Self:
        """Make options; without labels they are A, B, and so on."""
        made = super().__new__(cls, options)
        made.labels = tuple(labels) or tuple(LETTERS[: len(options)])
        return made


def take_options(row: dict[str, Any], field: str, fewest: int = 2) -> Choices:
    """Return the options of a field: a list, a dictionary by label, or a text in one of `FORMS`.

    Raises:
        FieldError: It holds no options, too few of them, or more than there are letters.
    """
    value = row.get(field)
    if value is None:
        raise FieldError(field, f"is missing (the record has: {quote_text(', '.join(map(str, row)), 120)})")
    is_text = isinstance(value, str)
    if isinstance(value, str):
        value = _split_text(value)
    named: list[tuple[str, Any]] = []
    if isinstance(value, dict):
        named = [(str(label).strip().upper(), option) for label, option in value.items()]
        value = [option for _, option in named if str(option or "").strip()]
        named = [(label, option) for label, option in named if str(option or "").strip()]
    if not isinstance(value, list | tuple) or not all(
        isinstance(option, str) and option.strip() for option in value
    ):
        raise FieldError(field, "must be a list of non-empty texts")
    if len(value) < fewest:
        forms = f" (a text is read as {FORMS})" if is_text else ""
        raise FieldError(field, f"holds {len(value)} options, not {fewest} or more{forms}")
    check_count(value, field)
    if not named:
        return drop_labels(value)
    labels = [label for label, _ in named]
    found = [_LABEL.match(option) for option in value]
    if all(m and _letter_of(m) == label for m, label in zip(found, labels, strict=True)):  # {"A": "A. west"}
        return drop_labels(value)
    if len(set(labels)) < len(labels):
        raise FieldError(field, f"has a label twice ({', '.join(labels)})")
    return _in_order(labels, [option.strip() for _, option in named])


def check_count(options: Sequence[Any], field: str) -> None:
    """Raise `FieldError` if there are more options than letters."""
    if len(options) > len(LETTERS):
        raise FieldError(field, f"holds {len(options)} options: at most {len(LETTERS)} can be shown")


def drop_labels(options: Sequence[str]) -> Choices:
    """Return options without "A. " or "(A): ", in the order of these, if each has one of its own.

    A letter beyond twice their number is no label, but the initial of a name.
    """
    found = [_LABEL.match(option) for option in options]
    labels = [_letter_of(m) for m in found if m]
    allowed = LETTERS[: 2 * len(options)]
    if len(set(labels)) < len(options) or not all(label in allowed for label in labels):
        return Choices([option.strip() for option in options])
    texts = [option[m.end() :].strip() for option, m in zip(options, found, strict=True) if m]
    return _in_order(labels, texts) if all(texts) else Choices([option.strip() for option in options])


def _letter_of(label: re.Match[str]) -> str:
    return (label[1] or label[2] or label[3]).upper()


def _in_order(labels: Sequence[str], options: Sequence[str]) -> Choices:
    pairs = list(zip(labels, options, strict=True))
    pairs.sort(
        key=lambda pair: (not pair[0].isdecimal(), int(pair[0]) if pair[0].isdecimal() else 0, pair[0])
    )
    return Choices([option for _, option in pairs], [label for label, _ in pairs])


def _split_text(text: str) -> Any:
    """Return the list or dictionary that a text holds."""
    text = text.strip()
    if text[:1] in ("[", "{", "(") and (data := _read_literal(text)) is not None:
        return data
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and all(map(_LABEL.match, lines)):
        return lines
    if "|" in text:
        return _name_places(text.split("|"))
    if labelled := _split_labelled(text):
        return labelled
    if len(lines) > 1:
        return lines
    return _name_places(text.split(";"))


def _read_literal(text: str) -> list[Any] | tuple[Any, ...] | dict[Any, Any] | None:
    """Return the JSON or Python list, tuple or dictionary that a text is; None if it is none."""
    try:
        data = parse_json(text)
    except ValueError:
        if len(text) > _LONGEST:
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an unknown escape, such as "\d"
                data = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    return data if isinstance(data, list | tuple | dict) else None


def _name_places(parts: list[str]) -> list[str] | dict[str, str]:
    """Return the parts of a text. Where one in the middle is empty, the others keep the letters of their
    places.
    """
    parts = [part.strip() for part in parts]
    while parts and not parts[-1]:
        parts.pop()
    if all(parts) or len(parts) > len(LETTERS):
        return [part for part in parts if part]
    return {letter: part for letter, part in zip(LETTERS, parts, strict=False) if part}


def _split_labelled(text: str) -> list[str]:
    """Return the options of "(A) x (B) y", with their labels; none if the labels are not A, B, and so on."""
    marks = list(_MARK.finditer(text))
    labels = "".join((mark[1] or mark[2]) for mark in marks)
    if len(marks) < 2 or marks[0].start() or labels.upper() != LETTERS[: len(marks)]:
        return []
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    parts = [
        text[mark.end() : end].strip().rstrip(";,").strip() for mark, end in zip(marks, ends, strict=True)
    ]
    return [f"{letter}. {part}" for letter, part in zip(labels.upper(), parts, strict=True)]


def find_columns(row: dict[str, Any]) -> list[dict[str, str]]:
    """Return the families of columns that hold one option each, as label -> column: {"A": "option_a", ...}.

    A family begins with A, 0 or 1. A letter alone that does not go on from there is another column.

    Raises:
        FieldError: A family has a gap.
    """
    families: dict[tuple[str, bool], dict[str, str]] = {}
    for column in row:
        name = column.strip().casefold()
        if name not in FIELDS and (match := _COLUMN.fullmatch(name)):
            label = match[2].upper()
            is_number = label.isdecimal()
            families.setdefault((match[1], is_number), {})[str(int(label)) if is_number else label] = column
    found = []
    for (prefix, is_number), columns in families.items():
        if is_number and not prefix:  # the columns of a table without a header
            continue
        row_of = [str(n) for n in range(0 if "0" in columns else 1, 100)] if is_number else list(LETTERS)
        run = list(itertools.takewhile(columns.__contains__, row_of))
        if len(run) < 2:
            continue
        if prefix and len(run) < len(columns):
            other = next(column for label, column in columns.items() if label not in run)
            raise FieldError(other, f"does not follow {columns[run[-1]]}: name the options without a gap")
        found.append({label: columns[label] for label in run})
    return found


def gather_options(row: dict[str, Any]) -> tuple[Choices, frozenset[str]]:
    """Return the options of one's own record, whatever its fields are called, and the fields that hold them.

    Raises:
        FieldError: They cannot be read, or two families of columns hold some.
    """
    for field in FIELDS:
        value = row.get(field)
        if not value or (field == "option" and not isinstance(value, list | dict)):
            continue
        return take_options(row, field), frozenset({field})
    filled = [
        family for family in find_columns(row) if any(_is_filled(row[name]) for name in family.values())
    ]
    if not filled:
        return Choices(()), frozenset()
    if len(filled) > 1:
        both = " and ".join(next(iter(family.values())) for family in filled)
        raise FieldError("options", f"are there twice, from {both}: keep one of them, or a field options")
    columns = filled[0]
    names = list(columns.values())
    name = f"{names[0]} to {names[-1]}"
    texts = {label: _as_text(row[column]) for label, column in columns.items()}
    return take_options({name: texts}, name), frozenset(columns.values())


def _is_filled(value: Any) -> bool:
    return value is not None and bool(str(value).strip())


def _as_text(value: Any) -> Any:
    """Return a number of a column as text, as it is in a CSV file."""
    return str(value) if isinstance(value, int | float) else value


def take_letter(row: dict[str, Any], field: str, options: tuple[str, ...]) -> str:
    """Return the letter of the right option: the field holds its label ("B", "(B)"), or its words.

    Of two options with the same words it is the first. Raises `FieldError` if it is outside the options.
    """
    given = take_text(row, field)
    labels = options.labels if isinstance(options, Choices) else tuple(LETTERS[: len(options)])
    check_count(options, "options")
    if not options:
        raise FieldError("options", "are missing, and the answer is to be one of them")
    place = labels.index(given) if given in labels and given.isdecimal() else None
    if given in options:
        by_words = options.index(given)
        if place is not None and place != by_words:
            raise FieldError(
                field, f"{quote_text(given)!r} is the number of one option and the text of another"
            )
        return LETTERS[by_words]
    if place is not None:
        return LETTERS[place]
    column = _COLUMN.fullmatch(given.casefold())
    if column and column[1] and column[2].upper() in labels:  # "option_b", the name of a column
        return LETTERS[labels.index(column[2].upper())]
    if alone := _LONE_LETTER.fullmatch(given):
        letter = alone[1].upper()
        if letter in labels:
            return LETTERS[labels.index(letter)]
        if labels[0].isdecimal() and letter in LETTERS[: len(options)]:
            return letter
        plain = labels == tuple(LETTERS[: len(options)])
        among = f"A to {labels[-1]}" if plain else ", ".join(labels)
        raise FieldError(field, f"{quote_text(given)!r} is not one of {among}")
    label = _LABEL.match(given)
    if label and given[label.end() :] in options:
        return LETTERS[_place_of(given, label, labels, options)]
    raise FieldError(field, f"{quote_text(given)!r} is none of the {len(options)} options")


def _place_of(given: str, label: re.Match[str], labels: Sequence[str], options: Sequence[str]) -> int:
    """Return the place of "B. west": of options with the same words, the one with this label."""
    letter, words = _letter_of(label), given[label.end() :]
    if letter in labels and options[labels.index(letter)] == words:
        return labels.index(letter)
    return options.index(words)


def take_letters(row: dict[str, Any], field: str, options: Choices) -> str:
    """Return the letters of all right options, of a field such as "ACD". Raises `FieldError` if none is."""
    given = take_text(row, field)
    labels = options.labels
    return "".join(LETTERS[labels.index(letter)] if letter in labels else letter for letter in given)
