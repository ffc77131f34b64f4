"""How people type: small letters, missing marks, slips of the finger, a polite word before or after."""

from __future__ import annotations

import random

_BEFORE = (
    "please ",
    "hi, ",
    "hey, ",
    "ok so ",
    "so ",
    "quick question: ",
    "can you tell me: ",
    "question: ",
    "and now: ",
    "excuse me, ",
    "in this clip, ",
    "in the video, ",
    "look at the board. ",
    "I was wondering, ",
    "one more thing. ",
)
_AFTER = (
    " please",
    " thanks",
    " in this clip",
    " in the video",
    " here",
    " on the board",
    ", can you tell",
    " pls",
    ", do you know",
    " thx",
    " Answer briefly.",
    ", I can't see it",
)


def vary(text: str, rng: random.Random) -> str:
    """Return a text as somebody else might have typed it."""
    if rng.random() < 0.08:
        text = rng.choice(_BEFORE) + uncapitalise(text)
    if rng.random() < 0.08:
        text = append(text, rng.choice(_AFTER))
    if rng.random() < 0.10:
        text = _mistype(text, rng)
    case = rng.random()
    if case < 0.15:
        text = text.lower()
    elif case < 0.17:
        text = text.upper()
    elif case < 0.5:
        text = capitalise(text)
    mark = rng.random()
    if mark < 0.12:
        text = text.rstrip("?.!")
    elif mark < 0.16:
        text = text.rstrip("?.!") + rng.choice(("?", "??", ".", "!", " ?", "?!"))
    return text.strip() or text


def append(text: str, tail: str) -> str:
    """Return a text with a few words after it, before its question mark if they belong to the sentence."""
    if tail.startswith((".", "?", "!")):
        return f"{text.rstrip('?.!')}{tail}"
    if tail.endswith("."):
        return f"{text}{tail}"
    end = text[-1:] if text[-1:] in "?.!" else ""
    return f"{text.rstrip('?.!')}{tail}{end}"


def capitalise(text: str) -> str:
    """Return a text with a capital first letter."""
    return text[:1].upper() + text[1:]


def uncapitalise(text: str) -> str:
    """Return a text with a small first letter, unless it is "I" or the text is in capitals."""
    return text if text[:2].isupper() or text[:2] in ("I ", "I'") else text[:1].lower() + text[1:]


def _mistype(text: str, rng: random.Random) -> str:
    """Return the text with a slip: a letter left out, doubled, swapped with the next, or another one."""
    letters = [i for i in range(1, len(text) - 1) if text[i].isalpha() and text[i + 1].isalpha()]
    if not letters:
        return text
    i = rng.choice(letters)
    slip = rng.choice(("drop", "double", "swap", "other"))
    if slip == "drop":
        return text[:i] + text[i + 1 :]
    if slip == "double":
        return text[:i] + text[i] + text[i:]
    if slip == "swap":
        return text[:i] + text[i + 1] + text[i] + text[i + 2 :]
    return text[:i] + rng.choice("abcdefghiklmnoprstuvwy") + text[i + 1 :]
