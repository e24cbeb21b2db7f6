"""What a jail may not send: addresses of others, and what only a router or a switch says."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from struct import pack
from typing import Any

import pytest

from jailrun.net import rules
from jailrun.net.rules import link_local
from tests.integration.net import frames
from tests.integration.net.frames import ARP, EVERYONE, ICMP, IP, IP6, UDP, ether, ip, udp
from tests.integration.net.wires import Member, Space, Wires

pytestmark = pytest.mark.requires("tool:nft", "tool:ip")
OTHER_MAC = "02:00:00:66:66:66"
NODES = "ff02::1"  # all of them
COUNT = itertools.count()


@pytest.fixture(params=[True, False], ids=["nf-call", "no-nf-call"])
def wires(request: pytest.FixtureRequest) -> Iterator[Wires]:
    """Return a host, with bridged frames in its rules or without."""
    made = Wires()
    made.bridge_filter(on=request.param)
    yield made
    made.close()


def new_word() -> bytes:
    """Return what no other frame carries."""
    return f"<word {next(COUNT):06}>".encode()


class Line:
    """A line from a sender to an observer on the same bridge: says which frames come through."""

    def __init__(self, sender: Space, device: str, observer: Space, observed: str) -> None:
        self.out = sender.packets(device)
        self.into = observer.packets(observed)

    def passes(self, made: bytes, word: bytes, last: bytes, last_word: bytes) -> bool:
        """Send a frame, then one that passes; tell whether the first did, too."""
        self.out.send(made)
        self.out.send(last)
        seen = False
        while True:
            frame = self.into.recv(4000)
            seen |= word in frame
            if last_word in frame:
                return seen

    def close(self) -> None:
        """Close both ends."""
        self.out.close()
        self.into.close()


def make_frames(jail: Member, other: Member, word: bytes) -> dict[str, tuple[bool, bytes]]:
    """Return name → whether it may pass, and the frame."""
    mac, local = jail.mac, link_local(jail.mac)
    text = udp(7000, 7000, word)
    gateway = "10.87.0.1"

    def v4(source: str, payload: bytes = text, protocol: int = UDP, *, mac: str = mac) -> bytes:
        return ether(mac, other.mac, IP, ip(source, other.address, protocol, payload))

    def v6(source: str, payload: bytes = text, *, mac: str = mac) -> bytes:
        return ether(mac, other.mac, IP6, ip(source, other.address6, UDP, payload))

    def nd(source: str, kind: int, payload: bytes) -> bytes:
        return ether(mac, "33:33:00:00:00:01", IP6, frames.icmp6(source, NODES, kind, payload))

    def told(address: str, source: str = local) -> bytes:
        return nd(source, 136, frames.advertisement(address, mac, word))

    def arp(operation: int, inner_mac: str, address: str, *, mac: str = mac) -> bytes:
        body = frames.arp(operation, inner_mac, address, other.address, word)
        return ether(mac, EVERYONE, ARP, body)

    def odd_arp(*kinds: int) -> bytes:
        hardware, protocol, size, length = kinds
        words = (hardware, protocol, size, length)
        body = frames.arp(1, mac, jail.address, other.address, word, words)
        return ether(mac, EVERYONE, ARP, body)

    honest = ip(jail.address, other.address, UDP, text)
    tagged = pack(">HH", 5, IP) + honest
    option = pack(">BB", 253, (len(word) + 9) // 8) + word
    option += bytes(-len(option) % 8)
    return {
        "honest IPv4": (True, v4(jail.address)),
        "honest IPv6": (True, v6(jail.address6)),
        "honest link-local": (True, v6(local)),
        "honest ARP": (True, arp(1, mac, jail.address)),
        "honest ARP announcement": (True, arp(2, mac, jail.address)),
        "ARP probe": (True, arp(1, mac, "0.0.0.0")),
        "honest advertisement": (True, told(jail.address6)),
        "honest link-local advertisement": (True, told(local)),
        "IPv6 address detection": (
            True,
            nd("::", 135, bytes(4) + frames.address_bytes(local) + option),
        ),
        "IPv4 of another": (False, v4(other.address)),
        "IPv4 of the gateway": (False, v4(gateway)),
        "IPv4 of nobody": (False, v4("203.0.113.1")),
        "IPv4 without an address": (False, v4("0.0.0.0")),
        "IPv4, MAC of another": (False, v4(jail.address, mac=other.mac)),
        "IPv4, MAC of nobody": (False, v4(jail.address, mac=OTHER_MAC)),
        "IPv6 of another": (False, v6(other.address6)),
        "IPv6 of nobody": (False, v6("2001:db8:7::1")),
        "IPv6, link-local of another": (False, v6(link_local(other.mac))),
        "IPv6, MAC of nobody": (False, v6(jail.address6, mac=OTHER_MAC)),
        "IPv6 without an address": (False, v6("::")),
        "ARP for the gateway": (False, arp(2, mac, gateway)),
        "ARP asking as another": (False, arp(1, mac, other.address)),
        "ARP, MAC of another inside": (False, arp(2, other.mac, jail.address)),
        "ARP, MAC of nobody outside": (False, arp(2, mac, jail.address, mac=OTHER_MAC)),
        "ARP answer without an address": (False, arp(2, mac, "0.0.0.0")),
        "ARP of other hardware": (False, odd_arp(6, IP, 6, 4)),
        "ARP of another protocol": (False, odd_arp(1, IP6, 6, 4)),
        "ARP with long hardware addresses": (False, odd_arp(1, IP, 8, 4)),
        "ARP with long addresses": (False, odd_arp(1, IP, 6, 16)),
        "advertisement for the gateway": (False, told("fd87:1::1")),
        "advertisement for another": (False, told(other.address6, jail.address6)),
        "router advertisement": (False, nd(local, 134, bytes(12) + option)),
        "IPv6 redirect": (False, nd(local, 137, bytes(36) + option)),
        "IPv4 redirect": (False, v4(jail.address, frames.icmp(5, word), ICMP)),
        "DHCP server": (False, v4(jail.address, udp(67, 68, word))),
        "DHCPv6 server": (False, v6(jail.address6, udp(547, 546, word))),
        "VLAN tag": (False, ether(mac, other.mac, frames.VLAN, tagged)),
        "provider's VLAN tag": (False, ether(mac, other.mac, frames.PROVIDER_VLAN, tagged)),
        "priority tag": (
            False,
            ether(mac, other.mac, frames.VLAN, pack(">HH", 7 << 13, IP) + honest),
        ),
        "other protocol": (False, ether(mac, other.mac, frames.LLDP, word)),
        "802.3": (False, ether(mac, other.mac, 46, b"\x42\x42\x03" + word)),
        "spanning tree": (False, ether(mac, "01:80:c2:00:00:00", 46, b"\x42\x42\x03" + word)),
    }


def list_wrong(line: Line, jail: Member, other: Member) -> list[str]:
    """Return what does not behave as it should."""
    wrong = []
    for name in make_frames(jail, other, b""):
        word, last_word = new_word(), new_word()
        expected, made = make_frames(jail, other, word)[name]
        last = make_frames(jail, other, last_word)["honest IPv4"][1]
        if line.passes(made, word, last, last_word) != expected:
            wrong.append(f"{name} {'does not pass' if expected else 'passes'}")
    return wrong


def test_only_honest_frames_pass(wires: Wires) -> None:
    network = wires.network(0)
    jail, other = wires.join(network, 2), wires.join(network, 3)
    line = Line(jail, "eth0", other, "eth0")
    assert list_wrong(line, jail, other) == []
    line.close()


def test_host_gets_only_honest_frames(wires: Wires) -> None:
    """What is for the host, or everybody, goes another way through the bridge."""
    network = wires.network(0)
    jail, other = wires.join(network, 2), wires.join(network, 3)
    line = Line(jail, "eth0", wires.host, network["link"])
    bridge = json.loads(wires.host.run("ip", "-j", "link", "show", network["link"]))[0]["address"]
    real, other.mac = other.mac, bridge
    wrong = list_wrong(line, jail, other)
    other.mac = real
    assert wrong == []
    line.close()


def host_bridge(wires: Wires) -> dict[str, Any]:
    """Make a bridge of the host's own, with one port of its own, and a network on it."""
    return wires.network(0, link="br9", driver="host-bridge")


def join_unmanaged(wires: Wires, network: dict[str, Any], number: int) -> Member:
    """Connect somebody of whom we know nothing to the host's bridge."""
    nic = {**wires.nic(network, number), "link": f"vm{number:010x}"}
    nobody = Member(wires, {"nics": [nic], "publish": [], "firewall": []})
    wires.members.append(nobody)
    nobody.connect(nic)
    return nobody


def test_other_ports_of_a_bridge_are_not_our_concern(wires: Wires) -> None:
    network = host_bridge(wires)
    one, two = join_unmanaged(wires, network, 2), join_unmanaged(wires, network, 3)
    jail = wires.join(network, 4)
    line = Line(one, "eth0", two, "eth0")
    for name in (
        "IPv4 of nobody",
        "router advertisement",
        "DHCP server",
        "VLAN tag",
        "other protocol",
    ):
        word, last_word = new_word(), new_word()
        last = make_frames(one, two, last_word)["honest IPv4"][1]
        assert line.passes(make_frames(one, two, word)[name][1], word, last, last_word), name
    line.close()
    line = Line(jail, "eth0", two, "eth0")
    assert list_wrong(line, jail, two) == []
    line.close()


def test_own_addresses_on_a_bridge_of_the_host(wires: Wires) -> None:
    """Where others give out the addresses, the MAC and the protocols are locked."""
    network = host_bridge(wires)
    nic = wires.nic(network, 4)
    unknown = {**nic, "address": "", "address6": ""}
    jail = wires.join(network, 4, nics=[nic])
    wires.remove(rules.jail_removal_text(jail.record))  # type: ignore[arg-type]
    wires.apply(rules.jail_text({**jail.record, "nics": [unknown]}))  # type: ignore[typeddict-item]
    other = join_unmanaged(wires, network, 3)
    line = Line(jail, "eth0", other, "eth0")
    wrong = list_wrong(line, jail, other)
    line.close()
    assert wrong == [
        f"{name} passes"
        for name in (
            "IPv4 of another",
            "IPv4 of the gateway",
            "IPv4 of nobody",
            "IPv4 without an address",
            "IPv6 of another",
            "IPv6 of nobody",
            "IPv6, link-local of another",
            "IPv6 without an address",
            "ARP for the gateway",
            "ARP asking as another",
            "ARP answer without an address",
            "advertisement for the gateway",
            "advertisement for another",
        )
    ]


def test_unknown_port_of_ours_is_silent(wires: Wires) -> None:
    network = wires.network(0)
    nic = wires.nic(network, 2)
    stranger = Member(wires, {"nics": [nic], "publish": [], "firewall": []})
    wires.members.append(stranger)
    stranger.connect(nic)
    jail, other = wires.join(network, 4), wires.join(network, 3)
    line, honest = (Line(space, "eth0", other, "eth0") for space in (stranger, jail))
    for name, (_passes, made) in make_frames(stranger, other, b"<stranger>").items():
        line.out.send(made)
        last_word = new_word()
        last = make_frames(jail, other, last_word)["honest IPv4"][1]
        assert not honest.passes(b"\0" * 60, b"<stranger>", last, last_word), name
    line.close()
    honest.close()
