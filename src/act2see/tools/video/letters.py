"""How likely a text is in a language, by its letters: what tells one old encoding from another.

Every byte is a letter in most old encodings, so that a text can be decoded is no sign that it was decoded
right. Here each pair of an encoding and a language gives a likelihood: how often the language uses each
letter, how rarely a capital follows a small letter, and how rarely two alphabets meet in one word. The
likelihoods of the same bytes can be compared, even those of one and of two bytes a letter. charset-normalizer
has the order of the letters; its own comparison needs long texts and takes Windows-1250 for Windows-1252.

The frequencies come from the order alone: that of rank r is proportional to exp(-r / 7), as in most
alphabets, and that of Chinese, Japanese and Korean letters depends on how common the letter's group is.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

_WESTERN = (
    "English German Dutch French Italian Spanish Portuguese Swedish Norwegian Danish Finnish Indonesian"
)
_WESTERN_LETTERS = "éèêëáàâäãåæçíìîïñóòôöõøúùûüýÿßœðþ"
_CENTRAL = "Polish Czech Slovak Hungarian Slovene Croatian Romanian"
_CENTRAL_LETTERS = "áâăäąćčçďđéęëěíîĺľłńňóôőöŕřśšşťţúůűüýźžżß"
_SLAVIC = "Russian Ukrainian Bulgarian Serbian"
_SLAVIC_LETTERS = "абвгдежзийклмнопрстуфхцчшщъыьэюяёіїєґђјљњћџўѓќѕ"
_GREEK_LETTERS = "αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώϊϋΐΰ"
_HEBREW_LETTERS = "אבגדהוזחטיךכלםמןנסעףפץצקרשת"
_ARABIC_LETTERS = "ءآأؤإئابةتثجحخدذرزسشصضطظعغـفقكلمنهوىيپچژکگی"
# Letters that charset-normalizer, which has 26 of each alphabet, leaves out, and alphabets that it lacks.
_MORE = {
    "German": "ß",
    "French": "vçêùâîôûëïœ",
    "Italian": "ìéùj",
    "Spanish": "ñúü",
    "Portuguese": "õêôâúàx",
    "Turkish": "jfâî",
    "Polish": "śżćńźf",
    "Czech": "žšůúýfgóťňďx",
    "Slovak": "ľšťžúôňďäĺŕóg",
    "Hungarian": "őíűúüóx",
    "Slovene": "čđ",
    "Croatian": "đ",
    "Romanian": "şţâ",
    "Lithuanian": "ųūęž",
    "Estonian": "šžf",
    "Russian": "фшющэцёъ",
    "Ukrainian": "шюжїєщфґ",
    "Bulgarian": "юшщфь",
    "Serbian": "жћљњчшђфхџ",
    "Greek": "όβφύώξζψϊϋΐΰ",
    "Hebrew": "זטםךףץג",
    "Farsi": "چذئثضظغكيژؤء",
    "Arabic": "ضخذئزآؤظغءثكج",
    "Thai": "ี่้ัิไ็ุ์โูถผภศึธณืฟซญฐษฉฎฏ",
    "Vietnamese": "âêôơăáóíúéè",
    "Icelandic": "anriestuðlgmkfhvoáþídjbyæöpéúóýxz",
    "Latvian": "aisterunkomdlpāzvjgbīēcšņļūžķģčfh",
}
_TRADITIONAL = (
    "的一是不了在人有我他這個們中來上大為和國地到以說時要就出會可也你對生能而子那得於著下自之年過發後作裡用"
    "道行所然家種事成方多經麼去法學如都同現當沒動面起看定天分還進好小部其些主樣理心很什吧嗎誰給叫想知"
)
_SIMPLIFIED_MORE = "很什吧吗谁给叫想知"
_BREADTH = 7.0  # of the order of letters: the frequency falls by e in so many ranks
_OTHER_LETTER = -8.5  # of the same encoding, as in names
_STRANGE = -12.0  # letters of other alphabets, signs that no text has, and controls
_MARK = -7.0  # quotes, dashes and other signs that texts have
_SAID = frozenset("«»“”„‘’‚‹›–—…¡¿°§©®™€£·•\xa0№־״׳،؛؟♪♫")
_IDEOGRAPHIC = frozenset("、。，．！？：；「」『』（）《》…—～〜・ー“”‘’　")
_WORDS = re.compile(r"[^\W\d_]+")
_MEETS = -5.0  # two alphabets in one word
_CAPITAL = -4.0  # a capital after a small letter


@dataclass(frozen=True, slots=True)
class Kind:
    """An encoding, with the languages whose texts it holds."""

    encoding: str
    languages: tuple[str, ...]
    letters: str = ""
    """The letters that a name may have in any of these languages."""
    prior: float = 0.0
    """How rare its files are, as a logarithm."""


def _kinds() -> tuple[Kind, ...]:
    western = (*_WESTERN.split(), "Icelandic")
    central, slavic = tuple(_CENTRAL.split()), tuple(_SLAVIC.split())
    baltic = "āčēģīķļņšūžąęėįųõäöü"
    turkish = "çğıöşüâîû"
    return (
        Kind("cp1252", western, _WESTERN_LETTERS),
        Kind("shift_jis", ("Japanese",)),
        Kind("cp932", ("Japanese",), prior=-1),
        Kind("euc_jp", ("Japanese",), prior=-1),
        Kind("euc_kr", ("Korean",)),
        Kind("cp949", ("Korean",), prior=-1),
        Kind("big5", ("Traditional",)),
        Kind("big5hkscs", ("Traditional",), prior=-2),
        Kind("gb18030", ("Simplified",)),
        Kind("cp1251", slavic, _SLAVIC_LETTERS),
        Kind("koi8_r", ("Russian",), _SLAVIC_LETTERS, -2),
        Kind("koi8_u", ("Ukrainian",), _SLAVIC_LETTERS, -2),
        Kind("cp866", ("Russian", "Bulgarian", "Ukrainian"), _SLAVIC_LETTERS, -2),
        Kind("iso8859_5", slavic, _SLAVIC_LETTERS, -3),
        Kind("mac_cyrillic", slavic, _SLAVIC_LETTERS, -7),
        Kind("cp1250", central, _CENTRAL_LETTERS),
        Kind("iso8859_2", central, _CENTRAL_LETTERS, -1),
        Kind("cp852", central, _CENTRAL_LETTERS, -4),
        Kind("cp1253", ("Greek",), _GREEK_LETTERS),
        Kind("iso8859_7", ("Greek",), _GREEK_LETTERS, -3),
        Kind("cp737", ("Greek",), _GREEK_LETTERS, -4),
        Kind("cp1254", ("Turkish",), turkish),
        Kind("cp857", ("Turkish",), turkish, -4),
        Kind("cp1255", ("Hebrew",), _HEBREW_LETTERS),
        Kind("iso8859_8", ("Hebrew",), _HEBREW_LETTERS, -1),
        Kind("cp862", ("Hebrew",), _HEBREW_LETTERS, -4),
        Kind("cp1256", ("Arabic", "Farsi"), _ARABIC_LETTERS),
        Kind("iso8859_6", ("Arabic",), _ARABIC_LETTERS, -2),
        Kind("cp1257", ("Lithuanian", "Latvian", "Estonian"), baltic, -1),
        Kind("cp1258", ("Vietnamese",), "đươăâêôàáéèíóúù", -2),
        Kind("cp874", ("Thai",)),
        Kind("cp850", western, _WESTERN_LETTERS, -3),
        Kind("mac_roman", western, _WESTERN_LETTERS, -7),
    )


KINDS = _kinds()
"""The encodings that are told apart, those first that win where the text is the same."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A text as one encoding reads it."""

    kind: Kind
    text: str
    language: str
    likelihood: float
    """Logarithm of the probability of the bytes."""


def read_as(kind: Kind, data: bytes) -> Reading:
    """Read bytes in an encoding, and find the language that makes them likeliest."""
    text = data.decode(kind.encoding, "replace")
    shape = _judge_words(text) + kind.prior
    counts = Counter(_small(text))
    scores = {one: _weigh(counts, _letters_of(one), kind.letters) for one in kind.languages}
    best = max(scores, key=lambda one: scores[one])
    return Reading(kind, text, best, scores[best] + shape)


def _small(text: str) -> Iterable[str]:
    """Return the letters and signs beyond ASCII of a text in small letters, and its letters of ASCII."""
    return (char for char in text.lower() if not char.isascii() or char.isalpha())


def _weigh(counts: Mapping[str, int], known: Callable[[str], float | None], letters: str) -> float:
    total = 0.0
    for char, count in counts.items():
        value = known(char)
        if value is None:
            if char in letters or char.isascii():
                value = _OTHER_LETTER
            elif char in _SAID or unicodedata.combining(char):
                value = _MARK
            else:
                value = _STRANGE
        total += count * value
    return total


def _judge_words(text: str) -> float:
    """Return what it costs that capitals follow small letters, and that alphabets meet in one word."""
    cost = 0.0
    for word in _WORDS.findall(text):
        if word.isascii() or word.islower():
            pass
        elif not word.isupper() and not word[1:].islower():
            cost += _CAPITAL * sum(a.islower() and b.isupper() for a, b in pairwise(word))
        alphabets = [_alphabet(char) for char in word]
        cost += _MEETS * sum(a != b for a, b in pairwise(alphabets))
    return cost


@cache
def _alphabet(char: str) -> str:
    if char < "\u0250":
        return "LATIN"
    return "EAST" if char >= "\u2e80" else unicodedata.name(char, "?").partition(" ")[0]


@cache
def _letters_of(language: str) -> Callable[[str], float | None]:
    """Return a function from a letter to the logarithm of its frequency; None for one of another language."""
    from charset_normalizer.constant import FREQUENCIES

    if language in ("Simplified", "Traditional", "Japanese", "Korean"):
        return _eastern(language, FREQUENCIES)
    alphabet = list(dict.fromkeys([*FREQUENCIES.get(language, ()), *_MORE.get(language, "")]))
    if language == "Serbian":
        alphabet = [char for char in alphabet if not char.isascii()]
    breadth = max(_BREADTH, len(alphabet) / 4)
    weights = [math.exp(-i / breadth) for i in range(len(alphabet))]
    whole = math.log(sum(weights))
    table = {char: math.log(weight) - whole for char, weight in zip(alphabet, weights, strict=True)}
    if not any(map(str.isascii, alphabet)):  # a text in another alphabet has some words in Latin letters
        table |= {chr(i): -5.0 for i in range(ord("a"), ord("z") + 1)}
    return table.get


def _eastern(language: str, order: Mapping[str, list[str]]) -> Callable[[str], float | None]:
    """Return the frequencies of a language with thousands of letters, by the groups that they are in.

    A group is a set of common letters, or those that a standard puts first in its table.
    """
    if language == "Japanese":
        kana = order["Japanese——"][:80] + order["Japanese—"]
        common = _spread(order["Japanese——"][:80], 0.5, 20) | _spread(order["Japanese—"], 0.15, 30)
        common |= _spread([c for c in order["Japanese"] if c not in kana], 0.1, 1e9)
        first, rest = _first_rows("euc_jp", 0xB0, 0xCF), _first_rows("euc_jp", 0xD0, 0xF4)
    elif language == "Korean":
        common = _spread(order["Korean"], 0.3, 30)
        first, rest = _first_rows("euc_kr", 0xB0, 0xC8), frozenset()
    elif language == "Simplified":
        common = _spread([*order["Chinese"], *_SIMPLIFIED_MORE], 0.45, 60)
        first, rest = _first_rows("gb2312", 0xB0, 0xD7), _first_rows("gb2312", 0xD8, 0xF7)
    else:
        common = _spread([*_TRADITIONAL], 0.45, 60)
        first, rest = _first_rows("big5", 0xA4, 0xC6), _first_rows("big5", 0xC9, 0xF9)
    often = math.log((0.45 if language != "Japanese" else 0.2) / len(first))

    def value(char: str) -> float | None:
        if char in common:
            return common[char]
        if char in first:
            return often
        if char in rest:
            return -14.0
        if char in _IDEOGRAPHIC:
            return -5.0
        return -5.0 if char.isascii() else 2 * _STRANGE

    return value


def _spread(letters: Iterable[str], share: float, breadth: float) -> dict[str, float]:
    """Spread a share of a language's letters over some of them, in their order."""
    weights = {char: math.exp(-i / breadth) for i, char in enumerate(dict.fromkeys(letters))}
    whole = sum(weights.values())
    return {char: math.log(share * weight / whole) for char, weight in weights.items()}


def _first_rows(encoding: str, first: int, last: int) -> frozenset[str]:
    """Return the letters in some rows of a standard's table."""
    pairs = (bytes([row, cell]) for row in range(first, last + 1) for cell in range(0x40, 0xFF))
    return frozenset(char for pair in pairs for char in pair.decode(encoding, "ignore") if not char.isascii())
