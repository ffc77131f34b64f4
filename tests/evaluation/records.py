"""Small records in the form of each data set's own file, written for these tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LABELLED = ["(A): He runs away.  ", "(B): He waits for the bus.", "(C): He sings a song.", "(D): He sleeps."]
FOUR = ["A. A kite.", "B. A drum.", "C. A boat.", "D. A lamp."]
EIGHT = [f"{letter}. Colour number {n}." for n, letter in enumerate("ABCDEFGH")]


def video_mme(n: int, answer: str = "B", **changes: Any) -> dict[str, Any]:
    duration = ("short", "medium", "long")[n % 3]
    row = {"video_id": f"{n:03}", "duration": duration, "domain": "Knowledge", "sub_category": "Toys"}
    row |= {"url": f"https://example.org/{n}", "videoID": f"v{n}", "question_id": f"{n:03}-1"}
    row |= {
        "task_type": "Counting Problem" if n % 2 else "OCR Problems",
        "question": f"What is shown at {n}?",
    }
    return row | {"options": FOUR, "answer": answer} | changes


def hermes(video: str = "v1", **changes: Any) -> dict[str, Any]:
    talks = [
        {"question": "What is shown?", "choices": ["A kite.", "A drum.", "A boat.", "A lamp."]},
        {"question": "Who wins?", "choices": ["Ann.", "Ann.", "Bo.", "Cy."]},
    ]
    talks[0] |= {"answer": "A boat.", "question_type": "Object Recognition"}
    talks[1] |= {"answer": "Ann.", "question_type": "Counting Problem"}
    row = {"video_id": video, "video_path": f"/far/away/{video}.mp4", "duration": 74.3}
    return row | {"conversations": talks, "duration_category": "short"} | changes


def video_mme_v2(
    video: int, answers: str = "ABCD", kind: str = "relevance", structure: str = "[1, 2, 3, 4]"
) -> list[Any]:
    return [
        {
            "video_id": f"{video:03}",
            "question_id": f"{video:03}-{n}",
            "question": f"Question {n}?",
            "options": "\n".join(EIGHT),
            "answer": answer,
            "level": 1 + video % 3,
            "group_type": kind,
            "group_structure": structure,
            "second_head": "Frames",
            "third_head": "Order",
        }
        for n, answer in enumerate(answers, start=1)
    ]


def vitib(n: int, task: str = "Cooking Process", answer: str = "(B)", **changes: Any) -> dict[str, Any]:
    row = {"question": f"What does he do in clip {n}?", "answer": "He waits.", "task": task}
    row |= {"evidence": "The <obj_start>man in image 1<obj_end><box_start>[[1, 2, 3, 4]]<box_end> waits."}
    row |= {"correct_answer": answer, "video_path": f"all_video/set/{n}.mp4"}
    return row | {"key_video_path": f"key_video/set/{n}.mp4", "options": LABELLED} | changes


def espresso(n: int, **changes: Any) -> dict[str, Any]:
    row = vitib(n, "Role Analysis")
    del row["key_video_path"]
    row |= {"core_frames_paths": ["a.jpg"], "core_frames_captions": ["a man"], "key_items": []}
    return row | {"video_path": f"clips/{n}.mp4"} | changes


def egonormia(n: int, right: int = 1, sensible: tuple[int, ...] = (1, 3), hub: bool = True) -> dict[str, Any]:
    behaviours = [f"Do thing {place} of {n}." for place in range(4)] + [""]
    reasons = [f"Because of {place} of {n}." for place in range(4)] + [""]
    row: dict[str, Any] = {"id": f"clip-{n}", "behaviors": behaviours, "justifications": reasons}
    if hub:
        return row | {"correct_idx": right, "sensible_idx": list(sensible), "description": "A room."}
    return row | {"correct": right, "sensibles": list(sensible), "taxonomy": {"0": []}, "desc": "A room."}


def vcr_bench(n: int, answer: str = "B", **changes: Any) -> dict[str, Any]:
    is_choice = answer in "ABCD"
    texts = dict(zip("ABCD", ("He hides.", "He runs.", "He sings.", "He sleeps."), strict=True))
    listed = "".join(f"{letter}. {text}\n" for letter, text in texts.items()) if is_choice else ""
    row = {"id": n, "video_path": f"video/set/{n}.mp4", "duration": (30, 200, 900)[n % 3]}
    row |= {"dimension": "Video Plot Analysis", "question": f"What happens in {n}?{listed}"}
    row |= {"multiple-choice": is_choice, "choices": texts if is_choice else dict.fromkeys("ABCD", "")}
    return row | {"answer": answer, "reasoning": ["1. 0:01-0:05, he comes.", "2. Thus he runs."]} | changes


def minerva(n: int, **changes: Any) -> dict[str, Any]:
    row = {"key": f"k{n}", "video_id": f"v{n}", "question": "Who wins?", "answer": "team 2", "answer_id": 2}
    row |= {f"answer_choice_{place}": f"team {place}" for place in range(5)}
    return (
        row | {"reasoning": "At 0:05.", "split": "x", "category": "sport", "question type": "goal"} | changes
    )


CAUSALVQA = (
    "qid,type,question,choices1,choices2,correct1,correct2,difficulty,renamed_video\n"
    'q1,causal,"Why, then?",1. it fell|2. it was pushed,1. x|2. y,2,1,hard,a.mp4\n'
    "q2,planning,Why?,1. it fell|2. it was pushed,1. x|2. y,1,1,easy,b.mp4\n"
)


def write_json(path: Path, rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
