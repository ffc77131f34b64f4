"""The commands, put together, and what all of them share: errors in one line, logging, Ctrl-C."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from act2see.cli import ask, config, corpus, demo, doctor, download, find, micro, serve, sft, trace, ui
from act2see.cli.help import Group, set_classes
from act2see.cli.output import check_words, complain, interrupted, quieten
from act2see.errors import Act2SeeError
from act2see.tools.runtime.faults import to_user_error


class _Commands(Group):
    """The commands; their errors end the process with one line and an exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Check that the words are text before anything else is done with them."""
        with _report_errors(ctx):
            check_words(args)
            parsed: list[str] = super().parse_args(ctx, args)
            return parsed

    def invoke(self, ctx: Any) -> Any:
        with _report_errors(ctx):
            return super().invoke(ctx)


@contextmanager
def _report_errors(ctx: Any) -> Iterator[None]:
    """Print expected errors, and those of the command line, as one line each, and exit with code 2."""
    try:
        yield
    except Act2SeeError as e:
        complain(str(e))
        raise typer.Exit(2) from e
    except KeyboardInterrupt:
        raise interrupted() from None
    except OSError as e:
        error = None if e.errno == errno.EPIPE else to_user_error(e)
        if error is None:
            raise  # the reader of stdout has gone, or it is a bug
        complain(str(error))
        raise typer.Exit(2) from e
    except Exception as e:
        message = _usage_error(e)
        if message is None:
            raise
        path = getattr(getattr(e, "ctx", None) or ctx, "command_path", "act2see")
        complain(f"{message}; see {path} --help")
        raise typer.Exit(2) from e


def _usage_error(error: Exception) -> str | None:
    """Return the message of an error of the command line; None for any other error.

    Typer has its own copy of Click, whose exceptions have no public names. One of them, without a message,
    makes Typer print the help.
    """
    format_message = getattr(error, "format_message", None)
    if format_message is None or "NoArgs" in type(error).__name__:
        return None
    return str(format_message()).replace("Value error, ", "").rstrip(".")


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
app.command("grpo")(sft.grpo)
app.command("mcp")(serve.mcp)
app.command("ui")(ui.ui)
app.add_typer(serve.app, name="serve")
app.command("doctor")(doctor.doctor)
app.command("download")(download.download)
app.command("demo")(demo.demo)
set_classes(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from act2see import __version__

        typer.echo(f"act2see {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log to stderr what happens.")] = False,
) -> None:
    """Ask questions about a video; the model looks again, or imagines a frame, while it reasons.

    Start with [bold]act2see demo[/bold] (small models, offline) or [bold]act2see doctor[/bold] (what is
    installed, what is missing).
    """
    quieten(verbose)
