"""The shared stack: a jail in the host's network, locked to some of its addresses.

VServer's chbind and jail(8)'s ip4.addr, by BPF programs on the jail's cgroup, which go with it:

* **bind**: any address and loopback become the jail's own address, before the kernel looks for a
  clash, so that two jails can listen on 0.0.0.0:80; a foreign address is refused.  Ports below
  1024 need no capability, as in a network namespace of the jail's own.
* **connect, sendmsg**: the source is the own address; to loopback means to the own address.
* **socket**: TCP, UDP and ping sockets, of the families that the jail has an address of.
* **every packet**: from and to one of the own addresses, or dropped.  This holds whatever the
  others have missed: sockets that listen without a bind, for instance.

Of several addresses of a family the first takes the place of any address and of loopback.  What a
jail binds to loopback can therefore be reached from outside, as with jail(8).

Owns: these programs, and the check that the addresses are there.  Out of scope: sockets that are
not of the Internet's families.  Unix sockets in the abstract namespace are the whole host's;
packet sockets need rights in the host's network, which `check_rights` refuses.

Sources: linux/bpf.h, bpf-helpers(7), net/ipv4/af_inet.c and net/core/filter.c of Linux.
"""

from __future__ import annotations

import errno
import os
from _socket import AF_INET, AF_INET6, SOCK_CLOEXEC, SOCK_DGRAM, inet_pton
from _socket import socket as Socket

from jailrun.errors import NetworkError, SpecError, UnsupportedError
from jailrun.kernel import bpf
from jailrun.kernel.bpf import FRAME, R0, R1, R2, R3, R4, R5, R6, R7

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from jailrun.errors import JailError
    from jailrun.kernel.operation import OperationError, Slot
    from jailrun.kernel.program import Program

NEEDS = "needs Linux 5.12 or later with CONFIG_CGROUP_BPF and cgroup v2"
# Rights over the network that the jail is in, where it has no user namespace of its own.
RIGHTS = ("CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_ADMIN", "CAP_BPF")
SAYS_WHY = (6, 1)  # the first Linux where a program can choose the errno; EPERM before

# linux/bpf.h: struct bpf_sock_addr, struct bpf_sock, struct __sk_buff
_IP4, _IP6, _FROM4, _FROM6, _SOCKET = 4, 8, 40, 44, 64
_FAMILY, _TYPE, _PROTOCOL, _SOCKET_IP4, _SOCKET_IP6 = 4, 8, 12, 24, 28
_PACKET_PROTOCOL = 16
_LOAD_BYTES, _BIND, _SET_RETVAL = 26, 64, 187  # enum bpf_func_id
_STREAM, _DATAGRAM = 1, 2
_PROTOCOLS = ((_STREAM, 6), (_DATAGRAM, 17), (_DATAGRAM, 136), (_DATAGRAM, 1), (_DATAGRAM, 58))
_REFUSE, _PASS = 0, 1
_PASS_ANY_PORT = 3  # Linux 5.12: without CAP_NET_BIND_SERVICE
_WORDS = (R2, R3, R4, R5)  # hold an address while it is looked at

_ADDR, _SOCK, _SKB = (
    bpf.BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
    bpf.BPF_PROG_TYPE_CGROUP_SOCK,
    bpf.BPF_PROG_TYPE_CGROUP_SKB,
)


class Own:
    """A jail's addresses, each as the words that the kernel's structures have it in."""

    __slots__ = ("says_why", "v4", "v6")

    def __init__(self, addresses: Sequence[str], *, says_why: bool = True) -> None:
        self.v4 = [_words(inet_pton(AF_INET, one))[0] for one in addresses if ":" not in one]
        self.v6 = [_words(inet_pton(AF_INET6, one)) for one in addresses if ":" in one]
        self.says_why = says_why

    def refuse(self, number: int) -> bytes:
        """Return the instructions that refuse with an errno, or EPERM where the kernel is old."""
        why = bpf.move(R1, -number) + bpf.call(_SET_RETVAL) if self.says_why else b""
        return why + bpf.leave(_REFUSE)


def _words(packed: bytes) -> list[int]:
    """Return an address, in network order as it is, as little-endian words."""
    return [int.from_bytes(packed[at : at + 4], "little") for at in range(0, len(packed), 4)]


_ANY6 = [0, 0, 0, 0]
_LOOPBACK6 = _words(inet_pton(AF_INET6, "::1"))
_MAPPED = _words(inet_pton(AF_INET6, "::ffff:0.0.0.0"))[:3]


# --- what several programs do ---------------------------------------------------------------------
def _load6(base: int, offset: int) -> bytes:
    """Load an IPv6 address."""
    return b"".join(bpf.load_word(word, base, offset + 4 * i) for i, word in enumerate(_WORDS))


def _if6(address: list[int], piece: bytes) -> bytes:
    """Guard a piece by the loaded IPv6 address, or by the beginning of it."""
    return bpf.if_words(dict(zip(_WORDS, address, strict=False)), piece)


def _if_unspecific4(register: int, scratch: int, piece: bytes) -> bytes:
    """Guard a piece by an IPv4 address that is 0.0.0.0 or of 127.0.0.0/8; it is lost."""
    return (
        bpf.copy(scratch, register)
        + bpf.mask(scratch, 0xFF)
        + bpf.if_equal(scratch, 127, bpf.move(register, 0))
        + bpf.if_equal(register, 0, piece)
    )


def _put(offset: int, words: list[int]) -> bytes:
    """Store words in the context, whose pointer is in R6."""
    return b"".join(
        bpf.move_word(R2, word) + bpf.store_word(R6, offset + 4 * i, R2)
        for i, word in enumerate(words)
    )


def _bind_source(own: Own, family: int, words: list[int]) -> bytes:
    """Bind the socket of a connect to an address, and leave."""
    # struct sockaddr_in, sockaddr_in6, with port 0: it is chosen by the connect
    stored = [family, *words, 0, 0] if family == AF_INET else [family, 0, *words, 0]
    at = -4 * len(stored)
    return (
        b"".join(bpf.store_number(FRAME, at + 4 * i, word) for i, word in enumerate(stored))
        + bpf.copy(R1, R6)
        + bpf.copy(R2, FRAME)
        + bpf.add(R2, at)
        + bpf.move(R3, 4 * len(stored))
        + bpf.call(_BIND)
        + bpf.if_equal(R0, 0, bpf.leave(_PASS))
        # Its port was chosen before, by a send without a bind; or the host lost the address.
        + own.refuse(errno.EADDRNOTAVAIL)
    )


# --- the programs ---------------------------------------------------------------------------------
def plan_socket(own: Own) -> bytes:
    """Return the program that is asked for each new socket of AF_INET and AF_INET6."""
    families = [AF_INET] * bool(own.v4) + [AF_INET6] * bool(own.v6)
    kinds = b"".join(
        bpf.if_words({R3: kind, R4: protocol}, bpf.leave(_PASS)) for kind, protocol in _PROTOCOLS
    )
    refuse_kind = kinds + own.refuse(errno.EPERM)
    return (
        bpf.load_word(R2, R1, _FAMILY)
        + bpf.load_word(R3, R1, _TYPE)
        + bpf.load_word(R4, R1, _PROTOCOL)
        + b"".join(bpf.if_equal(R2, family, refuse_kind) for family in families)
        # As on a machine without that family: programs go on with the other one.
        + own.refuse(errno.EAFNOSUPPORT)
    )


def plan_bind4(own: Own) -> bytes:
    """Return the program for bind(2) to an IPv4 address."""
    code = bpf.copy(R6, R1) + bpf.load_word(R2, R6, _IP4)
    for one in own.v4:
        code += bpf.if_words({R2: one}, bpf.leave(_PASS_ANY_PORT))
    if own.v4:
        code += _if_unspecific4(R2, R3, _put(_IP4, own.v4[:1]) + bpf.leave(_PASS_ANY_PORT))
    return code + own.refuse(errno.EADDRNOTAVAIL)


def plan_bind6(own: Own) -> bytes:
    """Return the program for bind(2) to an IPv6 address, or to an IPv4 one by its mapped form."""
    code = bpf.copy(R6, R1) + _load6(R6, _IP6)
    for one in own.v6:
        code += _if6(one, bpf.leave(_PASS_ANY_PORT))
    instead = _put(_IP6, own.v6[0]) + bpf.leave(_PASS_ANY_PORT)
    code += _if6(_ANY6, instead) + _if6(_LOOPBACK6, instead)
    if own.v4:
        mapped = b"".join(
            bpf.if_words({R5: one}, bpf.leave(_PASS_ANY_PORT)) for one in own.v4
        ) + _if_unspecific4(R5, R2, _put(_IP6 + 12, own.v4[:1]) + bpf.leave(_PASS_ANY_PORT))
        code += _if6(_MAPPED, mapped)
    return code + own.refuse(errno.EADDRNOTAVAIL)


def plan_connect4(own: Own) -> bytes:
    """Return the program for connect(2) to an IPv4 address."""
    if not own.v4:
        return own.refuse(errno.ENETUNREACH)
    code = bpf.copy(R6, R1) + bpf.load_word(R2, R6, _IP4)
    code += _if_unspecific4(R2, R3, _put(_IP4, own.v4[:1]))
    code += bpf.load_long(R7, R6, _SOCKET) + bpf.load_word(R2, R7, _SOCKET_IP4)
    for one in own.v4:
        code += bpf.if_words({R2: one}, bpf.leave(_PASS))
    code += bpf.if_equal(R2, 0, _bind_source(own, AF_INET, own.v4[:1]))
    return code + own.refuse(errno.EADDRNOTAVAIL)


def plan_connect6(own: Own) -> bytes:
    """Return the program for connect(2) to an IPv6 address, or to an IPv4 one by its mapped form.

    Only sockets of AF_INET6 come here, which a jail without an IPv6 address has none of.
    """
    to_own = _put(_IP6, own.v6[0])
    from_own = bpf.load_long(R7, R6, _SOCKET) + _load6(R7, _SOCKET_IP6)
    mapped = own.refuse(errno.ENETUNREACH)
    if own.v4:
        first = [*_MAPPED, own.v4[0]]
        mapped = _if_unspecific4(R5, R2, _put(_IP6, first)) + from_own
        for one in own.v4:
            mapped += _if6([*_MAPPED, one], bpf.leave(_PASS))
        mapped += _if6(_ANY6, _bind_source(own, AF_INET6, first))
        mapped += own.refuse(errno.EADDRNOTAVAIL)
    code = bpf.copy(R6, R1) + _load6(R6, _IP6) + _if6(_MAPPED, mapped)
    code += _if6(_ANY6, to_own) + _load6(R6, _IP6) + _if6(_LOOPBACK6, to_own) + from_own
    for address in own.v6:
        code += _if6(address, bpf.leave(_PASS))
    code += _if6(_ANY6, _bind_source(own, AF_INET6, own.v6[0]))
    return code + own.refuse(errno.EADDRNOTAVAIL)


def plan_sendmsg4(own: Own) -> bytes:
    """Return the program for a datagram to an IPv4 address, of a socket that is not connected."""
    if not own.v4:
        return own.refuse(errno.ENETUNREACH)
    code = bpf.copy(R6, R1) + bpf.load_word(R2, R6, _IP4)
    code += _if_unspecific4(R2, R3, _put(_IP4, own.v4[:1]))
    code += bpf.load_word(R2, R6, _FROM4)
    for one in own.v4:
        code += bpf.if_words({R2: one}, bpf.leave(_PASS))
    code += bpf.if_equal(R2, 0, _put(_FROM4, own.v4[:1]) + bpf.leave(_PASS))
    return code + own.refuse(errno.EADDRNOTAVAIL)


def plan_sendmsg6(own: Own) -> bytes:
    """Return the program for a datagram to an IPv6 address, of a socket that is not connected."""
    to_own = _put(_IP6, own.v6[0])
    code = bpf.copy(R6, R1) + _load6(R6, _IP6) + _if6(_ANY6, to_own)
    code += _load6(R6, _IP6) + _if6(_LOOPBACK6, to_own) + _load6(R6, _FROM6)
    for address in own.v6:
        code += _if6(address, bpf.leave(_PASS))
    code += _if6(_ANY6, _put(_FROM6, own.v6[0]) + bpf.leave(_PASS))
    return code + own.refuse(errno.EADDRNOTAVAIL)


def plan_packets(own: Own, *, incoming: bool) -> bytes:
    """Return the program that is asked for each packet of the jail's sockets.

    The local address must be the jail's own.  Nothing goes out to the loopback addresses, which
    only the host's own services have.
    """
    from4, to4, from6, to6 = -8, -4, -32, -16  # on the stack, as they follow each other in a packet
    here4, here6 = (to4, to6) if incoming else (from4, from6)
    drop = bpf.leave(_REFUSE)

    def fetch(offset: int, to: int) -> bytes:
        return (
            bpf.move(R2, offset)
            + bpf.copy(R3, FRAME)
            + bpf.add(R3, to)
            + bpf.move(R4, -to)
            + bpf.call(_LOAD_BYTES)
            + bpf.if_unequal(R0, 0, drop)
        )

    v4 = fetch(12, from4)
    if not incoming:
        v4 += bpf.load_byte(R2, FRAME, to4) + bpf.if_equal(R2, 127, drop)
    v4 += bpf.load_word(R2, FRAME, here4)
    v4 += b"".join(bpf.if_words({R2: one}, bpf.leave(_PASS)) for one in own.v4) + drop
    v6 = fetch(8, from6)
    if not incoming:
        v6 += _load6(FRAME, to6) + _if6(_LOOPBACK6, drop)
    v6 += _load6(FRAME, here6) + b"".join(_if6(one, bpf.leave(_PASS)) for one in own.v6) + drop
    return (
        bpf.load_word(R2, R1, _PACKET_PROTOCOL)
        + (bpf.if_equal(R2, 0x0008, v4) if own.v4 else b"")  # ETH_P_IP, in network order
        + (bpf.if_equal(R2, 0xDD86, v6) if own.v6 else b"")  # ETH_P_IPV6
        + drop
    )


def plan_programs(own: Own) -> list[tuple[bpf.Hook, bytes]]:
    """Return the programs that lock a jail, with the places to attach them."""
    hook = bpf.Hook
    programs = [
        (hook("socket", _SOCK, bpf.BPF_CGROUP_INET_SOCK_CREATE), plan_socket(own)),
        (hook("in", _SKB, bpf.BPF_CGROUP_INET_INGRESS), plan_packets(own, incoming=True)),
        (hook("out", _SKB, bpf.BPF_CGROUP_INET_EGRESS), plan_packets(own, incoming=False)),
        (hook("bind4", _ADDR, bpf.BPF_CGROUP_INET4_BIND), plan_bind4(own)),
        # A socket of AF_INET6 can send by IPv4, too: these are never left out.
        (hook("connect4", _ADDR, bpf.BPF_CGROUP_INET4_CONNECT), plan_connect4(own)),
        (hook("send4", _ADDR, bpf.BPF_CGROUP_UDP4_SENDMSG), plan_sendmsg4(own)),
    ]
    if own.v6:
        programs += [
            (hook("bind6", _ADDR, bpf.BPF_CGROUP_INET6_BIND), plan_bind6(own)),
            (hook("connect6", _ADDR, bpf.BPF_CGROUP_INET6_CONNECT), plan_connect6(own)),
            (hook("send6", _ADDR, bpf.BPF_CGROUP_UDP6_SENDMSG), plan_sendmsg6(own)),
        ]
    return programs


# --- for the engine -------------------------------------------------------------------------------
def read_says_why() -> bool:
    """Tell whether this kernel lets a program choose the errno of a refusal."""
    numbers = os.uname().release.split("-")[0].split(".")[:2]
    return tuple(int(one) for one in numbers if one.isdigit()) >= SAYS_WHY


def check_addresses(addresses: Sequence[str]) -> None:
    """Raise NetworkError for an address that the host does not have; call it before the plan."""
    for address in addresses:
        family, bits = (AF_INET6, 128) if ":" in address else (AF_INET, 32)
        try:
            one = Socket(family, SOCK_DGRAM | SOCK_CLOEXEC)
            try:
                one.bind((address, 0))
            finally:
                one.close()
        except OSError as error:
            raise NetworkError(
                f"cannot lock a jail to {address}: "
                + ("the host has no such address" if _is_missing(error) else f"{error.strerror}"),
                hint=f"give it to an interface: ip address add {address}/{bits} dev lo",
            ) from error


def _is_missing(error: OSError) -> bool:
    return error.errno in (errno.EADDRNOTAVAIL, errno.EINVAL, errno.EAFNOSUPPORT)


def check_rights(config: Mapping[str, Any]) -> None:
    """Raise SpecError where a jail could undo the lock: rights over the host's network.

    In a user namespace of its own it has them over its own things only.
    """
    kinds = {one["type"] for one in (config.get("linux") or {}).get("namespaces") or ()}
    if "user" in kinds:
        return
    capabilities = (config.get("process") or {}).get("capabilities") or {}
    for key, names in capabilities.items():
        for name in RIGHTS:
            if name in names:
                raise SpecError(
                    f"process.capabilities.{key}",
                    f"{name} would let the jail use the host's other addresses",
                    hint='give it a user namespace, or take the capability away: "cap_drop"',
                )


def plan_shared(
    program: Program,
    addresses: Sequence[str],
    cgroup_fd: Slot | None,
    path: str,
    *,
    says_why: bool = True,
) -> None:
    """Add locking the jail's v2 cgroup to ``addresses``, before anything runs in it.

    ``cgroup_fd`` is a descriptor of the cgroup at ``path``, opened in the lane ``before``; it is
    `jailrun.cgroups.plan.Joined.cgroup_fd`, by which an exec joins as well.
    """
    if cgroup_fd is None:
        raise UnsupportedError(
            f"a jail that is locked to {', '.join(addresses)} {NEEDS}",
            hint="mount -t cgroup2 none /sys/fs/cgroup/unified",
        )
    program.enter("net")
    for hook, code in plan_programs(Own(addresses, says_why=says_why)):
        bpf.plan_attach(program.before, hook, code, cgroup_fd, path)


def translate(error: OperationError) -> JailError:
    """Return the error to raise where a program could not be loaded or attached."""
    hints = {
        errno.ENOSYS: "a kernel with CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF",
        errno.EINVAL: "Linux 5.12 or later with CONFIG_CGROUP_BPF: uname -r",
        errno.EPERM: "CAP_BPF and CAP_NET_ADMIN: run as root, in a container as a privileged one",
        errno.E2BIG: "fewer programs on one cgroup: bpftool cgroup tree",
    }
    hint = hints.get(error.errno or 0)
    return UnsupportedError(
        f"a jail in the host's network cannot be locked to its addresses: {error}",
        hint=f"it needs {hint}; or give it a network: --net default" if hint else None,
    )
