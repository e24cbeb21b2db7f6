"""Networks on links of the host's: macvlan, its bridges; links and namespaces that are joined."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cli.command import assert_refused, jailrun, output_of
from tests.integration.jails import eventually
from tests.integration.net.world import (
    HOST,
    OUTSIDE,
    OUTSIDE6,
    SECOND,
    UPLINK,
    Networks,
    Servers,
    World,
)
from tests.integration.place import Place

NEAR, NEAR6 = "192.0.2.0/24", "2001:db8::/64"  # the subnets that the host itself is in
LAN, LAN6 = "203.0.113.0/24", "2001:db8:5::/64"


class TestMacvlan:
    """Jails in the network outside, as if each had a cable."""

    def test_neighbours(self, nets: Networks, servers: Servers) -> None:
        world = servers.world
        options = ("--driver", "macvlan", "--parent", UPLINK, "--subnet", NEAR, "--ipv6", NEAR6)
        nets.create("street", *options)
        world.serve(world.second, "second")
        world.serve(world.outside, "outside")
        web = servers.start("--net", "street,ip=192.0.2.50,ip6=2001:db8::50")
        db = servers.start("--net", "street,ip=192.0.2.51,ip6=2001:db8::51")
        for place in (world.outside, world.second, db.place):
            for address in web.both:
                assert world.ask(place, address).server == web.name
        answer = world.ask(web.place, SECOND)
        assert (answer.server, answer.peer) == ("second", web.ip)
        answer = world.ask(web.place, OUTSIDE6, kind="udp")
        assert (answer.server, answer.peer) == ("outside", web.ip6)

    def test_link_goes_with_the_jail(self, nets: Networks, servers: Servers) -> None:
        """The comparison of the host after the test shows the rest."""
        nets.create("street", "--driver", "macvlan", "--parent", UPLINK, "--subnet", NEAR)
        web = servers.start("--net", "street,ip=192.0.2.50")
        servers.stop(web)
        again = servers.start("--net", "street,ip=192.0.2.50")
        assert servers.world.ask(servers.world.outside, again.ip).server == again.name

    def test_no_ports_to_publish(self, nets: Networks, world: World) -> None:
        nets.create("street", "--driver", "macvlan", "--parent", UPLINK, "--subnet", NEAR)
        done = jailrun("run", "--rm", "--net", "street", "-p", "8080:80", "busybox", "true")
        assert_refused(done, "bridge")

    def test_parent_is_missing(self) -> None:
        options = ("--driver", "macvlan", "--parent", "nosuch0", "--subnet", "10.200.6.0/24")
        assert_refused(jailrun("net", "create", "street", *options), "nosuch0")
        assert_refused(jailrun("net", "create", "street", *options[:2]), "parent")


def test_ipvlan(nets: Networks, servers: Servers) -> None:
    """Works, or says what the kernel lacks."""
    options = ("--driver", "ipvlan", "--parent", UPLINK, "--subnet", NEAR)
    done = jailrun("net", "create", "street", *options)
    if done.returncode:
        assert_refused(done, "ipvlan")
        return
    nets.made.append("street")
    web = jailrun("run", "--rm", "--net", "street,ip=192.0.2.50", "busybox", "ping", "-c1", OUTSIDE)
    if web.returncode:
        assert_refused(web, "ipvlan")
    else:
        assert "1 packets received" in web.stdout


@pytest.fixture
def own_bridge(world: World) -> Iterator[str]:
    """Return a bridge of the host's, which `second` is at, too."""
    world.host.ip(
        "link add lan0 type bridge",
        f"link add port0 type veth peer name lan netns {world.second.path}",
        "link set port0 master lan0 up",
        "address add 203.0.113.1/24 dev lan0",
        "address add 2001:db8:5::1/64 dev lan0 nodad",
        "link set lan0 up",
    )
    world.second.ip(
        "address add 203.0.113.2/24 dev lan",
        "address add 2001:db8:5::2/64 dev lan nodad",
        "link set lan up",
    )
    yield "lan0"
    world.host.ip("link delete port0", "link delete lan0")


class TestHostBridge:
    """Jails at a bridge that the administrator has made, and which stays as it is."""

    def test_neighbours(self, own_bridge: str, nets: Networks, servers: Servers) -> None:
        world = servers.world
        options = ("--driver", "host-bridge", "--parent", own_bridge)
        nets.create("lan", *options, "--subnet", LAN, "--ipv6", LAN6)
        web = servers.start("--net", "lan,ip=203.0.113.10,ip6=2001:db8:5::10")
        db = servers.start("--net", "lan")
        world.serve(world.second, "second")
        for place in (world.second, world.host, db.place):
            for address in web.both:
                assert world.ask(place, address).server == web.name
        for address in ("203.0.113.2", "2001:db8:5::2"):
            answer = world.ask(web.place, address)
            assert answer.server == "second"
            assert answer.peer in web.both
        servers.stop(web, db)
        output_of("net", "rm", "lan")
        assert Path("/sys/class/net", own_bridge).exists()
        assert world.pings(world.host, "203.0.113.2")

    def test_bridge_is_missing(self) -> None:
        options = ("--driver", "host-bridge", "--parent", "nosuch0", "--subnet", LAN)
        assert_refused(jailrun("net", "create", "lan", *options), "nosuch0")

    def test_parent_is_no_bridge(self, world: World) -> None:
        options = ("--driver", "host-bridge", "--parent", UPLINK, "--subnet", NEAR)
        assert_refused(jailrun("net", "create", "lan", *options), UPLINK)


@pytest.fixture
def spare(world: World) -> Iterator[str]:
    """Return an interface of the host's that nothing uses; `second` is at its other end."""
    world.host.ip(f"link add spare0 type veth peer name spare netns {world.second.path}")
    world.second.ip("address add 203.0.113.2/24 dev spare", "link set spare up")
    yield "spare0"
    world.second.run("ip", "link", "delete", "spare", check=False)


class TestMovedDevice:
    """An interface that one jail has to itself, and gives back."""

    OPTION = "device:spare0,name=lan,ip=203.0.113.7/24,gateway=203.0.113.2"

    def test_in_and_back(self, spare: str, servers: Servers) -> None:
        world, link = servers.world, Path("/sys/class/net", spare)
        web = servers.start("--net", self.OPTION)
        assert not link.exists()
        assert world.ask(world.second, "203.0.113.7").server == web.name
        assert "default via 203.0.113.2 dev lan" in web.say("ip", "route")
        servers.stop(web)
        assert link.exists()
        assert "203.0.113" not in world.host.run("ip", "address").stdout
        again = servers.start("--net", self.OPTION)
        assert world.ask(world.second, "203.0.113.7").server == again.name

    def test_back_at_the_end_of_a_run(self, spare: str) -> None:
        assert "203.0.113.7" in output_of(
            "run", "--rm", "--net", self.OPTION, "busybox", "ip", "address"
        )
        assert Path("/sys/class/net", spare).exists()

    def test_back_after_a_kill(self, spare: str, servers: Servers) -> None:
        web = servers.start("--net", self.OPTION)
        os.kill(web.pid, signal.SIGKILL)
        eventually(Path("/sys/class/net", spare).exists, "it comes back")

    def test_beside_a_network(self, spare: str, servers: Servers) -> None:
        web = servers.start("--net", "default", "--net", "device:spare0,ip=203.0.113.7/24")
        world = servers.world
        assert world.ask(world.second, "203.0.113.7").server == web.name
        assert world.ask(world.host, web.ip).server == web.name

    def test_missing(self) -> None:
        done = jailrun("run", "--rm", "--net", "device:nosuch0", "busybox", "true")
        assert_refused(done, "nosuch0")

    def test_taken(self, spare: str, servers: Servers) -> None:
        servers.start("--net", self.OPTION)
        done = jailrun("run", "--rm", "--net", "device:spare0", "busybox", "true")
        assert_refused(done, "spare0")


class TestJoined:
    """A stack that another jail or somebody else has made."""

    def test_of_a_jail(self, servers: Servers) -> None:
        web = servers.start()
        side = servers.start("--net", f"jail:{web.name}", kinds=("tcp:127.0.0.1:7001",))
        assert (
            Path(f"/proc/{side.pid}/ns/net").readlink()
            == Path(f"/proc/{web.pid}/ns/net").readlink()
        )
        assert web.ip in side.say("ip", "address")
        assert servers.world.ask(web.place, "127.0.0.1", 7001).server == side.name
        done = jailrun(
            *("run", "--rm", "--net", f"jail:{web.name}", "busybox"),
            *("nc", "-w", "5", "127.0.0.1", "7000"),
        )
        assert done.stdout.startswith(f"{web.name} 127.0.0.1 ")

    def test_of_a_jail_that_is_not_there(self) -> None:
        done = jailrun("run", "--rm", "--net", "jail:nosuch", "busybox", "true")
        assert_refused(done, "nosuch")

    @pytest.mark.parametrize("form", ["ns:/run/netns/made", "/run/netns/made"])
    def test_by_path(self, world: World, form: str) -> None:
        folder = Path("/run/netns")
        existed = folder.is_dir()
        folder.mkdir(exist_ok=True)
        # Names of other namespaces on this machine are none of ours.
        subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
        try:
            world.host.ip("netns add made")
            place = Place(os.open(folder / "made", os.O_RDONLY | os.O_CLOEXEC))
            place.ip(
                "link set lo up", "link add own0 type bridge", "address add 10.9.8.7/24 dev own0"
            )
            place.close()
            shown = output_of("run", "--rm", "--net", form, "busybox", "ip", "address")
            assert "10.9.8.7/24" in shown
            assert HOST not in shown
        finally:
            world.host.run("ip", "netns", "delete", "made", check=False)
            subprocess.run(["umount", "--recursive", folder], check=True)
            if not existed:
                folder.rmdir()

    def test_by_a_path_that_is_none(self, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.touch()
        for path in (file, tmp_path / "nosuch"):
            done = jailrun("run", "--rm", "--net", f"ns:{path}", "busybox", "true")
            assert_refused(done, str(path))

    def test_host(self, servers: Servers) -> None:
        web = servers.start("--net", "host", kinds=("tcp:127.0.0.1:7002",))
        assert servers.world.ask(servers.world.host, "127.0.0.1", 7002).server == web.name
        assert web.nics == []
