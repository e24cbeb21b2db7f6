"""What a jail cannot do to the network, and what jailrun does not do to the host's firewall.

Out of scope: networks that are apart (test_networks.py), the text of the rules (test_rules.py).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.cli.command import jailrun, output_of
from tests.integration.net.world import (
    FAR,
    FAR6,
    HOST,
    OUTSIDE,
    OUTSIDE6,
    PORT,
    Networks,
    Server,
    Servers,
    World,
    inspect,
)
from tests.integration.place import Place

KINDS = ("tcp", "udp")


class TestForgery:
    """A jail may change its own links; the host does not believe it."""

    @pytest.fixture
    def forger(self, servers: Servers) -> Server:
        """Return a jail that is allowed to configure its network."""
        options = ("--allow", "net-admin", "--allow", "raw-sockets")
        return servers.start(*options, command=("sleep", "1000"))

    def test_address(self, servers: Servers, forger: Server) -> None:
        world = servers.world
        web = servers.start()
        for true, forged in zip(forger.both, (f"{forger.ip}", forger.ip6), strict=True):
            assert world.ask(forger.place, web.ip if "." in true else web.ip6, source=forged).server
        prefix, _, last = forger.ip.rpartition(".")
        other = f"{prefix}.{(int(last) + 100) % 250 + 3}"
        other6 = forger.ip6[:-1] + ("1" if forger.ip6[-1] != "1" else "2")
        forger.say("ip", "address", "add", f"{other}/32", "dev", "eth0")
        forger.say("ip", "address", "add", f"{other6}/128", "dev", "eth0")
        for own, there in ((other, web.ip), (other6, web.ip6)):
            for kind in KINDS:
                answer = world.ask(forger.place, there, kind=kind, patience=500, source=own)
                assert answer.server == "", f"{own} was believed"

    def test_address_outwards(self, servers: Servers, forger: Server) -> None:
        """Nor is it masqueraded, nor sent on as it is."""
        world = servers.world
        world.serve(world.outside, "outside")
        world.outside.ip(f"route add 192.0.2.66/32 via {HOST}")
        try:
            forger.say("ip", "address", "add", "192.0.2.66/32", "dev", "eth0")
            for kind in KINDS:
                answer = world.ask(
                    forger.place, OUTSIDE, kind=kind, patience=500, source="192.0.2.66"
                )
                assert answer.error == "ETIMEDOUT"
        finally:
            world.outside.ip(f"route delete 192.0.2.66/32 via {HOST}")

    def test_hardware_address(self, servers: Servers, forger: Server) -> None:
        world = servers.world
        web = servers.start()
        assert world.ask(forger.place, web.ip).server == web.name
        forger.say("ip", "link", "set", "eth0", "address", "02:00:00:00:00:99")
        for address in web.both:
            for kind in KINDS:
                assert world.is_silent(forger.place, address, kind=kind)

    def test_hardware_address_of_a_neighbour(self, servers: Servers, forger: Server) -> None:
        """Whoever takes it does not get what is sent to the neighbour."""
        world = servers.world
        web, peer = servers.start(), servers.start()
        forger.say("ip", "link", "set", "eth0", "address", web.mac)
        world.pings(forger.place, peer.ip)
        for _turn in range(3):
            assert world.ask(peer.place, web.ip, patience=1000).server == web.name

    def test_address_of_a_neighbour(self, servers: Servers, forger: Server) -> None:
        """Whoever takes it is not heard when the network asks who has it."""
        world = servers.world
        web, peer = servers.start(), servers.start(command=("sleep", "1000"))
        forger.say("ip", "address", "add", f"{web.ip}/16", "dev", "eth0")
        forger.say("ip", "address", "add", f"{web.ip6}/64", "dev", "eth0")
        for place in (peer.place, world.host):
            for address in web.both:
                assert world.ask(place, address, patience=2000).server == web.name

    def test_settings_of_the_host(self, servers: Servers, forger: Server) -> None:
        """What it may configure is its own network, not the host's."""
        done = forger.execute("ip", "link", "set", "lo", "down")
        assert done.returncode == 0
        assert servers.world.pings(servers.world.host, "127.0.0.1")

    def test_without_being_allowed(self, servers: Servers) -> None:
        web = servers.start()
        for words in (
            ("ip", "address", "add", "192.0.2.66/32", "dev", "eth0"),
            ("ip", "link", "set", "eth0", "address", "02:00:00:00:00:99"),
            ("ip", "link", "set", "eth0", "down"),
        ):
            assert web.execute(*words).returncode != 0


class TestRules:
    """--allow and --deny: what a jail may send and receive."""

    def asks(self, servers: Servers, server: Server, kind: str) -> list[bool]:
        """Tell for both families whether the outside, the host and a neighbour are answered."""
        world = servers.world
        neighbour = servers.start(command=("sleep", "1000"))
        found = []
        for place in (world.host, neighbour.place):
            for address in server.both:
                found.append(not world.is_silent(place, address, kind=kind))
        servers.stop(neighbour)
        return found

    def test_deny_in(self, servers: Servers) -> None:
        web = servers.start("--deny", f"in:tcp:{PORT}")
        assert self.asks(servers, web, "tcp") == [False] * 4
        assert self.asks(servers, web, "udp") == [True] * 4

    def test_allow_in(self, servers: Servers) -> None:
        """What is not allowed is denied then, but for replies."""
        world = servers.world
        web = servers.start("--allow", "in:udp")
        assert self.asks(servers, web, "tcp") == [False] * 4
        assert self.asks(servers, web, "udp") == [True] * 4
        world.serve(world.outside, "outside")
        for address in (OUTSIDE, OUTSIDE6):
            for kind in KINDS:
                assert world.ask(web.place, address, kind=kind).server == "outside"

    def test_deny_with_exceptions(self, servers: Servers) -> None:
        world = servers.world
        friend = servers.start(command=("sleep", "1000"))
        other = servers.start(command=("sleep", "1000"))
        rules = ("--deny", "in", "--allow", f"in:tcp:{friend.ip}", "--allow", f"in:[{friend.ip6}]")
        web = servers.start(*rules)
        for address in web.both:
            assert world.ask(friend.place, address).server == web.name
            assert world.is_silent(other.place, address)

    def test_out(self, servers: Servers) -> None:
        world = servers.world
        world.serve(world.outside, "outside")
        web = servers.start("--deny", f"out:{OUTSIDE}/32", "--deny", f"out:[{OUTSIDE6}/128]")
        for near, far in ((OUTSIDE, FAR), (OUTSIDE6, FAR6)):
            for kind in KINDS:
                assert world.is_silent(web.place, near, kind=kind)
                assert world.ask(web.place, far, kind=kind).server == "outside"
        assert world.ask(world.host, web.ip).server == web.name

    def test_allow_out(self, servers: Servers) -> None:
        """Names are still resolved: without them, no other rule makes sense."""
        world = servers.world
        world.serve(world.outside, "outside")
        db = servers.start(name="db")
        web = servers.start("--allow", f"out:tcp:{FAR}:{PORT}")
        assert world.ask(web.place, FAR).server == "outside"
        assert world.is_silent(web.place, FAR, kind="udp")
        assert world.is_silent(web.place, FAR6)
        for address in db.both:
            assert world.is_silent(web.place, address)
        assert db.ip in web.execute("nslookup", "-type=a", "db").stdout

    def test_icmp(self, servers: Servers) -> None:
        world = servers.world
        web = servers.start("--deny", "in:icmp")
        for address in web.both:
            assert not world.pings(world.host, address)
            assert world.ask(world.host, address).server == web.name

    def test_published(self, servers: Servers) -> None:
        """Who asks is looked at as it is, before any translation."""
        world = servers.world
        web = servers.start("-p", f"8080:{PORT}", "--deny", f"in:{OUTSIDE}")
        assert world.is_silent(world.outside, HOST, 8080)
        assert world.ask(world.second, HOST, 8080).server == web.name

    def test_others_are_as_before(self, servers: Servers) -> None:
        """Rules of one jail are none of the others'."""
        plain = servers.start()
        servers.start("--deny", "in", "--deny", "out")
        assert self.asks(servers, plain, "tcp") == [True] * 4

    def test_next_one_at_the_address(self, nets: Networks, servers: Servers) -> None:
        """Rules end with their jail: the next one has none of them."""
        nets.create("blue", "--subnet", "10.200.7.0/24")
        first = servers.start("--net", "blue,ip=10.200.7.5", "--deny", "in")
        assert servers.world.is_silent(servers.world.host, first.ip)
        servers.stop(first)
        second = servers.start("--net", "blue,ip=10.200.7.5")
        assert servers.world.ask(servers.world.host, second.ip).server == second.name


HOST_RULES = """
table inet own {
  set friends { type ipv4_addr; elements = { 192.0.2.2, 192.0.2.3 } }
  chain input { type filter hook input priority 0; policy accept; ip saddr @friends accept; }
  chain forward { type filter hook forward priority 0; policy accept; }
  chain post { type nat hook postrouting priority 100; ip saddr 10.99.0.0/16 masquerade; }
}
"""


@pytest.fixture
def host_rules(world: World) -> Iterator[None]:
    """Have a firewall of the host's own, in both of its tools' words."""
    world.host.run("nft", "-f", "-", stdin=HOST_RULES)
    world.host.run("iptables", "-A", "INPUT", "-s", "10.98.0.0/16", "-j", "DROP")
    yield
    world.host.run("nft", "delete", "table", "inet", "own", check=False)
    for family in ("ip", "ip6"):
        for table in ("filter", "nat", "mangle", "raw"):
            world.host.run("nft", "delete", "table", family, table, check=False)


def read_foreign_rules() -> str:
    """Return the text of all tables but ours."""
    text = ""
    tables = Place().run("nft", "--json", "list", "tables").stdout
    for entry in json.loads(tables)["nftables"]:
        table = entry.get("table")
        if table and table["name"] != "jailrun":
            words = ("nft", "-a", "-s", "list", "table", table["family"], table["name"])
            text += Place().run(*words).stdout
    return text


class TestHostFirewall:
    """It is left alone."""

    def test_byte_identical(self, host_rules: None, nets: Networks, servers: Servers) -> None:
        before = read_foreign_rules()
        assert "table inet own" in before
        nets.create("blue")
        web = servers.start("-p", f"8080:{PORT}", "--deny", "in:tcp:9", "--net", "blue")
        assert servers.world.ask(servers.world.outside, HOST, 8080).server == web.name
        assert read_foreign_rules() == before
        servers.stop(web)
        output_of("net", "rm", "blue")
        assert read_foreign_rules() == before

    def test_two_tables(self, servers: Servers) -> None:
        """All of ours is in tables of our name, with at most one for each family that we need."""
        servers.start("-p", f"8080:{PORT}")
        listed = Place().run("nft", "list", "tables").stdout.split("\n")
        assert set(filter(None, listed)) <= {"table inet jailrun", "table bridge jailrun"}

    def test_a_start_adds_elements_alone(self, servers: Servers) -> None:
        """Chains and rules are there before it, and the same after it; but for own --deny."""

        def read_chains() -> list[str]:
            found = json.loads(Place().run("nft", "-j", "-s", "list", "ruleset").stdout)
            return [json.dumps(one) for one in found["nftables"] if "chain" in one or "rule" in one]

        first = servers.start()
        before = read_chains()
        web = servers.start("-p", f"8080:{PORT}", "--net", "default,rate=10mbit")
        assert read_chains() == before
        servers.stop(first, web)

    @pytest.mark.parametrize("tool", ["iptables", "ip6tables"])
    def test_policy_that_blocks_us(self, host_rules: None, servers: Servers, tool: str) -> None:
        """It stays; `net inspect` and `check` say which it is and what to type."""
        world = servers.world
        web = servers.start()
        world.host.run(tool, "-P", "FORWARD", "DROP")
        world.serve(world.outside, "outside")
        address = OUTSIDE if tool == "iptables" else OUTSIDE6
        assert world.is_silent(web.place, address)
        for words in (("net", "inspect", "default"), ("check",)):
            said = jailrun(*words)
            text = said.stdout + said.stderr
            assert "FORWARD" in text
            assert tool in text
        before = world.host.run(tool, "-S").stdout
        assert "-P FORWARD DROP" in before
        servers.start()
        assert world.host.run(tool, "-S").stdout == before

    def test_what_to_type_helps(self, host_rules: None, servers: Servers) -> None:
        """The commands that `net inspect` prints make it work."""
        world = servers.world
        web = servers.start()
        world.serve(world.outside, "outside")
        world.host.run("nft", "chain", "inet", "own", "forward", "{ policy drop; }")
        assert world.is_silent(web.place, OUTSIDE)
        commands = find_commands(inspect("default"))
        assert commands
        for command in commands:
            subprocess.run(["sh", "-c", command], check=True)
        for address in (OUTSIDE, OUTSIDE6):
            assert world.ask(web.place, address).server == "outside"

    def test_nothing_to_say(self, host_rules: None, servers: Servers) -> None:
        servers.start()
        assert find_commands(inspect("default")) == []


def find_commands(described: dict[str, Any]) -> list[str]:
    """Return what is to be typed against what is in the way of a network."""
    return [command for block in described["blocks"] for command in block["advice"]]
