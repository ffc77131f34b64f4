"""`act2see demo`: answers questions about sample clips with the models in the package.

It writes one clip of each family of questions, and treats it like any other video.
"""

from __future__ import annotations

import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from act2see.cli.options import chosen_config
from act2see.cli.output import ask_command, out, program, say

if TYPE_CHECKING:
    from act2see.micro.questions import Family, Item

# Indices in the test split: the first item of each family that needs the family's tools; the first item of
# `observe` that needs none.
ITEMS: tuple[tuple[Family, int], ...] = (("observe", 1), ("blink", 0), ("imagine", 3), ("both", 1))
ABOUT = "Each page shows one chain of thought, with every frame that was retrieved or imagined."


def demo(
    to: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder for clips and pages.")] = Path(
        "act2see-demo"
    ),
) -> None:
    """Answer one question about each of four sample clips, and write a web page for each.

    Needs no download, no network and no GPU: it uses the small models in the package.
    """
    from act2see.cli.runs import run_until_done
    from act2see.graphs.ask import create_act2see
    from act2see.graphs.parts import cached_parts
    from act2see.graphs.run import aask
    from act2see.micro.questions import make_item
    from act2see.tools.runtime.files import write_text
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
        clip = _write_clip(item, to)
        say(f"\n{family}", "bold magenta")
        say(question_lines(Question(text=item.text, options=item.options)), prose=True)
        chain = ChainPrinter(out(), loads=not entries)  # the first question loads the models
        trace = run_until_done(aask(graph, clip, item.text, item.options, on_event=chain.event))
        say(answer_lines(trace), prose=True)
        is_right = trace.choice == item.answer
        if is_right:
            say("right", "bold green")
        else:
            say(f"wrong: it is {item.answer}", "bold red")
        page = f"{family}.html"
        write_text(to / page, trace_html(trace, store, back="index.html"))
        entries.append(Entry(trace, page, "right" if is_right else f"wrong, it is {item.answer}"))
    index_page = to / "index.html"
    write_text(index_page, index_html("act2see demo", ABOUT, entries, store))
    say(f"\nThe pages are written. Open the first in a browser: {index_page.absolute()}")
    _suggest_commands(to)


def _write_clip(item: Item, to: Path) -> Path:
    from act2see.micro.world import write_clip
    from act2see.tools.runtime.files import whole_file

    clip = to / "clips" / f"{item.family}.mp4"
    with whole_file(clip) as new:
        write_clip(item.clip, new)
    return clip


def _suggest_commands(to: Path) -> None:
    """Print next commands that can be copied and run from the current folder."""
    from act2see.micro.questions import make_item

    family, index = ITEMS[1]
    item = make_item(family, index, "test")
    clip = to / "clips" / f"{family}.mp4"
    say("\nAsk a question yourself:", "bold")
    say(f"  {ask_command(clip, item.text, item.options)}")
    say("Find frames:", "bold")
    say(f"  {program()} {shlex.join(['find', str(clip), 'a shape blinks'])}")
    if find_spec("gradio"):
        say("Do the same in a browser (Ctrl-C stops it):", "bold")
        say(f"  {program()} ui")
    say("Check what your own videos need, and what is missing:", "bold")
    say(f"  {program()} doctor --preset laptop")
