"""The verb inspect: all that is known of jails, as JSON.

Owns: what is in it.  Out of scope: images (`jailrun.cli.image`).
"""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any

import typer

from jailrun.cgroups.stats import read_events, stats
from jailrun.cli import output
from jailrun.cli.complete import complete_any
from jailrun.cli.listing import describe
from jailrun.engine.record import load
from jailrun.engine.state import ALIVE, read_status
from jailrun.server.limits import read_limits


def inspect(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME…", help="Jails.", autocompletion=complete_any)
    ],
) -> None:
    """Print all that is known of jails as JSON.

    "limits", "usage" and "events" are read from the kernel while the jail runs; "network" is what
    it has of networks then; "config" is the OCI configuration that it was started from.

    \b
    Example:
      jailrun inspect web
    """
    found: list[dict[str, Any]] = []
    output.for_each(
        names,
        lambda name: found.append(describe_whole(name)),
        show=False,
        after=lambda: output.write_json(found),
    )


def describe_whole(name: str) -> dict[str, Any]:
    """Return a jail as one entry of the JSON list."""
    record = load(name)
    status = read_status(record)
    whole = describe(record, status) | {
        "bundle": record.bundle,
        "log": record.log,
        "writable_layer": record.writable,
        "first_host_id": record.first_id or None,
        "removed_at_end": record.remove,
        "cgroups": record.cgroups,
        "network": record.network,
        "limits": None,
        "usage": None,
        "events": record.events or None,
        "config": None,
    }
    if status in ALIVE:
        whole["limits"] = read_limits(record.cgroups)
        whole["usage"] = stats(record.cgroups)
        whole["events"] = read_events(record.cgroups)
    with suppress(OSError):  # half-made, or removed meanwhile
        whole["config"] = record.read_config()
    return whole
