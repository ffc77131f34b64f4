"""The options of a question, and which of them an answer names.

Words come before letters: the option "a.m." is not option A. A letter counts alone, before a label's sign,
or where the answer is named ("The answer is B."), so that "A man walks in" does not name option A. Where
the author changes the mind, the last word counts. An answer that names two options names none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from act2see.trace.answer_words import (
    CHOSEN,
    EDGES,
    LETTER,
    NAMED,
    RIGHT,
    TAIL,
    clean_answer,
    drop_article,
    drop_negated,
    list_clauses,
    make_bare,
    split_minds,
)

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""The letters that name options."""


def option_label(place: int) -> str:
    """Return what an option is called: its letter, or its number from 27 on, where no letter is left."""
    return LETTERS[place] if place < len(LETTERS) else str(place + 1)


_BRACKETS = "()[]{}<>:"
_AND = r"\s*(?:,|\n|/|&|\+|;|\band\b|\bor\b|\bund\b|\boder\b|\by\b|\bet\b|\bou\b|和|或者?|与|、|と|или|и)\s*"
_LIST = re.compile(
    rf"\W*(?i:(?:both|either|options?|choices?|answers?|letter)\s+)?{LETTER}[)\].]?"
    rf"(?:(?:{_AND})+(?i:(?:also|maybe|possibly|perhaps|option)\s+)*{LETTER}[)\].]?)*\W*(?:です|입니다|だ|选项|"
    rf"選項|है|이다)?\W*",
)
_EITHER = re.compile(rf"{LETTER}\s+(?:or|and)\s+{LETTER}(?!\s[a-z])")
_RUN = re.compile(r"[A-Z]{2,8}")
# "B. the ring", "(b) the ring", "B - the ring", "B\nthe ring", "B (the ring)"
_LABELLED = re.compile(
    r"(?i:(?:option|choice|answer|letter)\s+)?[\s(\[]{0,4}([A-Za-z])"
    r"(?:[\]).:\u3001,]{1,4}\s|[)\]:]|,(?=[^\x00-\x7f])|\s{1,3}[-=\u2013\u2014\u2192]\s|[\u3001\n]|\s(?=\()|\s(?i:because|"
    r"since|as)\s)\s*(.+)",
    re.DOTALL,
)
_BESIDE = re.compile(r"\(?([A-Za-z])\)?\s+(.+)", re.DOTALL)  # "A a man"
_AFTER = re.compile(
    r"\s*(?:$|[.,;:)\]}>\"'!?/&\u3002\u201d\n]|[^\x00-\x7f]|(?:because|since|as|for|and|or|but|not|rather|instead|is|given|due|based|with|from|then)\b)"
)
_MORE = re.compile(rf"{_AND}(?i:(?:also|maybe|possibly|perhaps|option)\s+)*{LETTER}(?!\s+[a-z])")
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
_ORDINAL = re.compile(
    rf"(?:the\s+)?(?:({'|'.join(_ORDINALS)}|last)|(\d)(?:st|nd|rd|th))\s+(?:option|choice|answer|one)|"
    r"(?:option|choice)\s+(?:number\s+|no\.?\s*|#)?(\d)|第([一二三四五六七八\d])[个個項项]?(?:选项|選項|選択肢)?"
)
_NONE = re.compile(
    r"none(?: of (?:the|these|those|them)(?: (?:above|other|others|given|listed|provided|options|choices|"
    r"answers))*)?|"
    r"neither(?: of (?:the|them|these|those).*)?|no (?:correct|right) (?:answer|option)|"
    r"nothing of (?:these|the above)|"
    r"(?:以上)?(?:都不是|皆非|均不正确|都不对)|どれでもない|해당 ?없음|"
    r"ningun[ao](?: de (?:las|los) anteriores)?|"
    r"aucune?(?: de ces (?:réponses|options))?|keine(?:s)? (?:davon|der (?:genannten|oben genannten))|"
    r"nenhuma(?: das (?:anteriores|opções))?|ничего из перечисленного|ни один из (?:них|вариантов)"
)
_ALL = re.compile(
    r"all (?:of )?(?:the|these|those|them)(?: (?:above|options|choices))*|all (?:\w+ )?options|以上(?:都是|"
    r"皆是)|都是|"
    r"todas(?: las anteriores)?|toutes(?: ces réponses)?|alle(?: genannten)?|всё перечисленное"
)
_LONGEST = 4_000  # characters of an answer that are looked at, its end
_FEWEST = 3  # words of an option that may be found inside a sentence


@dataclass(frozen=True, slots=True)
class Pick:
    """What an answer names: one option, several, or none."""

    index: int | None = None
    several: bool = False


_NOTHING = Pick()
_SEVERAL = Pick(several=True)


def choose(answer: str | None, options: tuple[str, ...]) -> str | None:
    """Return the option that an answer names by its letter or its words; None if it names none or several.

    Args:
        answer: The content of `<answer>`; None for an unfinished run.
        options: The options of the question.
    """
    index = pick_option(answer, options).index
    return None if index is None else options[index]


def pick_option(answer: str | None, options: tuple[str, ...]) -> Pick:
    """Return the place of the option that an answer names. Options with the same words differ by their
    letter.
    """
    if answer is None or not options:
        return _NOTHING
    body = answer[-_LONGEST:]
    raw = [make_bare(option) for option in options]
    if (found := _same_words(body, raw)) is not None:  # as they are: "2 * 3" holds no Markdown
        return found
    body = clean_answer(body)
    words = [make_bare(clean_answer(option)) for option in options]
    if (found := _same_words(body, words)) is not None:
        return found
    for part, retracts in reversed(split_minds(body)):
        found = _read_part(part, words)
        if found != _NOTHING or retracts:
            return found
    return _NOTHING


def pick_options(answer: str | None, options: tuple[str, ...]) -> frozenset[int] | None:
    """Return the places of all options that an answer names, where several may be right; None if unreadable.

    Letters in a row or in a list, one option a line, or the words of options between commas. "[]" names none.
    """
    if answer is None or not options:
        return None
    body = clean_answer(answer[-_LONGEST:])
    if body.replace(" ", "") in ("[]", "{}"):
        return frozenset()
    words = [make_bare(clean_answer(option)) for option in options]
    for part, retracts in reversed(split_minds(body)):
        found = _read_several(drop_negated(part), words)
        if found is not None or retracts:
            return found
    return None


def _read_several(text: str, words: list[str]) -> frozenset[int] | None:
    for clause in (text, text.rpartition(":")[2], text.rpartition(" is ")[2], text.rpartition(" are ")[2]):
        listed = clause.strip(EDGES + "[]").replace('"', "").replace("'", "")
        if (letters := _listed(listed, words)) is not None:
            return letters
    for pieces in (text.splitlines(), re.split(r"\s*[,;]\s*(?:and\s+)?|\s+and\s+", text)):
        picks = [_read_part(piece, words) for piece in pieces if piece.strip(EDGES)]
        if len(picks) > 1 and all(pick.index is not None for pick in picks):
            return frozenset(pick.index for pick in picks if pick.index is not None)
    bare = make_bare(text)
    if (single := _read_part(text, words)).index is not None:
        return frozenset({single.index})
    if _NONE.fullmatch(bare):
        return frozenset()
    return frozenset(range(len(words))) if _ALL.fullmatch(bare) else None


def _read_part(text: str, words: list[str]) -> Pick:
    """Read a text whose author does not change the mind."""
    text = drop_negated(text)
    if (found := _same(make_bare(text), words)) is not None:
        return found
    letters = _listed(text, words)
    if letters is not None:
        return Pick(next(iter(letters))) if len(letters) == 1 else _SEVERAL
    label = _LABELLED.match(text)
    index = _index(label[1], words) if label else None
    if label and index is not None and _fits(label[1], label[2], index, words):
        return Pick(index)
    short = [drop_article(option) for option in words]
    for clause in list_clauses(text)[:2]:  # the text, and the text without its lead
        if (found := _same(drop_article(clause), short)) is not None:
            return found
    for read in (_find_named, _find_last):
        if (found := read(text, words)) != _NOTHING:
            return found
    contradicts = label is not None and label[1].isupper() and index is not None
    return _NOTHING if contradicts else _find_words(text, words)  # "A: " before the words of B says neither


def _same_words(text: str, words: list[str]) -> Pick | None:
    """The option whose words a text has, alone or after the option's own letter."""
    if (found := _same(make_bare(text), words)) is not None:
        return found
    for label in (_LABELLED.match(text), _BESIDE.match(text)):
        index = _index(label[1], words) if label else None
        if label and index is not None and words[index] and make_bare(label[2]) == words[index]:
            return Pick(index)
    return None


def _same(bare: str, words: list[str]) -> Pick | None:
    """The option with exactly these words; several if two options have them."""
    same = [index for index, option in enumerate(words) if option and option == bare]
    if len(same) > 1:
        return _SEVERAL
    return Pick(same[0]) if same else None


def _index(letter: str, words: list[str]) -> int | None:
    index = LETTERS.find(letter.upper())
    return index if 0 <= index < len(words) else None


def _listed(text: str, words: list[str]) -> frozenset[int] | None:
    """The letters of a text that holds nothing else: "B", "(b)", "A and C", "AC"."""
    text = text.strip(EDGES)
    alone = text.strip(_BRACKETS + EDGES)
    if _RUN.fullmatch(alone) and list(alone) == sorted(set(alone)):
        letters = list(alone)
    elif _LIST.fullmatch(text):
        letters = [a or b for a, b in re.findall(LETTER, text)]
    elif len(alone) == 1:
        letters = [alone]
    else:
        return None
    places = [_index(letter, words) for letter in letters]
    found = frozenset(place for place in places if place is not None)
    return found if found and len(found) == len(set(places)) else None


def _fits(label: str, said: str, index: int, words: list[str]) -> bool:
    """Whether the words after a label agree with its option, or a capital label names no other option."""
    own, bare = words[index], make_bare(said)
    if own and (bare.startswith(own) or (bare and own.startswith(bare))):
        return True
    others = [option for option in words if option != own]
    names_another = not (own and own in bare) and any(
        option and re.search(rf"(?<!\w){re.escape(option)}(?!\w)", bare) for option in others
    )
    another_letter = re.search(rf"\b[{LETTERS[: len(words)]}]\b(?!\s[a-z])", said)
    return label.isupper() and not names_another and not another_letter


def _find_named(text: str, words: list[str]) -> Pick:
    """The last letter that is named as the answer, or said to be right."""
    best: tuple[int, re.Match[str]] | None = None
    for pattern in (NAMED, CHOSEN, RIGHT):
        for match in pattern.finditer(text):
            start = match.start(1) if match[1] else match.start(2)
            if (best is None or start > best[0]) and (pattern is RIGHT or _ends_well(text, match, words)):
                best = (start, match)
    if best is None:
        return _NOTHING
    match = best[1]
    letter_end = match.end(1) + 1 if match[1] else match.end(2)
    if _MORE.match(text, letter_end):
        return _SEVERAL
    index = _index(match[1] or match[2], words)
    return _NOTHING if index is None else Pick(index)


def _ends_well(text: str, match: re.Match[str], words: list[str]) -> bool:
    """Whether what follows a letter shows that it is no word: "is A." is one, "is A man" is not."""
    if match[1]:
        return True
    rest = text[match.end() :]
    if _AFTER.match(rest) and not (match[2].islower() and rest[:1] == " "):
        return True
    index = _index(match[2], words)
    return index is not None and bool(words[index]) and make_bare(rest).startswith(words[index])


def _find_last(text: str, words: list[str]) -> Pick:
    """A letter that ends a conclusion, stands alone on the last line, or is the only one in brackets."""
    if (tail := TAIL.search(text)) and (tail[1] or tail[2].isupper()):
        index = _index(tail[1] or tail[2], words)
        return _NOTHING if index is None else Pick(index)
    last = text.splitlines()[-1] if text else ""
    sentence = re.split(r"[.!?:\u3002]\s*", last.strip(EDGES))[-1]
    before = text.strip(EDGES)[: -len(sentence)] if sentence else ""
    has_words = (
        re.search(r"[^\W\d_]{2}", before) is not None
    )  # "A. A. A." repeats itself and concludes nothing
    for alone in (last, sentence) if has_words else ():
        alone = alone.strip(EDGES + _BRACKETS)
        if len(alone) == 1 and alone.isupper() and (index := _index(alone, words)) is not None:
            return Pick(index)
    first = text.partition("\n")[0].strip(EDGES + _BRACKETS)
    if len(first) == 1 and first.isupper() and "\n\n" in text and (index := _index(first, words)) is not None:
        return Pick(index)  # a line of its own, and then an explanation
    if _EITHER.search(text):
        return _SEVERAL
    bracketed = {_index(letter, words) for letter in re.findall(r"[(\[]([A-Z])[)\]]", text)}
    if len(bracketed) > 1:
        return _SEVERAL
    only = next(iter(bracketed), None)
    return _NOTHING if only is None else Pick(only)


def _find_words(text: str, words: list[str]) -> Pick:
    """The option whose words the text says: alone, in a short sentence, or alone in a longer one."""
    clauses = list_clauses(text)
    bare = make_bare(text)
    inside = [i for i, option in enumerate(words) if _is_inside(option, bare)]
    if len(inside) > 1:
        return _NOTHING
    short = [drop_article(option) for option in words]
    for clause in clauses:
        if (found := _same(drop_article(clause), short)) is not None:
            return found
    head, _, rest = text.partition(", ")  # "Yes, he does.", but not "red, blue and green"
    head_is = _same(drop_article(make_bare(head)), short)
    if head_is is not None and not any(
        re.search(rf"(?<!\w){re.escape(o)}(?!\w)", make_bare(rest)) for o in short if o
    ):
        return head_is
    for family in (_NONE, _ALL):
        if any(family.fullmatch(clause) for clause in clauses):
            members = [index for index, option in enumerate(words) if family.fullmatch(option)]
            return Pick(members[0]) if len(members) == 1 else _NOTHING
    for clause in clauses:
        if (match := _ORDINAL.fullmatch(clause)) and (index := _ordinal(match, len(words))) is not None:
            return Pick(index)
        starts = [i for i, option in enumerate(words) if _begins(option, clause)]
        if len(starts) == 1:
            return Pick(starts[0])
    rest = bare.replace(words[inside[0]], " ") if inside else ""
    names_another = any(re.search(rf"(?<!\w){re.escape(o)}(?!\w)", rest) for o in short if o)
    if inside and not names_another and not re.search(r"\b(?:not|never|rather|instead)\b|n't\b", rest):
        return Pick(inside[0])
    return _NOTHING


def _begins(option: str, clause: str) -> bool:
    """Whether one of two texts is the beginning of the other, and long enough to mean it."""
    shorter, longer = sorted((option, clause), key=len)
    return len(shorter.split()) > _FEWEST and re.match(rf"{re.escape(shorter)}\W", longer) is not None


def _is_inside(option: str, bare: str) -> bool:
    """Whether a longer text says the words of an option that has enough of them to be no chance."""
    words = len(option.split())
    return words >= _FEWEST and re.search(rf"(?<!\w){re.escape(option)}(?!\w)", bare) is not None


def _ordinal(match: re.Match[str], count: int) -> int | None:
    word, digit, number, chinese = match.groups()
    if word:
        place = count - 1 if word == "last" else _ORDINALS.index(word)
    elif chinese:
        place = int(chinese) - 1 if chinese.isdigit() else "一二三四五六七八".index(chinese)
    else:
        place = int(digit or number) - 1
    return place if 0 <= place < count else None


def is_catch_all(option: str) -> bool:
    """Whether an option speaks of the others, as "None of the above": shuffling leaves it in its place."""
    bare = make_bare(clean_answer(option))
    return bool(_NONE.fullmatch(bare) or _ALL.fullmatch(bare))
