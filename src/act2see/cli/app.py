"""The commands, put together; what holds for all of them: errors in one line, logging, Ctrl-C."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from act2see.cli import (
    ask,
    config,
    corpus,
    demo,
    doctor,
    download,
    find,
    grpo,
    mcp,
    micro,
    serve,
    sft,
    trace,
    ui,
)
from act2see.cli.help import Group, set_classes
from act2see.cli.output import check_words, complain, interrupted, quieten
from act2see.errors import Act2SeeError
from act2see.tools.runtime.faults import to_user_error


class _Commands(Group):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Before anything is done with them: the words of the command line are text."""
        with _one_line(ctx):
            check_words(args)
            parsed: list[str] = super().parse_args(ctx, args)
            return parsed

    def invoke(self, ctx: Any) -> Any:
        with _one_line(ctx):
            return super().invoke(ctx)


@contextmanager
def _one_line(ctx: Any) -> Iterator[None]:
    """Errors that we expect, and those of a command line that cannot be read, in a line each."""
    try:
        yield
    except Act2SeeError as e:
        complain(str(e))
        raise typer.Exit(2) from e
    except KeyboardInterrupt:
        raise interrupted() from None
    except OSError as e:
        if e.errno == errno.EPIPE or (theirs := to_user_error(e)) is None:
            raise  # nobody reads any more, or it is a fault of ours
        complain(str(theirs))
        raise typer.Exit(2) from e
    except Exception as e:
        # Typer brings its own copy of click, whose exceptions have no public name. One of them asks for the
        # help.
        said = getattr(e, "format_message", None)
        if said is None or "NoArgs" in type(e).__name__:
            raise
        path = getattr(getattr(e, "ctx", None) or ctx, "command_path", "act2see")
        what = str(said()).replace("Value error, ", "").rstrip(".")
        complain(f"{what}; see {path} --help")
        raise typer.Exit(2) from e


app = typer.Typer(
    name="act2see",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)
app.command("ask")(ask.ask)
app.command("index")(find.index)
app.command("find")(find.find)
app.add_typer(trace.app, name="trace")
app.add_typer(config.app, name="config")
app.add_typer(micro.app, name="micro")
app.add_typer(corpus.app, name="corpus")
app.command("sft", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(sft.sft)
app.command("grpo")(grpo.grpo)
app.command("mcp")(mcp.mcp)
app.command("ui")(ui.ui)
app.add_typer(serve.app, name="serve")
app.command("doctor")(doctor.doctor)
app.command("download")(download.download)
app.command("demo")(demo.demo)
set_classes(app)


def _version(wanted: bool) -> None:
    if wanted:
        from act2see import __version__

        typer.echo(f"act2see {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log what happens to stderr.")] = False,
) -> None:
    """Ask questions about a video; the model looks again, or imagines a frame, while it reasons.

    Begin with [bold]act2see demo[/bold] (small models, offline) or [bold]act2see doctor[/bold] (what is here,
    what is missing).
    """
    quieten(verbose)
