"""Verbs that change what jails do: stop, kill, pause, resume, wait, rm.

Owns: their options and what they print.  Out of scope: `update`, which has a module of its own;
what they do (`jailrun.engine.lifecycle`, `jailrun.server.stopping`).
"""

from __future__ import annotations

from typing import Annotated

import typer

from jailrun.cli import output
from jailrun.cli.complete import complete_any, complete_running
from jailrun.engine import lifecycle
from jailrun.errors import JailError, NotFoundError
from jailrun.server import stopping
from jailrun.units import parse_duration

Running = Annotated[
    list[str],
    typer.Argument(metavar="NAME…", help="Jails.", autocompletion=complete_running),
]
Any = Annotated[
    list[str],
    typer.Argument(metavar="NAME…", help="Jails.", autocompletion=complete_any),
]


def stop(
    names: Running,
    time: Annotated[
        str,
        typer.Option("--time", "-t", metavar="SECONDS", help="Wait so long, then kill."),
    ] = "10",
    signal: Annotated[
        str | None,
        typer.Option(
            "--signal", "-s", metavar="SIGNAL", help="Ask with this signal, not the image's."
        ),
    ] = None,
) -> None:
    """Stop jails: ask them to end, and kill those that do not.

    The signal is the one that the image names, or TERM.  A first process that has not arranged
    to get it never will (the kernel sees to that), and is killed at once; with --init the
    jail's own small init passes signals on.

    \b
    Examples:
      jailrun stop web
      jailrun stop --time 60 db1 db2
    """
    seconds = parse_duration(time, "--time") / 1_000_000
    number = None if signal is None else stopping.parse_signal(signal)
    output.for_each(names, lambda name: stopping.stop(name, seconds=seconds, number=number))


def kill(
    names: Running,
    signal: Annotated[
        str, typer.Option("--signal", "-s", metavar="SIGNAL", help="Name or number.")
    ] = "KILL",
    all_processes: Annotated[
        bool,
        typer.Option("--all-processes", help="Send it to every process, not to the first alone."),
    ] = False,
) -> None:
    """Send a signal to jails, SIGKILL without further words.

    Their first process gets it, or all of them with --all-processes.

    \b
    Examples:
      jailrun kill web
      jailrun kill --signal HUP web
    """
    number = stopping.parse_signal(signal)
    output.for_each(names, lambda name: lifecycle.signal(name, number, everyone=all_processes))


def pause(names: Running) -> None:
    """Freeze every process of jails where it is.

    \b
    Example:
      jailrun pause web
    """
    output.for_each(names, lifecycle.pause)


def resume(names: Running) -> None:
    """Let paused jails go on.

    \b
    Example:
      jailrun resume web
    """
    output.for_each(names, lifecycle.resume)


def wait(names: Any) -> None:
    """Wait for the end of jails and print their exit status.

    It is 128+n where signal n ended the jail, and 255 where nobody was there to see its end.

    \b
    Example:
      jailrun wait job
    """
    output.for_each(names, lambda name: output.write_line(str(_wait(name))), show=False)


def _wait(name: str) -> int:
    try:
        return lifecycle.wait(name)
    except FileNotFoundError as error:
        raise NotFoundError(f"jail {name} was removed before its exit status was read") from error


def rm(
    names: Any,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Kill those that run, first.")
    ] = False,
) -> None:
    """Remove stopped jails with their files and logs.

    \b
    Examples:
      jailrun rm job1 job2
      jailrun rm --force web
    """
    output.for_each(names, lambda name: _remove(name, force=force))


def _remove(name: str, *, force: bool) -> None:
    try:
        output.print_warnings(lifecycle.delete(name, force=force))
    except FileNotFoundError as error:
        raise JailError(f"cannot remove jail {name}: someone else is removing it") from error
