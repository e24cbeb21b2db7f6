"""The host's own firewall in the way: found with real rule sets, and the advice helps."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from jailrun.net import policy
from jailrun.spec.traffic import parse_publish
from tests.integration.net.wires import HOST4, OUTSIDE4, OUTSIDE6, Wires

TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
pytestmark = pytest.mark.requires("tool:nft", "tool:ip")

NFT = """nft -f - <<END
table inet filter {
  chain input { type filter hook input priority 0; policy drop;
    ct state established,related accept
    meta l4proto { icmp, icmpv6 } accept
  }
  chain forward { type filter hook forward priority 0; policy drop;
    ct state vmap { established : accept, related : accept, invalid : drop }
    iifname "docker0" accept
  }
}
END"""
ZONES = """nft -f - <<END
table inet firewall {
  chain forward { type filter hook forward priority 10; policy accept;
    ct state established,related accept
    meta l4proto icmpv6 accept
    jump zones
    reject with icmpx admin-prohibited
  }
  chain zones {
    ip saddr 192.168.0.0/16 accept
    iifname { "eth0", "eth1" } goto other
  }
  chain other { drop; }
}
END"""
DOCKER = """
iptables{0} -P FORWARD DROP
iptables{0} -N DOCKER-USER
iptables{0} -A FORWARD -j DOCKER-USER
iptables{0} -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables{0} -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
iptables{0} -A DOCKER-USER -m comment --comment 'the end' -j RETURN
"""
IPTABLES = """
iptables -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A FORWARD -i lo -j ACCEPT
iptables -A FORWARD -j REJECT --reject-with icmp-host-prohibited
ip6tables -P FORWARD DROP
iptables -P INPUT DROP
iptables -A INPUT -i lo -j ACCEPT
"""
LEGACY = """
iptables-legacy -P FORWARD DROP
ip6tables-legacy -A FORWARD -i jailrun0 -j DROP
"""


@pytest.fixture
def wires() -> Iterator[Wires]:
    """Return a host without networks, and an outside."""
    made = Wires()
    yield made
    made.close()


def find(wires: Wires, network: dict[str, Any]) -> list[Any]:
    """Return what is in the way on this host, whose rules stay as they are."""
    before = wires.host.run("nft", "-s", "list", "ruleset")
    with wires.host.entered():
        found: list[Any] = policy.find_blocks(network)
    assert wires.host.run("nft", "-s", "list", "ruleset") == before
    return found


@pytest.mark.requires("tool:iptables", "tool:iptables-legacy")
@pytest.mark.parametrize(
    ("commands", "blocked"),
    [
        (NFT, {OUTSIDE4, OUTSIDE6, HOST4, "names"}),
        (ZONES, {OUTSIDE4, OUTSIDE6, HOST4}),
        (DOCKER.format(""), {OUTSIDE4, HOST4}),
        (DOCKER.format("-legacy"), {OUTSIDE4, HOST4}),
        (IPTABLES, {OUTSIDE4, OUTSIDE6, HOST4, "names"}),
        (LEGACY, {OUTSIDE4, OUTSIDE6, HOST4}),
    ],
    ids=["nft", "zones", "docker", "docker-legacy", "iptables", "legacy"],
)
def test_advice_lets_traffic_through(wires: Wires, commands: str, blocked: set[str]) -> None:
    wires.bridge_filter(on=False)
    network = wires.network(0)
    jail = wires.join(network, 2, publish=[parse_publish("8080:80")])
    gateway = network["gateway"]
    resolver = wires.listen(wires.host, UDP, gateway, 53)
    servers = {
        OUTSIDE4: wires.listen(wires.outside, TCP, OUTSIDE4, 7000),
        OUTSIDE6: wires.listen(wires.outside, TCP, OUTSIDE6, 7000),
    }
    published = wires.listen(jail, TCP, "0.0.0.0", 80)

    def list_blocked() -> set[str]:
        found = {
            address for address, at in servers.items() if wires.refuses(jail, address, 7000, at)
        }
        if wires.refuses(wires.outside, HOST4, 8080, published):
            found.add(HOST4)
        return found | ({"names"} if wires.refuses(jail, gateway, 53, resolver) else set())

    assert find(wires, network) == []
    wires.host.run("sh", "-ec", commands)
    assert list_blocked() == blocked
    blocks = find(wires, network)
    said = {words for block in blocks for words in block["stops"]}
    assert ("its jails' questions for names" in said) == ("names" in blocked)
    assert ("what comes for published ports" in said) == (HOST4 in blocked)
    assert "what its jails send to the outside" in said
    for block in blocks:
        wires.host.run("sh", "-ec", "\n".join(block["advice"]))
    assert find(wires, network) == []
    for address, server in servers.items():
        assert wires.ask(jail, address, 7000, server), address
    assert wires.ask(wires.outside, HOST4, 8080, published) == OUTSIDE4
    assert wires.ask(jail, gateway, 53, resolver) == jail.address


def test_traffic_among_jails(wires: Wires) -> None:
    """With bridged frames in the host's rules, its policy stops these, too."""
    network = wires.network(0, internal=True)
    one, two = wires.join(network, 2), wires.join(network, 3)
    server = wires.listen(two, TCP, two.address, 80)
    wires.host.run("sh", "-ec", NFT.replace("policy drop", "policy accept", 1))
    wires.bridge_filter(on=False)
    assert find(wires, network) == []
    assert wires.ask(one, two.address, 80, server) == one.address
    wires.bridge_filter(on=True)
    (block,) = find(wires, network)
    assert block["stops"] == ["what its jails send to each other"]
    assert wires.refuses(one, two.address, 80, server)
    wires.host.run("sh", "-ec", "\n".join(block["advice"]))
    assert wires.ask(one, two.address, 80, server) == one.address
