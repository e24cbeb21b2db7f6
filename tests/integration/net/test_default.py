"""The default network: made by the first run, and what servers in it reach, in both families.

Out of scope: names (test_resolving.py), published ports (test_publishing.py).
"""

from __future__ import annotations

import ipaddress
import json
import shutil
from pathlib import Path

import pytest

import jailrun as api
from tests.integration.cli.command import output_of
from tests.integration.net.world import (
    FAR,
    FAR6,
    HOST,
    HOST6,
    OUTSIDE,
    OUTSIDE6,
    UPLINK,
    Servers,
    World,
    inspect,
)
from tests.integration.place import Place

SHOW = ("ip", "-oneline", "address")


def read_routes() -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Return where the host's routes lead to, but for those that lead everywhere."""
    found = []
    for family in ("-4", "-6"):
        for route in json.loads(Place().run("ip", family, "-json", "route").stdout):
            if route["dst"] not in ("default", "fe80::/64"):
                found.append(ipaddress.ip_network(route["dst"]))
    return found


class TestFirstUse:
    """A new installation has no network before the first run."""

    def test_made_and_removed(self, fresh: Path) -> None:
        """The comparison of the host after the test is what shows that nothing is left."""
        assert json.loads(output_of("net", "ls", "--format", "json")) == []
        assert "eth0" in output_of("run", "--rm", "busybox", *SHOW)
        (network,) = json.loads(output_of("net", "ls", "--format", "json"))
        assert network["name"] == "default"
        link = network["link"]
        assert link.startswith("jailrun")
        alias = Path(f"/sys/class/net/{link}/ifalias").read_text().strip()
        assert alias == f"jailrun default {fresh}"
        output_of("net", "rm", "default")
        assert not Path(f"/sys/class/net/{link}").exists()
        assert json.loads(output_of("net", "ls", "--format", "json")) == []

    def test_subnets_that_collide_with_no_route(self, fresh: Path, world: World) -> None:
        world.host.ip("route add 10.0.0.0/9 via 192.0.2.2")
        try:
            before = read_routes()
            output_of("run", "--rm", "busybox", "true")
            network = inspect("default")
            for key in ("subnet", "subnet6"):
                own = ipaddress.ip_network(network[key])
                assert own.is_private
                same = [one for one in before if one.version == own.version]
                assert not any(own.overlaps(one) for one in same)
            output_of("net", "rm", "default")
        finally:
            world.host.ip("route delete 10.0.0.0/9 via 192.0.2.2")

    def test_removed_and_made_again(self, fresh: Path, servers: Servers) -> None:
        for _turn in range(2):
            server = servers.start()
            assert servers.world.ask(servers.world.host, server.ip).server == server.name
            servers.stop(server)
            output_of("net", "rm", "default")


class TestWhatAJailHas:
    """Its own interfaces, and no others."""

    def test_interfaces(self, world: World) -> None:
        shown = output_of("run", "--rm", "busybox", *SHOW)
        assert {line.split()[1] for line in shown.splitlines()} == {"lo", "eth0"}
        assert shown.count("eth0    inet ") == 1
        assert shown.count("eth0    inet6 fd") == 1
        lines = [line for line in shown.splitlines() if "scope global" in line]
        assert len(lines) == 2
        assert not any("tentative" in line for line in lines)  # they can be used at once

    def test_none(self) -> None:
        shown = output_of("run", "--rm", "--net", "none", "busybox", *SHOW)
        assert {line.split()[1] for line in shown.splitlines()} == {"lo"}

    def test_host(self, world: World) -> None:
        shown = output_of("run", "--rm", "--net", "host", "busybox", *SHOW)
        assert UPLINK in shown
        assert HOST in shown

    def test_a_library_has_none(self) -> None:
        assert {line.split()[1] for line in api.run(SHOW).text.splitlines()} == {"lo"}

    def test_a_library_can_have_one(self) -> None:
        assert "eth0" in api.run(SHOW, network="default").text


class TestReach:
    """Who can talk to whom."""

    @pytest.mark.parametrize("kind", ["tcp", "udp"])
    def test_servers_and_host(self, servers: Servers, kind: str) -> None:
        world = servers.world
        web, db = servers.start(), servers.start()
        world.serve(world.host, "host")
        for here, there in ((web, db), (db, web)):
            for address, own in zip(there.both, here.both, strict=True):
                answer = world.ask(here.place, address, kind=kind)
                assert (answer.server, answer.peer) == (there.name, own)
        for nic_key, own in (("gateway", web.ip), ("gateway6", web.ip6)):
            answer = world.ask(web.place, web.nics[0][nic_key], kind=kind)
            assert (answer.server, answer.peer) == ("host", own)
        for address in web.both:
            assert world.ask(world.host, address, kind=kind).server == web.name

    def test_pings(self, servers: Servers) -> None:
        """As a user without any right does it, by the host's program."""
        web, db = servers.start("-v", "/:/host:ro"), servers.start()
        ping = ("chroot", "/host", shutil.which("ping") or "ping", "-c1", "-W5")
        for address in (*db.both, OUTSIDE, OUTSIDE6, HOST):
            assert " 1 received" in web.say(*ping, address)

    def test_pings_with_raw_sockets(self, servers: Servers) -> None:
        """As busybox does it."""
        web, db = servers.start("--allow", "raw-sockets"), servers.start()
        for address in (*db.both, OUTSIDE, OUTSIDE6, HOST):
            family = "-6" if ":" in address else "-4"
            assert "1 packets received" in web.say("ping", family, "-c1", "-W5", address)

    @pytest.mark.parametrize("kind", ["tcp", "udp"])
    @pytest.mark.parametrize(
        ("address", "seen"), [(OUTSIDE, HOST), (OUTSIDE6, HOST6), (FAR, HOST), (FAR6, HOST6)]
    )
    def test_outside_sees_the_host(
        self, servers: Servers, kind: str, address: str, seen: str
    ) -> None:
        world = servers.world
        world.serve(world.outside, "outside")
        web = servers.start(command=("sleep", "1000"))
        answer = world.ask(web.place, address, kind=kind)
        assert (answer.error, answer.server, answer.peer) == ("", "outside", seen)

    def test_a_bridge_that_calls_the_firewall(self, servers: Servers) -> None:
        """With and without br_netfilter the same servers reach each other."""
        world = servers.world
        names = [f"bridge/bridge-nf-call-{kind}" for kind in ("iptables", "ip6tables")]
        before = [Path("/proc/sys/net", name).read_text() for name in names]
        web, db = servers.start(), servers.start()
        try:
            for value in "01":
                for name in names:
                    world.host.write(name, value)
                for address in db.both:
                    assert world.ask(web.place, address).server == db.name
        finally:
            for name, value in zip(names, before, strict=True):
                world.host.write(name, value.strip())
