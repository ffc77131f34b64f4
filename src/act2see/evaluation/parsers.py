"""From the records of each data set to samples. A parser takes one record and yields its samples.

The fields are those of the data sets' own files: Video-MME in the official form and as HERMES nests it by
video, EgoNormia as on the hub and in its repository. The field that does not fit is named in a
`FieldError`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any

from act2see.evaluation.choices import (
    FIELDS,
    check_count,
    drop_labels,
    find_columns,
    gather_options,
    take_letter,
    take_letters,
    take_options,
)
from act2see.evaluation.reading import AnswerKind
from act2see.evaluation.regions import read_intervals
from act2see.evaluation.samples import FieldError, FollowUp, Sample, make_sample, take_text
from act2see.trace.options import LETTERS

Fields = dict[str, Any]
_NOTHING = "None of these."
"""What an empty option of EgoNormia is shown as."""
_MARKS = re.compile(r"<(?:obj|box)_(?:start|end)>|\[\[[\d,\s\[\]]*\]\]")
_INTERVAL = re.compile(r"\[\s*[\d.]+\s*,\s*[\d.]+\s*\]")
_BOX = re.compile(r"\[\s*[\d.]+\s*(?:,\s*[\d.]+\s*){3}\]")
_KINDS: dict[str, AnswerKind] = {
    "mcq": "choice",
    "tr": "interval",
    "ff": "text",
    "num": "number",
    "size": "size",
}
_OWN = {
    "id",
    "video",
    "question",
    "options",
    "answer",
    "kind",
    "question_type",
    "groups",
    "evidence",
    "chain",
    "frames",
}
_OWN |= {"trim", "licence", "choices", "candidates"}
_LONGEST_GROUP = 80  # characters


def parse_video_mme(row: Fields) -> Iterator[Sample]:
    """Video-MME: the official fields, or HERMES' list of questions for each video."""
    if "conversations" in row:
        yield from _parse_hermes(row)
        return
    options = take_options(row, "options", 4)
    yield make_sample(
        id=take_text(row, "question_id"),
        benchmark="video-mme",
        video=take_text(row, "videoID"),
        question=take_text(row, "question"),
        options=options,
        answer=take_letter(row, "answer", options),
        groups=_groups(row, "duration", "domain", "sub_category", "task_type"),
    )


def _parse_hermes(row: Fields) -> Iterator[Sample]:
    talks = row["conversations"]
    if not isinstance(talks, list) or not all(isinstance(talk, dict) for talk in talks):
        raise FieldError("conversations", "must be a list of questions")
    for n, talk in enumerate(talks, start=1):
        options = take_options(talk, "choices", 4)
        yield make_sample(
            id=f"{take_text(row, 'video_id')}-{n}",
            benchmark="video-mme",
            video=take_text(row, "video_id"),
            question=take_text(talk, "question"),
            options=options,
            answer=take_letter(talk, "answer", options),
            groups={
                "duration": take_text(row, "duration_category"),
                "task_type": take_text(talk, "question_type"),
            },
        )


def parse_video_mme_v2(row: Fields) -> Iterator[Sample]:
    """Video-MME-v2: 8 options; four questions about a video are scored together."""
    options = take_options(row, "options", 8)
    video = take_text(row, "video_id")
    kind = take_text(row, "group_type")
    if kind not in ("relevance", "logic"):
        raise FieldError("group_type", f"{kind!r} is neither relevance nor logic")
    groups = _groups(row, "level", "second_head", "third_head") | {"group": video, "group_type": kind}
    if kind == "logic":
        groups["group_structure"] = take_text(row, "group_structure").replace(" ", "")
    yield make_sample(
        id=take_text(row, "question_id"),
        benchmark="video-mme-v2",
        video=video,
        question=take_text(row, "question"),
        options=options,
        answer=take_letter(row, "answer", options),
        groups=groups,
    )


def parse_video_espresso(row: Fields) -> Iterator[Sample]:
    """VideoEspresso's `bench_hard.json`; the paper shows 3 frames."""
    yield _parse_with_evidence(row, "video-espresso", frames=3)


def parse_vitib(row: Fields) -> Iterator[Sample]:
    """ViTIB's JSON Lines, which have VideoEspresso's fields."""
    yield _parse_with_evidence(row, "vitib")


def _parse_with_evidence(row: Fields, benchmark: str, frames: int | None = None) -> Sample:
    options = take_options(row, "options")
    video, question = take_text(row, "video_path"), take_text(row, "question")
    return make_sample(
        id=_hash(video, question, *options),
        benchmark=benchmark,
        video=video,
        question=question,
        options=options,
        answer=take_letter(row, "correct_answer", options),
        groups={"task": take_text(row, "task")},
        evidence=" ".join(_MARKS.sub("", str(row.get("evidence") or "")).split()),
        frames=frames,
    )


def parse_egonormia(row: Fields) -> Iterator[Sample]:
    """EgoNormia: a behaviour, then its justification. An empty option means that none of the others fits."""
    behaviours, reasons = _texts(row, "behaviors"), _texts(row, "justifications")
    right = _place(row, ("correct_idx", "correct"), len(behaviours))
    if len(reasons) != len(behaviours):
        raise FieldError("justifications", f"holds {len(reasons)} texts for {len(behaviours)} behaviors")
    field = "sensible_idx" if "sensible_idx" in row else "sensibles"
    sensible = row.get(field)
    if not isinstance(sensible, list):
        raise FieldError(field, "must be a list of places")
    places = sorted({_place({field: place}, (field,), len(behaviours)) for place in sensible})
    yield make_sample(
        id=take_text(row, "id"),
        benchmark="egonormia",
        video=take_text(row, "id"),
        question="What should the person who is filming do next? Choose the behaviour that norms ask for.",
        options=behaviours,
        answer=LETTERS[right],
        sensible="".join(LETTERS[place] for place in places),
        then=FollowUp(
            question='You chose: "{choice}" Which reason best justifies it here?',
            options=reasons,
            answer=LETTERS[right],
        ),
        evidence=str(row.get("description") or row.get("desc") or ""),
    )


def parse_vcr_bench(row: Fields) -> Iterator[Sample]:
    """VCR-Bench: options, an interval, a box or a free answer, and timed steps of reasoning."""
    question, answer = take_text(row, "question"), take_text(row, "answer")
    is_choice = row.get("multiple-choice")
    if not isinstance(is_choice, bool):
        raise FieldError("multiple-choice", f"is {is_choice!r}, not true or false")
    options: tuple[str, ...] = ()
    kind: AnswerKind = "text"
    if is_choice:
        options, kind = take_options(row, "choices"), "choice"
        question = question.partition(f"A. {options[0]}")[0].strip() or question
        answer = take_letter(row, "answer", options)
    elif _INTERVAL.fullmatch(answer):
        kind = "interval"
    elif _BOX.fullmatch(answer):
        kind = "box"
    steps = row.get("reasoning")
    if not isinstance(steps, list):
        raise FieldError("reasoning", "must be a list of steps")
    yield make_sample(
        id=take_text(row, "id"),
        benchmark="vcr-bench",
        video=take_text(row, "video_path"),
        question=question,
        options=options,
        kind=kind,
        answer=answer,
        groups={"dimension": take_text(row, "dimension"), "duration": _duration(row), "kind": kind},
        chain=tuple(str(step) for step in steps),
    )


def parse_own(row: Fields) -> Iterator[Sample]:
    """One's own JSON Lines or CSV: `video`, `question`, `answer`, and as needed `options`, `kind`, `id`,
    `trim`.

    The kind may also be OmniAgent's `question_type` (MCQ, TR, FF, NUM, SIZE). Options may also have a column
    each. Other short fields are groups.
    """
    question, video = take_text(row, "question"), take_text(row, "video")
    options, _ = gather_options(row)
    kind = str(row.get("kind") or row.get("question_type") or ("choice" if options else "text")).casefold()
    kind = _KINDS.get(kind, kind)
    if kind == "choice":
        answer = take_letter(row, "answer", options)
    else:
        answer = take_letters(row, "answer", options) if kind == "choices" else take_text(row, "answer")
    groups = dict(row["groups"]) if isinstance(row.get("groups"), dict) else {}
    groups |= _own_groups(row)
    trim = read_intervals(str(row["trim"])) if row.get("trim") else None
    if row.get("trim") and (trim is None or len(trim) != 1):
        raise FieldError("trim", f"{row['trim']!r} is not a start time and a later end time")
    chain = row.get("chain") or ()
    yield make_sample(
        id=str(row.get("id") or _hash(video, question, *options)),
        benchmark="own",
        video=video,
        question=question,
        options=options,
        kind=kind,
        answer=answer,
        groups=groups,
        evidence=str(row.get("evidence") or ""),
        chain=(chain,) if isinstance(chain, str) else tuple(map(str, chain)),
        frames=row.get("frames") or None,
        trim=trim[0] if trim else None,
        licence=str(row.get("licence") or ""),
    )


def _own_groups(row: Fields) -> dict[str, str]:
    """Return the fields of one's own record that scores are also given by."""
    taken = _OWN | {column for family in find_columns(row) for column in family.values()}
    return {
        k: str(v)
        for k, v in row.items()
        if k not in taken and isinstance(v, str | int) and 0 < len(str(v)) <= _LONGEST_GROUP
    }


def list_unread(row: Fields) -> list[str]:
    """Return the fields of one's own record that hold something and are not read."""
    known = _OWN - set(FIELDS) | {"groups"} | gather_options(row)[1] | set(_own_groups(row))
    return [k for k, v in row.items() if k not in known and v not in (None, "", [], {})]


def _groups(row: Fields, *fields: str) -> dict[str, str]:
    return {field: take_text(row, field) for field in fields}


def _hash(*parts: str) -> str:
    """A name for a record that has none: it stays the same in a part of the file."""
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=6).hexdigest()


def _texts(row: Fields, field: str) -> tuple[str, ...]:
    value = row.get(field)
    if not isinstance(value, list) or len(value) < 2 or not all(isinstance(text, str) for text in value):
        raise FieldError(field, "is missing" if value is None else "must be a list of texts")
    check_count(value, field)
    texts = tuple(text.strip() or _NOTHING for text in value)
    without = drop_labels(texts)
    # The right one is named by its place, so labels in another order stay as they are.
    keeps_places = all(text.endswith(rest) for text, rest in zip(texts, without, strict=True))
    return tuple(without) if keeps_places else texts


def _place(row: Fields, fields: tuple[str, ...], count: int) -> int:
    field = next((name for name in fields if name in row), fields[0])
    place = row.get(field)
    if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < count:
        raise FieldError(field, f"is {place!r}, not a place from 0 to {count - 1}")
    return place


def _duration(row: Fields) -> str:
    seconds = row.get("duration")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise FieldError("duration", f"is {seconds!r}, not a number of seconds")
    return "0-60" if seconds <= 60 else "60-300" if seconds <= 300 else "300+"
