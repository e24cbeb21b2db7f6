"""The verb repair: put right what crashes, reboots and other hands have left.

Owns: how it is told.  Out of scope: doing it (`jailrun.server.repair`).
"""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from jailrun.cli import output
from jailrun.server import repair as repairs


def repair(
    format: Annotated[
        Literal["table", "json"], typer.Option("--format", help="How to print it.")
    ] = "table",
) -> None:
    """Put right what a crash or a change by hand has left.

    Jails that nobody will finish are removed; bridges, rules and resolvers that jails which run
    have lost are made again; addresses, user ids and files of nobody are freed.  What was done is
    printed, a line each.  To do it twice does no harm.

    \b
    Example:
      jailrun repair
    """
    done = repairs.repair()
    if format == "json":
        output.write_json(done)
        return
    for line in done or ["nothing to mend"]:
        output.write_line(output.clean(line))
