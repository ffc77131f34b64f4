"""Valid files of each kind, which the fuzz loops mutate."""

from __future__ import annotations

import io
import json
from typing import Any

DIGEST = "0123456789abcdef" * 2


def _frame(**provenance: Any) -> dict[str, Any]:
    return {"digest": DIGEST, "width": 48, "height": 48, "seconds": 1.5, "provenance": provenance}


_VIDEO = {
    "path": "clip.mp4",
    "digest": "00",
    "seconds": 4.0,
    "width": 48,
    "height": 48,
    "frames": 48,
    "fps": 12.0,
}
_IMAGINED = _frame(
    kind="generated",
    prompt="red",
    anchor=_frame(kind="initial"),
    seed=1,
    strength=0.5,
    model="m",
    scores=[0.5],
)
_CROPPED = _frame(kind="cropped", query="left", source=_frame(kind="initial"), box=[0.0, 0.0, 0.5, 1.0])
TRACE: dict[str, Any] = {
    "schema_version": 1,
    "id": "a1",
    "video": _VIDEO,
    "question": {"text": "Which?", "options": ["a", "b"]},
    "initial": [_frame(kind="initial")],
    "segments": [
        {"kind": "text", "text": "so "},
        {
            "kind": "call",
            "text": "<generate>red</generate>",
            "tag": "generate",
            "query": "red",
            "outcome": "ok",
        },
        {
            "kind": "frames",
            "tag": "generate",
            "frames": [_IMAGINED, _CROPPED],
            "note": "n",
            "curve": {"start": 0.0, "step": 0.3, "values": [0.1, 0.2]},
            "seconds": 0.1,
            "review": {"decision": "accept", "by": "Ann"},
        },
        {"kind": "answer", "text": "<answer>a</answer>", "body": "a"},
    ],
    "usage": {
        "loops": [{"prefilled": 1, "cached": 0, "decoded": 3, "seconds": 0.1, "stop": "answer"}],
        "node_seconds": {"reason": 0.1},
    },
    "versions": {"act2see": "0.1.0", "reasoner": "vlm", "tools": {"generate": "generate 1"}, "seed": 0},
}
TRACES = [json.dumps(TRACE).encode(), json.dumps(TRACE, separators=(",", ":")).encode()]
_SAMPLE = {
    "id": "s1",
    "source": "jsonl",
    "video": "clip.mp4",
    "question": "Which?",
    "options": ["a", "b"],
    "answer": "a",
    "chain": "I see it",
    "trim": [0.5, 2.0],
    "licence": "CC0",
}
_ATTEMPT = {
    "outcome": "right",
    "answer": "a",
    "seconds": 1.0,
    "cost": {"read": 1, "written": 2, "requests": 1},
}
_CHAIN = {"chains_version": 1, "sample": _SAMPLE, "trace": TRACE, "attempts": [_ATTEMPT], "similarity": 0.5}
CHAINS = [json.dumps(_CHAIN).encode() + b"\n"]
SUBTITLES = [
    b"1\n00:00:01,000 --> 00:00:02,500\nLook at the <i>triangle</i>!\n\n"
    b"2\n00:00:03,000 --> 00:00:04,000\n{\\an8}It blinks.\n",
    b"WEBVTT\n\nNOTE x\n\nopening\n00:01.000 --> 00:02.500 align:start\n<v Ann>Look &amp; see!\n\n"
    b"00:03.000 --> 00:04.000\n<00:03.200>It\n",
    "1\n00:00:01,000 --> 00:00:02,500\nVoil\u00e0\n".encode("utf-16"),
]
_ROW = {"question": "Which?", "answer": "a", "options": ["a", "b"], "chain": "I see", "trim": "0.0-2.0"}
_MINERVA = {
    "key": "k",
    "video_id": "clip",
    "question": "q",
    **{f"answer_choice_{i}": choice for i, choice in enumerate("abcde")},
    "answer_id": "1",
    "reasoning": "r",
}
_GENOME = {
    "qid": "1",
    "vid_name": "clip",
    "q": "Why?",
    **{f"a{i}": choice for i, choice in enumerate("abcd")},
    "answer": "2",
    "chain": "c",
    "ts": "0.0-1.5",
}
CORPORA = {
    "jsonl": b"\n".join(
        json.dumps({"video": name, "id": name, **_ROW}).encode() for name in ("clip.mp4", "clip")
    ),
    "minerva": json.dumps([_MINERVA]).encode(),
    "social-genome": json.dumps([_GENOME]).encode(),
    "causalvqa": b"qid,renamed_video,question,choices1,correct1,rationale\n1,clip,Why?,1. a|2. b,2,so\n",
    "marker": b'{"corpus_version": 1, "act2see": "0.1.0", "name": "x"}',
    "rows": b'{"a": 1}\n\n{"b": [1, 2]}\n',
}


def make_configs() -> list[bytes]:
    """Return config files."""
    from act2see.graphs.config import PRESETS, load_config

    return [
        b"preset: micro\nbudget: {calls: 2}\ntools:\n  retrieve: {options: {top_k: 2}}\n  generate: null\n",
        b"preset: micro\na: &a {x: [1, 2.5, yes, ~]}\nview: &v {fps: 2}\nname: !!str 5\n",
        *(load_config(name).to_yaml().encode() for name in PRESETS[:2]),
    ]


def make_pictures() -> list[bytes]:
    """Return picture files: PNG, JPEG and WebP with EXIF data, and a PNG with a palette."""
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    files = []
    for kind in ("PNG", "JPEG", "WEBP"):
        image.save(out := io.BytesIO(), kind, exif=exif, progressive=True)
        files.append(out.getvalue())
    image.quantize(8).save(out := io.BytesIO(), "PNG", transparency=0)
    return [*files, out.getvalue()]
