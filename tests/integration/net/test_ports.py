"""Reserved ports against other jails and against programs of the host, with real sockets."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from jailrun.errors import ConflictError, NetworkError
from jailrun.kernel import constants as c
from jailrun.kernel.execute import syscall
from jailrun.net import ports
from jailrun.spec.extensions import PublishedPort

SECONDS = 30.0  # a deadline, never a measure
HOST = "192.0.2.1"
EVERY = (
    (socket.AF_INET, "0.0.0.0"),
    (socket.AF_INET, "127.0.0.1"),
    (socket.AF_INET, HOST),
    (socket.AF_INET6, "::"),
    (socket.AF_INET6, "::1"),
)
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM


def port(number: int, protocol: str = "tcp", address: str = "", count: int = 1) -> PublishedPort:
    return {
        "protocol": protocol,
        "host_address": address,
        "host_port": number,
        "jail_port": 80,
        "count": count,
    }


@pytest.fixture(autouse=True)
def own_stack(leaves_host_as_it_was: None) -> Iterator[None]:
    """Be on a host that nobody else has."""
    before = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    syscall("unshare", c.CLONE_NEWNET)
    try:
        words = f"link set lo up\naddress add {HOST}/32 dev lo"
        subprocess.run(["ip", "-batch", "-"], input=words, text=True, check=True)
        yield
    finally:
        for jail in ("a", "b", "c"):
            ports.drop(jail)
        syscall("setns", before, c.CLONE_NEWNET)
        os.close(before)


def can_bind(family: int, address: str, number: int, kind: int = TCP) -> bool:
    """Tell whether a program of the host could have a port, with all that programs try."""
    with socket.socket(family, kind) as one:
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            one.setsockopt(socket.SOL_SOCKET, option, 1)
        try:
            one.bind((address, number))
        except OSError:
            return False
        return True


@pytest.mark.parametrize(("protocol", "kind"), [("tcp", TCP), ("udp", UDP)])
def test_nobody_else_gets_it(protocol: str, kind: int) -> None:
    ports.reserve([port(80, protocol), port(8000, protocol, count=3)], "a")
    assert len(ports.held("a")) == 4
    for family, address in EVERY:
        for number in (80, 8000, 8002):
            assert not can_bind(family, address, number, kind)
        assert can_bind(family, address, 8003, kind)
        assert can_bind(family, address, 80, UDP if kind == TCP else TCP)
    ports.drop("a")
    ports.drop("a")
    assert all(can_bind(family, address, 80, kind) for family, address in EVERY)


def test_an_address() -> None:
    """The same port of another one is another port."""
    ports.reserve([port(80, address=HOST)], "a")
    ports.reserve([port(80, address="127.0.0.1"), port(80, address="::1")], "b")
    for address in (HOST, ""):
        with pytest.raises(ConflictError, match="80/tcp is taken"):
            ports.reserve([port(80, address=address)], "c")


def test_it_is_refused_at_once_to_who_comes_to_it() -> None:
    """As ::1 does, which no rule can lead into a jail."""
    ports.reserve([port(80)], "a")
    for family, address in EVERY:
        with socket.socket(family) as one, pytest.raises(ConnectionRefusedError):
            one.connect((address, 80))


def test_taken_by_a_jail() -> None:
    ports.reserve([port(80)], "a")
    asked = []

    def find_jail(*asked_for: object) -> str:
        asked.append(asked_for)
        return "a"

    with pytest.raises(ConflictError, match=r"^port 80/tcp is taken by jail a$") as raised:
        ports.reserve([port(80)], "b", find_jail=find_jail)
    assert asked == [("tcp", "", 80)]
    assert raised.value.hint and "ss -tanp 'sport = :80'" in raised.value.hint


@pytest.mark.parametrize(("protocol", "kind"), [("tcp", TCP), ("udp", UDP)])
@pytest.mark.parametrize(("family", "address"), EVERY)
def test_taken_by_a_program(protocol: str, kind: int, family: int, address: str) -> None:
    with socket.socket(family, kind) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((address, 80))
        if kind == TCP:
            one.listen()
        with pytest.raises(ConflictError, match=rf"80/{protocol} is taken by .*, process \d+"):
            ports.reserve([port(80, protocol)], "a")
        assert ports.held("a") == []


def test_taken_by_a_connection() -> None:
    """Ports that the kernel chooses for connections can be published, too, if none has them."""
    with socket.create_server((HOST, 80)) as server, socket.create_connection((HOST, 80)) as one:
        number = one.getsockname()[1]
        with pytest.raises(ConflictError, match=r"is taken by a connection of .*") as raised:
            ports.reserve([port(number)], "a")
        server.accept()[0].close()
    assert raised.value.hint and f"ip_local_reserved_ports={number}" in raised.value.hint


def test_all_or_none() -> None:
    ports.reserve([port(8004)], "a")
    with pytest.raises(ConflictError, match="port 8004/tcp is taken"):
        ports.reserve([port(80), port(8000, count=9)], "b")
    assert ports.held("b") == []
    assert can_bind(socket.AF_INET, "0.0.0.0", 80)


def test_an_address_that_the_host_does_not_have() -> None:
    for address in ("203.0.113.9", "2001:db8::9"):
        with pytest.raises(NetworkError, match=f"the host has no address {address}"):
            ports.reserve([port(80, address=address)], "a")


def test_more_ports_than_descriptors() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[1]))
    try:
        with pytest.raises(NetworkError, match="Too many open files") as raised:
            ports.reserve([port(8000, count=100)], "a")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert raised.value.hint and "ulimit -n" in raised.value.hint
    assert ports.held("a") == []


# --- connections that ended -----------------------------------------------------------------------
def leave_old_connection(number: int) -> None:
    """Have been a server on a port; its connection stays behind, in TIME_WAIT."""
    with socket.socket() as server, socket.socket() as client:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("0.0.0.0", number))
        server.listen()
        client.connect(("127.0.0.1", number))
        made, _peer = server.accept()
        made.close()
        client.recv(1)
    with socket.socket() as plain, pytest.raises(OSError, match="already in use"):
        plain.bind(("0.0.0.0", number))


def test_after_a_program_that_had_it() -> None:
    """A service that moves from the host into a jail need not wait for its old connections."""
    leave_old_connection(80)
    ports.reserve([port(80)], "a")
    with pytest.raises(ConflictError):
        ports.reserve([port(80)], "b")
    for family, address in EVERY:
        assert not can_bind(family, address, 80)
        with socket.socket(family) as one, pytest.raises(ConnectionRefusedError):
            one.connect((address, 80))


@pytest.mark.requires("tool:nft")
def test_after_a_jail_with_connections() -> None:
    """Connections that were led on have no sockets on the host's port."""
    rules = f"""
        add table ip t
        add chain ip t c {{ type nat hook output priority -100; }}
        add rule ip t c tcp dport 80 dnat to {HOST}:8080
    """
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    with socket.socket() as server:
        server.bind((HOST, 8080))
        server.listen()
        for jail in ("a", "b", "c"):
            ports.reserve([port(80)], jail)
            with socket.socket() as client:
                client.connect(("127.0.0.1", 80))
                made, _peer = server.accept()
                made.close()
                assert client.recv(1) == b""
            ports.drop(jail)


# --- many at once ---------------------------------------------------------------------------------
def reserve_at_once(count: int, choose: Callable[[int], int]) -> list[str]:
    """Have processes reserve ports when all are ready; return what became of each."""
    ready, go, told, end = (os.pipe() for _pipe in range(4))
    children = []
    for index in range(count):
        pid = os.fork()
        if pid == 0:
            try:
                os.close(end[1])
                os.write(ready[1], b".")
                os.read(go[0], 1)
                ports.reserve([port(choose(index))], f"jail-{index}")
                os.write(told[1], b"got\n")
                os.read(end[0], 1)  # keeps it until all have tried
            except ConflictError:
                os.write(told[1], b"taken\n")
            finally:
                os._exit(0)
        children.append(pid)
    for _child in children:
        os.read(ready[0], 1)
    os.write(go[1], b"." * count)
    os.close(told[1])
    said = b""
    while said.count(b"\n") < count and (more := os.read(told[0], 4096)):
        said += more
    for fd in (*ready, *go, told[0], *end):
        os.close(fd)
    for pid in children:
        os.waitpid(pid, 0)
    return said.decode().split()


def test_a_hundred_at_once() -> None:
    assert reserve_at_once(100, lambda index: 8000 + index) == ["got"] * 100


@pytest.mark.parametrize("after", ["nobody", "a program"])
def test_one_port_for_many(after: str) -> None:
    """One of them gets it, also while old connections of a program hold it."""
    if after == "a program":
        leave_old_connection(80)
    said = reserve_at_once(24, lambda _index: 80)
    assert sorted(said) == ["got"] + ["taken"] * 23


# --- who holds them -------------------------------------------------------------------------------
def test_a_process_that_takes_over() -> None:
    """As the monitor does, which lives as long as its jail."""
    ports.reserve([port(80), port(53, "udp")], "a")
    kept = ports.held("a")
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        pass_fds=kept,
    ) as child:
        ports.drop("a")
        assert not can_bind(socket.AF_INET, "0.0.0.0", 80)
        assert not can_bind(socket.AF_INET, "127.0.0.1", 53, UDP)
        assert child.stdin
        child.stdin.close()
        child.wait(SECONDS)
    assert can_bind(socket.AF_INET, "0.0.0.0", 80)


def test_adopting() -> None:
    ports.reserve([port(80)], "a")
    copies = [os.dup(fd) for fd in ports.held("a")]
    os.set_inheritable(copies[0], True)
    ports.drop("a")
    ports.adopt("b", copies)
    assert ports.held("b") == copies
    assert not os.get_inheritable(copies[0])
    assert not can_bind(socket.AF_INET, "0.0.0.0", 80)
    ports.drop("b")
    assert can_bind(socket.AF_INET, "0.0.0.0", 80)


def test_they_are_not_inherited() -> None:
    ports.reserve([port(80)], "a")
    done = subprocess.run(["ls", "-l", "/proc/self/fd"], capture_output=True, text=True, check=True)
    assert "socket" not in done.stdout
