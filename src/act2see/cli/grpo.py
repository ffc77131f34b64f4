"""`act2see grpo`: teach the reasoner when to call, from its own rollouts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from act2see.cli.corpus import Source, draw_samples
from act2see.cli.options import ConfigFile, Preset, chosen_config
from act2see.cli.output import err, say
from act2see.trace.console import plain

if TYPE_CHECKING:
    from act2see.training.grpo import Round


def grpo(
    source: Annotated[
        Source, typer.Argument(help="Whose questions; `world` is the board world, which needs no file.")
    ],
    file: Annotated[Path | None, typer.Argument(help="The data set's own file.")] = None,
    to: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the model goes.")] = Path("grpo"),
    videos: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the videos are; by default beside the file.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="At most so many questions to draw from.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Gradient steps.")] = 12,
    questions: Annotated[int, typer.Option(min=1, help="Questions a round.")] = 8,
    group: Annotated[int, typer.Option(min=2, help="Rollouts of each question.")] = 4,
    learning_rate: Annotated[float, typer.Option(help="For the 8B model about 1e-6.")] = 5e-5,
    call_cost: Annotated[
        float, typer.Option(min=0, help="What a call takes from the reward; a right answer earns 1.")
    ] = 0.05,
    temperature: Annotated[float, typer.Option(help="Of the rollouts.")] = 1.0,
    seed: Annotated[int, typer.Option(help="The seed of the draws.")] = 0,
    preset: Preset = None,
    config: ConfigFile = None,
) -> None:
    """Let the config's reasoner answer questions several times each, and make what earned more likelier. All
    its weights learn."""
    from act2see.errors import ConfigError
    from act2see.tools.runtime.files import check_folder
    from act2see.tools.runtime.memory import retain_freed_memory
    from act2see.training.corpus.sources import Tally
    from act2see.training.grpo import GrpoSettings, Reward, train_folder

    check_folder(to, "config.json")
    chosen = chosen_config(preset, config)
    if chosen.reasoner.use != "transformers" or chosen.reasoner.adapter:
        raise ConfigError(
            "GRPO learns a local model: give a config with `use: transformers` and no adapter (merge it first)"
        )
    tally = Tally()
    samples = draw_samples(source, file, videos, count, True, seed, to, tally)
    for problem in tally.problems:
        err().print(plain(str(problem), "yellow"), soft_wrap=True)
    settings = GrpoSettings(
        rounds=rounds,
        questions=questions,
        group=group,
        learning_rate=learning_rate,
        temperature=temperature,
        seed=seed,
        reward=Reward(call=call_cost),
    )

    def show(r: Round) -> None:
        say(
            f"round {r.number + 1} of {rounds}: reward {r.reward:.3f}, {r.accuracy:.0%} right, {r.calls:.2f} calls a question"
        )

    retain_freed_memory()
    train_folder(to, samples, chosen, settings, show)
    say(f"in {to}: name it as `reasoner: {{weights: {to}}}` in a config file")
