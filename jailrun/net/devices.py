"""Interfaces of the host that a jail has to itself, and that the host gets back.

Owns: holding on to the jail's network namespace until its interfaces have been taken out of it.
Out of scope: moving them in, which the program of the start does (`jailrun.net.links`).

The kernel itself gives a piece of hardware back when a namespace ends, but to the first namespace
of the machine, and what is no hardware (a veth, a macvlan) ends with the namespace.  So whoever
waits for the jail holds its namespace by a descriptor, and moves them before letting go.
"""

from __future__ import annotations

import os
from _socket import AF_NETLINK, SOCK_CLOEXEC, SOCK_RAW, socket

from jailrun.errors import NetworkError
from jailrun.kernel import constants as c
from jailrun.kernel.execute import Execution, syscall
from jailrun.kernel.program import Program
from jailrun.net import netlink
from jailrun.net.links import device_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from jailrun.spec.extensions import MovedDevice

_held: dict[str, int] = {}


def hold(jail: str, pid: int) -> None:
    """Keep the network namespace of a jail, whose init is ``pid``, until `give_back`."""
    _held[jail] = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def held(jail: str) -> int:
    """Return the descriptor of a jail's namespace, -1 where this process holds none."""
    return _held.get(jail, -1)


def adopt(jail: str, namespace_fd: int) -> None:
    """Take over what another process held."""
    if namespace_fd >= 0:
        _held[jail] = namespace_fd


def give_back(jail: str, devices: Iterable[MovedDevice]) -> None:
    """Move a jail's interfaces to where this process is, under their old names, and let go."""
    namespace_fd = _held.pop(jail, -1)
    if namespace_fd < 0:
        return
    own_fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = None
    try:
        program = Program()
        there = _open_inside(namespace_fd, own_fd)
        for device in devices:
            name = device_name(device)
            what = "take back the interface"
            index = program.before.netlink(
                there.fileno(), netlink.get_link(name), what=what, object=name
            )
            back = netlink.return_link(index, own_fd, device["device"])
            program.before.netlink(there.fileno(), back, what=what, object=device["device"])
        Execution(program).run_before()
    except OSError as error:
        raise NetworkError(f"{error}") from error
    finally:
        if there is not None:
            there.close()
        os.close(own_fd)
        os.close(namespace_fd)


def _open_inside(namespace_fd: int, own_fd: int) -> socket:
    """Return a netlink socket of another namespace; setns(2) moves this thread alone."""
    syscall("setns", namespace_fd, c.CLONE_NEWNET)
    try:
        return socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0)
    finally:
        syscall("setns", own_fd, c.CLONE_NEWNET)
