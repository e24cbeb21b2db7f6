"""The fields of the key ``jailrun``: name, kind, whether it is required.

Owns: everything that can be said of one value alone, as `jailrun.spec.tables` does for the rest of
a config; the types are in `jailrun.spec.extensions`.  An unknown field here is an error: it is
ours, and nobody else's.
"""

from __future__ import annotations

from jailrun.spec.addresses import (
    INTERFACE_HINT,
    is_address,
    is_interface_name,
    is_ipv4,
    is_ipv6,
    is_mac,
    is_subnet,
    is_with_prefix,
)
from jailrun.spec.fields import (
    array,
    boolean,
    integer,
    one_of,
    record,
    show_path,
    show_value,
    text,
)
from jailrun.spec.names import HOST_GATEWAY, is_domain, is_network_name, is_resolver_option
from jailrun.spec.traffic import PORT_MAX, PROTOCOLS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jailrun.spec.fields import Path, Problems

_TEXTS = array(text())
_INTERFACE = text(f"the name of an interface: {INTERFACE_HINT}", is_interface_name)
_ADDRESS = text("an address, as 192.0.2.7 or fd00::7", is_address)
_RATE = integer(1, 2**63 - 1, "a number of bytes per second above 0")
_PORT = integer(1, PORT_MAX)
_PORT_OR_ANY = integer(0, PORT_MAX, f"a port from 1 to {PORT_MAX}, or 0 for any")


def _is_absolute(value: str) -> bool:
    return value.startswith("/")


def _is_empty_or_address(value: str) -> bool:
    return not value or is_address(value)


def _is_empty_or_subnet(value: str) -> bool:
    return not value or is_subnet(value)


def _is_search(value: str) -> bool:
    return value == "." or is_domain(value)


def _host(value: Any, path: Path, problems: Problems) -> None:
    """Accept a list of a name and an address."""
    before = len(problems)
    _TEXTS(value, path, problems)
    if len(problems) == before and not (
        len(value) == 2
        and is_domain(value[0])
        and (value[1] == HOST_GATEWAY or is_address(value[1]))
    ):
        message = f"{show_value(value)} is not a list of a host's name and its address"
        problems.append((show_path(path), message, None))


_NIC = record(
    {
        "network": text("the name of a network", is_network_name),
        "name": _INTERFACE,
        "address": text("an IPv4 address, as 10.87.0.10", is_ipv4),
        "address6": text("an IPv6 address, as fd00::10", is_ipv6),
        "mac": text("the MAC of one interface, as 02:42:0a:57:00:0a", is_mac),
        "rate_in": _RATE,
        "rate_out": _RATE,
    },
    *("network", "name"),
    closed=True,
)
_DEVICE = record(
    {
        "device": _INTERFACE,
        "name": _INTERFACE,
        "address": text("an address with its prefix, as 192.0.2.7/24", is_with_prefix),
        "gateway": _ADDRESS,
    },
    "device",
    closed=True,
)
_PUBLISH = record(
    {
        "protocol": one_of("tcp", "udp"),
        "host_address": text("an address of the host, or empty for all", _is_empty_or_address),
        "host_port": _PORT,
        "jail_port": _PORT,
        "count": _PORT,
    },
    *("protocol", "host_address", "host_port", "jail_port", "count"),
    closed=True,
)
_RULE = record(
    {
        "action": one_of("allow", "deny"),
        "direction": one_of("in", "out"),
        "protocol": one_of(*PROTOCOLS),
        "address": text("a subnet, as 10.0.0.0/8, or empty for any", _is_empty_or_subnet),
        "port": _PORT_OR_ANY,
        "last_port": _PORT_OR_ANY,
    },
    *("action", "direction", "protocol", "address", "port", "last_port"),
    closed=True,
)
_NAMES = record(
    {
        "dns": array(_ADDRESS),
        "search": array(text("a domain, as example.org", _is_search)),
        "options": array(text("an option of resolv.conf(5), as ndots:2", is_resolver_option)),
        "hosts": array(_host),
    },
    closed=True,
)
EXTENSIONS = record(
    {
        "image": text(),
        "layers": array(text("an absolute path", _is_absolute), least=1),
        "writable": one_of("disk", "none", "direct"),
        "id_shift": one_of("idmap", "none"),
        "init": boolean,
        "user_range": one_of("auto"),
        "swap": one_of("default"),
        "seccomp": one_of("default", "unconfined"),
        "allow": _TEXTS,
        "securebits": _TEXTS,
        "networks": array(_NIC),
        "devices_in": array(_DEVICE),
        "publish": array(_PUBLISH),
        "firewall": array(_RULE),
        "shared_addresses": array(_ADDRESS),
        "names": _NAMES,
    },
    closed=True,
)
