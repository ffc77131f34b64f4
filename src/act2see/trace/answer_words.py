"""The words that models write around an answer: "The answer is", "not B", "no, wait", in many languages.

An answer is cleaned before it is read: other forms of the same letters become plain ones (full-width and
circled letters, LaTeX, Markdown, HTML), and text that is struck out goes. Then the parts that say which
option is *not* meant go, and the text is cut where its author changes the mind, because the last word
counts.

The tables are small on purpose. They hold what models were seen to write, and a phrase that is not in them
costs an answer that cannot be read, which is counted, rather than a wrong reading.
"""

from __future__ import annotations

import re
import unicodedata

EDGES = " \t\r\n*_`$\"'\u2018\u2019\u201c\u201d\u00ab\u00bb\u300c\u300d.!,;\u3002\u060c\u061b\u061f"
"""What stands around an answer and says nothing: Markdown, quotes, the end of a sentence."""
_WORD = "A-Za-z0-9\u00c0-\u024f_-"  # Chinese or Korean characters make no word of a letter: "选B"
_BARE = rf"(?<![{_WORD}])(?<![A-Za-z]['\u2019])"
_ENDS = rf"(?![{_WORD}]|['\u2019][A-Za-z])"
LETTER = rf"(?:[(\[{{<]\s*([A-Za-z])\s*[)\]}}>]|{_BARE}([A-Za-z]){_ENDS})"
"""A letter alone, in brackets or bare. It has two groups."""
_VERBS = "is|are|was|isn|aren|wasn|and|or|nor|but|can|cannot|do|does|doesn|don|looks?|seems?"
_IN_PROSE = rf"(?!\s+(?!(?:{_VERBS})\b)[a-z])"
_ANY_LETTER = rf"(?:[(\[{{]\s*[A-Za-z]\s*[)\]}}]|{_BARE}[A-Za-z]{_ENDS}{_IN_PROSE})"
_OPTION = r"(?:(?:option|choice|answer|letter)s?\s+)?"
_PLAIN_COMMAND = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mathsf|operatorname)\s*\{([^{}]*)\}")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{([^{}]*)\}")
_TAGGED = re.compile(r"<answer>(.*?)(?:</answer>|$)", re.DOTALL)
_STRUCK = re.compile(r"~~[^~]*~~|<(?:s|del|strike)>[^<]*</(?:s|del|strike)>", re.IGNORECASE)
_BREAK = re.compile(r"<br\s*/?>|</p>|</li>", re.IGNORECASE)
_HTML = re.compile(
    r"</?(?:b|i|u|em|strong|EM|STRONG|p|span|li|ul|code|center)(?:\s[^<>]*)?>"
)  # "<B>" is an answer
_MARKDOWN = re.compile(r"[*`$]+|__")

_MIND = re.compile(
    r"(?:\bno,? wait\b|\bwait\b|\bactually\b|\bcorrection\b|\bon second thoughts?\b|\bscratch that\b|"
    r"\bi mean\b"
    r"|\blet me (?:correct|re-?check|re-?think|re-?consider)\b|\bno[,.:;]\s|\bsorry\b|\bor rather\b|"
    r"\bhmm+\b"
    r"|\brevised(?: answer)?\b|\bupdated?\b|\bmejor dicho\b|\bnein\b|\bnon,|\bpardon\b|нет,|точнее"
    r"|不对|不對|等等|等一下|更正|いや|待って|아니[,.])",
    re.IGNORECASE,
)
RETRACTS = re.compile(
    r"(?:no,? wait|scratch that|不对|不對|нет,|いや|아니|no[,.:;]\s*$|nein|non,)", re.IGNORECASE
)
"""Marks of a changed mind that take back what was said before, even if nothing readable follows."""
_NOT_MEANT = (
    re.compile(
        rf"\bneither\s+{_OPTION}{_ANY_LETTER}(?:\s*(?:,|nor|or|"
        rf"and)\s*{_OPTION}{_ANY_LETTER})+",
        re.IGNORECASE,
    ),
    # "A and C are wrong", "(A) is not right", "B can be ruled out"
    re.compile(
        rf"{_OPTION}{_ANY_LETTER}(?:\s*(?:,|and|or|&)\s*{_OPTION}{_ANY_LETTER})*\s+"
        r"(?:(?:is|are|was|were|looks?|seems?)\s+(?:not|wrong|incorrect|false|impossible|unlikely|"
        r"ruled out|out|eliminated)"
        r"|(?:isn'?t|aren'?t|wasn'?t|can(?:not|'t)|does(?:n'?t| not)|do(?:n'?t| not)|can be (?:ruled out|"
        r"eliminated|excluded)))"
        r"[^.;,\n]*",
        re.IGNORECASE,
    ),
    re.compile(
        r"[,;(]?\s*\b(?:and |but )?(?:is |are )?(?:not|n't|never|rather than|instead of|as opposed to|"
        r"unlike|"
        r"rul(?:e|es|ed|ing) out|eliminat(?:e|es|ed|ing)|exclud(?:e|es|ed|ing)|reject(?:s|ed|ing)?|"
        r"discard(?:s|ed)?|except|"
        r"nicht|nie|non|pas|no es|no|nem|не|bukan)"
        rf"\s+(?:the |la |die )?{_OPTION}{_ANY_LETTER}(?:\s*(?:,|and|or|nor|"
        rf"&)\s*{_OPTION}{_ANY_LETTER}(?!\s+(?:is|are)\b))*\)?",
        re.IGNORECASE,
    ),
    re.compile(rf"(?:而)?(?:不是|不选|不選|并非|排除)\s*(?:选项)?{_ANY_LETTER}"),
    re.compile(rf"{_ANY_LETTER}\s*(?:ではなく|がちがう|不对|错误?|は違う|는 아니고|가 아니라)"),
)
_JOINED = re.compile(
    r"^(?:(?:and|but|so|then|rather|sondern|sino|mais|\u0430)\s+|而是|应该是|應該是|应选|是)", re.IGNORECASE
)

_NAMES = (
    r"(?:\b(?i:(?:correct|right|best|most likely|likeliest|chosen|final|my) (?:option|choice|letter|"
    r"pick)|answer|"
    r"response|solution|conclusion|verdict|respuesta|r\u00e9ponse|antwort|resposta|risposta"
    r"|antwoord|svaret?|vastaus|cevap|jawaban(?:nya)?|odpowied\u017a|odpov\u011b\u010f|v\u00e1lasz|"
    r"r\u0103spuns(?:ul)?)\b"
    r"|(?i:\u0111\u00e1p \u00e1n)|(?i:\u043e\u0442\u0432\u0435\u0442|"
    r"\u0432\u0456\u0434\u043f\u043e\u0432\u0456\u0434\u044c)"
    r"|答案|选项|選項|选择|選擇|应选|故选|所以选|我选|选|答え|正解|回答|選択肢|정답|답|คำตอบ|התשובה|תשובה|الإجابة|الجواب|"
    r"پاسخ|उत्तर|উত্তর|(?i:\u03b1\u03c0\u03ac\u03bd\u03c4\u03b7\u03c3\u03b7))"
)
_LINKS = (
    r"(?:\s*(?:\b(?i:is|was|would be|should be|must be|has to be|will be|seems to be|appears to be|to be|"
    r"most likely|probably|clearly|therefore|thus|indeed|definitely|likely|now|here|letter|es|est|ist|"
    r"lautet|"
    r"adalah|l\u00e0|correcta?|correcte|\u00e4r|er|on|je|este)\b|\u00e9|\u00e8|(?<=\s)to(?=\s)|是|为|為|就是|"
    r"应该是|應該是|は|が|"
    r"은|는|이|คือ|היא|הוא|هي|هو|है|হল|\u03b5\u03af\u03bd\u03b1\u03b9|[:=\u2014\u2013>\u2192\"'\u201c-]))*"
)
_THE = (
    r"\s*(?i:(?:the|la|die|der|a|il|el|option|choice|letter|opci\u00f3n|opsi|вариант|lettre|选项|選項)"
    r"\s+)?[\"'\u201c]?"
)
NAMED = re.compile(rf"{unicodedata.normalize('NFKC', _NAMES)}{_LINKS}{_THE}\s*{LETTER}")
"""An option letter after a name of the answer. It has the two groups of `LETTER`."""
CHOSEN = re.compile(
    r"\b(?i:would be|i think|i believe|definitely|probably|likely|surely|clearly|certainly|leaving|leaves|"
    r"choose|chose|pick|select|go(?:ing)? with|go(?:ing)? for|opt for|vote for|say|settle on|"
    r"stick with|"
    r"switch to|change (?:my answer |it |that )?to|must be|should be|it'?s|it is|that'?s|i'?d guess|"
    r"guess|lean(?:ing)? towards?)"
    rf"\s+(?i:(?:the\s+)?(?:option|choice|answer|letter)\s+)?{LETTER}"
)
"""An option letter after a verb of choice."""
TAIL = re.compile(
    rf"(?:(?i:\btherefore|\bthus|\bso|\bhence|\bfinally|\bconclusion|因此|所以|よって|따라서)\s*[,:]?|\u2192|->|=>|"
    rf"\u21d2|=)\s*(?i:it'?s\s+)?"
    rf"(?i:option\s+)?{LETTER}[\s.!)]*$"
)
"""An option letter as the end of a conclusion: "so B."."""
RIGHT = re.compile(
    rf"{LETTER}\s*(?:(?i:is|looks|seems|must be|would be)\s+(?i:the\s+)?"
    r"(?i:correct|right|true|best|accurate|more likely|likelier|most likely|my answer|answer)\b|正确|"
    r"正しい|が正解|が答え)"
)
"""An option letter before "is right"."""

_LEAD = re.compile(
    r"^(?:(?:so|thus|therefore|hence|ok(?:ay)?|well|yes|sure|finally)\b[,:]?\s*)*"
    r"(?:(?:i|we)(?:'d| would)? (?:think|believe|say|guess|choose|pick|select|see|conclude|"
    r"am (?:fairly )?sure)(?: that)?[,:]?\s+)?"
    r"(?:(?:the|my) )?(?:(?:correct|final|right|best|most likely|likeliest) )*"
    r"(?:(?:answer|option|choice|response)\b)?\s*(?:(?:is|was|would be|should be|must be)\b|"
    r"[:=\u2013\u2014-])*\s*"
    r"(?:that\s+)?(?:(?:(?:it|he|she|this|that|these|they|there|those)(?:'s|'re| is| are| was| were)|"
    r"probably|most likely)\s+)*",
    re.IGNORECASE,
)
_CLAUSE_END = re.compile(
    r"[.!?;\u3002]\s|[.!?;\u3002]$|\n|\u3002|,?\s(?:because|since|which|as the|as he|as she|as it|"
    r"as they|given)\s|,\s(?:so|as)\s"
    r"|\s\(|,\s(?=(?:not|and not|but not)\b)|\s[\u2013\u2014-]\s",
    re.IGNORECASE,
)
_IS = re.compile(r"\b(?:is|are|was|were)\s")
_ARTICLE = re.compile(r"^(?:a|an|the|it)\s+")


_PLAIN_NO = re.compile(r"no[,.:;]\s", re.IGNORECASE)


def clean_answer(text: str) -> str:
    """Return the text with plain letters, and without markup and what is struck out."""
    if tagged := _TAGGED.findall(text):
        text = tagged[-1]
    text = unicodedata.normalize("NFKC", text)
    text = "".join(char for char in text if unicodedata.category(char) != "Cf")
    text = _HTML.sub("", _BREAK.sub("\n", _STRUCK.sub(" ", text)))
    for _ in range(3):  # commands inside one another
        text = _PLAIN_COMMAND.sub(r"\1", text)
    text = _BOX.sub(r" answer: \1 . ", text)
    return _MARKDOWN.sub("", text).strip()


def make_bare(text: str) -> str:
    """Return the words of a cleaned text, for a comparison: no case, no edges, single spaces."""
    return " ".join(text.split()).casefold().strip(EDGES)


def drop_article(text: str) -> str:
    """Return bare words without "a", "the" or "it" before them."""
    return _ARTICLE.sub("", text)


def split_minds(text: str) -> list[tuple[str, bool]]:
    """Cut a text where its author changes the mind.

    Returns:
        Each part, and whether it takes back the parts before it.
    """
    parts: list[tuple[str, bool]] = []
    start, retracts = 0, False
    for match in _MIND.finditer(text):
        if not text[: match.start()].strip(
            EDGES
        ):  # nothing was said yet, but "No, he does not." says something
            start = 0 if _PLAIN_NO.fullmatch(match[0]) else match.end()
            continue
        parts.append((text[start : match.start()], retracts))
        start, retracts = match.end(), bool(RETRACTS.match(match[0]))
    parts.append((text[start:], retracts))
    return parts


def drop_negated(text: str) -> str:
    """Return the text without the letters that it says are not meant."""
    for pattern in _NOT_MEANT:
        text = pattern.sub(" ", text)
    return _JOINED.sub("", text.strip(EDGES + ":"))


def list_clauses(text: str) -> list[str]:
    """Return what may be the words of an answer in a text, bare, the likeliest first.

    They are the text, the text without a lead ("I think it is"), and its first and last clause.
    """
    found: list[str] = []
    ends = [part for part in _CLAUSE_END.split(text) if part and part.strip(EDGES)]
    said = [_IS.split(ends[0])[-1]] if ends else []  # "The car is red."
    for part in [text, *ends[:1], *ends[-1:], *said]:
        for words in (part, _LEAD.sub("", part.strip(EDGES), count=1)):
            bare = make_bare(words)
            if bare and bare not in found:
                found.append(bare)
    return found
