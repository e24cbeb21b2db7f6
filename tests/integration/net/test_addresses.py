"""Addresses that stay: fixed ones, the same again, and used at once by whoever has them next.

Out of scope: bad input (test_bad_input.py).
"""

from __future__ import annotations

import ipaddress

import pytest

from tests.integration.cli.command import assert_refused, jailrun, output_of
from tests.integration.net.world import Networks, Servers, inspect

SUBNET, SUBNET6 = "10.200.4.0/24", "fd00:200:4::/64"
IP, IP6, MAC = "10.200.4.77", "fd00:200:4::77", "02:00:5e:10:00:77"


@pytest.fixture
def blue(nets: Networks) -> str:
    """Return a network with subnets that are known."""
    return nets.create("blue", "--subnet", SUBNET, "--ipv6", SUBNET6)


def test_fixed(blue: str, servers: Servers) -> None:
    web = servers.start("--net", f"{blue},ip={IP},ip6={IP6},mac={MAC}")
    assert (*web.both, web.mac) == (IP, IP6, MAC)
    shown = web.say("ip", "-oneline", "address", "show", "eth0")
    assert f"inet {IP}/24" in shown
    assert f"inet6 {IP6}/64" in shown
    assert MAC in web.say("ip", "link", "show", "eth0")
    for address in (IP, IP6):
        assert servers.world.ask(servers.world.host, address).server == web.name


def test_taken(blue: str, servers: Servers) -> None:
    web = servers.start("--net", f"{blue},ip={IP},ip6={IP6},mac={MAC}")
    for setting, value in (("ip", IP), ("ip6", IP6), ("mac", MAC)):
        done = jailrun("run", "--rm", "--net", f"{blue},{setting}={value}", "busybox", "true")
        assert_refused(done, value)
        assert web.name in done.stderr
    servers.stop(web)
    wanted = f"{blue},ip={IP},ip6={IP6},mac={MAC}"
    assert IP in output_of("run", "--rm", "--net", wanted, "busybox", "ip", "-4", "address")


def test_the_same_again(blue: str, servers: Servers) -> None:
    """A server has the addresses that it had, as long as nobody else got them."""
    seen = []
    for _turn in range(2):
        one, two = (servers.start("--net", blue, name=name) for name in ("one", "two"))
        seen.append((one.both, one.mac, two.both, two.mac))
        servers.stop(one, two)
    assert seen[0] == seen[1]
    assert seen[0][0] != seen[0][2]
    assert seen[0][1] != seen[0][3]
    assert int(seen[0][1][:2], 16) & 3 == 2  # of one station, given out locally


def test_a_pool_that_is_exhausted(nets: Networks, servers: Servers) -> None:
    nets.create("tiny", "--subnet", "10.200.5.0/30")
    first = servers.start("--net", "tiny")
    assert first.ip == "10.200.5.2"
    done = jailrun("run", "--rm", "--net", "tiny", "busybox", "true")
    assert_refused(done, "tiny")
    assert "10.200.5.0/30" in done.stderr
    servers.stop(first)
    assert servers.start("--net", "tiny").ip == "10.200.5.2"


def test_a_pool_to_its_last_address(nets: Networks, servers: Servers) -> None:
    """Neither the network's, the broadcast's nor the gateway's address is given out."""
    nets.create("tiny", "--subnet", "10.200.5.0/29")
    got = {servers.start("--net", "tiny", command=("sleep", "1000")).ip for _ in range(5)}
    hosts = {str(one) for one in ipaddress.ip_network("10.200.5.0/29").hosts()}
    assert got == hosts - {inspect("tiny")["gateway"]}


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_a_reused_address_works_at_once(blue: str, servers: Servers, family: int) -> None:
    """Whoever had the old one's hardware address in mind hears of the new one's."""
    world, wanted = servers.world, f"{blue},ip={IP},ip6={IP6}"
    peer = servers.start("--net", blue, command=("sleep", "1000"))
    old = servers.start("--net", wanted)
    for place in (peer.place, world.host):
        assert world.ask(place, old.both[family]).server == old.name
    neighbours = peer.place.run("ip", "neighbour").stdout
    assert f"{old.both[family]} dev eth0 lladdr {old.mac}" in neighbours
    servers.stop(old)
    new = servers.start("--net", wanted)
    assert new.both == old.both
    assert new.mac != old.mac
    for place in (peer.place, world.host):
        assert world.ask(place, new.both[family], patience=1000).server == new.name
