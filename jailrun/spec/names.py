"""Names that users give: of jails, hosts and networks; and the names that a jail is to know.

Owns: what is allowed in them, and the options ``names``, ``dns``, ``dns_search``, ``dns_option``
and ``add_host``.  A jail's name becomes a folder, a cgroup and a host name.  Out of scope: the
files that are written of it (`jailrun.net.names`).
"""

from __future__ import annotations

from jailrun.errors import JailError
from jailrun.spec.addresses import parse_address
from jailrun.units import is_digits, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailrun.spec.extensions import Names
    from jailrun.spec.request import Request

_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
_NAME = _LETTERS | frozenset("_.-")
_HOST = _LETTERS | frozenset(".-")
_DOMAIN = _LETTERS | frozenset("_-")
_SMALL = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_NETWORK = _SMALL | frozenset("_-")
LONGEST = 64
LONGEST_NETWORK = 15
LONGEST_DOMAIN = 253  # RFC 1035, written with dots
SERVERS_MAX = 3  # MAXNS, resolv.conf(5): the resolver does not ask a fourth
HOST_GATEWAY = "host-gateway"  # docker's word: where the host is to be reached from the jail
# What `--net` says otherwise.
NOT_A_NETWORK = ("none", "host", "private")


def is_name(name: str) -> bool:
    """Tell whether ``name`` can be a jail's."""
    return 0 < len(name) <= LONGEST and name[0] in _LETTERS and _NAME.issuperset(name)


def check_name(name: str, what: str = "name") -> str:
    """Return ``name``, which is valid for a jail; JailError says why it is not."""
    if not is_name(name):
        raise JailError(
            f"{what} {show(name)} is not valid",
            hint=f"1 to {LONGEST} letters, digits, _ . and -, the first a letter or digit",
        )
    return name


def check_hostname(name: str, what: str = "hostname") -> str:
    """Return ``name``, which is valid for a host or domain, RFC 1123 but up to 64 characters."""
    parts = name.split(".") if _HOST.issuperset(name) else []
    if (
        not parts
        or len(name) > LONGEST  # sethostname(2)
        or not all(part and part[0] != "-" and part[-1] != "-" for part in parts)
    ):
        raise JailError(
            f"{what} {show(name)} is not valid",
            hint=f"up to {LONGEST} letters, digits and -, parts with dots between",
        )
    return name


def is_network_name(name: str) -> bool:
    """Tell whether ``name`` can be a network's."""
    return (
        0 < len(name) <= LONGEST_NETWORK
        and name[0] in _SMALL
        and _NETWORK.issuperset(name)
        and name not in NOT_A_NETWORK
    )


def check_network_name(name: str, what: str = "network", otherwise: str = "") -> str:
    """Return ``name``, which is valid for a network; JailError says why it is not.

    ``otherwise`` is for the hint: what else could have been written in its place.
    """
    if not is_network_name(name):
        long = f": it has {len(name)} characters" if len(name) > LONGEST_NETWORK else ""
        raise JailError(
            f"{what} {show(name)} is not valid{long}",
            hint=f"{otherwise}a network's name is 1 to {LONGEST_NETWORK} small letters, digits, _ "
            f"and -, and not {', '.join(NOT_A_NETWORK)}",
        )
    return name


# --- the names that a jail knows ------------------------------------------------------------------
def parse_names(asked: Request) -> Names | None:
    """Return what the jail's hosts and resolv.conf shall have; None where they are left alone."""
    names: Names = {}
    dns = [_parse_server(text) for text in asked.get("dns") or ()]
    if len(dns) > SERVERS_MAX:
        raise JailError(
            f"dns: the {len(dns)} name servers are more than the {SERVERS_MAX} that are asked",
            hint=f"leave out {len(dns) - SERVERS_MAX}",
        )
    search = [_check_domain(text) for text in asked.get("dns_search") or ()]
    if "." in search and len(search) > 1:
        raise JailError("dns-search '.' is for none, and there are others", hint="leave it out")
    options = [_check_option(text) for text in asked.get("dns_option") or ()]
    hosts = [_parse_host(text) for text in asked.get("add_host") or ()]
    if dns:
        names["dns"] = dns
    if search:
        names["search"] = search
    if options:
        names["options"] = options
    if hosts:
        names["hosts"] = hosts
    if asked.get("names") is not False:
        return names
    if names:
        raise JailError(
            "dns and add-host are for files that names=False leaves as the image has them",
            hint="leave one of them out",
        )
    return None


def _parse_server(text: str) -> str:
    but = ("unspecified", "multicast", "reserved", "IPv4-mapped", "link-local")
    return parse_address(text, "dns", but=but)


def is_domain(text: str) -> bool:
    """Tell whether ``text`` is the name of a domain: parts of up to 63 letters, digits, _ and -."""
    parts = text.removesuffix(".").split(".")
    return len(text) <= LONGEST_DOMAIN and all(
        0 < len(part) <= 63 and _DOMAIN.issuperset(part) and part[0] != "-" and part[-1] != "-"
        for part in parts
    )


def _check_domain(text: str) -> str:
    if text != "." and not is_domain(text):  # docker: a dot alone is no domain at all
        raise JailError(
            f"dns-search {show(text)} is not a domain", hint="write it as example.org; . for none"
        )
    return text


def is_resolver_option(text: str) -> bool:
    """Tell whether ``text`` has the form of an option of resolv.conf(5), as ``ndots:2``."""
    name, colon, number = text.partition(":")
    return (
        0 < len(name) <= LONGEST_NETWORK * 2
        and name[0] in _SMALL
        and _NETWORK.issuperset(name)
        and (not colon or is_digits(number))
    )


def _check_option(text: str) -> str:
    if not is_resolver_option(text):
        raise JailError(
            f"dns-option {show(text)} is not an option of the resolver",
            hint="write one of resolv.conf(5), as ndots:2 or rotate",
        )
    return text


def _parse_host(text: str) -> list[str]:
    """Return name and address of ``NAME:ADDRESS`` or ``NAME=ADDRESS``."""
    end = min((text.find(mark) for mark in ":=" if mark in text), default=-1)
    if end < 0:
        raise JailError(
            f"add-host {show(text)} is not valid", hint="write NAME:ADDRESS, as db:192.0.2.10"
        )
    name = text[:end]
    if not is_domain(name):
        raise JailError(
            f"add-host {show(text)}: {show(name)} is not the name of a host",
            hint="write NAME:ADDRESS, as db:192.0.2.10",
        )
    address = text[end + 1 :]
    if address != HOST_GATEWAY:
        address = parse_address(address, f"add-host {show(text)}: the address")
    return [name, address]


def dot_sysctl(name: str) -> str:
    """Return a parameter's name with dots between its parts; sysctl(8) takes slashes, too."""
    first = next((letter for letter in name if letter in "./"), ".")
    return name.translate({46: "/", 47: "."}) if first == "/" else name
