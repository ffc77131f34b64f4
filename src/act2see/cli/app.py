"""Assembles the commands, and handles errors, logging and Ctrl-C for all of them."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from act2see.cli import (
    ask,
    calibrate,
    config,
    corpus,
    demo,
    doctor,
    download,
    eval,
    find,
    gc,
    micro,
    report,
    serve,
    sft,
    trace,
    ui,
)
from act2see.cli.help import Group, set_classes
from act2see.cli.output import WAITING, check_words, complain, interrupted, quieten
from act2see.errors import Act2SeeError, WaitingError
from act2see.tools.runtime.faults import to_user_error


class _Commands(Group):
    """The group of all commands. An error ends the process with one line and an exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line, after checking that all its words are text."""
        with _report_errors(ctx):
            check_words(args)
            parsed: list[str] = super().parse_args(ctx, args)
            return parsed

    def invoke(self, ctx: Any) -> Any:
        with _report_errors(ctx):
            return super().invoke(ctx)


@contextmanager
def _report_errors(ctx: Any) -> Iterator[None]:
    """Print an expected error or a usage error as one line, and exit with code 2.

    A run that waits for a person has not failed: its line does not begin with `error:`, and the code is 3.
    """
    try:
        yield
    except WaitingError as e:
        complain(str(e), label="waiting")
        raise typer.Exit(WAITING) from e
    except Act2SeeError as e:
        complain(str(e))
        raise typer.Exit(2) from e
    except typer.Exit:
        raise  # a command in a group has printed its error
    except KeyboardInterrupt:
        raise interrupted() from None
    except OSError as e:
        error = None if e.errno == errno.EPIPE else to_user_error(e)
        if error is None:
            raise  # stdout was closed by its reader, or this is a bug
        complain(str(error))
        raise typer.Exit(2) from e
    except Exception as e:
        message = _usage_error(e)
        # Libraries have errors of their own for full and read-only disks.
        if message is None and (error := to_user_error(e)):
            complain(str(error))
            raise typer.Exit(2) from e
        if message is None:
            raise
        path = getattr(getattr(e, "ctx", None) or ctx, "command_path", "act2see")
        complain(f"{message}; see {path} --help")
        raise typer.Exit(2) from e


def _usage_error(error: Exception) -> str | None:
    """Return the message of a usage error; None for any other error.

    Usage errors are recognized by their method, because Typer has a private copy of Click. Typer itself
    handles `NoArgsIsHelpError`, by printing the help.
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
app.command("calibrate")(calibrate.calibrate)
app.command("eval")(eval.evaluate)
app.command("report")(report.report)
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
app.command("gc")(gc.gc)
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
    verbose: Annotated[bool, typer.Option("--verbose", help="Log progress to stderr.")] = False,
) -> None:
    """Ask questions about videos. While it reasons, the model looks at the video again or imagines frames.

    Start with [bold]act2see demo[/bold], which works offline with small models, or with
    [bold]act2see doctor[/bold], which checks what is installed and what is missing.
    """
    quieten(verbose)
