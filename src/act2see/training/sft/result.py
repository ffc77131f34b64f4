"""The model card of a fine-tuning run, written from its result: what was trained, on what, how it went, how
to load it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from act2see.training.sft.finetune import SftResult

ROWS = 24  # of a history; a longer one is thinned

LIMITS = """\
- It learnt to continue the chains of one corpus: it calls a tool as often as they do, for the questions that they ask.
- Frames that it asks for come from the tools of the graph. With other tools, prompts or initial frames than those of the
  corpus it reads something that it was not trained on; the prompt must keep the style given above.
- A generated frame is imagined. It is marked as such in every trace, and is not evidence of what happened.
- Held-out figures are of the few questions named, answered greedily: read them as a direction, not as a benchmark.
"""


def model_card(result: SftResult) -> str:
    """Markdown with the front matter that hubs read."""
    s = result.settings
    adapter = s.mode != "full"
    front = yaml.safe_dump(
        {
            **({} if result.base.name.startswith("micro:") else {"base_model": result.base.name}),
            "library_name": "peft" if adapter else "transformers",
            "pipeline_tag": "video-text-to-text",
            "tags": ["act2see", *(["lora"] if adapter else [])],
        },
        sort_keys=False,
    )
    what = (
        f"A LoRA adapter for `{result.base.name}`" if adapter else f"`{result.base.name}`, fine-tuned in full"
    )
    left = {
        w: sum(x.why == w for x in result.left_out) for w in dict.fromkeys(x.why for x in result.left_out)
    }
    parts = [
        f"---\n{front}---\n\n# act2see: fine-tuned on {result.corpus or 'a corpus of traces'}\n",
        f"{what}: it calls `retrieve` and `generate` while it thinks, and goes on from the frames that come back.\n",
        "## Corpus\n",
        _table(
            [
                ("name", result.corpus or "-"),
                ("digest", f"`{result.digest}`"),
                ("samples trained on", f"{result.samples:,}"),
                ("held out", f"{result.held_out:,}"),
                ("left out", "; ".join(f"{n}: {why}" for why, n in left.items()) or "none"),
                (
                    "tokens",
                    f"{result.tokens:,}, of which {result.learnt:,} learnt ({result.learnt / max(1, result.tokens):.1%})",
                ),
            ]
        ),
        "## Run\n",
        _table(
            [
                (
                    "steps",
                    f"{result.steps:,} of {s.batch * s.accumulate * result.processes} samples, by {result.processes} process(es)",
                ),
                ("time", f"{result.seconds:,.0f} s"),
                *([("peak memory per GPU", f"{result.peak_gib} GiB")] if result.peak_gib is not None else []),
                ("base weights' digest", f"`{result.base.digest or 'unknown'}`"),
                *((f"{name}", ver) for name, ver in result.versions.items()),
            ]
        ),
        "Settings:\n",
        f"```yaml\n{yaml.safe_dump(s.model_dump(mode='json'), sort_keys=False)}```\n",
        "Loss:\n",
        _series(result, ("loss", "mean_token_accuracy", "grad_norm", "learning_rate")),
        "## Held-out questions\n",
        _held_out(result),
        "## Use it\n",
        f"```yaml\n{_config(result)}```\n",
        "    act2see ask clip.mp4 'What happens?' --config act2see.yaml\n",
        "## Limits\n",
        LIMITS,
    ]
    return "\n".join(parts)


def _config(result: SftResult) -> str:
    s = result.settings
    micro = result.base.name.startswith("micro:")
    loads = (
        {"weights": result.base.name, "adapter": result.folder}
        if s.mode != "full"
        else {"weights": result.folder}
    )
    return yaml.safe_dump(
        {"preset": "micro" if micro else "paper", "reasoner": {**loads, "prompt": s.prompt}}, sort_keys=False
    )


def _held_out(result: SftResult) -> str:
    names = ("eval_accuracy", "eval_call_rate", "eval_calls", "eval_loss")
    if not any(result.series(n) for n in names):
        return "None were asked during training.\n"
    asked = result.series("eval_questions")
    graph = f"Through the graph `{result.graph}`, {asked[-1][1]:.0f} questions. " if asked else ""
    text = f"{graph}The call rate is the share of questions for which a tool was called.\n"
    if failed := sum(n for _, n in result.series("eval_failed")):
        text += f"{failed:.0f} questions failed and count as wrong.\n"
    return f"{text}\n{_series(result, names)}"


def _series(result: SftResult, names: tuple[str, ...]) -> str:
    """A table of logged figures by step, thinned to `ROWS`, first and last kept."""
    columns = {n: dict(result.series(n)) for n in names}
    columns = {n: values for n, values in columns.items() if values}
    steps = sorted({step for values in columns.values() for step in values})
    if not steps:
        return "Nothing was logged.\n"
    stride = max(1, -(-len(steps) // ROWS))
    shown = [*steps[::stride], *([] if (len(steps) - 1) % stride == 0 else [steps[-1]])]
    rows = [(str(step), *(f"{v[step]:.4g}" if step in v else "" for v in columns.values())) for step in shown]
    return _table(rows, ("step", *(n.removeprefix("eval_").replace("_", " ") for n in columns)))


def _table(rows: list[tuple[str, ...]], head: tuple[str, ...] = ("", "")) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(r) + " |" for r in rows)]) + "\n"
