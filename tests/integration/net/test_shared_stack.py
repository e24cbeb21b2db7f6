"""The shared stack, with real sockets: what a process in a locked cgroup is, and cannot be.

No namespaces here but a network of the test's own: what is refused is refused by the programs on
the cgroup alone.  The "host" is the test itself.
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jailrun.cgroups.hierarchy import read_hierarchies
from jailrun.errors import NetworkError
from jailrun.kernel import bpf
from jailrun.kernel import constants as c
from jailrun.kernel.execute import Execution, syscall
from jailrun.kernel.program import Program
from jailrun.net import shared

COUNT = itertools.count()
SECONDS = 30.0  # a deadline, never a measure
HOST, ONE, TWO = "192.0.2.1", "192.0.2.5", "192.0.2.6"
HOST6, ONE6, TWO6 = "2001:db8::1", "2001:db8::5", "2001:db8::6"
PRELUDE = """
import errno, os, sys
from socket import *
def attempt(function, *args):
    try:
        return function(*args)
    except OSError as error:
        return errno.errorcode[error.errno]
def bind(address, port=0, kind=SOCK_STREAM, dual=False):
    one = socket(AF_INET6 if ":" in address else AF_INET, kind)
    if dual:
        one.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 0)
    one.bind((address, port))
    return one
def name_of(address, *more):
    return bind(address, *more).getsockname()[0]
"""
# Answers on both protocols with who it is, as which address, until its input ends.
SERVER = """
import select
name, *addresses = sys.argv[1:]
def answer(peer):
    return f"{name} {peer[0].removeprefix('::ffff:')}".encode()
open_ = [bind(one, 80, kind, dual=":" in one)
    for one in addresses for kind in (SOCK_STREAM, SOCK_DGRAM)]
for one in open_[::2]:
    one.listen()
print("ready", flush=True)
while 0 not in (ready := select.select([0, *open_], [], [])[0]):
    for one in ready:
        if one.type == SOCK_STREAM:
            made, peer = one.accept()
            made.send(answer(peer))
            made.close()
        else:
            _data, peer = one.recvfrom(99)
            one.sendto(answer(peer), peer)
"""
ASK = """
def ask(address, port=80, kind=SOCK_STREAM, family=None):
    one = socket(family or (AF_INET6 if ":" in address else AF_INET), kind)
    one.settimeout(20)
    one.connect((address, port))
    one.send(b"?")
    return one.recv(99).decode()
def ask_unconnected(address, family=None):
    one = socket(family or (AF_INET6 if ":" in address else AF_INET), SOCK_DGRAM)
    one.settimeout(20)
    one.sendto(b"?", (address, 80))
    return one.recv(99).decode()
"""


class Locked:
    """A cgroup that is locked to addresses."""

    def __init__(self, mount: str, *addresses: str, only: tuple[str, ...] = ()) -> None:
        self.path = f"{mount}/jailrun-test-{os.getpid()}-{next(COUNT)}"
        self.children: list[subprocess.Popen[str]] = []
        program = Program()
        program.before.mkdir(self.path, what="make the cgroup")
        fd = program.before.open(self.path, os.O_RDONLY | os.O_DIRECTORY, what="open")
        if only:
            for hook, code in shared.plan_programs(shared.Own(addresses)):
                if hook.name in only:
                    bpf.plan_attach(program.before, hook, code, fd, self.path)
        else:
            says_why = shared.read_says_why()
            shared.plan_shared(program, addresses, fd, self.path, says_why=says_why)
        execution = Execution(program)
        execution.run_before()
        execution.close_opened()

    def start(self, code: str, *words: str) -> subprocess.Popen[str]:
        """Start Python in it."""
        join = f"open({self.path + '/cgroup.procs'!r}, 'w').write('0')\n"
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", join + PRELUDE + code, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.children.append(child)
        return child

    def serve(self, name: str, *addresses: str) -> None:
        """Start a server on port 80 of these addresses; return when it listens."""
        child = self.start(SERVER, name, *addresses)
        assert child.stdout
        first = child.stdout.readline()
        assert first == "ready\n", first + child.stdout.read()

    def say(self, code: str) -> str:
        """Run a program to its end; return what it says."""
        child = self.start(ASK + code)
        said, _errors = child.communicate(timeout=SECONDS)
        return said.strip()

    def end(self) -> None:
        """End the servers and remove the cgroup, and with it all that was attached."""
        for child in self.children:
            if child.returncode is None:
                child.communicate(timeout=SECONDS)
        Path(self.path).rmdir()


Lock = Callable[..., Locked]


@pytest.fixture(autouse=True)
def own_stack(leaves_host_as_it_was: None) -> Iterator[None]:
    """Be on a host with three addresses of each family and nothing else."""
    before = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    syscall("unshare", c.CLONE_NEWNET)
    try:
        lines = [f"address add {one}/32 dev lo" for one in (HOST, ONE, TWO)]
        lines += [f"address add {one}/128 dev lo nodad" for one in (HOST6, ONE6, TWO6)]
        words = "\n".join(["link set lo up", *lines])
        subprocess.run(["ip", "-batch", "-"], input=words, text=True, check=True)
        yield
    finally:
        syscall("setns", before, c.CLONE_NEWNET)
        os.close(before)


@pytest.fixture
def lock(own_stack: None) -> Iterator[Lock]:
    """Return what makes a locked cgroup; all are removed after the test."""
    unified = read_hierarchies().unified
    if unified is None:
        pytest.skip("needs a v2 hierarchy")
    made: list[Locked] = []

    def make(*addresses: str, only: tuple[str, ...] = ()) -> Locked:
        made.append(Locked(unified.mount, *addresses, only=only))
        return made[-1]

    yield make
    for one in made:
        one.end()


def ask(address: str, kind: socket.SocketKind = socket.SOCK_STREAM, source: str = "") -> str:
    """Ask a server as the host does; return the name that it says, and whom it sees."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind) as one:
        one.settimeout(SECONDS)
        if source:
            one.bind((source, 0))
        one.connect((address, 80))
        one.send(b"?")
        return one.recv(99).decode()


KINDS = (socket.SOCK_STREAM, socket.SOCK_DGRAM)


def test_two_listen_on_every_address(lock: Lock) -> None:
    """Each is reached on its own one, by both protocols and families."""
    lock(ONE, ONE6).serve("one", "0.0.0.0", "::")
    lock(TWO, TWO6).serve("two", "0.0.0.0", "::")
    for kind in KINDS:
        assert ask(ONE, kind, HOST) == f"one {HOST}"
        assert ask(TWO, kind, HOST) == f"two {HOST}"
        assert ask(ONE6, kind, HOST6) == f"one {HOST6}"
        assert ask(TWO6, kind, HOST6) == f"two {HOST6}"
        for other in (HOST, HOST6, "127.0.0.1", "::1"):
            with pytest.raises(ConnectionRefusedError):
                ask(other, kind)


def test_beside_a_program_of_the_host(lock: Lock) -> None:
    """One that listens on an address of its own; and one that wants all of them is told."""
    with socket.socket() as mine:
        mine.bind((HOST, 80))
        mine.listen()
        lock(ONE).serve("one", "0.0.0.0")
        assert ask(ONE, source=HOST) == f"one {HOST}"
    with socket.socket() as mine, pytest.raises(OSError, match="already in use"):
        mine.bind(("0.0.0.0", 80))


def test_addresses_that_can_be_bound(lock: Lock) -> None:
    none = "EADDRNOTAVAIL" if shared.read_says_why() else "EPERM"
    wanted = {
        **dict.fromkeys(("0.0.0.0", "127.0.0.1", "127.9.9.9", ONE), ONE),
        **dict.fromkeys((TWO, HOST, "224.0.0.1"), none),
        **dict.fromkeys(("::", "::1", ONE6), ONE6),
        **dict.fromkeys((TWO6, HOST6, "fe80::1"), none),
        **{f"::ffff:{one}": f"::ffff:{ONE}" for one in ("0.0.0.0", "127.0.0.1", ONE)},
        f"::ffff:{TWO}": none,
    }
    code = f"""
for kind in (SOCK_STREAM, SOCK_DGRAM):
    for one in {[*wanted]!r}:
        print(attempt(name_of, one, 0, kind, ":" in one))
"""
    assert lock(ONE, ONE6).say(code).splitlines() == [*wanted.values()] * 2


def test_second_address(lock: Lock) -> None:
    """It can be bound and be the source; the first stands for any."""
    said = lock(ONE, TWO).say(f"print(name_of('{TWO}'), name_of('{ONE}'), name_of('0.0.0.0'))")
    assert said == f"{TWO} {ONE} {ONE}"


@pytest.fixture
def host_server(own_stack: None) -> Iterator[None]:
    """Answer on port 80 of the addresses that are the host's own."""
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", PRELUDE + SERVER, "host", HOST, HOST6],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout
    assert child.stdout.readline() == "ready\n"
    yield
    child.communicate(timeout=SECONDS)


def test_who_is_seen_as_asking(lock: Lock, host_server: None) -> None:
    """The own address, whatever way the socket is used, and with the port of its own choice."""
    code = f"""
for host in ("{HOST}", "{HOST6}"):
    for kind in (SOCK_STREAM, SOCK_DGRAM):
        print(ask(host, kind=kind))
    print(ask_unconnected(host))
print(ask("::ffff:{HOST}", kind=SOCK_STREAM))
print(ask("::ffff:{HOST}", kind=SOCK_DGRAM))
print(ask_unconnected("::ffff:{HOST}"))
one = bind("0.0.0.0", 7777)
one.connect(("{HOST}", 80))
print(one.recv(99).decode(), one.getsockname()[1])
"""
    said = lock(ONE, ONE6).say(code).splitlines()
    assert said == [f"host {ONE}"] * 3 + [f"host {ONE6}"] * 3 + [f"host {ONE}"] * 3 + [
        f"host {ONE} 7777"
    ]


def test_loopback_is_the_own_address(lock: Lock) -> None:
    """Nothing of the host's loopback is reached; what listens in the jail is."""
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        for mine in (tcp, udp):
            mine.bind(("127.0.0.1", 80))
        tcp.listen()
        udp.setblocking(False)
        cell = lock(ONE, ONE6)
        code = """
targets = ("127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1")
for one in targets:
    print(attempt(ask, one), attempt(ask, one, 80, SOCK_DGRAM))
bind("0.0.0.0", 0, SOCK_DGRAM).sendto(b"?", ("127.0.0.1", 80))
print("sent")
"""
        assert cell.say(code).splitlines() == ["ECONNREFUSED ECONNREFUSED"] * 6 + ["sent"]
        with pytest.raises(BlockingIOError):
            udp.recv(9)
        cell.serve("one", "127.0.0.1", "::1")
        seen = [f"one {ONE}"] * 3 + [f"one {ONE6}"] * 2
        code = """
for one in ("127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::"):
    print(*{ask(one), ask(one, kind=SOCK_DGRAM), ask_unconnected(one)}, sep="; ")
"""
        assert cell.say(code).splitlines() == seen


def test_a_family_without_an_address(lock: Lock) -> None:
    """Is as on a machine without it."""
    none = "EAFNOSUPPORT" if shared.read_says_why() else "EPERM"
    assert lock(ONE).say("print(attempt(socket, AF_INET6, SOCK_STREAM))") == none
    code = f"""
print(attempt(socket, AF_INET, SOCK_STREAM))
for one in ("::ffff:{HOST}", "::ffff:127.0.0.1", "::ffff:{ONE}"):
    print(attempt(ask, one), attempt(ask, one, 80, SOCK_DGRAM), attempt(ask_unconnected, one),
        attempt(name_of, one))
"""
    if shared.read_says_why():
        said = lock(ONE6).say(code).splitlines()
        assert said == [none, *["ENETUNREACH ENETUNREACH ENETUNREACH EADDRNOTAVAIL"] * 3]


def test_sockets_that_are_refused(lock: Lock) -> None:
    """Raw ones, though this process has all rights; Unix and netlink sockets are not meant."""
    code = """
for kind in ((AF_INET, SOCK_RAW, 1), (AF_INET, SOCK_RAW, 255), (AF_INET6, SOCK_RAW, 58)):
    print(attempt(socket, *kind))
socket(AF_UNIX), socket(AF_NETLINK, SOCK_RAW, 0)
"""
    assert lock(ONE, ONE6).say(code).splitlines() == ["EPERM"] * 3


def test_low_ports_need_no_right(lock: Lock) -> None:
    code = "os.setuid(65534)\nprint(name_of('0.0.0.0', 80), name_of('::', 81))"
    assert lock(ONE, ONE6).say(code) == f"{ONE} {ONE6}"


def test_a_forged_source(lock: Lock, host_server: None) -> None:
    """IP_PKTINFO names the source of one datagram (ip(7)); connected or not."""
    none = "EADDRNOTAVAIL" if shared.read_says_why() else "EPERM"
    code = f"""
from struct import pack
def send(one, source, *target):
    if ":" in source:
        note = (IPPROTO_IPV6, IPV6_PKTINFO, inet_pton(AF_INET6, source) + pack("I", 0))
    else:
        note = (IPPROTO_IP, 8, pack("I", 0) + inet_pton(AF_INET, source) + bytes(4))
    one.sendmsg([b"?"], [note], 0, *target)
    return one.recv(99).decode()
for host, own, other in (("{HOST}", "{ONE}", "{TWO}"), ("{HOST6}", "{ONE6}", "{TWO6}")):
    one = socket(AF_INET6 if ":" in host else AF_INET, SOCK_DGRAM)
    print(attempt(send, one, other, (host, 80)), attempt(send, one, own, (host, 80)))
    one = socket(AF_INET6 if ":" in host else AF_INET, SOCK_DGRAM)
    one.connect((host, 80))
    print(attempt(send, one, other))
"""
    said = lock(ONE, ONE6).say(code).splitlines()
    assert said == [f"{none} host {ONE}", none, f"{none} host {ONE6}", none]


def test_a_listener_that_was_never_bound(lock: Lock) -> None:
    """It gets a port of every address from the kernel, and only what comes to the own one."""
    code = """
tcp, udp = socket(), socket(AF_INET, SOCK_DGRAM)
tcp.listen()
udp.sendto(b"", ("127.0.0.1", 9))
print(*tcp.getsockname(), udp.getsockname()[1], flush=True)
print(tcp.accept()[0].getsockname()[0], udp.recv(99).decode(), flush=True)
tcp.setblocking(False)
print(attempt(tcp.accept))
"""
    child = lock(ONE).start(code)
    assert child.stdout
    address, tcp_port, udp_port = child.stdout.readline().split()
    assert address == "0.0.0.0"
    with socket.socket() as wrong, socket.socket() as right, socket.socket(type=KINDS[1]) as udp:
        wrong.setblocking(False)
        assert wrong.connect_ex((HOST, int(tcp_port))) != 0
        right.connect((ONE, int(tcp_port)))
        udp.sendto(b"to the host", (HOST, int(udp_port)))
        udp.sendto(b"to the jail", (ONE, int(udp_port)))
        assert child.stdout.read() == f"{ONE} to the jail\nEAGAIN\n"


@pytest.mark.parametrize(("own", "other"), [(ONE, TWO), (ONE6, TWO6)])
def test_packets_are_dropped_by_themselves(
    lock: Lock, host_server: None, own: str, other: str
) -> None:
    """Without the other programs, as if these had missed a way."""
    host = HOST6 if ":" in own else HOST
    code = f"""
def send(source, target):
    one = bind(source, 0, SOCK_DGRAM)
    one.settimeout(20)
    one.sendto(b"?", (target, 80))
    return one.recv(99).decode()
print(attempt(send, "{own}", "{host}"), attempt(send, "{other}", "{host}"),
    attempt(send, "{own}", "{"::1" if ":" in own else "127.0.0.1"}"), sep="; ")
"""
    assert lock(own, only=("in", "out")).say(code) == f"host {own}; EPERM; EPERM"


def test_an_address_that_the_host_does_not_have() -> None:
    shared.check_addresses([ONE, TWO6])
    for address, bits in (("192.0.2.99", 32), ("2001:db8::99", 128)):
        with pytest.raises(NetworkError, match="the host has no such address") as raised:
            shared.check_addresses([ONE, address])
        assert raised.value.hint and f"ip address add {address}/{bits}" in raised.value.hint
