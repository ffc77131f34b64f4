"""Recognises tags that a model only talks about: in Markdown code, with placeholders, for formatting.

A model that thinks aloud repeats its instructions. `<retrieve> query </retrieve>` in a list of its tools, a
tag in a code span, `<b>red</b>`: none of these is a call. The grammar asks this module.

Placeholders are too many to list: besides known phrases, a text of several words is one if all of them are
words about the form of a call or an answer ("just the letter of the option").
"""

from __future__ import annotations

import re

FORMATTING = frozenset(
    """conclusion note observation option reasoning step summary thinking thought time title
    a b blockquote body br center code dd del details div dl dt em font h1 h2 h3 h4 h5 h6 hr html i img ins
    kbd li mark ol p pre q s small span strike strong sub summary sup table tbody td th thead tr u ul
    var""".split()  # noqa: SIM905 - as a list it would fill the page
)
"""Names of HTML elements, and of parts of a thought: their tags are text."""
EXAMPLE = "a clown drops a blue plate"
"""The query of the example in the prompt (`prompt.py`), which a model repeats with its instructions."""
QUOTES = frozenset("\"'“„«\u2039「『\u2018»\u201a《")
"""Signs that open a quotation. A tag right behind one is quoted."""
_OPENING_ONLY = frozenset("„\u2039「『\u201a《")  # signs that never end a quotation
_CJK = re.compile("[\u2e80-\u9fff\uf900-\ufaff]")  # scripts without spaces between words

_QUERIES = {
    *("and", "or", "tags", "and then", "or the like", "some text", "a few words", "und", "oder", "bis"),
    *(
        "query",
        "a query",
        "the query",
        "your query",
        "my query",
        "some query",
        "query here",
        "your query here",
    ),
    *("search query", "your search query", "query text", "the query text", "description", "a description"),
    *("the description", "your description", "description here", "your description here"),
    *("description of the frame", "description of a frame", "frame description", "image description"),
    *("what you want to see", "what i want to see", "what to see", "what you need", "what i need"),
    *("查询", "你的查询", "查询内容", "查询词", "描述", "anfrage", "deine anfrage", "suchanfrage", "abfrage"),
    *("consulta", "tu consulta", "la consulta", "requête", "ta requête", "la requête"),
}
_ANSWERS = {
    *(
        "and",
        "or",
        "und",
        "oder",
        "bis",
        "tags",
        "your answer letter",
        "letter of the correct option",
        "one letter",
    ),
    *("answer", "your answer", "the answer", "an answer", "my answer", "answer here", "your answer here"),
    *("my answer here", "final answer", "the final answer", "your final answer", "my final answer"),
    *(
        "correct answer",
        "the correct answer",
        "letter",
        "a letter",
        "the letter",
        "your letter",
        "letter here",
    ),
    *("option letter", "the option letter", "answer letter", "single letter", "a single letter"),
    *("letter of the option", "the letter of the option", "letter of the option alone", "the letter alone"),
    *("the letter of the option alone", "as the letter of the option alone", "correct letter"),
    *("the correct letter", "option", "the option", "your choice", "text", "答案", "你的答案", "最终答案"),
    *("字母", "选项字母", "选项", "antwort", "deine antwort", "die antwort", "buchstabe", "der buchstabe"),
    *("respuesta", "tu respuesta", "la respuesta", "letra", "la letra", "réponse", "ta réponse"),
    *("la réponse", "lettre", "la lettre"),
}
# Words about the form of an answer, and of a query, in English, German and Chinese.
_ANSWER_WORDS = frozenset(
    """a alone an and answer answers as choice chosen close closing correct end ends final finish go goes here
    in is it its just letter letters my of one only opening option options or right selected single tag tags
    text that the then this to which with write your
    antwort buchstabe buchstaben das dann der des die ein eine nur oder richtige richtiger und""".split()  # noqa: SIM905
)
_QUERY_WORDS = frozenset(
    """a an and closing describing description few for frame frames here i image it my need of or picture
    queries query search see some tag tags text that the then to want wants what word words you your
    anfrage bild dann der die ein eine ich oder paar sehen und was will wort worten""".split()  # noqa: SIM905
)
_CHINESE = re.compile(
    "(你的|我|正确|最终|的|选项|选择|字母|答案|想看|想象|内容|描述|查询|画面|和|与|或|、|[a-d])+"
)
_EDGES = " \t\n[](){}<>\"'“”*_`.…:"
_NUMBERED = re.compile(r"\$?query ?\d*")
_NOTHING = re.compile(r"[\s.,;:…·•?!*_\-=~+|/\\<>()\[\]{}\"'`]*")
_LONG_ANSWER = 80  # characters; a longer one that was not closed may be a thought
_VARIABLE = re.compile(r"[XYZ]")  # "<answer>X</answer> with X one of A to D"
_LETTERS = re.compile(
    r"[a-z](\s*([/|,\u2013-]\s*(or |and )?| or | and )[a-z])+"
)  # "A/B/C/D", "A-D", "A or B"
_MENTION = re.compile(
    r"\s*[.,;:!?)\]}]|\s*(or|and|again|but|if|because|since|here)\b"
    r"|\s*(tags?|calls?)(\s*[.,;:)]|\s+(is|are|or|and)\b)|.*[.!?;:。\uff01\uff1f\uff1b]\s+\w",
    re.DOTALL | re.IGNORECASE,
)


def is_placeholder(query: str) -> bool:
    """Whether a query stands for one: nothing but signs, or words such as "your query".

    A query that begins with a comma or a full stop is the rest of a sentence about the tag.
    """
    bare = _strip(query)
    is_stand_in = _NOTHING.fullmatch(bare) or _NUMBERED.fullmatch(bare)
    is_variable = _VARIABLE.fullmatch(query.strip(_EDGES))
    if _is_rest(query) or bare in _QUERIES or bare == EXAMPLE or is_stand_in or is_variable:
        return True
    return _is_about_form(bare, _QUERY_WORDS)


def is_placeholder_answer(body: str) -> bool:
    """Whether the body of an answer stands for one: nothing but signs, or words such as "letter"."""
    if _is_rest(body):
        return True
    bare = _strip(body)
    is_variable = _VARIABLE.fullmatch(body.strip(_EDGES)) or _LETTERS.fullmatch(bare)
    if bare in _ANSWERS or _NOTHING.fullmatch(bare) or is_variable:
        return True
    return _is_about_form(bare, _ANSWER_WORDS)


def _is_about_form(bare: str, known: frozenset[str]) -> bool:
    """Whether a text is made only of words about the form of a call or an answer."""
    if not bare.isascii() and _CHINESE.fullmatch(bare):
        return True
    words = re.findall(r"[^\W\d_]+|\d+", bare)
    is_known = all(word in known or (len(word) == 1 and word.isalpha()) for word in words)
    return len(words) > 1 and is_known and any(word in known for word in words)


def opens_quotation(mark: str, before: str) -> bool:
    """Whether a sign opens a quotation.

    Args:
        mark: The sign.
        before: The character before it; empty at the beginning of the text.
    """
    if mark not in QUOTES:
        return False
    if not before or mark in _OPENING_ONLY:
        return True
    if mark in "“\u2018" and _CJK.match(before):
        return True
    return not (before.isalnum() or before in ".,!?)")


def is_mention(text: str) -> bool:
    """Whether the text after an unclosed tag shows that the model only mentioned the tag.

    It begins with a sign or with "or", or holds more than one sentence; a query hardly does.
    """
    return bool(_MENTION.match(text))


def is_aside(text: str) -> bool:
    """Whether the text after an unclosed `<answer>` shows that the model only mentioned the tag."""
    if _is_rest(text) or text.lstrip().startswith("."):
        return True
    return len(text) > _LONG_ANSWER and is_mention(text)


def _is_rest(text: str) -> bool:
    """Whether it is the rest of a sentence."""
    return text.lstrip().startswith((",", ";", ". ", ": ", ")"))


def _strip(text: str) -> str:
    return " ".join(text.split()).strip(_EDGES).casefold()


class CodeSpans:
    """Follows Markdown from character to character: is this place in a code span or a fenced block?

    A span ends at the end of its line, unlike in CommonMark: one stray backtick must not hide a paragraph.
    """

    def __init__(self) -> None:
        self._mark = ""  # a backtick or a tilde, if the last characters were such
        self._run = 0  # how many
        self._span = 0  # backticks that opened the span; 0 outside
        self._fence = ""  # the marks that opened the block; empty outside
        self._is_line_start = True  # nothing but spaces in this line so far
        self._is_fence_line = False  # the block was opened in this line

    def feed(self, char: str) -> None:
        if char in "`~" and (char == self._mark or not self._run):
            self._mark = char
            self._run += 1
            return
        if self._run:
            self._end_run(self._mark * self._run)
            self._run = 0
        if char == "\n":
            self._span = 0
            self._is_line_start = True
            self._is_fence_line = False
        elif not char.isspace():
            self._is_line_start = False

    @property
    def inside(self) -> bool:
        return bool(self._span or self._fence)

    def _end_run(self, marks: str) -> None:
        """A run of backticks or tildes has ended."""
        is_fence = self._is_line_start and len(marks) >= 3
        self._is_line_start = False
        if self._fence and self._is_fence_line:
            self._fence = ""  # "```x```" in one line is a span
        elif self._fence:
            if is_fence and marks.startswith(self._fence):
                self._fence = ""
        elif is_fence:
            self._fence = marks
            self._is_fence_line = True
        elif marks[0] == "~":
            pass  # tildes make no spans
        elif not self._span:
            self._span = len(marks)
        elif len(marks) == self._span:
            self._span = 0
