"""Verbs that list: jails (ls), the processes of one (ps).

Owns: their filters, columns and JSON.  Out of scope: one jail in full (`jailrun.cli.inspect`).
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from jailrun.cli import output
from jailrun.cli.complete import complete_running
from jailrun.engine import state
from jailrun.engine.record import load
from jailrun.errors import JailError
from jailrun.server.processes import read_processes
from jailrun.spec.traffic import format_publish
from jailrun.units import format_size_about, show

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jailrun.engine.record import Record

COMMAND_WIDTH = 40
PORTS_WIDTH = 30
STATES = (
    *(state.CREATING, state.CREATED, state.RUNNING, state.PAUSED),
    *(state.STOPPED, state.INCOMPLETE),
)
SHOWN = (state.CREATING, *state.ALIVE)  # without --all

All = Annotated[bool, typer.Option("--all", "-a", help="Also those that are stopped.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Names alone.")]
Filters = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        "-f",
        metavar="KEY=VALUE",
        help="name=PART, status=STATE, label=KEY or label=KEY=VALUE; may be repeated.",
    ),
]
AsFormat = Annotated[Literal["table", "json"], typer.Option("--format", help="How to print it.")]


def ls(
    all: All = False, quiet: Quiet = False, filter: Filters = None, format: AsFormat = "table"
) -> None:
    """List jails.

    Without --all those that run, are paused or are being started.  ADDRESS is the first of those
    that a jail has, PORTS are those of the host that lead to it.

    \b
    Examples:
      jailrun ls
      jailrun ls --all --filter label=tier=db
      jailrun ls --format json
    """
    wanted = Filter(filter or ())
    found = [
        (record, status)
        for record, status in state.list_records()
        if (all or wanted.names_state or status in SHOWN) and wanted.takes(record, status)
    ]
    if quiet:
        for record, _status in found:
            output.write_line(record.name)
    elif format == "json":
        output.write_json([describe(record, status) for record, status in found])
    else:
        headings = ("NAME", "IMAGE", "STATUS", "PID", "ADDRESS", "PORTS", "CREATED", "COMMAND")
        output.write_table(headings, [_row(record, status) for record, status in found])


def ps(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="The jail; without it, as ls.", autocompletion=complete_running
        ),
    ] = None,
    all: All = False,
    quiet: Quiet = False,
    filter: Filters = None,
    format: AsFormat = "table",
) -> None:
    """List the processes of a jail; without a name, jails.

    PID is a process's number on the host, INSIDE the one in the jail, USER its user id there.

    \b
    Examples:
      jailrun ps web
      jailrun ps
    """
    if name is None:
        ls(all, quiet, filter, format)
        return
    if all or filter:
        raise JailError(
            "--all and --filter are for lists of jails, not for one jail",
            hint=f"jailrun ps {name}, or: jailrun ps --all",
        )
    processes = read_processes(load(name))
    if quiet:
        for process in processes:
            output.write_line(str(process.pid))
    elif format == "json":
        output.write_json([vars(process) for process in processes])
    else:
        rows = [
            (
                str(process.pid),
                "-" if process.jail_pid is None else str(process.jail_pid),
                "-" if process.uid is None else str(process.uid),
                process.state,
                format_size_about(process.memory_bytes),
                format_cpu(process.cpu_seconds),
                shlex.join(process.command) if process.command else f"[{process.name}]",
            )
            for process in processes
        ]
        output.write_table(("PID", "INSIDE", "USER", "STATE", "RSS", "TIME", "COMMAND"), rows)


class Filter:
    """What ``--filter`` asks for: of one key any value will do, but labels are all needed."""

    def __init__(self, words: Sequence[str]) -> None:
        self.names: list[str] = []
        self.states: list[str] = []
        self.labels: list[str] = []
        kinds = {"name": self.names, "status": self.states, "label": self.labels}
        for word in words:
            key, equals, value = word.partition("=")
            if key not in kinds or not equals or not value:
                raise JailError(
                    f"--filter {show(word)} is not valid",
                    hint="write name=PART, status=STATE, label=KEY or label=KEY=VALUE",
                )
            # docker's word for it
            kinds[key].append(state.STOPPED if word == "status=exited" else value)
        for value in self.states:
            if value not in STATES:
                raise JailError(
                    f"--filter status={value}: there is no such state",
                    hint=f"the states are {', '.join(STATES)}",
                )

    @property
    def names_state(self) -> bool:
        """Whether it says which states are wanted."""
        return bool(self.states)

    def takes(self, record: Record, status: str) -> bool:
        """Return whether a jail is wanted."""
        return (
            (not self.states or status in self.states)
            and (not self.names or any(part in record.name for part in self.names))
            and all(_has_label(record, label) for label in self.labels)
        )


def _has_label(record: Record, wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in record.labels and (not equals or record.labels[key] == value)


def _if_readable(read: Callable[[], Any]) -> Any:
    """Return what ``read`` returns; None for a jail that is removed meanwhile, or half-made."""
    try:
        return read()
    except (OSError, ValueError):
        return None


def read_command(record: Record) -> list[str]:
    """Return the command line of a jail's payload; empty where its config is not there yet."""
    config = _if_readable(record.read_config) or {}
    command: list[str] = config.get("process", {}).get("args") or []
    return command


def describe(record: Record, status: str) -> dict[str, Any]:
    """Return a jail as one entry of the JSON list."""
    return {
        "name": record.name,
        "image": record.image,
        "status": status,
        "pid": record.pid if status in state.ALIVE else None,
        "exit_status": record.status,
        "created": output.format_time(record.created),
        "started": output.format_time(record.started),
        "finished": output.format_time(record.finished),
        "command": read_command(record),
        "labels": record.labels,
        "addresses": read_addresses(record),
        "ports": read_ports(record),
    }


def read_addresses(record: Record) -> list[str]:
    """Return a jail's addresses, IPv4 first; none where it has ended, or is in the host's network.

    A jail in the host's network that is locked to some addresses has those.
    """
    network = record.network
    if not network:
        return []
    nics = network["nics"]
    found = [*(nic["address"] for nic in nics), *network["shared"]]
    found += [device.get("address", "").partition("/")[0] for device in network["devices"]]
    found += [nic["address6"] for nic in nics]
    return [address for address in found if address]


def read_ports(record: Record) -> list[str]:
    """Return a jail's published ports as ``-p`` has them."""
    return [format_publish(port) for port in record.network["publish"]] if record.network else []


def _row(record: Record, status: str) -> tuple[str, ...]:
    shown = status if record.status is None else f"{status} ({record.status})"
    return (
        record.name,
        record.image or "-",
        shown,
        str(record.pid) if status in state.ALIVE else "-",
        "".join(read_addresses(record)[:1]) or "-",
        output.shorten(", ".join(read_ports(record)), PORTS_WIDTH) or "-",
        output.format_age(record.created) if record.created else "-",
        output.shorten(shlex.join(read_command(record)), COMMAND_WIDTH) or "-",
    )


def format_cpu(seconds: float) -> str:
    """Return used CPU time as ps(1) does, with hundredths below an hour: ``1:02.30``."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02}:{int(rest):02}" if hours else f"{minutes}:{rest:05.2f}"
