"""The messages that a start sends to the kernel's routing socket, as bytes (rtnetlink(7)).

Owns: how links, addresses and routes of a jail are asked for; pure.  Out of scope: which of them a
jail needs (`jailrun.net.links`), sending (`jailrun.kernel.lane.Lane.netlink`), and everything that
no start does, which is pyroute2's.

A number that is known only when the program runs, as a process or the index of a link, may be a
slot wherever the type says ``Number``.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_pton
from _struct import Struct as Layout
from _struct import pack

from jailrun.kernel.program import Slot, Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Number: TypeAlias = int | Slot
    # An attribute: its encoding, and where in it the numbers go that are not known yet
    Attribute: TypeAlias = tuple[bytes, dict[int, Slot]]

# --- linux/netlink.h, linux/rtnetlink.h --------------------------------------------------------
NETLINK_ROUTE = 0
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NEW = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
CHANGE = NLM_F_REQUEST | NLM_F_ACK
RTM_NEWLINK, RTM_GETLINK, RTM_SETLINK = 16, 18, 19
RTM_NEWADDR = 20
RTM_NEWROUTE = 24
RTEXT_FILTER_SKIP_STATS = 8
RT_TABLE_MAIN = 254
RTPROT_STATIC = 4
RTN_UNICAST = 1

# --- linux/if_link.h, linux/if_addr.h, linux/veth.h ----------------------------------------------
IFF_UP = 0x1
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER = 1, 3, 4, 5, 10
IFLA_LINKINFO, IFLA_NET_NS_PID, IFLA_NET_NS_FD, IFLA_EXT_MASK = 18, 19, 28, 29
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
IFLA_BRPORT_MODE, IFLA_BRPORT_GUARD = 4, 5
IFLA_MACVLAN_MODE = 1
IFLA_IPVLAN_MODE = 1
VETH_INFO_PEER = 1
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS = 1, 2, 4, 8
IFA_F_NODAD = 0x02
RTA_OIF, RTA_GATEWAY = 4, 5
MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES = {"l2": 0, "l3": 1}

HEADER = Layout("<IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
LINK = Layout("<BxHiII")  # struct ifinfomsg: family, type, index, flags, change
ADDRESS = Layout("<BBBBi")  # struct ifaddrmsg: family, prefix, flags, scope, index
ROUTE = Layout("<BBBBBBBBI")  # struct rtmsg: family, dst_len, src_len, tos, table, protocol, …
INDEX_AT = 4  # of the index in struct ifinfomsg and in struct ifaddrmsg


def new_veth(
    link: str,
    peer: str,
    pid: Number,
    bridge: Number,
    *,
    link_mac: str,
    peer_mac: str,
    mtu: int = 0,
) -> Struct:
    """Make a pair: ``link``, up and a port of ``bridge``, and ``peer`` in a process's namespace.

    The peer cannot be made up: the other end does not exist yet when the kernel would do it.
    """
    inside = _link(
        _text(IFLA_IFNAME, peer),
        _attribute(IFLA_ADDRESS, pack_mac(peer_mac)),
        *_mtu(mtu),
        _number(IFLA_NET_NS_PID, pid),
    )
    return _message(
        RTM_NEWLINK,
        NEW,
        f"RTM_NEWLINK {{veth {link} ⇄ {peer}}}",
        _link(
            _text(IFLA_IFNAME, link),
            _attribute(IFLA_ADDRESS, pack_mac(link_mac)),
            *_mtu(mtu),
            _number(IFLA_MASTER, bridge),
            _nest(
                IFLA_LINKINFO,
                _text(IFLA_INFO_KIND, "veth"),
                _nest(IFLA_INFO_DATA, _nest(VETH_INFO_PEER, inside)),
            ),
            up=True,
        ),
    )


def set_up_port(link: str, *, hairpin: bool = False, guard: bool = False) -> Struct:
    """Say how the bridge treats a port: it may send a frame back; who is there is no bridge."""
    words = [name for name, is_set in (("hairpin", hairpin), ("guard", guard)) if is_set]
    return _message(
        RTM_NEWLINK,
        CHANGE,
        f"RTM_NEWLINK {{{link}, port: {' '.join(words) or 'plain'}}}",
        _link(
            _text(IFLA_IFNAME, link),
            _nest(
                IFLA_LINKINFO,
                _text(IFLA_INFO_SLAVE_KIND, "bridge"),
                _nest(
                    IFLA_INFO_SLAVE_DATA,
                    _attribute(IFLA_BRPORT_MODE, pack("<B", hairpin)),
                    _attribute(IFLA_BRPORT_GUARD, pack("<B", guard)),
                ),
            ),
        ),
    )


def new_macvlan(
    name: str, pid: Number, parent: Number, *, mac: str, mode: str = "bridge", mtu: int = 0
) -> Struct:
    """Make an interface with a MAC of its own on ``parent``, in a process's namespace."""
    kind = _attribute(IFLA_MACVLAN_MODE, pack("<I", MACVLAN_MODES[mode]))
    return _on_parent("macvlan", name, pid, parent, kind, mac, mtu)


def new_ipvlan(name: str, pid: Number, parent: Number, *, mode: str = "l2", mtu: int = 0) -> Struct:
    """Make an interface with the parent's MAC, in a process's namespace."""
    kind = _attribute(IFLA_IPVLAN_MODE, pack("<H", IPVLAN_MODES[mode]))
    return _on_parent("ipvlan", name, pid, parent, kind, "", mtu)


def _on_parent(
    kind: str, name: str, pid: Number, parent: Number, data: Attribute, mac: str, mtu: int
) -> Struct:
    return _message(
        RTM_NEWLINK,
        NEW,
        f"RTM_NEWLINK {{{kind} {name}}}",
        _link(
            _text(IFLA_IFNAME, name),
            *([_attribute(IFLA_ADDRESS, pack_mac(mac))] if mac else []),
            *_mtu(mtu),
            _number(IFLA_LINK, parent),
            _number(IFLA_NET_NS_PID, pid),
            _nest(IFLA_LINKINFO, _text(IFLA_INFO_KIND, kind), _nest(IFLA_INFO_DATA, data)),
        ),
    )


def move_link(index: Number, pid: Number, name: str) -> Struct:
    """Move a link into a process's namespace, and call it ``name`` there."""
    return _message(
        RTM_SETLINK,
        CHANGE,
        f"RTM_SETLINK {{→ {name}}}",
        _link(_number(IFLA_NET_NS_PID, pid), _text(IFLA_IFNAME, name), index=index),
    )


def return_link(index: Number, namespace_fd: int, name: str) -> Struct:
    """Move a link into the namespace of a descriptor, and call it ``name`` there."""
    return _message(
        RTM_SETLINK,
        CHANGE,
        f"RTM_SETLINK {{← {name}}}",
        _link(_number(IFLA_NET_NS_FD, namespace_fd), _text(IFLA_IFNAME, name), index=index),
    )


def get_link(name: str) -> Struct:
    """Ask for a link, whose index is the operation's result.

    The kernel also brings its view of the link's carrier up to date first (``rtnl_getlink``).
    """
    return _message(
        RTM_GETLINK,
        CHANGE,
        f"RTM_GETLINK {{{name}}}",
        _link(
            _text(IFLA_IFNAME, name),
            _attribute(IFLA_EXT_MASK, pack("<I", RTEXT_FILTER_SKIP_STATS)),
        ),
    )


def set_up(index: Number, name: str) -> Struct:
    """Bring a link up."""
    return _message(RTM_NEWLINK, CHANGE, f"RTM_NEWLINK {{{name}, up}}", _link(index=index, up=True))


def set_mac(index: Number, mac: str) -> Struct:
    """Set a link's address: with arp_notify and ndisc_notify, all neighbours are told."""
    return _message(
        RTM_NEWLINK,
        CHANGE,
        f"RTM_NEWLINK {{{mac}}}",
        _link(_attribute(IFLA_ADDRESS, pack_mac(mac)), index=index),
    )


def add_address(index: Number, address: str, prefix: int) -> Struct:
    """Give a link an address; a v6 one is used at once, without asking whether others have it."""
    packed = pack_address(address)
    if len(packed) == 4:
        attributes = [_attribute(IFA_LOCAL, packed), _attribute(IFA_ADDRESS, packed)]
        if prefix < 31:
            last = int.from_bytes(packed, "big") | (1 << 32 - prefix) - 1
            attributes.append(_attribute(IFA_BROADCAST, pack(">I", last)))
        start = ADDRESS.pack(AF_INET, prefix, 0, 0, _known(index))
    else:
        flags = _attribute(IFA_FLAGS, pack("<I", IFA_F_NODAD))
        attributes = [_attribute(IFA_ADDRESS, packed), flags]
        start = ADDRESS.pack(AF_INET6, prefix, 0, 0, _known(index))
    holes = {INDEX_AT: index} if isinstance(index, Slot) else {}
    label = f"RTM_NEWADDR {{{address}/{prefix}}}"
    return _message(RTM_NEWADDR, NEW, label, _join(start, holes, *attributes))


def add_default_route(index: Number, gateway: str) -> Struct:
    """Send through ``gateway`` what goes to no network of the jail's own."""
    packed = pack_address(gateway)
    family = AF_INET if len(packed) == 4 else AF_INET6
    start = ROUTE.pack(family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, 0, RTN_UNICAST, 0)
    return _message(
        RTM_NEWROUTE,
        NEW,
        f"RTM_NEWROUTE {{default via {gateway}}}",
        _join(start, {}, _attribute(RTA_GATEWAY, packed), _number(RTA_OIF, index)),
    )


def pack_address(address: str) -> bytes:
    """Return an IPv4 or IPv6 address as the wire has it."""
    return inet_pton(AF_INET6 if ":" in address else AF_INET, address)


def pack_mac(mac: str) -> bytes:
    """Return an Ethernet address as the wire has it."""
    return bytes.fromhex(mac.replace(":", ""))


# --- how messages are put together (netlink(7)) ------------------------------------------------


def _known(number: Number) -> int:
    return 0 if isinstance(number, Slot) else number


def _attribute(kind: int, data: bytes) -> Attribute:
    length = 4 + len(data)
    return pack("<HH", length, kind) + data + bytes(-length % 4), {}


def _text(kind: int, text: str) -> Attribute:
    return _attribute(kind, text.encode() + b"\0")


def _number(kind: int, number: Number) -> Attribute:
    holes = {4: number} if isinstance(number, Slot) else {}
    return pack("<HHI", 8, kind, _known(number)), holes


def _mtu(mtu: int) -> list[Attribute]:
    return [_number(IFLA_MTU, mtu)] if mtu else []


def _nest(kind: int, *attributes: Attribute) -> Attribute:
    data, holes = _join(pack("<HH", 0, kind), {}, *attributes)
    return pack("<H", len(data)) + data[2:], holes


def _join(start: bytes, holes: dict[int, Slot], *attributes: Attribute) -> Attribute:
    data = start
    for encoded, inner in attributes:
        for at, slot in inner.items():
            holes[len(data) + at] = slot
        data += encoded
    return data, holes


def _link(*attributes: Attribute, index: Number = 0, up: bool = False) -> Attribute:
    holes = {INDEX_AT: index} if isinstance(index, Slot) else {}
    start = LINK.pack(0, 0, _known(index), IFF_UP * up, IFF_UP * up)
    return _join(start, holes, *attributes)


def _message(kind: int, flags: int, label: str, body: Attribute) -> Struct:
    data, inner = body
    holes = {HEADER.size + at: slot for at, slot in inner.items()}
    header = HEADER.pack(HEADER.size + len(data), kind, flags, 0, 0)
    return Struct(header + data, label=label, holes=holes or None)
