"""Names for a jail in several networks: one more resolver, which knows those of all of them.

A network's own resolver knows its members alone, and must: who is in one network learns nothing of
another.  A jail asks one resolver; so one whose networks are several gets one with the hosts of
each of them, all of which it watches: names come and go there as they do for everybody.  Jails in
the same networks, of which the same is the first, share it: a *view*.  Jails in one network have
nothing to do with this module.

Also a jail with one internal network of ours and another way out has a view: the resolver of the
internal network asks nobody outside, this one may.  In a view of internal networks alone nobody is
asked either.

A view listens on an address of its own, since port 53 of the gateway is taken.  It is leased from
the view's first network, as if it were one of the jail's that came first; who leaves while others
stay hands it on.  On the bridge it is a /32 (/128), deprecated, so that the host takes it for no
connection of its own.  Files, below ``<run>/networks/FIRST/views/VIEW/``::

    jails/JAIL   who uses it: counted while it has a lease in the first network, so that what a
                 killed start has left counts for nothing
    address      a symbolic link to the address
    resolver.*   as those of a network's own

Each step of `leave` can be taken again, and the address is put on the bridge after the record that
leads to it was written.  The lock of the first network is held here, never two.  Owns: views.  Out
of scope: the process (`jailrun.net.resolver`), who is told of it (`jailrun.net.member`).
"""

from __future__ import annotations

import errno
import os
from _socket import AF_INET, AF_INET6, AF_NETLINK, SOCK_CLOEXEC, SOCK_RAW, if_nametoindex
from _socket import socket as Socket
from _struct import pack, unpack_from

from jailrun.errors import JailError, NetworkError
from jailrun.net import definition as definitions
from jailrun.net import leases, resolver
from jailrun.net.addresses import hash_text
from jailrun.net.definition import lock, make_folder, run_folder
from jailrun.net.netlink import (
    ADDRESS,
    HEADER,
    IFA_ADDRESS,
    IFA_F_NODAD,
    IFA_FLAGS,
    IFA_LOCAL,
    NEW,
    NLM_F_ACK,
    NLM_F_REQUEST,
    RTM_NEWADDR,
    pack_address,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailrun.net.definition import Definition
    from jailrun.net.model import Network
    from jailrun.spec.extensions import TrafficRule

RTM_DELADDR = 21  # linux/rtnetlink.h
IFA_CACHEINFO = 6  # linux/if_addr.h
FOREVER = 0xFFFFFFFF
LONGEST = 200  # characters of a folder's name; beyond that a number stands for the networks


class View:
    """The networks whose names are told together, the first of which has the resolver."""

    __slots__ = ("folder", "internal", "name", "networks")

    def __init__(self, networks: list[str], *, internal: bool) -> None:
        self.networks = networks
        self.internal = internal
        # No network's name begins with a dash.
        words = [*sorted(networks[1:]), "-internal" if internal else "-open"]
        name = "+".join(words)
        self.name = name if len(name) <= LONGEST else f"{hash_text(name):016x}"
        self.folder = f"{_views_folder(networks[0])}/{self.name}"

    @property
    def first(self) -> str:
        """The network that has the resolver's address."""
        return self.networks[0]

    def read_address(self) -> str:
        """Return where the view is asked; "" where nobody has joined it."""
        return _read_address(self.folder)

    def join(self, jail: str) -> None:
        """Reserve the view's address, if nobody has yet; the jail has its own addresses."""
        with lock(self.first):
            try:
                _join(self, jail)
            except OSError as error:
                raise NetworkError(f"cannot write in {self.folder}: {error.strerror}") from error

    def begin(self) -> None:
        """Start its resolver unless it runs; those of its networks have been started."""
        with lock(self.first):
            resolver.begin(self._give_address(), self._load_networks())

    def ensure_running(self) -> bool:
        """Wait until its resolver answers, started where it was not; return whether it ran."""
        with lock(self.first):
            definition = self._give_address()
            ran = resolver.find_process(definition) != 0
            resolver.ensure_running(definition, self._load_networks())
            return ran

    def leave(self, jail: str) -> None:
        """Use it no more; without users it ends.  Any number of times."""
        if not os.path.isdir(self.folder):
            return
        with lock(self.first):
            try:
                _leave(self, jail)
            except OSError as error:
                raise NetworkError(f"cannot write in {self.folder}: {error.strerror}") from error

    def allow_questions(self, network: Network) -> Network:
        """Return a jail's network whose rules let it ask, whatever else they are."""
        if not any(rule["direction"] == "out" for rule in network["firewall"]):
            return network
        question: TrafficRule = {
            "action": "allow",
            "direction": "out",
            "protocol": "any",
            "address": self.read_address(),
            "port": 53,
            "last_port": 53,
        }
        return {**network, "firewall": [*network["firewall"], question]}

    def _give_address(self) -> Definition:
        """Put its address on the bridge, and return it as if it were a network."""
        first = definitions.load(self.first)
        _change_address(RTM_NEWADDR, first["link"], self.read_address())
        return _define(first, self.folder, internal=self.internal)

    def _load_networks(self) -> list[Definition]:
        return [definitions.load(name) for name in self.networks]


def find(network: Network) -> View | None:
    """Return the view that a jail needs; None where the resolver of its one network will do."""
    ours: dict[str, bool] = {}
    has_way_out = bool(network["devices"])
    for nic in network["nics"]:
        driver, internal = nic["driver"], nic["internal"]
        if not driver:  # the record of a start that was killed before it knew
            try:
                known = definitions.load(nic["network"])
            except JailError:
                continue
            driver, internal = known["driver"], known["internal"]
        has_way_out = has_way_out or not internal
        if driver == "bridge":
            ours[nic["network"]] = internal
    if not ours:
        return None
    if len(ours) == 1 and has_way_out != all(ours.values()):
        return None
    return View(list(ours), internal=not has_way_out)


# --- who uses it ---------------------------------------------------------------------------------
def _join(view: View, jail: str) -> None:
    first = definitions.load(view.first)
    make_folder(view.folder, 0o711)
    make_folder(f"{view.folder}/jails", 0o711)
    users = _users(view)
    _touch(f"{view.folder}/jails/{jail}")
    address = view.read_address()
    holder = leases.holder_of(view.first, address) if address else None
    if holder in users:
        return
    if users and address and holder is None:  # `jailrun repair` has freed it
        leases.take(view.first, address, jail)
        return
    _end(first, view.name)  # what was left of one whose jails were killed
    # One family is enough to ask for both.
    only: Definition = {**first, "subnet6": ""} if first["subnet"] else first
    v4, v6 = leases.take_free(only, jail, f"names {view.name}")
    _link(v4 or v6, f"{view.folder}/address")


def _leave(view: View, jail: str) -> None:
    try:
        first = definitions.load(view.first)
    except JailError:  # removed or damaged by hand: the name is enough
        first = definitions.make_empty(view.first)
    users = _users(view) - {jail}
    address = view.read_address()
    is_holder = bool(address) and leases.holder_of(view.first, address) == jail
    if users:
        if is_holder:
            new = f"{view.folder}/.lease"
            _link(min(users), new)
            os.rename(new, f"{leases.leases_folder(view.first)}/{address}")
        _unlink(f"{view.folder}/jails/{jail}")  # after that: the holder is a user at all times
        return
    _end(first, view.name)
    if is_holder:
        leases.release(view.first, jail, [address])
    _remove_folder(view.folder)


def _users(view: View) -> set[str]:
    """Return the jails that use a view and have a lease of its first network beside the view's."""
    own = {_read_address(f"{_views_folder(view.first)}/{name}") for name in _list_views(view.first)}
    living = {jail for key, jail in leases.holders(view.first).items() if key not in own}
    return living.intersection(_list(f"{view.folder}/jails"))


# --- the process ---------------------------------------------------------------------------------
def end_all(first: Definition) -> None:
    """End what is left of a network's views: nobody is in it; the caller holds its lock."""
    for name in _list_views(first["name"]):
        _end(first, name)
        _remove_folder(f"{_views_folder(first['name'])}/{name}")


def _end(first: Definition, name: str) -> None:
    """Stop a view's resolver and take its address from the bridge; lease and note stay."""
    folder = f"{_views_folder(first['name'])}/{name}"
    resolver.stop(_define(first, folder))
    address = _read_address(folder)
    if address:
        _change_address(RTM_DELADDR, first["link"], address)


def _define(first: Definition, folder: str, *, internal: bool = False) -> Definition:
    """Return a view as if it were a network: what the resolver needs to know of one."""
    address = _read_address(folder)
    return {
        **first,
        "name": f"{first['name']}/views/{os.path.basename(folder)}",
        "gateway": "" if ":" in address else address,
        "gateway6": address if ":" in address else "",
        "internal": internal,
    }


# --- the address on the bridge -------------------------------------------------------------------
def format_message(kind: int, index: int, address: str) -> bytes:
    """Return what asks the kernel to add or remove an address, for this one host alone."""
    packed = pack_address(address)
    family = AF_INET if len(packed) == 4 else AF_INET6
    body = ADDRESS.pack(family, len(packed) * 8, 0, 0, index)
    for attribute, data in (
        (IFA_LOCAL, packed),
        (IFA_ADDRESS, packed),
        (IFA_FLAGS, pack("<I", IFA_F_NODAD if family == AF_INET6 else 0)),
        (IFA_CACHEINFO, pack("<IIII", 0, FOREVER, 0, 0)),  # deprecated, valid for ever
    ):
        body += pack("<HH", 4 + len(data), attribute) + data
    flags = NEW if kind == RTM_NEWADDR else NLM_F_REQUEST | NLM_F_ACK
    return HEADER.pack(HEADER.size + len(body), kind, flags, 0, 0) + body


def _change_address(kind: int, link: str, address: str) -> None:
    """Add or remove an address; fine where it is there, or gone, already."""
    try:
        index = if_nametoindex(link)
        one = Socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0)
        try:
            one.send(format_message(kind, index, address))
            (number,) = unpack_from("<i", one.recv(4096), HEADER.size)  # struct nlmsgerr
        finally:
            one.close()
    except OSError as error:
        number = -(error.errno or errno.ENODEV)  # if_nametoindex(3) has none
    passed = (0, errno.EEXIST) if kind == RTM_NEWADDR else (0, errno.EADDRNOTAVAIL, errno.ENODEV)
    if -number not in passed:
        raise NetworkError(
            f"cannot change the address {address} of the bridge {link}: {os.strerror(-number)}"
        )


# --- files ---------------------------------------------------------------------------------------
def _views_folder(network: str) -> str:
    return f"{run_folder(network)}/views"


def _read_address(folder: str) -> str:
    try:
        return os.readlink(f"{folder}/address")
    except OSError:
        return ""


def _list_views(network: str) -> list[str]:
    return _list(_views_folder(network))


def _list(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _touch(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _link(target: str, path: str) -> None:
    _unlink(path)
    os.symlink(target, path)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def _remove_folder(folder: str) -> None:
    """Remove a view's folder, and that of all views with the last."""
    for name in _list(f"{folder}/jails"):
        _unlink(f"{folder}/jails/{name}")
    if os.path.isdir(f"{folder}/jails"):
        os.rmdir(f"{folder}/jails")
    for name in _list(folder):
        _unlink(f"{folder}/{name}")
    os.rmdir(folder)
    above = os.path.dirname(folder)
    if not _list(above):
        os.rmdir(above)
