"""Whether this host can give jails networks, and which of its own rules are in the way.

Owns: the findings about networks.  Out of scope: all others (`jailrun.server.check`); where the
rules are followed (`jailrun.net.policy`).

Nothing here keeps jails from running: without networks they run with ``--net none``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jailrun.errors import JailError
from jailrun.net import definition, networks, nft, policy, resolver
from jailrun.server.finding import Finding, install

if TYPE_CHECKING:
    from collections.abc import Iterator


def check_networks() -> Iterator[Finding]:
    """Yield what is found of the packet filter, the resolver, and each network that is defined."""
    try:
        nft.query("list tables")
    except JailError as error:
        detail = f"{error.message}; jails have no networks with a bridge"
        yield Finding("nftables", "warning", detail, error.hint or install("libnftables1"))
    else:
        yield Finding("nftables", "ok", "keeps networks apart, publishes ports")
    if resolver.find_program():
        yield Finding("dnsmasq", "ok", "tells jails one another's names")
    else:
        detail = "dnsmasq is not there: jails have no networks with a bridge"
        yield Finding("dnsmasq", "warning", detail, install("dnsmasq-base"))
    for name in definition.list_names():
        yield from check_network(name)


def check_network(name: str) -> Iterator[Finding]:
    """Yield what is in the way of a network, or that nothing is."""
    subject = f"network {name}"
    try:
        found = definition.load(name)
        state = networks.read_state(found)
        blocks = policy.find_blocks(found) if found["driver"] == "bridge" else []
    except JailError as error:
        yield Finding(subject, "warning", error.message, error.hint or "")
        return
    if state == "damaged":
        detail = "its bridge or its rules of the firewall are gone: nothing keeps its jails apart"
        yield Finding(subject, "warning", detail, "jailrun repair")
    elif not blocks:
        yield Finding(subject, "ok", "no rule of the host is in its way")
    for block in blocks:
        detail = f"{block['what']} stops {', '.join(block['stops'])}"
        yield Finding(subject, "warning", detail, "; ".join(block["advice"]))
