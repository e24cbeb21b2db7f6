"""The resolver of a network: what it answers, when it runs, and that it is nobody's.

Each test has a network namespace of its own, with one bridge in it.  Out of scope: jails that find
one another (test_resolving.py).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jailrun.errors import NetworkError
from jailrun.kernel import constants as c
from jailrun.kernel.execute import syscall
from jailrun.net import resolver
from jailrun.net.definition import lock, run_folder
from tests.integration.ground import ROOT
from tests.integration.jails import eventually

if TYPE_CHECKING:
    from jailrun.net.definition import Definition

NAME = "apart"
OUTSIDE = "192.0.2.7"  # where outside.example is


class Upstream:
    """A name server of the host's that knows one name, and what it was asked."""

    def __init__(self, address: str) -> None:
        self.asked: list[str] = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, 53))
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        """Answer until an empty datagram comes."""
        while True:
            query, client = self.socket.recvfrom(4096)
            if not query:
                return
            end = query.index(b"\0", 12)
            labels, at = [], 12
            while at < end:
                labels.append(query[at + 1 : at + 1 + query[at]].decode())
                at += 1 + query[at]
            name, kind = ".".join(labels), query[end + 2]
            self.asked.append(name)
            known = name == "outside.example"
            answers = 1 if known and kind == 1 else 0
            reply = query[:2] + bytes([0x81, 0x80 if known else 0x83, 0, 1, 0, answers])
            reply += bytes(4) + query[12 : end + 5]
            if answers:
                reply += b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(OUTSIDE)
            self.socket.sendto(reply, client)

    def close(self) -> None:
        """End the thread."""
        self.socket.sendto(b"", self.socket.getsockname())
        self.thread.join()
        self.socket.close()


def ip(*words: str) -> None:
    """Run ip."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


def make_bridge() -> None:
    """Make the bridge with the addresses of the gateways."""
    ip("link", "add", "jr0", "type", "bridge")
    ip("address", "add", "10.87.0.1/16", "dev", "jr0")
    ip("address", "add", "fd87::1/64", "dev", "jr0", "nodad")
    ip("link", "set", "jr0", "up")


def ask(*words: str, server: str = "10.87.0.1") -> list[str]:
    """Return the answers to a question."""
    command = ["dig", "+short", "+time=5", "+tries=1", f"@{server}", *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return sorted(done.stdout.split())


def status_of(*words: str) -> str:
    """Return how a question was answered."""
    command = ["dig", "+time=5", "+tries=1", "@10.87.0.1", *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.partition("status: ")[2].partition(",")[0]


@pytest.fixture
def own_network(leaves_host_as_it_was: None) -> Iterator[None]:
    """Be in a network namespace of the test's own."""
    before = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    syscall("unshare", c.CLONE_NEWNET)
    try:
        ip("link", "set", "lo", "up")
        make_bridge()
        yield
    finally:
        syscall("setns", before, c.CLONE_NEWNET)
        os.close(before)


@pytest.fixture
def network(
    own_network: None, own_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Definition]:
    """Return a network whose resolver is stopped after the test; the host asks a stub."""
    resolv_conf = own_folders / "resolv.conf"  # where dnsmasq's user may read it
    monkeypatch.setattr(resolver, "RESOLV_CONF", str(resolv_conf))
    definition: Definition = {
        "name": NAME, "driver": "bridge", "link": "jr0", "parent": "",
        "subnet": "10.87.0.0/16", "gateway": "10.87.0.1", "subnet6": "fd87::/64",
        "gateway6": "fd87::1", "reserved": [], "mtu": 0, "internal": False, "isolate": False,
        "created": 0.0,
    }  # fmt: skip
    with lock(NAME):
        resolv_conf.write_text("nameserver 127.0.0.53\n")
        resolv_conf.chmod(0o644)
        yield definition
        resolver.stop(definition)
        shutil.rmtree(run_folder(NAME))


@pytest.fixture
def upstream(own_network: None) -> Iterator[Upstream]:
    """Return the server that the host asks."""
    server = Upstream("127.0.0.53")
    yield server
    server.close()


@pytest.mark.requires("tool:dnsmasq", "tool:dig", "tool:ip")
class TestResolver:
    """One dnsmasq for a network."""

    def test_names(self, network: Definition) -> None:
        """In both families, over both gateways, in any letters; and back from the address."""
        resolver.ensure_running(network)
        names = ["web", "web.example"]
        resolver.add_names(network, "web", names, ["10.87.0.2", "fd87::2"])
        eventually(lambda: ask("web"), "web")
        for server in ("10.87.0.1", "fd87::1"):
            for name in ("web", "WEB.example"):
                assert ask(name, server=server) == ["10.87.0.2"]
                assert ask(name, "AAAA", server=server) == ["fd87::2"]
        assert ask("+tcp", "web") == ["10.87.0.2"]
        assert ask("-x", "10.87.0.2") == ask("-x", "fd87::2") == ["web."]

    def test_live(self, network: Definition, upstream: Upstream) -> None:
        """Names come, change and go, also one that was asked for before it was there."""
        resolver.ensure_running(network)
        assert ask("db.example") == []
        resolver.add_names(network, "db", ["db", "db.example"], ["10.87.0.3"])
        eventually(lambda: ask("db.example") == ["10.87.0.3"], "the new name")
        resolver.add_names(network, "db", ["db", "db.example"], ["10.87.0.4"])
        eventually(lambda: ask("db") == ["10.87.0.4"], "the other address")
        resolver.remove_names(network, "db")
        eventually(lambda: ask("db") == [], "the end of the name")
        assert status_of("db") == "NXDOMAIN"

    def test_two_of_one_name(self, network: Definition) -> None:
        """Both are answered; each under its own name alone."""
        resolver.ensure_running(network)
        resolver.add_names(network, "web1", ["web1", "web"], ["10.87.0.2"])
        resolver.add_names(network, "web2", ["web2", "web", "web1"], ["10.87.0.3"])
        eventually(lambda: ask("web") == ["10.87.0.2", "10.87.0.3"], "both")
        assert (ask("web1"), ask("web2")) == (["10.87.0.2"], ["10.87.0.3"])

    def test_outside(self, network: Definition, upstream: Upstream) -> None:
        """What is not known is asked of whom the host asks, but for names without a dot."""
        resolver.ensure_running(network)
        assert ask("outside.example") == [OUTSIDE]
        assert ask("missing.example") == []
        assert status_of("missing") == status_of("-x", "10.87.3.4") == "NXDOMAIN"
        assert status_of("-x", "fd87::3") == "NXDOMAIN"
        assert set(upstream.asked) == {"outside.example", "missing.example"}

    def test_internal(self, network: Definition, upstream: Upstream) -> None:
        """Nobody is asked; what is not known does not exist, which ends the search at once."""
        network["internal"] = True
        resolver.ensure_running(network)
        resolver.add_names(network, "web", ["web.example"], ["10.87.0.2"])
        eventually(lambda: ask("web.example"), "web.example")
        assert status_of("outside.example") == status_of("-x", "192.0.2.7") == "NXDOMAIN"
        assert status_of("web.example", "AAAA") == "NOERROR"
        assert upstream.asked == []

    def test_started_once(self, network: Definition) -> None:
        """The second time nothing happens."""
        resolver.ensure_running(network)
        pid = resolver.find_process(network)
        resolver.ensure_running(network)
        assert resolver.find_process(network) == pid > 0

    @pytest.mark.parametrize("note", ["resolver.json", "resolver.pid"])
    def test_found_again(self, network: Definition, note: str) -> None:
        """Whoever started it may have been killed before it was noted, or the note be lost."""
        resolver.ensure_running(network)
        pid = resolver.find_process(network)
        Path(run_folder(NAME), note).unlink()
        resolver.ensure_running(network)
        assert resolver.find_process(network) == pid

    def test_killed(self, network: Definition) -> None:
        """The next jail starts another, which knows what the first has known."""
        resolver.ensure_running(network)
        resolver.add_names(network, "web", ["web"], ["10.87.0.2"])
        os.kill(resolver.find_process(network), signal.SIGKILL)
        eventually(lambda: not resolver.find_process(network), "its end")
        resolver.ensure_running(network)
        assert ask("web") == ["10.87.0.2"]

    def test_bridge_made_again(self, network: Definition) -> None:
        """It listens on the addresses, wherever they are."""
        resolver.ensure_running(network)
        resolver.add_names(network, "web", ["web"], ["10.87.0.2"])
        ip("link", "delete", "jr0")
        make_bridge()
        for server in ("10.87.0.1", "fd87::1"):
            assert ask("web", server=server) == ["10.87.0.2"]

    def test_stopped_with_the_last(self, network: Definition) -> None:
        """A member keeps it; without one nothing of it is left, and its port is free."""
        resolver.ensure_running(network)
        lease = Path(run_folder(NAME), "leases", "10.87.0.2")
        lease.parent.mkdir()
        lease.symlink_to("web")
        resolver.add_names(network, "web", ["web"], ["10.87.0.2"])
        resolver.stop_if_unused(network)
        assert ask("web") == ["10.87.0.2"]
        lease.unlink()
        resolver.stop_if_unused(network)
        resolver.stop_if_unused(network)
        assert not resolver.find_process(network)
        left = {path.name for path in Path(run_folder(NAME)).rglob("*")}
        assert left == {"leases", "hosts", "resolver.json"}  # the next one waits for its end
        resolver.ensure_running(network)
        assert status_of("web") == "NXDOMAIN"

    def test_port_taken(self, network: Definition) -> None:
        """dnsmasq's own words, and how to see who it is."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("0.0.0.0", 53))
            with pytest.raises(NetworkError) as raised:
                resolver.ensure_running(network)
        assert "socket for 10.87.0.1: Address already in use" in str(raised.value)
        assert "ss -anup" in str(raised.value.hint)

    def test_host_without_servers(
        self, network: Definition, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Jails find one another all the same."""
        monkeypatch.setattr(resolver, "RESOLV_CONF", "/nonexistent/resolv.conf")
        resolver.ensure_running(network)
        resolver.add_names(network, "web", ["web"], ["10.87.0.2"])
        eventually(lambda: ask("web"), "web")


@pytest.mark.requires("tool:dnsmasq", "tool:ip")
class TestDaemon:
    """It is nobody's: it stays when whoever started it goes."""

    def test_keeps_nothing_of_the_caller(self, network: Definition) -> None:
        """No descriptor, session, terminal, working directory, blocked or ignored signal, root."""
        reader, writer = os.pipe()
        os.set_inheritable(writer, True)
        saved = os.dup(2)
        try:
            os.dup2(writer, 2)
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
            resolver.ensure_running(network)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGUSR1})
            os.dup2(saved, 2)
            os.close(saved)
            os.close(writer)
        assert os.read(reader, 100) == b""  # the end: nobody holds the other end
        os.close(reader)
        process = Path(f"/proc/{resolver.find_process(network)}")
        files = {fd.readlink().as_posix() for fd in (process / "fd").iterdir()}
        kinds = {file.partition(":")[0] for file in files}
        assert kinds <= {"/dev/null", "pipe", "socket", "anon_inode"}
        assert (process / "cwd").readlink() == Path("/")
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        assert int(fields[3]) != os.getsid(0)
        assert fields[4] == "0"  # no terminal
        lines = (process / "status").read_text().splitlines()
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        assert int(status["SigBlk"], 16) == 0
        assert "0" not in status["Uid"].split()

    @pytest.mark.parametrize("handling", [signal.SIG_IGN, signal.SIG_DFL])
    def test_caller_that_reaps_by_itself(
        self, network: Definition, handling: signal.Handlers
    ) -> None:
        """A library must not depend on who collects the children of its process."""
        before = signal.signal(signal.SIGCHLD, handling)
        try:
            resolver.ensure_running(network)
        finally:
            signal.signal(signal.SIGCHLD, before)
        assert resolver.find_process(network)

    def test_leaves_the_cgroup(self, network: Definition, tmp_path: Path) -> None:
        """A unit that happens to start it does not take it down with itself."""
        top = find_unified()
        own = top / f"jrt-{uuid.uuid4().hex}"
        own.mkdir()
        try:
            program = (
                "import os, sys; from jailrun.net import resolver; "
                f"open({str(own / 'cgroup.procs')!r}, 'w').write('0'); "
                f"resolver.ensure_running({network!r}); "
                "print(open('/proc/self/cgroup').read())"
            )
            command = [sys.executable, "-c", program]
            done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
            assert own.name in done.stdout
            pid = resolver.find_process(network)
            assert own.name not in Path(f"/proc/{pid}/cgroup").read_text()
            assert (own / "cgroup.procs").read_text() == ""
        finally:
            eventually(lambda: not (own / "cgroup.procs").read_text(), "an empty cgroup")
            own.rmdir()


def find_unified() -> Path:
    """Return where the v2 hierarchy is mounted."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if right.startswith("cgroup2 "):
            return Path(left.split()[4])
    pytest.skip("no cgroup v2")
