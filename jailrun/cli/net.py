"""The verbs of networks: create, ls, inspect, rm.

Owns: their options and what they print.  Out of scope: networks (`jailrun.net.networks`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from jailrun.cli import output
from jailrun.cli.complete import complete_network
from jailrun.net import networks
from jailrun.units import parse_integer

Text = str | None
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the network to be.")]
Names = Annotated[
    list[str],
    typer.Argument(metavar="NAME…", help="Networks.", autocompletion=complete_network),
]
MTU_MAX = 65535


def create(
    name: Name,
    subnet: Annotated[
        Text,
        typer.Option("--subnet", metavar="SUBNET", help="IPv4 subnet, or none; else a free one."),
    ] = None,
    ipv6: Annotated[
        Text,
        typer.Option("--ipv6", metavar="SUBNET", help="IPv6 subnet, or none; else a free one."),
    ] = None,
    gateway: Annotated[
        Text,
        typer.Option(
            "--gateway",
            metavar="ADDRESS[,ADDRESS]",
            help="The host's, or the router's, in each subnet; else the first.",
        ),
    ] = None,
    internal: Annotated[
        bool, typer.Option("--internal", help="Its jails reach one another, and nothing else.")
    ] = False,
    driver: Annotated[
        Literal["bridge", "macvlan", "ipvlan", "host-bridge"],
        typer.Option("--driver", "-d", help="How its jails are connected."),
    ] = "bridge",
    parent: Annotated[
        Text,
        typer.Option(
            "--parent", metavar="INTERFACE", help="The host's, for drivers other than bridge."
        ),
    ] = None,
    mtu: Annotated[
        Text, typer.Option("--mtu", metavar="BYTES", help="Size of the largest packet.")
    ] = None,
    isolate: Annotated[
        bool, typer.Option("--isolate", help="Its jails do not reach one another.")
    ] = False,
) -> None:
    """Create a network.

    Its jails reach one another by name, and through the host what is outside, unless options say
    otherwise.  It stays until it is removed, also through a reboot.

    \b
    Examples:
      jailrun net create backend
      jailrun net create --subnet 10.20.0.0/24 --internal db
      jailrun net create --driver macvlan --parent eth0 --subnet 192.0.2.0/24 lan
    """
    bytes_at_most = None if mtu is None else parse_integer(mtu, "mtu", low=68, high=MTU_MAX)
    networks.create(
        name,
        subnet=subnet,
        ipv6=ipv6,
        gateway=gateway,
        internal=internal,
        driver=driver,
        parent=parent,
        mtu=bytes_at_most,
        isolate=isolate,
    )
    output.write_line(name)


def ls(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Names alone.")] = False,
    format: Annotated[
        Literal["table", "json"], typer.Option("--format", help="How to print it.")
    ] = "table",
) -> None:
    """List networks.

    STATE is up; down for one that its first jail will make, as after a reboot of the host; damaged
    where something of it was removed by hand, which the next jail or jailrun repair puts right.
    LINK is the host's interface, JAILS how many jails are in it.

    \b
    Examples:
      jailrun net ls
      jailrun net ls --format json
    """
    found = networks.list_all()
    if quiet:
        for network in found:
            output.write_line(network["name"])
        return
    if format == "json":
        output.write_json(found)
        return
    rows = [
        (
            network["name"],
            network["driver"],
            network["state"],
            network["link"] or network["parent"] or "-",
            network["subnet"] or "-",
            network["subnet6"] or "-",
            str(len(network["members"])),
        )
        for network in found
    ]
    output.write_table(("NAME", "DRIVER", "STATE", "LINK", "IPV4", "IPV6", "JAILS"), rows)


def inspect(names: Names) -> None:
    """Print all that is known of networks as JSON.

    "members" are the jails in it with their addresses, "blocks" the rules of the host's own that
    keep its traffic from passing, and what to type.

    \b
    Example:
      jailrun net inspect default
    """
    found: list[dict[str, Any]] = []
    output.for_each(
        names,
        lambda name: found.append(networks.describe(name)),
        show=False,
        after=lambda: output.write_json(found),
    )


def rm(names: Names) -> None:
    """Remove networks.

    One that a jail is in is kept.  The network default is made again by the next jail that needs
    it.

    \b
    Example:
      jailrun net rm backend
    """
    output.for_each(names, networks.remove)
