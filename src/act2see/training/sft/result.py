"""The inputs and the result of a fine-tuning run, and its model card.

`run.json` holds the `RunInputs`, `sft.json` the `SftResult`, `README.md` the card: what was trained, on what,
how it went, how to load it.
"""

from __future__ import annotations

from collections import Counter

import yaml
from pydantic import Field

from act2see.agent.reasoners.adapters import Base
from act2see.tools.frames import Record
from act2see.tools.runtime.markdown import markdown_table
from act2see.training.sft.samples import LeftOut
from act2see.training.sft.settings import SftSettings

RUN, RESULT, CARD = "run.json", "sft.json", "README.md"
MAX_ROWS = 24
"""Rows of a table of logged figures; longer histories are thinned."""

LIMITS = """\
- It learnt to continue the chains of one corpus: it calls a tool as often as they do, for questions like
  theirs.
- The frames that it asks for come from the tools of the graph. With other tools, prompts or initial frames
  than those of the corpus it reads something that it was not trained on; the prompt must keep the style given
  above.
- A generated frame is imagined. It is marked as such in every trace, and is not evidence of what happened.
- Held-out figures are of the few questions named, answered greedily: read them as a direction, not as a
  benchmark.
"""


class RunInputs(Record):
    """The inputs of a run; it can only be resumed with the same."""

    settings: SftSettings
    samples: str
    """The digest of its samples."""
    processes: int = 1


class SftResult(Record):
    """The result of a run."""

    base: Base
    settings: SftSettings
    corpus: str = ""
    """Its name."""
    digest: str = ""
    """Of the samples."""
    samples: int = 0
    """Traces that were trained on."""
    held_out: int = 0
    """Traces that were kept from training, to be asked during it."""
    left_out: tuple[LeftOut, ...] = ()
    tokens: int = 0
    trainable: int = 0
    """Tokens that were trained on: those that the model wrote."""
    steps: int = 0
    processes: int = 1
    seconds: float = 0.0
    peak_gib: float | None = None
    """Of the memory of one GPU; None without a GPU."""
    history: tuple[dict[str, float], ...] = ()
    """The Trainer's log: losses, and metrics for the steps at which the model was evaluated."""
    versions: dict[str, str] = Field(default_factory=dict)
    """By package."""
    graph: str = ""
    """The name of the graph that was asked during training."""
    folder: str = ""

    @property
    def losses(self) -> list[tuple[int, float]]:
        """By step."""
        return self.series("loss")

    def series(self, name: str) -> list[tuple[int, float]]:
        """A logged figure by step: `loss`, `eval_accuracy`, `eval_call_rate`, ..."""
        return [(int(entry["step"]), entry[name]) for entry in self.history if name in entry]


def model_card(result: SftResult) -> str:
    """Markdown with the front matter that hubs read."""
    base, settings = result.base.name, result.settings
    title = f"A LoRA adapter for `{base}`" if settings.mode != "full" else f"`{base}`, fine-tuned in full"
    settings_yaml = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)
    parts = [
        f"---\n{_front_matter(result)}\n---\n",
        f"# act2see: fine-tuned on {result.corpus or 'a corpus of traces'}\n",
        f"{title}: it calls `retrieve` and `generate` while it thinks, "
        "and continues from the frames that come back.\n",
        "## Corpus\n",
        _facts(_corpus(result)),
        "## Run\n",
        _facts(_run(result)),
        "Settings:\n",
        f"```yaml\n{settings_yaml}```\n",
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


def _front_matter(result: SftResult) -> str:
    from huggingface_hub import ModelCardData

    is_adapter = result.settings.mode != "full"
    return ModelCardData(
        base_model=None if _is_micro(result) else result.base.name,
        library_name="peft" if is_adapter else "transformers",
        pipeline_tag="video-text-to-text",
        tags=["act2see", "lora"] if is_adapter else ["act2see"],
    ).to_yaml()


def _is_micro(result: SftResult) -> bool:
    return result.base.name.startswith("micro:")


def _corpus(result: SftResult) -> list[tuple[str, str]]:
    reasons = Counter(left.why for left in result.left_out)
    share = result.trainable / max(1, result.tokens)
    return [
        ("name", result.corpus or "-"),
        ("digest", f"`{result.digest}`"),
        ("samples trained on", f"{result.samples:,}"),
        ("held out", f"{result.held_out:,}"),
        ("left out", "; ".join(f"{n}: {why}" for why, n in reasons.items()) or "none"),
        ("tokens", f"{result.tokens:,}, of which {result.trainable:,} trained on ({share:.1%})"),
    ]


def _run(result: SftResult) -> list[tuple[str, str]]:
    samples = result.settings.batch * result.settings.accumulate * result.processes
    rows = [
        ("steps", f"{result.steps:,} of {samples} samples, by {result.processes} process(es)"),
        ("time", f"{result.seconds:,.0f} s"),
    ]
    if result.peak_gib is not None:
        rows.append(("peak memory per GPU", f"{result.peak_gib} GiB"))
    rows.append(("base weights' digest", f"`{result.base.digest or 'unknown'}`"))
    rows += result.versions.items()
    return rows


def _config(result: SftResult) -> str:
    if result.settings.mode == "full":
        reasoner = {"weights": result.folder}
    else:
        reasoner = {"weights": result.base.name, "adapter": result.folder}
    reasoner["prompt"] = result.settings.prompt
    preset = "micro" if _is_micro(result) else "paper"
    return yaml.safe_dump({"preset": preset, "reasoner": reasoner}, sort_keys=False)


def _held_out(result: SftResult) -> str:
    names = ("eval_accuracy", "eval_call_rate", "eval_calls", "eval_loss")
    if not any(result.series(name) for name in names):
        return "None were asked during training.\n"
    text = ""
    if asked := result.series("eval_questions"):
        text += f"Through the graph `{result.graph}`, {asked[-1][1]:.0f} questions. "
    text += "The call rate is the share of questions for which a tool was called.\n"
    if failed := sum(n for _, n in result.series("eval_failed")):
        text += f"{failed:.0f} questions failed and count as wrong.\n"
    return f"{text}\n{_series(result, names)}"


def _series(result: SftResult, names: tuple[str, ...]) -> str:
    """A table of logged figures by step, thinned to `MAX_ROWS`, the first and the last step kept."""
    columns = {}
    for name in names:
        if values := dict(result.series(name)):
            columns[name.removeprefix("eval_").replace("_", " ")] = values
    steps = sorted({step for values in columns.values() for step in values})
    if not steps:
        return "Nothing was logged.\n"
    stride = max(1, -(-len(steps) // MAX_ROWS))
    shown = steps[::stride]
    if shown[-1] != steps[-1]:
        shown.append(steps[-1])
    rows = []
    for step in shown:
        figures = [f"{values[step]:.4g}" if step in values else "" for values in columns.values()]
        rows.append((step, *figures))
    return markdown_table(("step", *columns), rows)


def _facts(rows: list[tuple[str, str]]) -> str:
    return markdown_table(("", ""), rows)
