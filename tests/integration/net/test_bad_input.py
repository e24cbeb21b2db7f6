"""What cannot be, is refused: with the object's name, the reason, and nothing left behind."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.integration.cli.command import assert_refused, jailrun, output_of
from tests.integration.host import read_processes
from tests.integration.net.conftest import ShowFile
from tests.integration.net.world import UPLINK, Networks, Servers, World, inspect

RUN = ("run", "--rm")
TRUE = ("busybox", "true")


@pytest.mark.parametrize(
    "name",
    [
        *("../x", "x" * 16, "", ".", "a/b", "Upper", "-dash", "a b", "ü", "a\nb"),
        *("none", "host", "private"),
    ],
)
def test_names(name: str) -> None:
    assert_refused(jailrun("net", "create", "--", name), "name")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--subnet", "192.0.2.0/25"), "192.0.2.1/24"),
        (("--subnet", "192.0.0.0/16"), "192.0.2.1/24"),
        (("--ipv6", "2001:db8::/80"), "2001:db8::1/64"),
        (("--subnet", "10.200.9.0"), "10.200.9.0"),
        (("--subnet", "10.200.9.5/24"), "10.200.9"),
        (("--subnet", "10.200.9.0/33"), "10.200.9.0/33"),
        (("--subnet", "10.200.9.0/31"), "10.200.9.0/31"),
        (("--subnet", "nonsense"), "nonsense"),
        (("--subnet", "127.0.0.0/8"), "127.0.0.0/8"),
        (("--subnet", "224.0.0.0/8"), "224.0.0.0/8"),
        (("--subnet", "0.0.0.0/8"), "0.0.0.0/8"),
        (("--subnet", "240.0.0.0/8"), "240.0.0.0/8"),
        (("--subnet", "198.51.100.0/24", "--ipv6", "ff05::/64"), "ff05::/64"),
        (("--ipv6", "fe80::/64"), "fe80::/64"),
        (("--subnet", "fd00::/64"), "fd00::/64"),
        (("--ipv6", "10.0.0.0/24"), "10.0.0.0/24"),
        (("--mtu", "10"), "10"),
        (("--mtu", "nonsense"), "nonsense"),
        (("--driver", "overlay"), "overlay"),
        (("--driver", "macvlan", "--subnet", "10.200.9.0/24"), "parent"),
        (("--driver", "macvlan", "--parent", "nosuch0", "--subnet", "10.200.9.0/24"), "nosuch0"),
        (("--driver", "macvlan", "--parent", "lo", "--subnet", "10.200.9.0/24"), "lo"),
        (("--parent", UPLINK), "parent"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_networks(world: World, nets: Networks, options: tuple[str, ...], text: str) -> None:
    nets.made.append("bad")  # whatever becomes of it
    done = jailrun("net", "create", "bad", *options)
    assert done.returncode in (2, 125)
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert jailrun("net", "inspect", "bad").returncode == 125


def test_subnet_of_another_network(nets: Networks) -> None:
    taken = inspect("default")["subnet"]
    assert_refused(jailrun("net", "create", "bad", "--subnet", taken), taken)


@pytest.mark.parametrize(
    ("network", "text"),
    [
        ("nosuch", "nosuch"),
        ("blue,ip=10.200.9.0", "10.200.9.0"),
        ("blue,ip=10.200.9.255", "10.200.9.255"),
        ("blue,ip=10.200.9.1", "10.200.9.1"),
        ("blue,ip=10.200.10.5", "10.200.10.5"),
        ("blue,ip=nonsense", "nonsense"),
        ("blue,ip=fd00:200:9::5", "fd00:200:9::5"),
        ("blue,ip6=fd00:200:8::5", "fd00:200:8::5"),
        ("blue,ip6=fd00:200:9::1", "fd00:200:9::1"),
        ("blue,mac=01:00:5e:00:00:01", "01:00:5e:00:00:01"),
        ("blue,mac=nonsense", "nonsense"),
        ("blue,rate=0", "rate"),
        ("blue,rate=in:0", "rate"),
        ("blue,rate=-5mbit", "rate"),
        ("blue,rate=fast", "fast"),
        ("blue,name=lo", "lo"),
        ("blue,name=" + "x" * 16, "x" * 16),
        ("blue,name=a/b", "a/b"),
        ("blue,colour=red", "colour"),
        ("blue,ip=10.200.9.5,ip=10.200.9.6", "ip"),
        ("../x", "../x"),
        ("x" * 16, "x" * 16),
        ("jail:nosuch", "nosuch"),
        ("ns:relative", "relative"),
        ("device:nosuch0", "nosuch0"),
        ("device:lo", "lo"),
    ],
)
def test_interfaces(nets: Networks, network: str, text: str) -> None:
    nets.create("blue", "--subnet", "10.200.9.0/24", "--ipv6", "fd00:200:9::/64")
    assert_refused(jailrun(*RUN, "--net", network, *TRUE), text)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("-p", "70000:80"), "70000"),
        (("-p", "0:80"), "0"),
        (("-p", "80:nonsense"), "nonsense"),
        (("-p", "8080-8081:80-83"), "8080-8081"),
        (("-p", "8080:80/sctp"), "sctp"),
        (("-p", "300.0.0.1:8080:80"), "300.0.0.1"),
        (("-p", ""), "publish"),
        (("--net", "none", "-p", "8080:80"), "publish"),
        (("--net", "host", "-p", "8080:80"), "publish"),
        (("--net", "none", "--deny", "in:tcp"), "deny"),
        (("--deny", "sideways:tcp"), "sideways"),
        (("--deny", "in:tcp:99999"), "99999"),
        (("--deny", "in:icmp:80"), "icmp"),
        (("--net", "none", "--net", "default"), "none"),
        (("--net", "default,name=a", "--net", "default,name=a"), "a"),
        (("--dns", "nonsense"), "nonsense"),
        (("--add-host", "noaddress"), "noaddress"),
        (("--add-host", "x:nonsense"), "nonsense"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_options(options: tuple[str, ...], text: str) -> None:
    assert_refused(jailrun(*RUN, *options, *TRUE), text)


class TestRemoval:
    """What is still needed stays."""

    def test_unknown(self) -> None:
        assert_refused(jailrun("net", "rm", "nosuch"), "nosuch")
        assert_refused(jailrun("net", "rm", "../x"), "../x")

    def test_default_in_use(self, servers: Servers) -> None:
        web = servers.start()
        assert_refused(jailrun("net", "rm", "default"), web.name)
        assert servers.world.ask(servers.world.host, web.ip).server == web.name

    def test_of_several(self, nets: Networks, servers: Servers) -> None:
        """One that cannot be removed keeps none of the others."""
        nets.create("blue")
        nets.create("red")
        web = servers.start("--net", "blue")
        done = jailrun("net", "rm", "blue", "red")
        assert done.returncode == 125
        assert web.name in done.stderr
        assert jailrun("net", "inspect", "red").returncode == 125


class TestByHand:
    """What somebody has broken is named, or mended."""

    def test_bridge_deleted_under_servers(self, nets: Networks, servers: Servers) -> None:
        world = servers.world
        nets.create("blue")
        web, db = servers.start("--net", "blue"), servers.start("--net", "blue")
        world.host.ip(f"link delete {inspect('blue')['link']}")
        assert world.is_silent(web.place, db.ip)
        done = jailrun("repair")
        assert done.returncode == 0
        for address in db.both:
            assert world.ask(web.place, address).server == db.name
            assert world.ask(world.host, address).server == db.name

    def test_bridge_deleted_between_servers(self, nets: Networks, servers: Servers) -> None:
        """The next start makes it again."""
        nets.create("blue")
        servers.world.host.ip(f"link delete {inspect('blue')['link']}")
        web = servers.start("--net", "blue")
        assert servers.world.ask(servers.world.host, web.ip).server == web.name

    def test_tables_flushed(self, servers: Servers) -> None:
        """Somebody has flushed the whole firewall: repair brings back what is ours."""
        world = servers.world
        web = servers.start("-p", "8080:7000")
        world.host.run("nft", "flush", "ruleset")
        assert world.ask(world.outside, "192.0.2.1", 8080, patience=700).server == ""
        assert jailrun("repair").returncode == 0
        assert world.ask(world.outside, "192.0.2.1", 8080).server == web.name

    def test_resolver_killed(self, servers: Servers) -> None:
        """The next start in the network, or repair, brings it back."""
        web, db = servers.start(name="web"), servers.start(name="db")
        pids = [one.split()[0] for one in read_processes() if one.endswith(" dnsmasq")]
        assert pids
        subprocess.run(["kill", "-KILL", *pids], check=True)
        assert jailrun("repair").returncode == 0
        assert db.ip in web.execute("nslookup", "-type=a", "db").stdout


class TestMissing:
    """What the host lacks is named, with what to type."""

    @pytest.mark.parametrize("what", ["libnftables"])
    def test_nftables(self, fresh: Path, show_file: ShowFile, what: str) -> None:
        listed = subprocess.run(
            ["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True
        )
        for line in listed.stdout.splitlines():
            if what in line:
                show_file(str(Path(line.split()[-1]).resolve()), "")
        done = jailrun(*RUN, *TRUE)
        assert_refused(done, "nft")
        assert "hint:" in done.stderr
        assert output_of(*RUN, "--net", "none", "busybox", "echo", "works") == "works\n"

    def test_dnsmasq(self, show_file: ShowFile) -> None:
        show_file("/usr/sbin/dnsmasq", "")
        done = jailrun(*RUN, *TRUE)
        if done.returncode:
            assert_refused(done, "dnsmasq")
            assert "hint:" in done.stderr
        else:
            assert "dnsmasq" in done.stderr
