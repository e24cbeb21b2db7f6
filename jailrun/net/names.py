"""The names that a jail knows: the texts of its /etc/hosts, /etc/resolv.conf and /etc/hostname.

Owns: what these say, and reading the host's own resolv.conf, of which anything is believed
possible: missing, huge, binary, a link to nowhere.  Out of scope: putting them into the jail
(`jailrun.rootfs.etc`), answering its questions (`jailrun.net.resolver`).

Whom a jail asks depends on where it is, its ``place``:

``resolver``  in a network of ours: our resolver, on the network's gateways
``direct``    macvlan, an interface moved in, a namespace of others: the servers that the host asks,
              but for those that are the host itself, which cannot be reached from there
``host``      in the host's network: the host's file as it is
``none``      without a network: nobody

Servers that the user has named (``dns``) come in the place of all these.
"""

from __future__ import annotations

import errno
import os

from jailrun.errors import NetworkError
from jailrun.spec.addresses import classify, is_address, pack_address
from jailrun.spec.names import HOST_GATEWAY
from jailrun.units import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jailrun.net.model import Network, NetworkNic
    from jailrun.spec.extensions import Names

RESOLV_CONF = "/etc/resolv.conf"
# systemd-resolved listens for the host on 127.0.0.53 and .54, and keeps here whom it asks itself.
STUBS = ("127.0.0.53", "127.0.0.54")
RESOLVED = "/run/systemd/resolve/resolv.conf"
LONGEST_FILE = 1 << 16  # bytes of the host's file that are read
LONGEST_NAME = 253  # characters, RFC 1035 without the dot at the end
LONGEST_LABEL = 63
SEARCH_NAMES, SEARCH_CHARACTERS = 6, 256  # resolv.conf(5): what every resolver can take
MAPPED = bytes(10) + b"\xff\xff"  # IPv4 in IPv6, RFC 4291

LOCAL_LINES = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::0\tip6-localnet\n"
    "ff00::0\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\n"
    "ff02::2\tip6-allrouters\n"
)
_LOCAL_NAMES = frozenset(LOCAL_LINES.split())
_SEPARATORS = frozenset("\"'\\#;,=")  # beside blanks and what cannot be printed


class Resolv:
    """What a resolv.conf says; ``text`` is the whole of it."""

    __slots__ = ("nameservers", "options", "search", "text")

    def __init__(self, text: str = "") -> None:
        self.text = text
        self.nameservers: list[str] = []
        self.search: list[str] = []
        self.options: list[str] = []


# --- hosts, hostname -----------------------------------------------------------------------------
def format_hostname(hostname: str) -> str:
    """Return the text of /etc/hostname."""
    return f"{hostname}\n"


def format_hosts(
    hostname: str,
    names: Iterable[str],
    addresses: Sequence[str],
    extra: Iterable[Sequence[str]] = (),
    gateways: Sequence[str] = (),
) -> str:
    """Return the text of /etc/hosts.

    ``names`` are further names of the jail at its ``addresses``; without an address it knows itself
    at 127.0.0.1.  ``extra`` are pairs of name and address (--add-host), which come first, so that
    they count where they speak of the jail itself; the address host-gateway is ``gateways``.
    """
    lines = [LOCAL_LINES]
    for name, address in extra:
        check_host(name)
        if address == HOST_GATEWAY:
            if not gateways:
                raise NetworkError(
                    f"cannot give {name} the address host-gateway: the jail has no gateway",
                    hint="run it in a network (--net default), or name an address",
                )
            lines += [f"{gateway}\t{name}\n" for gateway in gateways]
        else:
            lines.append(f"{check_address(address)}\t{name}\n")
    own = " ".join(own_names(hostname, names))
    if own:
        lines += [f"{address}\t{own}\n" for address in addresses or ("127.0.0.1",)]
    return "".join(lines)


def own_names(hostname: str, names: Iterable[str]) -> list[str]:
    """Return each name by which a jail is known, once, the full host name first.

    Names of the loopback interface are not the jail's to have, and what is no name (a host name may
    be anything to the kernel) is left out.
    """
    wanted = [hostname, hostname.partition(".")[0], *names]
    found: dict[str, str] = {}
    for name in wanted:
        if is_host(name) and not is_local(name):
            found.setdefault(name.lower(), name)
    return list(found.values())


def is_local(name: str) -> bool:
    """Return whether a name means the machine that asks, whoever that is (RFC 6761, 6.3)."""
    lower = name.lower().rstrip(".")
    return lower in _LOCAL_NAMES or lower.endswith(".localhost")


def is_host(name: str) -> bool:
    """Return whether ``name`` can stand in /etc/hosts."""
    return 0 < len(name) <= LONGEST_NAME and _is_word(name)


def check_host(name: str) -> str:
    """Return ``name``, which can stand in /etc/hosts; NetworkError where it cannot."""
    if not is_host(name):
        raise NetworkError(
            f"{show(name)} cannot be the name of a host",
            hint="letters, digits, '-', '_' and '.', without blanks",
        )
    return name


def check_address(address: str) -> str:
    """Return ``address``, which is one of IPv4 or IPv6; NetworkError where it is not."""
    if not is_address(address):
        raise NetworkError(
            f"{show(address)} is not an address", hint="as 192.0.2.7, or 2001:db8::7"
        )
    return address


def is_dns_name(name: str) -> bool:
    """Return whether a resolver can be asked for ``name``: each part of 1 to 63 characters."""
    return (
        0 < len(name) <= LONGEST_NAME
        and name.isascii()
        and _is_word(name)
        and all(0 < len(label) <= LONGEST_LABEL for label in name.split("."))
    )


def _is_word(text: str) -> bool:
    """Return whether a text stays one word in the files that we write."""
    return text.isprintable() and " " not in text and not _SEPARATORS & set(text)


# --- all of them ---------------------------------------------------------------------------------
def format_files(
    network: Network | None, asked: Names, place: str, names: tuple[str, str], servers: list[str]
) -> dict[str, str]:
    """Return the texts of /etc/hosts, /etc/resolv.conf and /etc/hostname, by file name.

    ``names`` are the host name and the jail's, ``servers`` our resolvers' addresses, ``place``
    where a jail is that is in none of our networks.
    """
    nics = network["nics"] if network else []
    found = [address for nic in nics for address in (nic["address"], nic["address6"]) if address]
    gateways = gateways_of(nics[0]) if nics else []
    if nics:
        place = "resolver" if servers else "direct"
    elif network and network["shared"]:
        place, found = "host", network["shared"]
    elif network and network["devices"]:
        place = "direct"
    host = read_host_resolv(place)
    hostname, jail = names
    return {
        "hosts": format_hosts(hostname, [jail], found, asked.get("hosts", []), gateways),
        "resolv.conf": format_resolv_conf(place, host, servers, asked),
        "hostname": format_hostname(hostname),
    }


def gateways_of(nic: NetworkNic) -> list[str]:
    """Return the gateways of an interface's network, of each family that it has."""
    return [each for each in (nic["gateway"], nic["gateway6"]) if each]


# --- resolv.conf ---------------------------------------------------------------------------------
def format_resolv_conf(
    place: str, host: Resolv, gateways: Iterable[str] = (), names: Names | None = None
) -> str:
    """Return the text of /etc/resolv.conf for a jail at ``place`` (see the module's docstring).

    ``host`` is the host's own (`read_host_resolv`), ``gateways`` the addresses of our resolver.
    """
    asked = names or {}
    servers = [check_address(server) for server in asked.get("dns", [])]
    search = [_check_word(name, "a domain to search") for name in asked.get("search", [])]
    options = [_check_word(option, "an option") for option in asked.get("options", [])]
    if place == "host" and not (servers or search or options):
        return host.text
    comment = ""
    if place == "none" and not servers:
        comment = "# this jail has no network, and so nobody to ask for names\n"
    elif not servers:
        if place == "resolver":
            servers = list(gateways)
        else:
            servers = host.nameservers
            options = options or host.options
            if place == "direct":
                servers = [server for server in servers if _is_reachable(server)]
        if not servers:
            comment = "# the host names no server that can be reached from here: use --dns\n"
    if place != "none" and not search:
        search = host.search
    return comment + _format_resolv(servers, search, options)


def _format_resolv(servers: list[str], search: list[str], options: list[str]) -> str:
    lines = [f"nameserver {server}\n" for server in servers]
    domains = [name for name in search if name != "."]  # "." says that there is none
    if domains:
        lines.append(f"search {' '.join(domains)}\n")
    if options:
        lines.append(f"options {' '.join(options)}\n")
    return "".join(lines)


def _check_word(text: str, what: str) -> str:
    if not text or not text.isprintable() or " " in text:
        raise NetworkError(f"{show(text)} cannot be {what} of a resolver", hint="one word each")
    return text


def _is_reachable(server: str) -> bool:
    """Return whether a server of the host's is one for others: not the host, not by interface."""
    packed = pack_address(server)
    if packed[:12] == MAPPED:
        packed = packed[12:]
    # Empty with %eth0, an interface of the host's.
    return bool(packed) and classify(packed) not in ("unspecified", "loopback", "link-local")


def parse_resolv(text: str) -> Resolv:
    """Read a resolv.conf as resolv.conf(5) says; what it has no words for is passed over."""
    found = Resolv(text)
    for line in text.split("\n"):
        words = line.split()
        if len(words) < 2:
            continue
        key, values = words[0], words[1:]
        if key == "nameserver" and is_address(values[0].partition("%")[0]):
            found.nameservers.append(values[0])
        elif key in ("search", "domain"):  # the last one counts
            found.search = _cap_search(values if key == "search" else values[:1])
        elif key == "options":
            found.options += [value for value in values if _is_word(value)]
    return found


def _cap_search(names: list[str]) -> list[str]:
    """Return the first of some domains, as many as every resolver takes."""
    kept: list[str] = []
    for name in names[:SEARCH_NAMES]:
        if len(" ".join([*kept, name])) > SEARCH_CHARACTERS:
            break
        if is_dns_name(name.removesuffix(".")) or name == ".":
            kept.append(name)
    return kept


def read_host_resolv(place: str, path: str = RESOLV_CONF, resolved: str = RESOLVED) -> Resolv:
    """Return what the host's resolv.conf says, for a jail at ``place``; nothing where it has none.

    Where it leads to systemd-resolved on the host itself, a jail that asks by itself ("direct")
    gets the servers that systemd-resolved asks.
    """
    host = parse_resolv(_read(path))
    if place == "direct":
        is_link = os.path.realpath(path).startswith(f"{os.path.dirname(resolved)}/")
        if is_link or any(server in STUBS for server in host.nameservers):
            behind = parse_resolv(_read(resolved))
            if behind.nameservers:
                host.nameservers = behind.nameservers
                host.search = host.search or behind.search
    return host


def _read(path: str) -> str:
    """Return the beginning of a file, with every byte kept; nothing where it cannot be read."""
    try:
        # What is not a file (a FIFO, a device) must not keep us waiting.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.ENXIO):
            return ""
        raise NetworkError(f"cannot read {path}: {error.strerror}") from error
    try:
        data = b""
        while len(data) < LONGEST_FILE and (part := os.read(fd, LONGEST_FILE - len(data))):
            data += part
    except OSError:
        data = b""  # a folder, or a FIFO that nobody writes to
    finally:
        os.close(fd)
    return data.decode("utf-8", "surrogateescape")
