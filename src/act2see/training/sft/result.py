"""The inputs and the result of a fine-tuning run, and its model card.

`run.json` holds the `RunInputs`, `sft.json` the `SftResult`, and `README.md` the card: the corpus, the
settings, the losses, the evaluation, and how to load the model.
"""

from __future__ import annotations

import math
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
"""Maximum number of rows in a table of logged figures; longer histories are thinned."""

LIMITS = """\
- The model learnt from the chains of one corpus: it calls tools as often as those chains, on similar
  questions.
- The requested frames come from the tools of the graph. Tools, prompts or initial frames that differ from
  those of the corpus are outside the training data; the prompt must have the style given above.
- A generated frame is imagined. It is marked as such in every trace, and is not evidence of what happened.
- The held-out figures are of a small number of questions with greedy decoding: they show a direction and are
  not a benchmark.
"""


class RunInputs(Record):
    """The inputs of a run, which must be equal when the run is resumed."""

    settings: SftSettings
    samples: str
    """Digest of the samples."""
    processes: int = 1


class SftResult(Record):
    """The result of a run."""

    base: Base
    settings: SftSettings
    corpus: str = ""
    """Name of the corpus."""
    digest: str = ""
    """Digest of the samples."""
    samples: int = 0
    """Number of traces that were trained on."""
    held_out: int = 0
    """Number of traces that were not trained on, and whose questions were asked during training."""
    left_out: tuple[LeftOut, ...] = ()
    tokens: int = 0
    """Number of tokens of all samples."""
    trainable: int = 0
    """Number of tokens that were trained on: those that the model wrote."""
    steps: int = 0
    processes: int = 1
    seconds: float = 0.0
    peak_gib: float | None = None
    """Peak memory of one GPU; None without a GPU."""
    history: tuple[dict[str, float], ...] = ()
    """The Trainer's log: losses, and the metrics of each evaluation."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Package -> version."""
    graph: str = ""
    """Name of the graph that answered questions during training."""
    folder: str = ""
    """The run's folder."""

    @property
    def losses(self) -> list[tuple[int, float]]:
        """The logged losses, as pairs of step and loss."""
        return self.series("loss")

    def series(self, name: str) -> list[tuple[int, float]]:
        """Return pairs of step and value of a logged figure, such as `loss` or `eval_accuracy`."""
        return [(int(entry["step"]), entry[name]) for entry in self.history if name in entry]


def model_card(result: SftResult) -> str:
    """Return the model card: Markdown with the front matter of the Hugging Face hub."""
    base, settings = result.base.name, result.settings
    title = f"A LoRA adapter for `{base}`" if settings.mode != "full" else f"`{base}`, fine-tuned in full"
    settings_yaml = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)
    parts = [
        f"---\n{_front_matter(result)}\n---\n",
        f"# act2see: fine-tuned on {result.corpus or 'a corpus of traces'}\n",
        f"{title}: it calls `retrieve` and `generate` while it thinks, "
        "and continues from the returned frames.\n",
        "## Corpus\n",
        _fact_table(_corpus_facts(result)),
        "## Run\n",
        _fact_table(_run_facts(result)),
        "Settings:\n",
        f"```yaml\n{settings_yaml}```\n",
        "Loss:\n",
        _series(result, ("loss", "mean_token_accuracy", "grad_norm", "learning_rate")),
        "## Held-out questions\n",
        _held_out(result),
        "## Usage\n",
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


def _corpus_facts(result: SftResult) -> list[tuple[str, str]]:
    reasons = Counter(left.why for left in result.left_out)
    share = result.trainable / max(1, result.tokens)
    return [
        ("name", result.corpus or "-"),
        ("digest", f"`{result.digest}`"),
        ("samples trained on", f"{result.samples:,}"),
        ("held out", f"{result.held_out:,}"),
        ("left out", "; ".join(f"{n}: {why}" for why, n in reasons.items()) or "none"),
        ("tokens", f"{result.tokens:,}, {result.trainable:,} of them trained on ({share:.1%})"),
    ]


def _run_facts(result: SftResult) -> list[tuple[str, str]]:
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
        return "No questions were asked during training.\n"
    text = ""
    if asked := result.series("eval_questions"):
        text += f"The graph `{result.graph}` answered {asked[-1][1]:.0f} questions. "
    text += "The call rate is the share of questions with a tool call.\n"
    if failed := sum(n for _, n in result.series("eval_failed")):
        text += f"{failed:.0f} questions failed and count as wrong.\n"
    return f"{text}\n{_series(result, names)}"


def _series(result: SftResult, names: tuple[str, ...]) -> str:
    """Return a table of logged figures, thinned to about `MAX_ROWS` steps with the first and the last one."""
    columns = {}
    for name in names:
        if values := dict(result.series(name)):
            columns[name.removeprefix("eval_").replace("_", " ")] = values
    steps = sorted({step for values in columns.values() for step in values})
    if not steps:
        return "Nothing was logged.\n"
    stride = max(1, math.ceil(len(steps) / MAX_ROWS))
    shown = steps[::stride]
    if shown[-1] != steps[-1]:
        shown.append(steps[-1])
    rows = []
    for step in shown:
        figures = [f"{values[step]:.4g}" if step in values else "" for values in columns.values()]
        rows.append((step, *figures))
    return markdown_table(("step", *columns), rows)


def _fact_table(rows: list[tuple[str, str]]) -> str:
    return markdown_table(("", ""), rows)
