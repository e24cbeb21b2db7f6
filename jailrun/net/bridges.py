"""The host's links, routes and addresses, through pyroute2: bridges of networks, and what is there.

Owns: making, mending and removing the bridge of a network, with its addresses; putting jails' links
back on it; reading what the host has.  A bridge is ours if its alias says so, ``jailrun NAME
<data>``, or, killed before it had one, its MAC, which is derived from the same.  Importing this
costs 150 ms: no start does, but the one that makes the network.  Out of scope: sysctls
(`jailrun.net.forwarding`), packet filters (`jailrun.net.rules`), the links of a start
(`jailrun.net.links`).
"""

from __future__ import annotations

import asyncio
import errno
import os
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from jailrun import paths
from jailrun.errors import NetworkError, UnsupportedError
from jailrun.net.addresses import FAMILIES, Subnet, derive_mac, parse_address, parse_subnet
from jailrun.net.definition import BRIDGE_DRIVERS, DEFAULT
from jailrun.net.subnets import Use

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from jailrun.net.definition import Definition
    from jailrun.net.model import NetworkNic

P = ParamSpec("P")
R = TypeVar("R")

PREFIX = "jailrun"
IFF_UP = 1  # linux/if.h
IFA_F_NODAD = 0x02  # linux/if_addr.h: the address works at once
RT_TABLE_LOCAL = 255  # linux/rtnetlink.h: the host's own addresses
RTN_MULTICAST = 5
MAX_ALIAS = 255  # linux/if.h, IFALIASZ
# A frame is passed on from the first moment on, and to whom it may concern: no listening before,
# no guessing who wants which group (IPv6's neighbour discovery is multicast).
SETTINGS = {"br_stp_state": 0, "br_forward_delay": 0, "br_mcast_snooping": 0}
_PORT = {"IFLA_BRPORT_MODE": "mode", "IFLA_BRPORT_GUARD": "guard"}


def outside_loop(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function in a thread of its own where this one runs an event loop.

    pyroute2 has one itself, which it cannot run within another: we may be called by a program that
    is written with asyncio.
    """

    @wraps(function)
    def call(*args: P.args, **words: P.kwargs) -> R:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return function(*args, **words)
        with ThreadPoolExecutor(1) as threads:
            return threads.submit(function, *args, **words).result()

    return call


class Link:
    """One link of the host."""

    __slots__ = ("address", "alias", "index", "kind", "master", "mtu", "name", "port", "up")

    def __init__(self, message: Any) -> None:
        self.index: int = message["index"]
        self.name: str = message.get_attr("IFLA_IFNAME")
        self.alias: str = message.get_attr("IFLA_IFALIAS") or ""
        self.address: str = message.get_attr("IFLA_ADDRESS") or ""
        self.mtu: int = message.get_attr("IFLA_MTU") or 0
        self.master: int = message.get_attr("IFLA_MASTER") or 0
        self.up = bool(message["flags"] & IFF_UP)
        info = message.get_attr("IFLA_LINKINFO")
        self.kind: str = (info.get_attr("IFLA_INFO_KIND") if info else "") or ""
        port: Any = info.get_attr("IFLA_INFO_SLAVE_DATA") if info else None
        is_port = hasattr(port, "get_attr")
        self.port = {key: is_port and bool(port.get_attr(name)) for name, key in _PORT.items()}


# --- what the host has ---------------------------------------------------------------------------
@outside_loop
def read_links() -> dict[str, Link]:
    """Return the host's links by name."""
    with IPRoute() as routes:
        return _links(routes)


@outside_loop
def read_uses() -> list[Use]:
    """Return the subnets that the host's addresses and routes use, but for default routes."""
    with IPRoute() as routes:
        names = {link.index: link.name for link in _links(routes).values()}
        uses = []
        for version, family in FAMILIES.items():
            for message in routes.get_addr(family=family):
                # IFA_LOCAL is ours where IFA_ADDRESS is the other end of a line between two.
                text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
                name = names.get(message["index"], "?")
                subnet = _cut(version, text, message["prefixlen"])
                what = f"the address {text}/{message['prefixlen']} of this host ({name})"
                uses.append(Use(subnet, what, name))
            for message in routes.get_routes(family=family):
                use = _route_use(version, message, names)
                if use is not None:
                    uses.append(use)
        return uses


def _route_use(version: int, message: Any, names: dict[int, str]) -> Use | None:
    target, length = message.get_attr("RTA_DST"), message["dst_len"]
    is_own = message.get_attr("RTA_TABLE") == RT_TABLE_LOCAL
    if not target or not length or is_own or message["type"] == RTN_MULTICAST:
        return None
    name = names.get(message.get_attr("RTA_OIF") or 0, "")
    where = f" on {name}" if name else ""
    return Use(_cut(version, target, length), f"the route {target}/{length}{where}", name)


def _cut(version: int, address: str, prefix: int) -> Subnet:
    """Return the subnet that an address is in."""
    number, host_bits = parse_address(address)[1], (32 if version == 4 else 128) - prefix
    return Subnet(version, number >> host_bits << host_bits, prefix)


@outside_loop
def read_addresses(link: str) -> list[str]:
    """Return the addresses that the host has on a link."""
    with IPRoute() as routes:
        found = _links(routes).get(link)
        return sorted(_addresses(routes, found.index)) if found else []


def _links(routes: Any) -> dict[str, Link]:
    return {link.name: link for link in map(Link, routes.get_links())}


def _addresses(routes: Any, index: int) -> dict[str, int]:
    """Return address → prefix length."""
    return {
        message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"): message["prefixlen"]
        for family in FAMILIES.values()
        for message in routes.get_addr(family=family, index=index)
    }


# --- the bridge of a network ---------------------------------------------------------------------
def alias(name: str) -> str:
    """Return how the bridge of a network is marked as ours."""
    return f"{PREFIX} {name} {paths.data_dir()}"[:MAX_ALIAS]


def bridge_mac(name: str) -> str:
    """Return the MAC of a network's bridge; without one of its own it changes with its ports."""
    return derive_mac(f"network {name}", paths.data_dir())


def is_ours(link: Link, name: str) -> bool:
    """Tell whether a link is the bridge of that network."""
    made_by_us = link.alias == alias(name) or (not link.alias and link.address == bridge_mac(name))
    return link.kind == "bridge" and made_by_us


@outside_loop
def choose_link(name: str, taken: Iterable[str]) -> str:
    """Return the name for a network's bridge: one that no link and no other network has."""
    with IPRoute() as routes:
        links = _links(routes)
    used = set(taken)
    number = 0 if name == DEFAULT else 1
    while True:
        candidate = f"{PREFIX}{number}"
        link = links.get(candidate)
        if candidate not in used and (link is None or is_ours(link, name)):
            return candidate
        number += 1


@outside_loop
def make(definition: Definition, configure: Callable[[], None]) -> list[str]:
    """Make the bridge of a network, or mend it; return what was done, in words.

    ``configure`` sets its sysctls, between its making and its going up.
    """
    done: list[str] = []
    link = definition["link"]
    try:
        with IPRoute() as routes:
            found = _links(routes).get(link)
            if found is not None and not is_ours(found, definition["name"]):
                raise NetworkError(
                    f"cannot make the bridge {link} of the network {definition['name']}: "
                    "there is a link of that name that is not ours"
                )
            if found is None:
                _add(routes, definition)
                found = _links(routes)[link]
                done.append(f"made the bridge {link}")
            _mend(routes, definition, found, configure, done)
    except NetlinkError as error:
        raise _translate(f"cannot make the bridge {link}", error) from error
    return done


def _add(routes: Any, definition: Definition) -> None:
    extra = {"mtu": definition["mtu"]} if definition["mtu"] else {}
    routes.link(
        "add",
        ifname=definition["link"],
        kind="bridge",
        address=bridge_mac(definition["name"]),
        **SETTINGS,
        **extra,
    )


def _mend(
    routes: Any,
    definition: Definition,
    found: Link,
    configure: Callable[[], None],
    done: list[str],
) -> None:
    link, index, was_there = definition["link"], found.index, not done
    changes: dict[str, Any] = {}
    if found.alias != alias(definition["name"]):
        changes["ifalias"] = alias(definition["name"])
    if found.address != bridge_mac(definition["name"]):
        changes["address"] = bridge_mac(definition["name"])
    if definition["mtu"] and found.mtu != definition["mtu"]:
        changes["mtu"] = definition["mtu"]
    if changes:
        routes.link("set", index=index, **changes)
    configure()
    if was_there:
        routes.link("set", index=index, kind="bridge", **SETTINGS)
    there = _addresses(routes, index)
    for subnet, text in (
        (definition["subnet"], definition["gateway"]),
        (definition["subnet6"], definition["gateway6"]),
    ):
        prefix = parse_subnet(subnet).prefix if text else 0
        if not text or there.get(text) == prefix:
            continue
        if text in there:
            routes.addr("del", index=index, address=text, prefixlen=there[text])
        words = {"flags": IFA_F_NODAD} if ":" in text else {}
        routes.addr("add", index=index, address=text, prefixlen=prefix, **words)
        if was_there:
            done.append(f"gave the bridge {link} its address {text}/{prefix}")
    if not found.up:
        routes.link("set", index=index, state="up")
        if was_there:
            done.append(f"brought the bridge {link} up")


@outside_loop
def remove(definition: Definition) -> None:
    """Remove the bridge of a network; nothing where it is gone, or of somebody else by now."""
    try:
        with IPRoute() as routes:
            found = _links(routes).get(definition["link"])
            if found is not None and is_ours(found, definition["name"]):
                routes.link("del", index=found.index)
    except NetlinkError as error:
        if error.code == errno.ENODEV:
            return
        raise _translate(f"cannot remove the bridge {definition['link']}", error) from error


def list_ours() -> list[tuple[str, str]]:
    """Return the bridges that are marked as ours, as (network, link)."""
    found = ((link, marked_network(link)) for link in read_links().values())
    return sorted((name, link.name) for link, name in found if link.alias == alias(name))


def foreign_bridges() -> list[str]:
    """Return the host's bridges that are not of our networks, those of other instances included."""
    ours = {link for _name, link in list_ours()}
    return [
        link.name
        for link in read_links().values()
        if link.kind == "bridge" and link.name not in ours
    ]


def has_other_instance() -> bool:
    """Tell whether there is a bridge of a jailrun with another data folder."""
    links = read_links().values()
    return any(marked_network(link) and link.alias != alias(marked_network(link)) for link in links)


def marked_network(link: Link) -> str:
    """Return the network whose bridge a link is, of any instance of jailrun; or ""."""
    words = link.alias.split(" ", 2)
    marked = link.kind == "bridge" and len(words) == 3 and words[0] == PREFIX
    return words[1] if marked else ""


@outside_loop
def reattach(nics: Iterable[NetworkNic], *, hairpin: bool = False) -> list[str]:
    """Put the links of running jails back on their bridges; return which.

    ``hairpin``: their jail has published ports, and may call them itself.
    """
    done = []
    try:
        with IPRoute() as routes:
            links = _links(routes)
            for nic in nics:
                link, bridge = links.get(nic["link"]), links.get(nic["bridge"])
                if nic["driver"] not in BRIDGE_DRIVERS or link is None or bridge is None:
                    continue
                guard = nic["driver"] == "host-bridge"
                port = {"mode": hairpin, "guard": guard}
                if link.master == bridge.index and link.port == port:
                    continue
                routes.link("set", index=link.index, master=bridge.index, state="up")
                routes.brport("set", index=link.index, mode=int(hairpin), guard=int(guard))
                done.append(link.name)
    except NetlinkError as error:
        raise _translate("cannot put the links of running jails back", error) from error
    return done


# --- other drivers -------------------------------------------------------------------------------
@outside_loop
def check_parent(name: str, driver: str, parent: str, mtu: int) -> None:
    """Refuse a parent on which there can be no link of that kind; found out by making one."""
    with IPRoute() as routes:
        links = _links(routes)
        found = links.get(parent)
        if found is None:
            raise NetworkError(
                f"cannot make the network {name}: there is no interface {parent!r}",
                hint=f"this host has {', '.join(sorted(links))}",
            )
        if mtu > found.mtu:
            raise NetworkError(
                f"cannot make the network {name}: an MTU of {mtu} is more than that of {parent}, "
                f"{found.mtu}"
            )
        trial = f"jr{os.urandom(5).hex()}"
        mode = {"macvlan_mode": "bridge"} if driver == "macvlan" else {"ipvlan_mode": 0}
        try:
            routes.link("add", ifname=trial, kind=driver, link=found.index, **mode)
        except NetlinkError as error:
            what = f"cannot make the network {name}: no {driver} can be made on {parent}"
            if error.code == errno.EOPNOTSUPP:
                other = "macvlan" if driver == "ipvlan" else "bridge"
                raise UnsupportedError(
                    f"cannot make the network {name}: this kernel has no {driver} "
                    f"(CONFIG_{driver.upper()})",
                    hint=f"load it, where it is a module: modprobe {driver}; "
                    f"or use another: --driver {other}",
                ) from error
            raise _translate(what, error) from error
        routes.link("del", index=_links(routes)[trial].index)


def check_host_bridge(name: str, link: str) -> None:
    """Refuse what is no bridge of the host's own."""
    links = read_links()
    found = links.get(link)
    bridges = sorted(other.name for other in links.values() if other.kind == "bridge")
    hint = f"bridges of this host: {', '.join(bridges)}" if bridges else "this host has no bridge"
    if found is None or found.kind != "bridge":
        what = "is not a bridge" if found else "does not exist"
        raise NetworkError(f"cannot make the network {name}: {link!r} {what}", hint=hint)
    if marked := marked_network(found):
        raise NetworkError(
            f"cannot make the network {name}: {link} is the bridge of the network {marked}",
            hint=f"use that network: --net {marked}",
        )


def _translate(what: str, error: NetlinkError) -> NetworkError:
    hint = None
    if error.code == errno.EPERM:
        hint = "jailrun is run as root"
    elif error.code == errno.EOPNOTSUPP:
        hint = "the kernel lacks it: modprobe bridge, or run the jail with --net none"
    return NetworkError(f"{what}: {os.strerror(error.code)}", hint=hint)
