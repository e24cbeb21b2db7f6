"""Names: of the servers of a network, live, and of the world outside; the files that say so.

Out of scope: the text of the files (unit tests), the resolver by itself (test_names.py).
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jailrun.net.definition import run_folder
from tests.integration.cli.command import jailrun, output_of
from tests.integration.host import read_processes
from tests.integration.jails import eventually
from tests.integration.net.conftest import ShowFile
from tests.integration.net.world import (
    FAR,
    FAR6,
    OUTSIDE,
    Networks,
    Server,
    Servers,
    World,
    inspect,
)
from tests.integration.place import Place

WWW = "www.example.org"
Serve = Callable[..., None]


@pytest.fixture
def serve_names(world: World) -> Iterator[Serve]:
    """Return what starts a name server that knows one name."""
    started: list[subprocess.Popen[str]] = []

    def begin(place: Place, address: str) -> None:
        process = place.start(
            *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file="),
            *("--no-resolv", "--no-hosts", "--bind-interfaces", f"--listen-address={address}"),
            *("--except-interface=none", "--user=root", f"--host-record={WWW},{FAR},{FAR6}"),
        )
        started.append(process)
        dig = ("dig", "+short", "+time=1", f"@{address}", WWW)
        eventually(lambda: FAR in place.run(*dig, check=False).stdout, "it answers")

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def look_up(server: Server, name: str, kind: str = "a") -> str:
    """Return what a process of the jail finds out about a name."""
    return server.execute("nslookup", f"-type={kind}", name).stdout


class TestServers:
    """Each knows the others of its network."""

    def test_ping_by_name(self, servers: Servers) -> None:
        web = servers.start("--allow", "raw-sockets", name="web")
        db = servers.start("--allow", "raw-sockets", name="db")
        assert f"PING db ({db.ip})" in web.say("ping", "-4", "-c1", "-W5", "db")
        assert f"PING db ({db.ip6})" in web.say("ping", "-6", "-c1", "-W5", "db")
        assert f"({web.ip})" in db.say("ping", "-4", "-c1", "-W5", "web")

    def test_live(self, servers: Servers) -> None:
        web = servers.start(name="web")
        assert web.execute("nslookup", "db").returncode != 0
        db = servers.start(name="db")
        assert db.ip in look_up(web, "db")
        assert db.ip6 in look_up(web, "db", "aaaa")
        servers.stop(db)
        assert web.execute("nslookup", "db").returncode != 0

    def test_host_name_that_was_asked_for(self, servers: Servers) -> None:
        web = servers.start(name="web")
        db = servers.start("--hostname", "store.example", name="db")
        for name in ("db", "store.example"):
            assert db.ip in look_up(web, name)

    def test_dig(self, servers: Servers) -> None:
        """The resolver of the network answers whoever is in it."""
        web, db = servers.start(name="web"), servers.start(name="db")
        at = f"@{web.nics[0]['gateway']}"
        for place in (web.place, db.place):
            assert place.run("dig", "+short", at, "db").stdout.split() == [db.ip]
            assert place.run("dig", "+short", at, "db", "AAAA").stdout.split() == [db.ip6]
            reverse = place.run("dig", "+short", at, "-x", db.ip).stdout
            assert reverse.startswith("db.")

    def test_other_networks_know_nothing(self, nets: Networks, servers: Servers) -> None:
        nets.create("blue")
        servers.start(name="web")
        other = servers.start("--net", "blue", name="other")
        assert other.execute("nslookup", "web").returncode != 0

    def test_the_resolver_of_another_network_says_nothing(
        self, nets: Networks, servers: Servers
    ) -> None:
        """It listens on an address of the host, which jails of other networks could reach."""
        nets.create("blue")
        web = servers.start(name="web")
        other = servers.start("--net", "blue", command=("sleep", "1000"))
        gateway = web.nics[0]["gateway"]
        words = ("nslookup", "web", gateway)
        assert web.ip in web.execute(*words).stdout
        assert web.ip not in other.execute(*words).stdout

    def test_in_both(self, nets: Networks, servers: Servers) -> None:
        """Who is in two networks is known in each by its address there."""
        nets.create("blue")
        both = servers.start("--net", "default", "--net", "blue", name="both")
        for network, nic in zip(("default", "blue"), both.nics, strict=True):
            other = servers.start("--net", network, command=("sleep", "1000"))
            found = look_up(other, "both")
            assert nic["address"] in found
            servers.stop(other)

    def test_knows_both(self, nets: Networks, servers: Servers) -> None:
        """Who is in two networks finds the members of both, live; they find no more than before."""
        nets.create("blue")
        both = servers.start("--net", "default", "--net", "blue", name="both")
        web = servers.start(name="web")
        db = servers.start("--net", "blue", name="db")
        eventually(lambda: web.ip in look_up(both, "web"), "it finds web")
        eventually(lambda: db.ip in look_up(both, "db"), "it finds db")
        assert db.ip6 in look_up(both, "db", "aaaa")
        assert web.execute("nslookup", "db").returncode != 0
        assert db.execute("nslookup", "web").returncode != 0
        asked = both.say("cat", "/etc/resolv.conf").split()[1]
        assert servers.world.ask(both.place, db.ip).server == "db"
        dig = ("dig", "+short", "+time=1", "+tries=1", f"@{asked}", "db")
        assert db.ip not in servers.world.outside.run(*dig, check=False).stdout
        servers.stop(db)
        eventually(lambda: both.execute("nslookup", "db").returncode != 0, "the end of db")

    def test_several_in_both(self, nets: Networks, servers: Servers) -> None:
        """They share a resolver, which stays until the last has left, whoever came first."""
        nets.create("blue")
        two = ("--net", "default", "--net", "blue", "--deny", "out")
        first, second = servers.start(*two, name="first"), servers.start(*two, name="second")
        texts = {each.say("cat", "/etc/resolv.conf") for each in (first, second)}
        assert len(texts) == 1
        asked = texts.pop().split()[1]
        assert inspect("default")["members"]["first"].count(asked) == 1
        servers.stop(first)
        assert inspect("default")["members"]["second"].count(asked) == 1
        db = servers.start("--net", "blue", name="db")
        eventually(lambda: db.ip in look_up(second, "db"), "it finds db")
        assert asked in servers.world.host.run("ip", "address").stdout
        servers.stop(second)
        assert f" {asked}/32" not in servers.world.host.run("ip", "address").stdout
        assert not Path(run_folder("default"), "views").exists()
        assert inspect("default")["members"] == {}

    @pytest.mark.parametrize("repaired", [False, True], ids=["start", "repair"])
    def test_both_after_a_crash(self, nets: Networks, servers: Servers, *, repaired: bool) -> None:
        """What is killed is there again with the next start, for those that run as well."""
        nets.create("blue")
        two = ("--net", "default", "--net", "blue")
        both = servers.start(*two, name="both")
        db = servers.start("--net", "blue", name="db")
        eventually(lambda: db.ip in look_up(both, "db"), "it finds db")
        (view,) = Path(run_folder("default"), "views").iterdir()
        os.kill(int((view / "resolver.pid").read_text()), signal.SIGKILL)
        eventually(lambda: both.execute("nslookup", "db").returncode != 0, "it has ended")
        if repaired:
            assert "resolver of default, blue" in output_of("repair")
        else:
            servers.start(*two, name="other")
        eventually(lambda: db.ip in look_up(both, "db"), "it finds db again")

    def test_both_without_ipv4(self, nets: Networks, servers: Servers) -> None:
        """The further address on the bridge is nobody's but the resolver's."""
        nets.create("six", "--subnet", "none")
        nets.create("blue")
        both = servers.start("--net", "six", "--net", "blue", name="both")
        db = servers.start("--net", "blue", name="db")
        eventually(lambda: db.ip in look_up(both, "db"), "it finds db")
        answer = servers.world.ask(servers.world.host, both.ip6)
        assert (answer.server, answer.peer) == ("both", both.nics[0]["gateway6"])

    def test_an_internal_network_and_another(
        self, nets: Networks, servers: Servers, serve_names: Serve, show_file: ShowFile
    ) -> None:
        """Who has a way out may ask outside, also where the first network has none."""
        serve_names(servers.world.outside, OUTSIDE)
        show_file("/etc/resolv.conf", f"nameserver {OUTSIDE}\n")
        nets.create("inner", "--internal")
        nets.create("deeper", "--internal")
        both = servers.start("--net", "inner", "--net", "default", name="both")
        shut = servers.start("--net", "inner", "--net", "deeper", name="shut")
        db = servers.start("--net", "inner", name="db")
        for one in (both, shut):
            eventually(lambda one=one: db.ip in look_up(one, "db"), "it finds db")
        assert FAR in look_up(both, WWW)
        assert FAR not in look_up(shut, WWW)

    def test_the_resolver_is_not_for_the_outside(self, servers: Servers) -> None:
        web = servers.start(name="web")
        done = servers.world.outside.run(
            "dig", "+short", "+time=1", "+tries=1", "@192.0.2.1", "web", check=False
        )
        assert web.ip not in done.stdout

    def test_nobody_left(self, nets: Networks, servers: Servers) -> None:
        """The resolver comes with the first and goes with the last."""

        def running() -> bool:
            return any(process.endswith(" dnsmasq") for process in read_processes())

        one, two = servers.start(), servers.start()
        assert running()
        servers.stop(one)
        assert running()
        servers.stop(two)
        eventually(lambda: not running(), "it goes")


class TestOutside:
    """What the host resolves, its jails do."""

    def test_as_the_host_does(
        self, servers: Servers, serve_names: Serve, show_file: ShowFile
    ) -> None:
        serve_names(servers.world.outside, OUTSIDE)
        show_file("/etc/resolv.conf", f"nameserver {OUTSIDE}\nsearch example.org\n")
        web = servers.start("--allow", "raw-sockets")
        assert FAR in look_up(web, WWW)
        assert FAR6 in look_up(web, WWW, "aaaa")
        assert f"PING www ({FAR})" in web.say("ping", "-4", "-c1", "-W5", "www")

    def test_a_server_on_the_hosts_loopback(
        self, servers: Servers, serve_names: Serve, show_file: ShowFile
    ) -> None:
        serve_names(servers.world.host, "127.0.0.1")
        show_file("/etc/resolv.conf", "nameserver 127.0.0.1\n")
        assert FAR in look_up(servers.start(), WWW)

    @pytest.fixture
    def stub(self, servers: Servers, serve_names: Serve, show_file: ShowFile) -> Iterator[None]:
        """Have a host that asks systemd-resolved, by a stub that only the host itself reaches."""
        serve_names(servers.world.host, "127.0.0.53")
        folder = Path("/run/systemd/resolve")
        made = [path for path in (folder.parent, folder) if not path.is_dir()]
        for path in made:
            path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
        (folder / "resolv.conf").write_text(f"nameserver {OUTSIDE}\n")
        (folder / "stub-resolv.conf").write_text("nameserver 127.0.0.53\n")
        show_file("/etc/resolv.conf", "nameserver 127.0.0.53\noptions edns0 trust-ad\n")
        yield
        servers.clear()
        subprocess.run(["umount", folder], check=True)
        for path in reversed(made):
            path.rmdir()

    def test_stub_of_systemd_resolved(self, stub: None, servers: Servers) -> None:
        """The resolver of the network asks it, from the host."""
        web = servers.start()
        assert FAR in look_up(web, WWW)
        assert "127.0.0.53" not in web.say("cat", "/etc/resolv.conf")

    def test_stub_for_who_asks_by_itself(
        self, stub: None, nets: Networks, servers: Servers, serve_names: Serve
    ) -> None:
        """In a network without a resolver of ours a jail gets those that the stub asks."""
        serve_names(servers.world.outside, OUTSIDE)
        near = ("--parent", "uplink", "--subnet", "192.0.2.0/24", "--ipv6", "none")
        nets.create("street", "--driver", "macvlan", *near)
        web = servers.start("--net", "street,ip=192.0.2.50")
        assert f"nameserver {OUTSIDE}\n" in web.say("cat", "/etc/resolv.conf")
        assert FAR in look_up(web, WWW)

    def test_a_name_that_nobody_knows(
        self, servers: Servers, serve_names: Serve, show_file: ShowFile
    ) -> None:
        """The outside is not asked for names without a dot."""
        serve_names(servers.world.outside, OUTSIDE)
        show_file("/etc/resolv.conf", f"nameserver {OUTSIDE}\n")
        assert "NXDOMAIN" in look_up(servers.start(), "nobody")

    def test_own_servers(self, servers: Servers, serve_names: Serve) -> None:
        serve_names(servers.world.outside, OUTSIDE)
        own = ("--dns", OUTSIDE, "--dns-search", "example.org")
        web = servers.start(*own, "--allow", "raw-sockets")
        assert FAR in look_up(web, WWW)
        assert f"PING www ({FAR})" in web.say("ping", "-4", "-c1", "-W5", "www")

    def test_internal(
        self, nets: Networks, servers: Servers, serve_names: Serve, show_file: ShowFile
    ) -> None:
        """A network that reaches nothing outside resolves nothing outside: names carry data."""
        serve_names(servers.world.outside, OUTSIDE)
        show_file("/etc/resolv.conf", f"nameserver {OUTSIDE}\n")
        nets.create("inner", "--internal")
        web, db = (servers.start("--net", "inner", name=name) for name in ("web", "db"))
        assert db.ip in look_up(web, "db")
        assert FAR not in look_up(web, WWW)


class TestFiles:
    """/etc/hosts, /etc/resolv.conf and /etc/hostname are the server's own."""

    def test_hosts(self, servers: Servers) -> None:
        said = ("--add-host", "printer:192.0.2.77", "--hostname", "shop")
        web = servers.start(*said, "--allow", "raw-sockets")
        lines = [line.split() for line in web.say("cat", "/etc/hosts").splitlines()]
        assert ["127.0.0.1", "localhost"] in lines
        assert any(line[:1] == ["::1"] and "localhost" in line for line in lines)
        assert any(line[:1] == [web.ip] and "shop" in line for line in lines)
        assert ["192.0.2.77", "printer"] in lines
        assert f"PING shop ({web.ip})" in web.say("ping", "-4", "-c1", "-W5", "shop")

    def test_hostname(self, servers: Servers) -> None:
        web = servers.start("--hostname", "shop")
        assert web.say("cat", "/etc/hostname") == "shop\n"
        assert web.say("hostname") == "shop\n"

    def test_resolv_conf(self, servers: Servers) -> None:
        web = servers.start("--dns-search", "a.example", "--dns-option", "ndots:2")
        text = web.say("cat", "/etc/resolv.conf")
        assert f"nameserver {web.nics[0]['gateway']}\n" in text
        assert "search a.example\n" in text
        assert "ndots:2" in text

    def test_own_files_of_each(self, servers: Servers) -> None:
        """What root writes in one is unseen in the other, and in the image."""
        one, two = servers.start(), servers.start()
        done = one.execute("sh", "-c", "echo 192.0.2.78 mine >>/etc/hosts")
        assert done.returncode == 0
        assert "mine" in one.say("cat", "/etc/hosts")
        assert "mine" not in two.say("cat", "/etc/hosts")
        assert "mine" not in output_of("run", "--rm", "busybox", "cat", "/etc/hosts")

    def test_read_only_root(self) -> None:
        text = output_of(
            "run", "--rm", "--read-only", "--name", "ro", "busybox", "cat", "/etc/hosts"
        )
        assert "ro" in text.split()

    def test_volumes_win(self, tmp_path: Path) -> None:
        """Who mounts a file of his own there gets that one."""
        own = tmp_path / "hosts"
        own.write_text("192.0.2.9 own\n")
        own.chmod(0o644)
        tmp_path.chmod(0o755)
        done = jailrun("run", "--rm", "-v", f"{own}:/etc/hosts:ro", "busybox", "cat", "/etc/hosts")
        assert (done.stdout, done.returncode) == ("192.0.2.9 own\n", 0)
