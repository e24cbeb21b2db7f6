"""Named networks: made, listed, shown, removed; what they keep apart; several interfaces.

Out of scope: the drivers that use the host's own links (test_drivers.py), bad input
(test_bad_input.py).
"""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

import pytest

from tests.integration.cli.command import assert_refused, jailrun, output_of
from tests.integration.net.world import (
    OUTSIDE,
    OUTSIDE6,
    PORT,
    Networks,
    Servers,
    inspect,
    is_within,
)

SUBNET, SUBNET6 = "10.200.3.0/24", "fd00:200:3::/64"


class TestVerbs:
    """create, ls, inspect, rm."""

    def test_life(self, nets: Networks, servers: Servers) -> None:
        nets.create("blue", "--subnet", SUBNET, "--ipv6", SUBNET6)
        listed = {
            one["name"]: one for one in json.loads(output_of("net", "ls", "--format", "json"))
        }
        assert set(listed) == {"default", "blue"}
        assert "blue" in output_of("net", "ls")
        web = servers.start("--net", "blue")
        shown = inspect("blue")
        assert (shown["subnet"], shown["subnet6"]) == (SUBNET, SUBNET6)
        assert shown["driver"] == "bridge"
        assert shown["gateway"] == "10.200.3.1"
        assert web.name in json.dumps(shown)
        assert is_within(web.ip, SUBNET)
        assert is_within(web.ip6, SUBNET6)
        done = jailrun("net", "rm", "blue")
        assert_refused(done, web.name)
        assert_refused(done, "blue")
        assert servers.world.ask(servers.world.host, web.ip).server == web.name
        servers.stop(web)
        output_of("net", "rm", "blue")
        assert jailrun("net", "inspect", "blue").returncode == 125
        assert_refused(jailrun("net", "rm", "blue"), "blue")

    def test_same_name_twice(self, nets: Networks) -> None:
        nets.create("blue")
        assert_refused(jailrun("net", "create", "blue"), "blue")

    def test_each_has_subnets_of_its_own(self, nets: Networks) -> None:
        shown = [inspect(nets.create(f"n{number}")) for number in range(3)]
        for key in ("subnet", "subnet6"):
            subnets = [ipaddress.ip_network(one[key]) for one in (*shown, inspect("default"))]
            for number, one in enumerate(subnets):
                assert not any(one.overlaps(other) for other in subnets[:number])

    def test_one_family(self, nets: Networks, servers: Servers) -> None:
        nets.create("old", "--ipv6", "none")
        web = servers.start("--net", "old")
        assert web.ip6 == ""
        assert "inet6 fd" not in web.say("ip", "address", "show", "eth0")
        servers.world.serve(servers.world.outside, "outside")
        assert servers.world.ask(web.place, OUTSIDE).server == "outside"

    def test_mtu(self, nets: Networks) -> None:
        nets.create("small", "--mtu", "1400")
        shown = output_of("run", "--rm", "--net", "small", "busybox", "ip", "link", "show", "eth0")
        assert " mtu 1400 " in shown

    def test_a_network_that_stays(self, nets: Networks, servers: Servers) -> None:
        """It is there, with the same subnets, when all that was in it has ended."""
        nets.create("blue")
        before = inspect("blue")
        first = servers.start("--net", "blue", name="keeps")
        servers.stop(first)
        again = servers.start("--net", "blue", name="keeps")
        assert again.both == first.both
        servers.stop(again)
        assert inspect("blue") == before


class TestSeveral:
    """A jail in more than one network."""

    def test_reaches_both(self, nets: Networks, servers: Servers) -> None:
        world = servers.world
        nets.create("blue")
        nets.create("red")
        blue, red = servers.start("--net", "blue"), servers.start("--net", "red")
        both = servers.start("--net", "blue", "--net", "red,name=lan")
        assert [nic["name"] for nic in both.nics] == ["eth0", "lan"]
        for nic, other in zip(both.nics, (blue, red), strict=True):
            for key, address in zip(("address", "address6"), other.both, strict=True):
                answer = world.ask(both.place, address)
                assert (answer.server, answer.peer) == (other.name, nic[key])
                assert world.ask(other.place, nic[key]).server == both.name
        routes = both.say("ip", "route")
        assert f"default via {both.nics[0]['gateway']} dev eth0" in routes
        assert routes.count("default") == 1
        world.serve(world.outside, "outside")
        for address in (OUTSIDE, OUTSIDE6):
            assert world.ask(both.place, address).server == "outside"

    def test_of_one_network(self) -> None:
        """Answers by the second would leave by the first, and count as forged."""
        words = ("run", "--rm", "--net", "default", "--net", "default", "busybox", "true")
        assert_refused(jailrun(*words), "default")


class TestApart:
    """What networks keep from each other."""

    def test_two_networks(self, nets: Networks, servers: Servers) -> None:
        world = servers.world
        nets.create("blue")
        nets.create("red")
        blue, red = servers.start("--net", "blue"), servers.start("--net", "red")
        for here, there in ((blue, red), (red, blue)):
            for address in there.both:
                assert world.is_silent(here.place, address)
                assert not world.pings(here.place, address)
        # The address that another network's bridge has is the host's: only its servers are apart.
        assert world.ask(world.host, red.ip).server == red.name

    def test_default_and_named(self, nets: Networks, servers: Servers) -> None:
        nets.create("blue")
        blue, usual = servers.start("--net", "blue"), servers.start()
        for address in usual.both:
            assert servers.world.is_silent(blue.place, address, kind="udp")

    def test_internal(self, nets: Networks, servers: Servers) -> None:
        world = servers.world
        nets.create("inner", "--internal")
        web, db = servers.start("--net", "inner"), servers.start("--net", "inner")
        world.serve(world.outside, "outside")
        for address in (OUTSIDE, OUTSIDE6):
            assert world.is_silent(web.place, address)
            assert world.is_silent(web.place, address, kind="udp")
        for address in db.both:
            assert world.ask(web.place, address).server == db.name
        assert "default" not in web.say("ip", "route")

    def test_internal_with_a_route_of_its_own(self, nets: Networks, servers: Servers) -> None:
        """The host does not forward what a jail sends there all the same."""
        world = servers.world
        nets.create("inner", "--internal")
        web = servers.start("--net", "inner", "--allow", "net-admin")
        gateway, gateway6 = (inspect("inner")[key] for key in ("gateway", "gateway6"))
        world.serve(world.outside, "outside")
        assert web.execute("ip", "route", "add", "default", "via", gateway).returncode == 0
        assert web.execute("ip", "-6", "route", "add", "default", "via", gateway6).returncode == 0
        for address in (OUTSIDE, OUTSIDE6):
            assert world.is_silent(web.place, address)

    def test_isolate(self, nets: Networks, servers: Servers) -> None:
        """Its servers reach the outside, and not each other."""
        world = servers.world
        nets.create("flats", "--isolate")
        one, two = servers.start("--net", "flats"), servers.start("--net", "flats")
        world.serve(world.outside, "outside")
        for address in two.both:
            assert world.is_silent(one.place, address)
            assert not world.pings(one.place, address)
            assert world.ask(world.host, address).server == two.name
        for address in (OUTSIDE, OUTSIDE6):
            assert world.ask(one.place, address).server == "outside"

    def test_isolate_with_a_detour(self, nets: Networks, servers: Servers) -> None:
        """Nor through the host, which a route of the jail's own asks to forward."""
        nets.create("flats", "--isolate")
        one = servers.start("--net", "flats", "--allow", "net-admin")
        two = servers.start("--net", "flats")
        gateway = inspect("flats")["gateway"]
        assert one.execute("ip", "route", "add", two.ip, "via", gateway).returncode == 0
        assert servers.world.is_silent(one.place, two.ip)


def test_bridge_is_ours_alone(nets: Networks) -> None:
    """A link that somebody else has made is never taken for ours."""
    nets.create("blue")
    link = inspect("blue")["link"]
    assert Path(f"/sys/class/net/{link}/ifalias").read_text().startswith("jailrun blue ")


@pytest.mark.parametrize("name", ["blue", "a", "a-b_c9", "x" * 15])
def test_names_that_are_valid(nets: Networks, servers: Servers, name: str) -> None:
    nets.create(name)
    server = servers.start("--net", name)
    assert servers.world.ask(servers.world.host, server.ip, PORT).server == server.name


class TestMadeAgain:
    """A bridge that somebody has deleted under its jails."""

    def test_by_the_next_start(self, nets: Networks, servers: Servers) -> None:
        """The jails that run are put back on it."""
        nets.create("blue")
        first = servers.start("--net", "blue")
        bridge = first.nics[0]["bridge"]
        servers.world.host.ip(f"link delete {bridge}")
        second = servers.start("--net", "blue", command=("sleep", "1000"))
        answer = servers.world.ask(second.place, first.ip)
        assert answer.server == first.name
