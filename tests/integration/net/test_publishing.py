"""Published ports: who reaches them and who is seen as asking, what clashes, many at once.

Out of scope: how an option is read (unit tests), the sockets that keep ports (test_ports.py).
"""

from __future__ import annotations

import functools
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

import jailrun as api
from jailrun import JailError
from tests.integration.cli.command import assert_refused, jailrun
from tests.integration.jails import eventually, new_name
from tests.integration.net.world import (
    HOST,
    HOST6,
    OUTSIDE,
    OUTSIDE6,
    PORT,
    SECOND,
    SECOND6,
    SOON,
    Server,
    Servers,
    World,
)

OUT = 8080  # the port on the host
KINDS = ("tcp", "udp")
BOTH = ("-p", f"{OUT}:{PORT}", "-p", f"{OUT}:{PORT}/udp")


@pytest.fixture
def web(servers: Servers) -> Server:
    """Return a server with a port published for both protocols."""
    return servers.start(*BOTH)


class TestWho:
    """Everybody reaches a published port."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_outside(self, servers: Servers, web: Server, kind: str) -> None:
        """And is seen as who it is."""
        world = servers.world
        for place, own, own6 in (
            (world.outside, OUTSIDE, OUTSIDE6),
            (world.second, SECOND, SECOND6),
        ):
            for address, source in ((HOST, own), (HOST6, own6)):
                answer = world.ask(place, address, OUT, kind)
                assert (answer.server, answer.peer) == (web.name, source)

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_host(self, servers: Servers, web: Server, kind: str) -> None:
        world = servers.world
        for address in ("127.0.0.1", "127.0.0.5", HOST, HOST6, web.nics[0]["gateway"]):
            assert world.ask(world.host, address, OUT, kind).server == web.name

    def test_the_host_by_the_loopback_of_the_other_family(
        self, servers: Servers, web: Server
    ) -> None:
        """The kernel cannot lead ::1 elsewhere: an answer at once makes clients try 127.0.0.1."""
        world = servers.world
        answer = world.ask(world.host, "::1", OUT)
        assert answer.server == web.name or answer.error == "ECONNREFUSED"

    @pytest.mark.parametrize("kind", KINDS)
    def test_other_jails(self, servers: Servers, web: Server, kind: str) -> None:
        world = servers.world
        db = servers.start(command=("sleep", "1000"))
        for address in (HOST, HOST6, db.nics[0]["gateway"], db.nics[0]["gateway6"]):
            assert world.ask(db.place, address, OUT, kind).server == web.name

    def test_jails_of_another_network(self, servers: Servers, web: Server) -> None:
        """What is published is for all, though the networks are apart."""
        servers_of = servers.start("--net", "none", command=("sleep", "1000"))
        assert servers_of.nics == []
        nets_made = jailrun("net", "create", "blue")
        assert nets_made.returncode == 0
        try:
            db = servers.start("--net", "blue", command=("sleep", "1000"))
            for address in (HOST, HOST6):
                assert servers.world.ask(db.place, address, OUT).server == web.name
            assert servers.world.is_silent(db.place, web.ip, PORT)
            servers.stop(db)
        finally:
            jailrun("net", "rm", "blue")

    @pytest.mark.parametrize("kind", KINDS)
    def test_itself(self, servers: Servers, web: Server, kind: str) -> None:
        for address in (HOST, HOST6):
            assert servers.world.ask(web.place, address, OUT, kind).server == web.name

    def test_bridge_with_and_without_the_firewall(self, servers: Servers, web: Server) -> None:
        world = servers.world
        db = servers.start(command=("sleep", "1000"))
        name = "bridge/bridge-nf-call-iptables"
        try:
            for value in "01":
                world.host.write(name, value)
                for place in (world.outside, world.host, db.place, web.place):
                    assert world.ask(place, HOST, OUT).server == web.name
        finally:
            world.host.write(name, "1")

    def test_no_other_port(self, servers: Servers, web: Server) -> None:
        assert servers.world.ask(servers.world.outside, HOST, OUT + 1).error == "ECONNREFUSED"

    def test_connections_that_end_with_the_jail(self, servers: Servers, web: Server) -> None:
        """After it, the port is the host's again, for whoever knew the jail there."""
        world = servers.world
        for kind in KINDS:
            assert world.ask(world.outside, HOST, OUT, kind, source=OUTSIDE).server == web.name
        servers.stop(web)
        for kind in KINDS:
            done = functools.partial(world.ask, world.outside, HOST, OUT, kind, patience=SOON)
            eventually(lambda done=done: done().error == "ECONNREFUSED", "nobody is there")
        world.serve(world.host, "host", f"tcp::::{OUT}", f"udp::::{OUT}")
        for kind in KINDS:
            for address in (HOST, HOST6):
                assert world.ask(world.outside, address, OUT, kind).server == "host"


class TestForms:
    """What can be said of a port."""

    def test_range(self, servers: Servers) -> None:
        kinds = tuple(f"tcp::::{port}" for port in (7000, 7001, 7002))
        web = servers.start("-p", "8100-8102:7000-7002", kinds=kinds)
        world = servers.world
        for port in (8100, 8101, 8102):
            assert world.ask(world.outside, HOST, port).server == web.name
        for port in (8099, 8103):
            assert world.ask(world.outside, HOST, port).error == "ECONNREFUSED"

    def test_same_port(self, servers: Servers) -> None:
        web = servers.start("-p", str(PORT))
        assert servers.world.ask(servers.world.outside, HOST6, PORT).server == web.name

    def test_one_protocol(self, servers: Servers) -> None:
        servers.start("-p", f"{OUT}:{PORT}/udp")
        assert servers.world.ask(servers.world.outside, HOST, OUT).error == "ECONNREFUSED"

    def test_for_the_host_alone(self, servers: Servers) -> None:
        world = servers.world
        web = servers.start("-p", f"127.0.0.1:{OUT}:{PORT}")
        assert world.ask(world.host, "127.0.0.1", OUT).server == web.name
        for address in (HOST, HOST6):
            assert world.ask(world.outside, address, OUT).error == "ECONNREFUSED"

    def test_for_the_host_alone_is_not_for_neighbours(self, servers: Servers) -> None:
        """Who sends to 127.0.0.1 from another machine gets nothing, though routes may lead it."""
        world = servers.world
        servers.start("-p", f"127.0.0.1:{OUT}:{PORT}")
        world.second.write("ipv4/conf/eth0/route_localnet", "1")
        try:
            world.second.ip(
                "route delete local 127.0.0.0/8 dev lo table local",
                "route delete local 127.0.0.1 dev lo table local",
                f"route add 127.0.0.1 via {HOST} dev eth0",
            )
            assert world.is_silent(world.second, "127.0.0.1", OUT)
        finally:
            world.second.run("ip", "route", "delete", "127.0.0.1", check=False)
            world.second.ip(
                "route add local 127.0.0.1 dev lo table local",
                "route add local 127.0.0.0/8 dev lo table local src 127.0.0.1",
            )
            world.second.write("ipv4/conf/eth0/route_localnet", "0")

    @pytest.mark.parametrize(("host", "other"), [(HOST, HOST6), (HOST6, HOST)])
    def test_on_one_address(self, servers: Servers, host: str, other: str) -> None:
        world = servers.world
        shown = f"[{host}]" if ":" in host else host
        web = servers.start("-p", f"{shown}:{OUT}:{PORT}")
        assert world.ask(world.outside, host, OUT).server == web.name
        assert world.ask(world.outside, other, OUT).error == "ECONNREFUSED"
        assert world.ask(world.host, "127.0.0.1", OUT).error == "ECONNREFUSED"

    @pytest.mark.parametrize("kind", KINDS)
    def test_two_jails_on_all_addresses_of_a_family(self, servers: Servers, kind: str) -> None:
        world = servers.world
        four = servers.start("-p", f"0.0.0.0:{OUT}:{PORT}/{kind}")
        assert world.ask(world.outside, HOST6, OUT, kind).error == "ECONNREFUSED"
        six = servers.start("-p", f"[::]:{OUT}:{PORT}/{kind}")
        for place in (world.outside, world.host):
            assert world.ask(place, HOST, OUT, kind).server == four.name
            assert world.ask(place, HOST6, OUT, kind).server == six.name
        assert world.ask(world.host, "127.0.0.1", OUT, kind).server == four.name
        for address, name in (("0.0.0.0", four.name), (HOST, four.name), ("[::]", six.name)):
            words = ("-p", f"{address}:{OUT}:80/{kind}")
            assert_refused(jailrun("run", "--rm", *words, "busybox", "true"), name)

    def test_two_jails_on_addresses_of_their_own(self, servers: Servers) -> None:
        world = servers.world
        world.host.ip("address add 192.0.2.11/24 dev uplink")
        try:
            one = servers.start("-p", f"{HOST}:{OUT}:{PORT}")
            two = servers.start("-p", f"192.0.2.11:{OUT}:{PORT}")
            assert world.ask(world.outside, HOST, OUT).server == one.name
            assert world.ask(world.outside, "192.0.2.11", OUT).server == two.name
        finally:
            servers.clear()
            world.host.ip("address delete 192.0.2.11/24 dev uplink")


class TestClash:
    """A port that is taken is an error at start."""

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("bound", ["0.0.0.0", "::", "127.0.0.1", HOST6])
    def test_with_the_host(self, world: World, kind: str, bound: str) -> None:
        world.serve(world.host, "host", f"{kind}:{bound}:{OUT}")
        done = jailrun("run", "--rm", "-p", f"{OUT}:{PORT}/{kind}", "busybox", "true")
        assert_refused(done, str(OUT))

    @pytest.mark.parametrize("option", [f"{OUT}:80", f"127.0.0.1:{OUT}:80", f"8070-{OUT}:70-80"])
    def test_with_a_jail(self, servers: Servers, web: Server, option: str) -> None:
        done = jailrun("run", "--rm", "-p", option, "busybox", "true")
        assert_refused(done, str(OUT))
        assert web.name in done.stderr
        assert servers.world.ask(servers.world.outside, HOST, OUT).server == web.name

    def test_whoever_comes_later(self, world: World, web: Server) -> None:
        """The host's programs cannot take it, either: they would wait for what never comes."""
        done = world.host.run(str(world.talk), "serve", "x", f"tcp::::{OUT}", check=False)
        assert "EADDRINUSE" in done.stdout

    def test_twice_in_one_jail(self) -> None:
        words = ("run", "--rm", "-p", "8080:80", "-p", "8080:81", "busybox", "true")
        assert_refused(jailrun(*words), "8080")

    def test_an_address_that_is_not_ours(self) -> None:
        done = jailrun("run", "--rm", "-p", f"192.0.2.99:{OUT}:80", "busybox", "true")
        assert_refused(done, "192.0.2.99")

    def test_one_after_the_other(self, servers: Servers) -> None:
        """Who is removed has given its ports back."""
        for _turn in range(5):
            web = servers.start(*BOTH)
            assert jailrun("rm", "--force", web.name).returncode == 0
        for _turn in range(5):
            servers.stop(servers.start(*BOTH))

    def test_nothing_is_taken_by_who_fails(self, servers: Servers, web: Server) -> None:
        words = ("run", "--rm", "-p", "8090:80", "-p", f"{OUT}:80", "busybox", "true")
        assert_refused(jailrun(*words), str(OUT))
        again = servers.start("-p", f"8090:{PORT}")
        assert servers.world.ask(servers.world.outside, HOST, 8090).server == again.name


class TestAtOnce:
    """Free of races."""

    def test_a_hundred(self, world: World) -> None:
        """Each has its own port and its own address, and all of them are reached."""
        first, count = 20000, 100

        def start(number: int) -> tuple[api.Jail, str]:
            jail = api.Jail(
                "busybox",
                name=new_name(),
                network="default",
                publish=[f"{first + number}:{PORT}"],
                volumes=[f"{world.talk}:/talk:ro"],
            )
            process = jail.start(
                ["/talk", "serve", jail.name, f"tcp::::{PORT}"], stdout=subprocess.PIPE
            )
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            process.stdout.close()
            return jail, jail.name

        with ThreadPoolExecutor(20) as pool:
            started = list(pool.map(start, range(count)))
            try:
                names = [name for _jail, name in started]
                seen = [
                    world.ask(world.outside, HOST, first + number).server for number in range(count)
                ]
                assert seen == names
            finally:
                list(pool.map(lambda one: one[0].close(), started))

    def test_the_same_one(self, world: World) -> None:
        """Of ten who want one port at the same time, exactly one gets it."""

        def start(_number: int) -> api.Jail | None:
            try:
                return api.Jail("busybox", network="default", publish=[f"{OUT}:{PORT}"])
            except JailError as error:
                assert str(OUT) in str(error)
                return None

        with ThreadPoolExecutor(10) as pool:
            got = [jail for jail in pool.map(start, range(10)) if jail]
            for jail in got:
                jail.close()
        assert len(got) == 1

    def test_command_lines(self, servers: Servers) -> None:
        """Processes of their own, too."""
        with ThreadPoolExecutor(4) as pool:
            started = list(
                pool.map(lambda number: servers.start("-p", f"{8200 + number}:{PORT}"), range(8))
            )
        assert len({one.ip for one in started}) == 8
        for number, one in enumerate(started):
            answer = servers.world.ask(servers.world.outside, HOST6, 8200 + number)
            assert answer.server == one.name
