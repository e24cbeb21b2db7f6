"""The messages of a start, byte by byte as pyroute2 encodes the same requests."""

from __future__ import annotations

from _struct import pack_into, unpack_from
from ipaddress import ip_interface
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from jailrun.kernel.operation import Slot, Struct
from jailrun.net import netlink

MAC = "02:01:02:03:04:05"
HOST_MAC = "fe:aa:bb:cc:dd:ee"
LINK = "jr0123456789"
UP = {"flags": 1, "change": 1}
LINKS = {16: ifinfmsg, 17: ifinfmsg, 18: ifinfmsg, 19: ifinfmsg, 20: ifaddrmsg, 24: rtmsg}


def encode(kind: int, flags: int, fields: dict[str, Any], *attributes: tuple[str, Any]) -> bytes:
    """Return what pyroute2 would send."""
    message = LINKS[kind]()
    message.update(fields)
    message["attrs"] = list(attributes)
    message["header"].update({"type": kind, "flags": flags, "sequence_number": 0, "pid": 0})
    message.encode()
    return bytes(message.data)


def fill(message: Struct, **numbers: int) -> bytes:
    """Return a message with its holes filled, as the executor does."""
    (data,) = message.parts
    assert isinstance(data, bytes)
    filled = bytearray(data)
    for at, slot in (message.holes or {}).items():
        pack_into("<i", filled, at, numbers[slot.kind])
    return bytes(filled)


def kind_of(name: str, data: dict[str, Any]) -> tuple[str, Any]:
    """Return a link's kind as pyroute2 has it."""
    return "IFLA_LINKINFO", {
        "attrs": [("IFLA_INFO_KIND", name), ("IFLA_INFO_DATA", data)],
    }


@pytest.mark.parametrize("mtu", [0, 1400])
def test_veth(mtu: int) -> None:
    """Both ends, the peer in the namespace of a process that is not known yet."""
    size = [("IFLA_MTU", mtu)] if mtu else []
    peer = {
        "attrs": [
            ("IFLA_IFNAME", "eth0"),
            ("IFLA_ADDRESS", MAC),
            *size,
            ("IFLA_NET_NS_PID", 4711),
        ]
    }
    expected = encode(
        16,
        netlink.NEW,
        UP,
        ("IFLA_IFNAME", LINK),
        ("IFLA_ADDRESS", HOST_MAC),
        *size,
        ("IFLA_MASTER", 7),
        kind_of("veth", {"attrs": [("VETH_INFO_PEER", peer)]}),
    )
    made = netlink.new_veth(
        LINK, "eth0", Slot(0, "pid"), Slot(1, "bridge"), link_mac=HOST_MAC, peer_mac=MAC, mtu=mtu
    )
    assert fill(made, pid=4711, bridge=7) == expected
    known = netlink.new_veth(LINK, "eth0", 4711, 7, link_mac=HOST_MAC, peer_mac=MAC, mtu=mtu)
    assert known.holes is None
    assert fill(known) == expected


@pytest.mark.parametrize(("hairpin", "guard"), [(True, False), (False, True), (True, True)])
def test_port(hairpin: bool, guard: bool) -> None:
    """What a bridge does with a port."""
    data = {"attrs": [("IFLA_BRPORT_MODE", int(hairpin)), ("IFLA_BRPORT_GUARD", int(guard))]}
    kind = {"attrs": [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", data)]}
    expected = encode(16, netlink.CHANGE, {}, ("IFLA_IFNAME", LINK), ("IFLA_LINKINFO", kind))
    assert fill(netlink.set_up_port(LINK, hairpin=hairpin, guard=guard)) == expected


@pytest.mark.parametrize("mode", netlink.MACVLAN_MODES)
def test_macvlan(mode: str) -> None:
    """On a parent, in a process's namespace."""
    expected = encode(
        16,
        netlink.NEW,
        {},
        ("IFLA_IFNAME", "eth1"),
        ("IFLA_ADDRESS", MAC),
        ("IFLA_LINK", 3),
        ("IFLA_NET_NS_PID", 4711),
        kind_of("macvlan", {"attrs": [("IFLA_MACVLAN_MODE", mode)]}),
    )
    made = netlink.new_macvlan("eth1", Slot(0, "pid"), Slot(1, "parent"), mac=MAC, mode=mode)
    assert fill(made, pid=4711, parent=3) == expected


@pytest.mark.parametrize("mode", netlink.IPVLAN_MODES)
def test_ipvlan(mode: str) -> None:
    """It has its parent's MAC."""
    expected = encode(
        16,
        netlink.NEW,
        {},
        ("IFLA_IFNAME", "eth1"),
        ("IFLA_MTU", 1400),
        ("IFLA_LINK", 3),
        ("IFLA_NET_NS_PID", 4711),
        kind_of("ipvlan", {"attrs": [("IFLA_IPVLAN_MODE", netlink.IPVLAN_MODES[mode])]}),
    )
    made = netlink.new_ipvlan("eth1", Slot(0, "pid"), 3, mode=mode, mtu=1400)
    assert fill(made, pid=4711) == expected


def test_move() -> None:
    """A link of the host, found by its index, since the name is the new one."""
    expected = encode(
        19, netlink.CHANGE, {"index": 5}, ("IFLA_NET_NS_PID", 4711), ("IFLA_IFNAME", "eth1")
    )
    made = netlink.move_link(Slot(0, "device"), Slot(1, "pid"), "eth1")
    assert fill(made, device=5, pid=4711) == expected


def test_link_is_given_back() -> None:
    """Into the namespace of a descriptor, under its old name."""
    expected = encode(
        19, netlink.CHANGE, {"index": 5}, ("IFLA_NET_NS_FD", 12), ("IFLA_IFNAME", "enp3s0")
    )
    assert fill(netlink.return_link(Slot(0, "device"), 12, "enp3s0"), device=5) == expected


def test_link_by_name() -> None:
    """Asking for one."""
    mask = ("IFLA_EXT_MASK", netlink.RTEXT_FILTER_SKIP_STATS)
    assert fill(netlink.get_link("eth0")) == encode(
        18, netlink.CHANGE, {}, ("IFLA_IFNAME", "eth0"), mask
    )


def test_changes_by_index() -> None:
    """Bringing one up, and giving it its MAC."""
    index = Slot(0, "link")
    assert fill(netlink.set_up(index, "eth0"), link=2) == encode(
        16, netlink.CHANGE, {"index": 2, **UP}
    )
    assert fill(netlink.set_mac(index, MAC), link=2) == encode(
        16, netlink.CHANGE, {"index": 2}, ("IFLA_ADDRESS", MAC)
    )


@pytest.mark.parametrize("interface", ["10.1.2.3/20", "192.0.2.0/31", "192.0.2.7/32", "10.0.0.1/0"])
def test_address(interface: str) -> None:
    """With a broadcast address where the subnet has one."""
    asked = ip_interface(interface)
    size = asked.network.prefixlen
    text = str(asked.ip)
    broadcast = [("IFA_BROADCAST", str(asked.network.broadcast_address))] if size < 31 else []
    expected = encode(
        20,
        netlink.NEW,
        {"family": 2, "prefixlen": size, "index": 2},
        ("IFA_LOCAL", text),
        ("IFA_ADDRESS", text),
        *broadcast,
    )
    assert fill(netlink.add_address(Slot(0, "link"), text, size), link=2) == expected


def test_address_of_ipv6() -> None:
    """Without the search for duplicates."""
    expected = encode(
        20,
        netlink.NEW,
        {"family": 10, "prefixlen": 64, "index": 2},
        ("IFA_ADDRESS", "fd00::1:2"),
        ("IFA_FLAGS", netlink.IFA_F_NODAD),
    )
    assert fill(netlink.add_address(2, "fd00::1:2", 64)) == expected


@pytest.mark.parametrize(("gateway", "family"), [("10.87.0.1", 2), ("fd00::1", 10)])
def test_default_route(gateway: str, family: int) -> None:
    """Through a gateway, of either family."""
    expected = encode(
        24,
        netlink.NEW,
        {"family": family, "table": 254, "proto": 4, "type": 1},
        ("RTA_GATEWAY", gateway),
        ("RTA_OIF", 2),
    )
    assert fill(netlink.add_default_route(Slot(0, "link"), gateway), link=2) == expected


@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789._-", min_size=1, max_size=15))
def test_names_of_every_length(name: str) -> None:
    """Attributes are padded to four bytes, and the length counts that."""
    data = fill(netlink.get_link(name))
    mask = ("IFLA_EXT_MASK", netlink.RTEXT_FILTER_SKIP_STATS)
    assert data == encode(18, netlink.CHANGE, {}, ("IFLA_IFNAME", name), mask)
    assert unpack_from("<I", data) == (len(data),)


def test_address_that_is_none() -> None:
    """A mistake above is not sent."""
    with pytest.raises(OSError, match="illegal IP address"):
        netlink.add_address(2, "10.0.0", 8)
