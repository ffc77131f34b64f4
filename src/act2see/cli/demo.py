"""`act2see demo`: the main job from end to end, on the models in the package.

One clip of each family is written, indexed and asked about as any other video would be; nothing is prepared.
"""

from __future__ import annotations

import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from act2see.cli.output import out, program, say

if TYPE_CHECKING:
    from act2see.micro.questions import Family

# Of the test split: the first item of each family that needs its tools, and for *observe* the first that
# needs none.
ITEMS: tuple[tuple[Family, int], ...] = (("observe", 1), ("blink", 0), ("imagine", 3), ("both", 1))
ABOUT = "Each page shows one chain of thought, with every frame that was retrieved or imagined."


def demo(
    to: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where clips and pages go.")] = Path(
        "act2see-demo"
    ),
) -> None:
    """Ask four questions of four clips with the models in the package, and write a page for each."""
    from act2see.cli.options import chosen_config
    from act2see.cli.runs import run_until_done
    from act2see.graphs.ask import create_act2see
    from act2see.graphs.parts import cached_parts
    from act2see.graphs.run import aask
    from act2see.micro.questions import make_item
    from act2see.micro.world import write_clip
    from act2see.tools.runtime.files import whole_file, write_text
    from act2see.trace.overview import Entry, index_html
    from act2see.trace.page import trace_html
    from act2see.trace.record import Question
    from act2see.trace.terminal import ChainPrinter, answer_lines, question_lines

    config = chosen_config(None, None)
    graph = create_act2see(config)
    store = cached_parts(config).resources.store
    entries: list[Entry] = []
    for family, index in ITEMS:
        item = make_item(family, index, "test")
        clip = to / "clips" / f"{family}.mp4"
        with whole_file(clip) as new:
            write_clip(item.clip, new)
        say(f"\n{family}", "bold magenta")
        chain = ChainPrinter(out(), loads=not entries)  # the first question loads the models
        say(question_lines(Question(text=item.text, options=item.options)), prose=True)
        trace = run_until_done(aask(graph, clip, item.text, item.options, on_event=chain.event))
        say(answer_lines(trace), prose=True)
        right = trace.choice == item.answer
        say("right" if right else f"wrong: it is {item.answer}", "bold green" if right else "bold red")
        page = f"{family}.html"
        write_text(to / page, trace_html(trace, store, back="index.html"))
        entries.append(Entry(trace, page, "right" if right else f"wrong, it is {item.answer}"))
    write_text(to / "index.html", index_html("act2see demo", ABOUT, entries, store))
    say(f"\nThe pages are there; open the first in a browser: {(to / 'index.html').absolute()}")
    _say_what_next(to)


def _say_what_next(to: Path) -> None:
    """Commands that can be pasted, wherever this one was started."""
    from act2see.micro.questions import make_item

    family, index = ITEMS[1]
    item = make_item(family, index, "test")
    clip = to / "clips" / f"{family}.mp4"
    options = [word for o in item.options for word in ("--option", o)]
    say("\nAsk by yourself:", "bold")
    say(f"  {program()} {shlex.join(['ask', str(clip), item.text, *options])}")
    say("Find frames:", "bold")
    say(f"  {program()} {shlex.join(['find', str(clip), 'a shape blinks'])}")
    if find_spec("gradio"):
        say("Do the same in a browser; Ctrl-C ends it:", "bold")
        say(f"  {program()} ui")
    say("Ask about videos of your own: what that needs, and what is here:", "bold")
    say(f"  {program()} doctor --preset laptop")
