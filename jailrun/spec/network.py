"""The networks that a jail is to be in, and what is said of them.

Owns: the option ``network``, the order of interfaces, `set_network`, and the rule about networks
(`check_networks`) for any config.  Out of scope: ports and rules (`jailrun.spec.traffic`), files of
names (`jailrun.spec.names`); whether a network exists, has that address and is a bridge
(`jailrun.net`).
"""

from __future__ import annotations

from jailrun.errors import JailError
from jailrun.spec.addresses import (
    IPV4,
    IPV6,
    NOT_ONES_OWN,
    check_interface_name,
    mask_address,
    pack_address,
    parse_address,
    parse_mac,
    parse_with_prefix,
    split_prefix,
)
from jailrun.spec.fields import show_value
from jailrun.spec.names import check_name, check_network_name, dot_sysctl, parse_names
from jailrun.spec.traffic import PORT_MAX, find_clash, is_rule, parse_publishes, parse_rules
from jailrun.units import parse_rate, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from jailrun.spec.extensions import MovedDevice, Nic
    from jailrun.spec.fields import Problem
    from jailrun.spec.model import Config
    from jailrun.spec.request import Request

_NETWORK_HINT = (
    "write none, host, a network's NAME[,ip=…,name=…], jail:NAME, ns:PATH, shared:ADDRESS or "
    "device:INTERFACE"
)
# ping needs no raw socket, and low ports no privilege: there is nobody to protect them from.
PARAMETERS = {
    "net.ipv4.ping_group_range": "0 65535",
    "net.ipv4.ip_unprivileged_port_start": "0",
}
_ALONE = ("none", "private", "host")
_NIC_SETTINGS = ("ip", "ip6", "mac", "rate", "name")
_DEVICE_SETTINGS = ("name", "ip", "gateway")
# Below, a packet of full size takes longer than a connection waits for it.
RATE_MIN = 8000  # bits per second


class Asked:
    """What was asked of the network.

    ``mode``       "own" (a namespace with ``nics`` and ``devices``, or with neither), "host",
                   "shared" (the host's, locked to ``addresses``), "jail" (that of the jail
                   ``other``), "path" (the namespace ``path``)
    """

    __slots__ = ("addresses", "devices", "mode", "nics", "other", "path", "text")

    def __init__(self, mode: str = "own", text: str = "") -> None:
        self.mode = mode
        self.text = text
        self.nics: list[Nic] = []
        self.devices: list[MovedDevice] = []
        self.addresses: list[str] = []
        self.other = ""
        self.path = ""


def parse_networks(texts: str | Sequence[str] | None) -> Asked:
    """Return what the option ``network`` says; nothing is a namespace with loopback alone."""
    listed = [texts] if isinstance(texts, str) else list(texts or ())
    asked = Asked()
    for index, text in enumerate(listed):
        alone = _parse_alone(text)
        if alone is not None:
            if len(listed) > 1:
                raise JailError(
                    f"network {show(text)} cannot be combined with another one",
                    hint="only networks by name and device: can be",
                )
            return alone
        if text.startswith("device:"):
            asked.devices.append(_parse_device(text, index))
        else:
            asked.nics.append(_parse_nic(text, index))
    _refuse_double(asked)
    return asked


def _parse_alone(text: str) -> Asked | None:
    """Return what cannot be combined; None for an interface in a namespace of the jail's own."""
    what = f"network {show(text)}"
    word, colon, rest = text.partition(":")
    if text in _ALONE:
        return Asked("host" if text == "host" else "own", text)
    if text.partition(",")[0] in _ALONE:
        raise JailError(f"{what}: {text.partition(',')[0]} takes no settings", hint=_NETWORK_HINT)
    if text.startswith("/") or (word == "ns" and colon):
        asked = Asked("path", text)
        asked.path = text if text.startswith("/") else rest
        if not asked.path.startswith("/") or "\0" in asked.path:
            raise JailError(f"{what}: the path is not absolute", hint="write ns:/run/netns/NAME")
        return asked
    if word == "jail" and colon:
        asked = Asked("jail", text)
        asked.other = check_name(rest, f"{what}: the jail")
        return asked
    if word == "shared" and colon:
        asked = Asked("shared", text)
        but = ("unspecified", "multicast", "reserved", "IPv4-mapped", "link-local")
        for each in rest.split(","):
            address = parse_address(each, f"{what}: the address", but=but)
            if address in asked.addresses:
                raise JailError(f"{what}: {address} is there twice", hint="write it once")
            asked.addresses.append(address)
        return asked
    if word == "container" and colon:  # docker's word
        raise JailError(f"{what} is not valid", hint=f"write jail:{rest}")
    return None


def _parse_settings(text: str, words: list[str], valid: tuple[str, ...]) -> dict[str, str]:
    settings: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in valid:
            raise JailError(
                f"network {show(text)}: {show(word)} is not a setting of it",
                hint=f"valid: {', '.join(f'{each}=…' for each in valid)}",
            )
        if key in settings:
            raise JailError(f"network {show(text)}: {key} is there twice", hint="write it once")
        settings[key] = value
    return settings


def _parse_nic(text: str, index: int) -> Nic:
    """Return the interface that ``NETWORK[,KEY=VALUE]…`` describes."""
    name, *words = text.split(",")
    check_network_name(name, "network", f"{_NETWORK_HINT}; ")
    settings = _parse_settings(text, words, _NIC_SETTINGS)
    what = f"network {show(text)}:"
    nic: Nic = {"network": name, "name": f"eth{index}"}
    if "name" in settings:
        nic["name"] = check_interface_name(settings["name"], f"{what} name")
    if "ip" in settings:
        nic["address"] = parse_address(settings["ip"], f"{what} ip", IPV4, NOT_ONES_OWN)
    if "ip6" in settings:
        nic["address6"] = parse_address(settings["ip6"], f"{what} ip6", IPV6, NOT_ONES_OWN)
    if "mac" in settings:
        nic["mac"] = parse_mac(settings["mac"], f"{what} mac")
    if "rate" in settings:
        rates = _parse_rates(settings["rate"], f"{what} rate")
        if "in" in rates:
            nic["rate_in"] = rates["in"]
        if "out" in rates:
            nic["rate_out"] = rates["out"]
    return nic


def _parse_rates(text: str, what: str) -> dict[str, int]:
    """Return bytes per second by direction, of ``100mbit`` or ``in:1gbit/out:10mbit``."""
    if ":" not in text:
        return dict.fromkeys(("in", "out"), _parse_rate(text, what))
    rates: dict[str, int] = {}
    for part in text.split("/"):
        direction, colon, rate = part.partition(":")
        if not colon or direction not in ("in", "out") or direction in rates:
            raise JailError(
                f"{what} {show(text)} is not valid", hint="write rate=in:100mbit/out:10mbit"
            )
        rates[direction] = _parse_rate(rate, f"{what} {direction}")
    return rates


def _parse_rate(text: str, what: str) -> int:
    bits = parse_rate(text, what)
    if bits < RATE_MIN:
        raise JailError(f"{what} {show(text)} is too low", hint="write at least 8kbit")
    return bits // 8


def _parse_device(text: str, index: int) -> MovedDevice:
    """Return the interface of the host that ``device:NAME[,KEY=VALUE]…`` describes."""
    device, *words = text.removeprefix("device:").split(",")
    what = f"network {show(text)}:"
    check_interface_name(device, f"{what} interface")
    settings = _parse_settings(text, words, _DEVICE_SETTINGS)
    moved: MovedDevice = {"device": device, "name": f"eth{index}"}
    if "name" in settings:
        moved["name"] = check_interface_name(settings["name"], f"{what} name")
    if "ip" in settings:
        moved["address"] = parse_with_prefix(settings["ip"], f"{what} ip")
    if "gateway" in settings:
        but = tuple(each for each in NOT_ONES_OWN if each != "link-local")
        moved["gateway"] = parse_address(settings["gateway"], f"{what} gateway", but=but)
        _check_gateway(moved, what)
    return moved


def _check_gateway(moved: MovedDevice, what: str) -> None:
    gateway = pack_address(moved["gateway"])
    if "address" not in moved:
        raise JailError(
            f"{what} gateway {moved['gateway']} needs an address to reach it from",
            hint="add ip=ADDRESS/PREFIX",
        )
    address, prefix = split_prefix(moved["address"])
    if moved["gateway"].startswith("fe80:") and len(address) == 16:
        return
    if len(gateway) != len(address) or (
        mask_address(gateway, prefix) != mask_address(address, prefix)
    ):
        raise JailError(
            f"{what} gateway {moved['gateway']} is not in the subnet of {moved['address']}",
            hint="write the address of a router in it",
        )


def _refuse_double(asked: Asked) -> None:
    """Refuse two interfaces of one name, of one device, or in one network.

    Of two in one network the second could not answer: what it is asked is answered by the first.
    """
    seen: set[tuple[str, str]] = set()
    keys = [("the name", each["name"]) for each in (*asked.nics, *asked.devices)]
    keys += [("the interface", each["device"]) for each in asked.devices]
    keys += [("the network", each["network"]) for each in asked.nics]
    for key in keys:
        if key in seen:
            hint = f"give one of them another: name={_free_name(keys)}"
            raise JailError(
                f"network: {' '.join(key)} is there twice",
                hint=hint if key[0] == "the name" else "write it once",
            )
        seen.add(key)


def _free_name(keys: list[tuple[str, str]]) -> str:
    return next(f"eth{n}" for n in range(len(keys) + 1) if ("the name", f"eth{n}") not in keys)


def set_network(config: Config, asked: Request, networks: Asked) -> None:
    """Set what the jail has of networks, and the names that it knows."""
    ours = config["jailrun"]
    if networks.nics:
        ours["networks"] = networks.nics
    if networks.devices:
        ours["devices_in"] = networks.devices
    if networks.addresses:
        ours["shared_addresses"] = networks.addresses
    published = parse_publishes(asked.get("publish") or ())
    allowed = [text for text in asked.get("allow") or () if is_rule(text)]
    rules = parse_rules(allowed, asked.get("deny") or ())
    if (published or rules) and not networks.nics:
        what = "publish" if published else "allow and deny of traffic"
        raise JailError(
            f"{what}: the jail is in none of the networks that this is for",
            hint="put it into one, as with --net default",
        )
    if published:
        ours["publish"] = published
    if rules:
        ours["firewall"] = rules
    names = parse_names(asked)
    if names is not None:
        ours["names"] = names
    if networks.mode == "own":
        _set_parameters(config)


def _set_parameters(config: Config) -> None:
    """Set what is safe in a network of the jail's own, as docker does; the user's word counts."""
    parameters = config["linux"].setdefault("sysctl", {})
    known = {dot_sysctl(name) for name in parameters}
    parameters |= {name: value for name, value in PARAMETERS.items() if name not in known}


# --- any config -----------------------------------------------------------------------------------
def check_networks(config: Any) -> Iterator[Problem]:
    """Networks need a namespace of the jail's own; ports and rules need networks."""
    ours = config.get("jailrun") or {}
    listed = (config.get("linux") or {}).get("namespaces") or ()
    paths = {each["type"]: each.get("path") or "" for each in listed}
    for field in ("networks", "devices_in"):
        if ours.get(field) and paths.get("network") != "":
            hint = 'add {"type": "network"} to linux.namespaces'
            yield f"jailrun.{field}", "needs a network namespace of the jail's own", hint
    if ours.get("shared_addresses") and "network" in paths:
        hint = 'remove {"type": "network"} from linux.namespaces'
        yield "jailrun.shared_addresses", "is for jails in the host's network", hint
    for field in ("publish", "firewall"):
        if ours.get(field) and not ours.get("networks"):
            yield f"jailrun.{field}", "is for jails in a network", "add jailrun.networks"
    if ours.get("names") is not None and "mount" not in paths:
        hint = 'add {"type": "mount"} to linux.namespaces'
        yield "jailrun.names", "needs a mount namespace, or it would change the host's files", hint
    yield from _check_interfaces(ours)
    yield from _check_traffic(ours)


def _check_interfaces(ours: Any) -> Iterator[Problem]:
    seen = set()
    for field, key in (("networks", "name"), ("devices_in", "device")):
        for index, each in enumerate(ours.get(field) or ()):
            name = each.get("name") or each[key]
            if name in seen:
                where = f"jailrun.{field}[{index}].name"
                yield where, f"{show_value(name)} is there twice", "give it another name"
            seen.add(name)
            if each.get("gateway") and not each.get("address"):
                where = f"jailrun.{field}[{index}].gateway"
                yield where, "needs an address to reach it from", "add address"


def _check_traffic(ours: Any) -> Iterator[Problem]:
    ports = ours.get("publish") or ()
    for index, port in enumerate(ports):
        for field in ("host_port", "jail_port"):
            if port[field] + port["count"] - 1 > PORT_MAX:
                where = f"jailrun.publish[{index}].count"
                message = f"{port['count']} ports from {port[field]} on go beyond {PORT_MAX}"
                yield where, message, None
    clash = find_clash(ports)
    if clash is not None:
        earlier, later, number = clash
        where = f"jailrun.publish[{later}].host_port"
        yield where, f"{number} is published by jailrun.publish[{earlier}], too", None
    for index, rule in enumerate(ours.get("firewall") or ()):
        where = f"jailrun.firewall[{index}]"
        if rule["last_port"] < rule["port"] or (rule["last_port"] and not rule["port"]):
            yield f"{where}.last_port", f"{rule['last_port']} ends no range from port on", None
        if rule["port"] and rule["protocol"] == "icmp":
            yield f"{where}.port", "icmp has no ports", None
