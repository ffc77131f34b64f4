"""The commands, put together; what holds for all of them: errors in one line, logging, Ctrl-C."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from act2see.cli import ask, config, corpus, demo, doctor, download, find, grpo, mcp, micro, serve, sft, trace, ui
from act2see.cli.output import INTERRUPTED, complain, quieten
from act2see.errors import Act2SeeError


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Act2SeeError as e:
            complain(str(e))
            raise typer.Exit(2) from e
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
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


def _version(wanted: bool) -> None:
    if wanted:
        from act2see import __version__

        typer.echo(f"act2see {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log what happens to stderr.")] = False,
) -> None:
    """Ask questions about a video; the model looks again, or imagines a frame, while it reasons.

    Begin with [bold]act2see demo[/bold] (small models, offline) or [bold]act2see doctor[/bold] (what is here, what is missing).
    """
    quieten(verbose)
