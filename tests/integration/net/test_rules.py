"""The firewall of networks with real traffic: what gets through, and from whom it seems to come."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from jailrun.errors import NetworkError
from jailrun.net import rules
from tests.integration.net.wires import HOST4, HOST6, OUTSIDE4, OUTSIDE6, SOON, Space, Wires

TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
pytestmark = pytest.mark.requires("tool:nft", "tool:ip")


@pytest.fixture
def wires() -> Iterator[Wires]:
    """Return a host without networks, and an outside."""
    made = Wires()
    yield made
    made.close()


@pytest.fixture(params=[True, False], ids=["nf-call", "no-nf-call"])
def both(request: pytest.FixtureRequest, wires: Wires) -> Wires:
    """Return the same with bridged frames in the host's rules, and without."""
    wires.bridge_filter(on=request.param)
    return wires


def publish(protocol: str = "tcp", host_address: str = "", **changes: Any) -> dict[str, Any]:
    """Return a published port, 8080 of the host to 80."""
    return {
        "protocol": protocol,
        "host_address": host_address,
        "host_port": 8080,
        "jail_port": 80,
        "count": 1,
        **changes,
    }


def test_what_leaves_is_masqueraded(both: Wires) -> None:
    jail = both.join(both.network(0), 2)
    for kind in (TCP, UDP):
        for outside, host in ((OUTSIDE4, HOST4), (OUTSIDE6, HOST6)):
            server = both.listen(both.outside, kind, outside, 7000)
            assert both.ask(jail, outside, 7000, server) == host


def test_members_reach_each_other_and_the_host_as_themselves(both: Wires) -> None:
    network = both.network(0)
    one, two = both.join(network, 2), both.join(network, 3)
    for space, address, seen in (
        (two, two.address, one.address),
        (two, two.address6, one.address6),
        (both.host, network["gateway"], one.address),
        (both.host, network["gateway6"], one.address6),
        (both.host, HOST4, one.address),
    ):
        server = both.listen(space, TCP, address, 7000)
        assert both.ask(one, address, 7000, server) == seen, address


@pytest.mark.parametrize(("kind", "protocol"), [(TCP, "tcp"), (UDP, "udp")])
def test_published_port(both: Wires, kind: int, protocol: str) -> None:
    network, second = both.network(0), both.network(1)
    jail = both.join(network, 2, publish=[publish(protocol)])
    neighbour, stranger = both.join(network, 3), both.join(second, 2)
    server = both.listen(jail, kind, "0.0.0.0", 80)
    server6 = both.listen(jail, kind, "::", 80)
    gateway, gateway6 = network["gateway"], network["gateway6"]
    for source, address, seen in (
        (both.outside, HOST4, OUTSIDE4),
        (both.host, "127.0.0.1", gateway),
        (both.host, HOST4, HOST4),
        (stranger, HOST4, gateway),
        (neighbour, HOST4, gateway),
        (neighbour, gateway, gateway),
        (jail, HOST4, gateway),
        (jail, gateway, gateway),
    ):
        assert both.ask(source, address, 8080, server) == seen, f"{source.name} to {address}"
    for source, address, seen in (
        (both.outside, HOST6, OUTSIDE6),
        (both.host, HOST6, HOST6),
        (stranger, HOST6, gateway6),
        (neighbour, HOST6, gateway6),
        (jail, HOST6, gateway6),
        (jail, gateway6, gateway6),
    ):
        assert both.ask(source, address, 8080, server6) == seen, f"{source.name} to {address}"
    # What is published on the host has not changed what is in the jail's port range.
    assert both.refuses(both.outside, HOST4, 80, server)
    # The kernel cannot translate this one; it is refused at once, not lost.
    with pytest.raises(ConnectionRefusedError), both.host.bound(TCP, "::") as client:
        client.connect(("::1", 8080))


def test_published_on_one_address(wires: Wires) -> None:
    wires.host.ip("addr add 192.0.2.2/24 dev up0", "addr add 2001:db8::2/64 dev up0 nodad")
    network = wires.network(0)
    ports = [publish(host_address="192.0.2.2"), publish(host_address="2001:db8::2")]
    local = publish(host_address="127.0.0.1", host_port=8081)
    jail = wires.join(network, 2, publish=[*ports, local])
    server, server6 = (wires.listen(jail, TCP, address, 80) for address in ("0.0.0.0", "::"))
    assert wires.ask(wires.outside, "192.0.2.2", 8080, server) == OUTSIDE4
    assert wires.ask(wires.outside, "2001:db8::2", 8080, server6) == OUTSIDE6
    assert wires.ask(wires.host, "127.0.0.1", 8081, server) == network["gateway"]
    assert wires.refuses(wires.outside, HOST4, 8080, server)
    assert wires.refuses(wires.outside, HOST6, 8080, server6)
    assert wires.refuses(wires.host, "127.0.0.1", 8080, server)
    assert wires.refuses(wires.outside, HOST4, 8081, server)


def test_published_range(wires: Wires) -> None:
    jail = wires.join(wires.network(0), 2, publish=[publish(jail_port=90, count=3)])
    for step in range(3):
        server = wires.listen(jail, TCP, "0.0.0.0", 90 + step)
        assert wires.ask(wires.outside, HOST4, 8080 + step, server) == OUTSIDE4


def test_removed_jail_is_not_published_any_more(wires: Wires) -> None:
    jail = wires.join(wires.network(0), 2, publish=[publish()])
    server = wires.listen(jail, TCP, "0.0.0.0", 80)
    assert wires.ask(wires.outside, HOST4, 8080, server)
    wires.remove(rules.jail_removal_text(jail.record))  # type: ignore[arg-type]
    assert wires.refuses(wires.outside, HOST4, 8080, server)
    # Nor does it speak: nothing is known of its port.
    server = wires.listen(wires.outside, TCP, OUTSIDE4, 7000)
    assert wires.refuses(jail, OUTSIDE4, 7000, server)


def test_nobody_outside_gets_in_unasked(both: Wires) -> None:
    jail = both.join(both.network(0), 2)
    both.outside.ip(f"route add 10.87.0.0/16 via {HOST4}", f"route add fd87::/16 via {HOST6}")
    for address in (jail.address, jail.address6):
        assert both.refuses(both.outside, address, 80, both.listen(jail, TCP, address, 80))


def test_networks_are_isolated_from_each_other(both: Wires) -> None:
    one = both.join(both.network(0), 2)
    two = both.join(both.network(1), 2)
    for kind in (TCP, UDP):
        assert both.refuses(one, two.address, 80, both.listen(two, kind, two.address, 80))
        assert both.refuses(one, two.address6, 80, both.listen(two, kind, two.address6, 80))


def test_member_of_two_networks_does_not_join_them(both: Wires) -> None:
    networks = both.network(0), both.network(1)
    nics = [both.nic(network, 9) for network in networks]
    nics[1]["name"] = "eth1"
    router = both.join(networks[0], 9, nics=nics)
    router.sysctl(ipv4__ip_forward=1, ipv6__conf__all__forwarding=1)
    one, two = both.join(networks[0], 2), both.join(networks[1], 2)
    one.ip(f"route add 10.87.1.0/24 via {router.address}")
    two.ip(f"route add 10.87.0.0/24 via {nics[1]['address']}")
    server = both.listen(two, UDP, two.address, 80)
    assert both.ask(router, two.address, 80, server) == nics[1]["address"]
    assert both.refuses(one, two.address, 80, server)


def test_answers_to_a_client_in_both_networks_of_a_server(wires: Wires) -> None:
    """Without masquerading, the answer would take the network that both are in."""
    networks = wires.network(0), wires.network(1)
    nics = [wires.nic(network, 9) for network in networks]
    nics[1]["name"] = "eth1"
    jail = wires.join(networks[0], 9, nics=nics, publish=[publish()])
    server = wires.listen(jail, TCP, "0.0.0.0", 80)
    assert wires.ask(wires.join(networks[1], 2), HOST4, 8080, server) == networks[0]["gateway"]


def test_internal_network(both: Wires) -> None:
    network, other = both.network(0, internal=True), both.network(1)
    one, two = both.join(network, 2), both.join(network, 3)
    stranger = both.join(other, 2, publish=[publish()])
    one.ip(f"route add default via {network['gateway']}")
    one.ip(f"route add default via {network['gateway6']}")
    both.outside.ip(f"route add 10.87.0.0/16 via {HOST4}", f"route add fd87::/16 via {HOST6}")
    for address, seen in ((two.address, one.address), (two.address6, one.address6)):
        assert both.ask(one, address, 80, both.listen(two, TCP, address, 80)) == seen
        assert both.refuses(both.outside, address, 81, both.listen(two, TCP, address, 81))
        assert both.refuses(stranger, address, 82, both.listen(two, TCP, address, 82))
    for address in (OUTSIDE4, OUTSIDE6):
        assert both.refuses(one, address, 80, both.listen(both.outside, TCP, address, 80))
    # Not through the host either, and of the host itself only its resolver.
    assert both.refuses(one, HOST4, 8080, both.listen(stranger, TCP, "0.0.0.0", 80))
    for gateway, seen in ((network["gateway"], one.address), (network["gateway6"], one.address6)):
        for kind in (TCP, UDP):
            assert both.ask(one, gateway, 53, both.listen(both.host, kind, gateway, 53)) == seen
            assert both.refuses(one, gateway, 54, both.listen(both.host, kind, gateway, 54))
    assert both.refuses(one, HOST4, 53, both.listen(both.host, UDP, HOST4, 53))
    two.ip(f"route add default via {network['gateway']}")
    # Not even by a translation that the host's admin has made.
    forward = f"dnat to {two.address}"
    both.apply(
        f"table ip mine {{ chain c {{ type nat hook prerouting priority -99; {forward}; }}; }}"
    )
    server = both.listen(two, TCP, "0.0.0.0", 7000)
    assert both.refuses(both.outside, HOST4, 7000, server)
    both.apply("delete table ip mine")
    # The host reaches them.
    server = both.listen(one, TCP, one.address, 80)
    assert both.ask(both.host, one.address, 80, server) == network["gateway"]


def test_isolated_members(both: Wires) -> None:
    network = both.network(0, isolate=True)
    one = both.join(network, 2)
    two = both.join(network, 3, publish=[publish()])
    for address in (two.address, two.address6):
        assert both.refuses(one, address, 81, both.listen(two, TCP, address, 81))
    # Nor when it knows the other's MAC, or has the host in between.
    both_ways = both.listen(two, UDP, two.address, 82)
    one.ip(f"neigh replace {two.address} lladdr {two.mac} dev eth0")
    assert both.refuses(one, two.address, 82, both_ways)
    one.ip(f"neigh del {two.address} dev eth0", f"route add {two.address} via {network['gateway']}")
    assert both.refuses(one, two.address, 82, both_ways)
    with one.bound(UDP, one.address) as sender, both.host.bound(UDP, network["gateway"]) as last:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        heard = both.listen(two, UDP, "0.0.0.0", 83)
        sender.sendto(b"to everybody", ("10.87.0.255", 83))
        last.sendto(b"from the host", (two.address, 83))
        heard.settimeout(SOON)
        assert heard.recv(100) == b"from the host"
    server = both.listen(both.outside, TCP, OUTSIDE4, 7000)
    assert both.ask(one, OUTSIDE4, 7000, server) == HOST4
    # What is published is published to all.
    server = both.listen(two, TCP, "0.0.0.0", 80)
    assert both.ask(both.outside, HOST4, 8080, server) == OUTSIDE4
    assert both.ask(one, HOST4, 8080, server) == network["gateway"]
    assert both.ask(two, HOST4, 8080, server) == network["gateway"]


def test_loopback_of_the_host_is_out_of_reach(both: Wires) -> None:
    """route_localnet is on for the bridge: the host would take such a packet."""
    network = both.network(0)
    jail = both.join(network, 2)
    both.join(network, 3, publish=[publish("udp")])
    jail.sysctl(ipv4__conf__eth0__route_localnet=1)
    jail.ip("link set lo down", "addr del 127.0.0.1/8 dev lo")
    jail.run("ip", "route", "del", "table", "local", "127.0.0.0/8", "dev", "lo") if "127" in (
        jail.run("ip", "route", "show", "table", "local")
    ) else None
    jail.ip(f"route add 127.0.0.0/8 via {network['gateway']}")
    for port in (7000, 8080):
        server = both.listen(both.host, UDP, "127.0.0.1", port)
        server.settimeout(0.4)
        with jail.bound(UDP, jail.address) as client:
            client.sendto(b"ping", ("127.0.0.1", port))
        with pytest.raises(TimeoutError):
            server.recv(100)


def test_traffic_of_others_is_none_of_our_business(both: Wires) -> None:
    both.network(0)
    both.network(1, internal=True)
    for address in ("127.0.0.1", "::1", HOST4):
        server = both.listen(both.host, TCP, address, 7000)
        assert both.ask(both.host, address, 7000, server) == address
    server = both.listen(both.host, TCP, HOST4, 7001)
    assert both.ask(both.outside, HOST4, 7001, server) == OUTSIDE4
    # The host routes between others, and does not hide them.
    far = Space("far")
    both.members.append(far)
    both.host.ip("link add up1 type veth peer name far0")
    both.host.ip(f"link set far0 netns /proc/{os.getpid()}/fd/{far.fd}")
    for space, device, number in ((both.host, "up1", 1), (far, "far0", 9)):
        space.ip(
            f"addr add 198.51.100.{number}/24 dev {device}",
            f"addr add 2001:db8:f::{number}/64 dev {device} nodad",
            f"link set {device} up",
        )
    far.ip("route add default via 198.51.100.1", "route add default via 2001:db8:f::1")
    both.outside.ip(f"route add default via {HOST4}", f"route add default via {HOST6}")
    for address, seen in (("198.51.100.9", OUTSIDE4), ("2001:db8:f::9", OUTSIDE6)):
        server = both.listen(far, TCP, address, 7000)
        assert both.ask(both.outside, address, 7000, server) == seen


def test_rules_of_the_host_stay_as_they_are(wires: Wires) -> None:
    foreign = """
        table ip filter {
          chain FORWARD { type filter hook forward priority 0; policy accept; counter; }
          set mine { type ipv4_addr; elements = { 192.0.2.7 }; }
        }
        table bridge other { chain c { type filter hook forward priority 0; }; }
        table inet jailrunner { chain c { ip daddr 10.0.0.1 drop; }; }
    """
    wires.apply(foreign)
    before = wires.host.run("nft", "-s", "list", "ruleset")
    assert "jailrunner" in before
    networks = wires.network(0), wires.network(1, internal=True)
    firewall = [
        {
            "action": "deny",
            "direction": "in",
            "protocol": "tcp",
            "address": "",
            "port": 25,
            "last_port": 25,
        }
    ]
    jails = [wires.join(network, 2, firewall=firewall) for network in networks]
    jails.append(wires.join(networks[0], 3, publish=[publish()]))

    def without_ours() -> str:
        text = wires.host.run("nft", "-s", "list", "ruleset")
        for table in ("inet jailrun", "bridge jailrun"):
            text = text.replace(wires.host.run("nft", "-s", "list", "table", *table.split()), "")
        return text

    assert without_ours() == before
    for jail in (*jails, jails[0]):
        wires.remove(rules.jail_removal_text(jail.record))  # type: ignore[arg-type]
    for network in (*networks, networks[0]):
        wires.remove(rules.network_removal_text(network))  # type: ignore[arg-type]
    # Nothing of ours is left in the tables either.
    ours = wires.host.run("nft", "list", "ruleset")
    assert "10.87" not in ours
    assert "jailrun0" not in ours
    assert jails[0].link not in ours
    for _ in range(2):
        wires.apply(rules.last_removal_text())
    assert wires.host.run("nft", "-s", "list", "ruleset") == before


def test_tables_can_be_renewed_under_running_jails(wires: Wires) -> None:
    network = wires.network(0)
    jail = wires.join(network, 2, publish=[publish()])
    server = wires.listen(jail, TCP, "0.0.0.0", 80)
    before = wires.host.run("nft", "-s", "list", "ruleset")
    wires.apply(rules.network_text(network))  # type: ignore[arg-type]
    assert wires.host.run("nft", "-s", "list", "ruleset") == before
    assert wires.ask(wires.outside, HOST4, 8080, server) == OUTSIDE4


def test_removal_after_the_tables_were_flushed(wires: Wires) -> None:
    network = wires.network(0)
    jail = wires.join(network, 2, publish=[publish()])
    wires.host.run("nft", "flush", "ruleset")
    wires.remove(rules.jail_removal_text(jail.record))  # type: ignore[arg-type]
    wires.remove(rules.network_removal_text(network))  # type: ignore[arg-type]
    assert wires.host.run("nft", "list", "ruleset") == ""
    with pytest.raises(NetworkError, match="cannot change the firewall") as caught:
        wires.apply(rules.jail_text(jail.record))  # type: ignore[arg-type]
    assert "jailrun repair" in str(caught.value.hint)
