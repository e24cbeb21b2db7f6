"""Published ports: each is reserved on the host, so that a clash is an error at the start.

A reservation is a socket that is bound and never listens.  Connections to the port do not come to
it: the rules of `jailrun.net.rules` lead them into the jail before; what they pass over, as ::1,
finds nobody listening and is refused.  It has no SO_REUSEADDR, so no other bind of the port
succeeds, by a jail or by a program of the host, in whatever order they come.

The kernel gives it back with the last descriptor of it: a crash leaves nothing, and the process
that holds it must live as long as the jail (`held` for a monitor that takes over).  Forwarded
connections have no sockets on the host, so there is no TIME_WAIT to wait for after a jail.

Owns: these sockets, and who has a port that is taken.  Out of scope: what is in the list
(`jailrun.spec.traffic`), the rules that lead to the jail.
"""

from __future__ import annotations

import errno
import os
from _socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_IPV6,
    IPV6_V6ONLY,
    SHUT_RDWR,
    SO_RCVBUF,
    SO_REUSEADDR,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    SOCK_STREAM,
    SOL_SOCKET,
)
from _socket import socket as Socket

from jailrun.errors import ConflictError, JailError, NetworkError
from jailrun.kernel.files import read_file
from jailrun.spec.traffic import have_common_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TypeAlias

    from jailrun.spec.extensions import PublishedPort

    # (protocol, host address or "", port) → name of the jail that has published it, or ""
    FindJail: TypeAlias = Callable[[str, str, int], str]

LISTEN = "0A"  # a state in /proc/net/tcp, net/tcp_states.h
CONNECTION = "a connection of"

_held: dict[str, list[int]] = {}


def reserve(
    publish: Iterable[PublishedPort], jail: str, *, find_jail: FindJail | None = None
) -> None:
    """Reserve the ports for a jail, all or none; `drop` gives them back.

    ``find_jail`` is asked who has published a port that is taken.  Raises ConflictError where one
    is taken, NetworkError where an address or a right is missing.
    """
    drop(jail)  # of an attempt before this one
    got = _held.setdefault(jail, [])
    try:
        for port in publish:
            protocol, address = port["protocol"], port["host_address"]
            first = port["host_port"]
            for number in range(first, first + port["count"]):
                try:
                    got.append(_bind(protocol, address, number))
                except OSError as error:
                    raise _explain(error, protocol, address, number, find_jail) from error
    except BaseException:
        drop(jail)
        raise


def held(jail: str) -> list[int]:
    """Return the descriptors that reserve a jail's ports, for a process that takes over."""
    return list(_held.get(jail, ()))


def adopt(jail: str, descriptors: Sequence[int]) -> None:
    """Take over the reservations that this process got from the one that made them."""
    for fd in descriptors:
        os.set_inheritable(fd, False)
    _held.setdefault(jail, []).extend(descriptors)


def drop(jail: str) -> None:
    """Give a jail's ports back; nothing where this process has none."""
    for fd in _held.pop(jail, ()):
        os.close(fd)


def is_published(publish: Iterable[PublishedPort], protocol: str, address: str, port: int) -> bool:
    """Tell whether a list has a port that clashes with this one; "" is every address."""
    return any(
        one["protocol"] == protocol
        and one["host_port"] <= port < one["host_port"] + one["count"]
        and have_common_address(address, one["host_address"])
        for one in publish
    )


# --- sockets --------------------------------------------------------------------------------------
def _bind(protocol: str, address: str, port: int) -> int:
    """Return the descriptor of a socket that holds a port."""
    try:
        return _bind_plainly(protocol, address, port)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or protocol != "tcp":
            raise
    return _bind_beside_old_connections(address, port)


def _bind_plainly(protocol: str, address: str, port: int) -> int:
    kind = SOCK_STREAM if protocol == "tcp" else SOCK_DGRAM
    one = _open(address, kind)
    try:
        if kind == SOCK_DGRAM:
            one.setsockopt(SOL_SOCKET, SO_RCVBUF, 0)  # what comes here is read by nobody
        one.bind((address or _any(one), port))
        return one.detach()
    finally:
        one.close()


def _bind_beside_old_connections(address: str, port: int) -> int:
    """Hold a TCP port that no program has any more, but connections of one that ended.

    They are in TIME_WAIT for a minute, and SO_REUSEADDR passes over them.  It would pass over
    another reservation as well, which is why the socket has to listen for a moment: of several
    that are bound only one can.  It cannot be left at that, as then it would take connections.
    """
    one = _open(address, SOCK_STREAM)
    try:
        one.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        one.bind((address or _any(one), port))
        one.listen(0)
        one.setsockopt(SOL_SOCKET, SO_REUSEADDR, 0)
        one.shutdown(SHUT_RDWR)  # back to bound, tcp_disconnect() in net/ipv4/tcp.c
        return one.detach()
    finally:
        one.close()


def _open(address: str, kind: int) -> Socket:
    """Return a socket for an address; for every address it is one of both families."""
    kind |= SOCK_CLOEXEC
    if ":" in address:
        one = Socket(AF_INET6, kind)
        one.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 1)  # "::" leaves IPv4 to others
        return one
    if address:
        return Socket(AF_INET, kind)
    try:
        one = Socket(AF_INET6, kind)
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT:  # booted with ipv6.disable=1
            raise
        return Socket(AF_INET, kind)
    one.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 0)
    return one


def _any(one: Socket) -> str:
    return "::" if one.family == AF_INET6 else "0.0.0.0"  # noqa: S104 - it never listens


# --- errors ---------------------------------------------------------------------------------------
def _explain(
    error: OSError, protocol: str, address: str, port: int, find_jail: FindJail | None
) -> JailError:
    """Return the error to raise for a port that could not be bound."""
    where = f"{format_address(address)}{port}/{protocol}"
    if error.errno == errno.EADDRINUSE:
        holder = _find_holder(protocol, address, port, find_jail)
        see = f"see what has it: ss -{'t' if protocol == 'tcp' else 'u'}anp 'sport = :{port}'"
        if holder.startswith(CONNECTION):  # the kernel has chosen the port for it
            see = f"keep it from them: sysctl net.ipv4.ip_local_reserved_ports={port}"
        elif port == 53 and not address:  # our resolvers have it on the gateways
            see = f"publish it on one address of the host: -p ADDRESS:53:53/{protocol}"
        return ConflictError(
            f"port {where} is taken" + (f" by {holder}" if holder else ""),
            hint=f"publish another port, or {see}",
        )
    hints = {
        errno.EADDRNOTAVAIL: "an address of the host's: ip address",
        errno.EACCES: "ports below 1024 need root, or CAP_NET_BIND_SERVICE",
        errno.EMFILE: "each port takes a descriptor: ulimit -n, and raise it",
        errno.ENFILE: "the host has no descriptor left: sysctl fs.file-max",
    }
    why = error.strerror
    if error.errno == errno.EADDRNOTAVAIL:
        why = f"the host has no address {address}"
    return NetworkError(f"cannot publish port {where}: {why}", hint=hints.get(error.errno or 0))


def format_address(address: str) -> str:
    """Return an address as it stands before a port; nothing for every address."""
    if not address:
        return ""
    return f"[{address}]:" if ":" in address else f"{address}:"


def _find_holder(protocol: str, address: str, port: int, find_jail: FindJail | None) -> str:
    """Return in words who has a port; "" where that cannot be found out."""
    if find_jail:
        name = find_jail(protocol, address, port)
        if name:
            return f"jail {name}"
    sockets: dict[str, str] = {}
    for table in (protocol, f"{protocol}6"):
        try:
            text = read_file(f"/proc/net/{table}").decode()
        except OSError:
            continue  # without IPv6
        sockets |= parse_sockets(text, port)
    # Who listens first: others have connections from that port, or the rest of some.
    for inode in sorted(sockets, key=lambda one: sockets[one] != LISTEN):
        program = _find_program(inode)
        if program:
            listens = protocol == "udp" or sockets[inode] == LISTEN
            return program if listens else f"{CONNECTION} {program}"
    return ""


def parse_sockets(text: str, port: int) -> dict[str, str]:
    """Return inode → state of the sockets on a local port, from /proc/net/tcp and its like."""
    found = {}
    for line in text.splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) == port and fields[9] != "0":
            found[fields[9]] = fields[3]
    return found


def _find_program(inode: str) -> str:
    """Return name and pid of the process that has a socket."""
    wanted = f"socket:[{inode}]"
    for pid in _list_processes():
        folder = f"/proc/{pid}/fd"
        try:
            for fd in os.listdir(folder):
                if os.readlink(f"{folder}/{fd}") == wanted:
                    name = read_file(f"/proc/{pid}/comm").decode("utf-8", "replace").strip()
                    return f"{name}, process {pid}"
        except OSError:
            continue  # it has ended meanwhile
    return ""


def _list_processes() -> Iterator[str]:
    return (name for name in os.listdir("/proc") if name.isdigit())
