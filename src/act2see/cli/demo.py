"""`act2see demo`: answers questions about sample clips with the models in the package.

It writes clips of the board world and treats them like any other video. The questions are put in free words,
as a person would type them; some have options.
"""

from __future__ import annotations

import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from act2see.cli.options import chosen_config
from act2see.cli.output import ask_command, out, program, say

if TYPE_CHECKING:
    from act2see.micro.questions import Family, Item


class Shown(NamedTuple):
    """A question of the demo."""

    family: Family
    number: int
    """The number of the item in the test split."""
    words: str
    """The item's question in free words."""
    options: bool = False


SHOWN = (
    Shown("blink", 0, "hey, which colour does that triangle go when it lights up?"),
    Shown("observe", 1, "And the ring on this board, what color would you call it?", options=True),
    Shown(
        "imagine",
        15,
        "Take the square away and tilt the board to the right: what lands in the middle?",
        options=True,
    ),
    Shown(
        "both",
        1,
        "If someone removed the ring and tipped the board left just as the circle flashes, "
        "which shape would be at west?",
        options=True,
    ),
    Shown("when", 1, "at what time does the cross blink"),
    Shown("beyond", 0, "How many people are in this video?"),
)
OWN = "Where is the triangle at the end?"
"""The question that the demo suggests."""
ABOUT = "Each page shows one chain of thought, with every frame that was retrieved or imagined."


def demo(
    to: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder for clips and pages.")] = Path(
        "act2see-demo"
    ),
) -> None:
    """Answer a question in free words about each of six sample clips, and write a web page for each.

    Needs no download, no network and no GPU: it uses the small models in the package.
    """
    from act2see.cli.runs import run_until_done
    from act2see.graphs.ask import create_act2see
    from act2see.graphs.parts import cached_parts
    from act2see.graphs.run import aask
    from act2see.micro.study.evaluate import AnsweredItem
    from act2see.tools.runtime.files import write_text
    from act2see.trace.overview import Entry, index_html
    from act2see.trace.page import trace_html
    from act2see.trace.record import Question
    from act2see.trace.terminal import ChainPrinter, answer_lines, question_lines

    config = chosen_config(None, None)
    graph = create_act2see(config)
    store = cached_parts(config).resources.store
    entries: list[Entry] = []
    for shown in SHOWN:
        item = item_of(shown)
        family = shown.family
        clip = _write_clip(item, to)
        say(f"\n{family}", "bold magenta")
        say(question_lines(Question(text=item.text, options=item.options)), prose=True)
        chain = ChainPrinter(out(), loads=not entries)  # the first question loads the models
        trace = run_until_done(aask(graph, clip, item.text, item.options, on_event=chain.event))
        say(answer_lines(trace), prose=True)
        is_right = AnsweredItem(item, trace).right
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


def item_of(shown: Shown) -> Item:
    """Return the item of a question, in the demo's words."""
    from dataclasses import replace

    from act2see.micro.questions import make_item

    return replace(make_item(shown.family, shown.number, "test", options=shown.options), text=shown.words)


def item_shown(family: Family) -> Item:
    """Return the demo's first item of a family."""
    return item_of(next(shown for shown in SHOWN if shown.family == family))


def _write_clip(item: Item, to: Path) -> Path:
    from act2see.micro.world import write_clip
    from act2see.tools.runtime.files import whole_file

    clip = to / "clips" / f"{item.family}.mp4"
    with whole_file(clip) as new:
        write_clip(item.clip, new)
    return clip


def _suggest_commands(to: Path) -> None:
    """Print next commands that can be copied and run from the current folder."""
    clip = to / "clips" / f"{SHOWN[0].family}.mp4"
    say("\nAsk a question yourself, in your own words:", "bold")
    say(f"  {ask_command(clip, OWN, ())}")
    say("Find frames:", "bold")
    say(f"  {program()} {shlex.join(['find', str(clip), 'a shape blinks'])}")
    if find_spec("gradio"):
        say("Do the same in a browser (Ctrl-C stops it):", "bold")
        say(f"  {program()} ui")
    say("Check what your own videos need, and what is missing:", "bold")
    say(f"  {program()} doctor --preset laptop")
