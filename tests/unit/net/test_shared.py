"""The programs that lock a jail to its addresses, run on contexts as the kernel makes them."""

from __future__ import annotations

import errno
from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from _struct import pack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailrun.errors import SpecError, UnsupportedError
from jailrun.kernel.operation import OperationError
from jailrun.kernel.program import Program
from jailrun.net import shared
from jailrun.net.shared import Own
from tests.unit.kernel.bpf_machine import Machine, find_unreached

A4, A4_MORE, FOREIGN4 = "192.0.2.5", "240.1.2.3", "192.0.2.6"
A6, A6_MORE, FOREIGN6 = "2001:db8::5", "fd00::ffff:5", "2001:db8::6"
BOTH = Own([A4, A6, A4_MORE, A6_MORE])
ONLY4, ONLY6 = Own([A4]), Own([A6])
MORE4 = st.sampled_from([A4, A4_MORE, FOREIGN4, "0.0.0.0", "127.0.0.1", "127.3.2.1", "10.0.0.127"])
MORE6 = st.sampled_from(
    [A6, A6_MORE, FOREIGN6, "::", "::1", "::2", "fe80::1", "2001:db8::", "::ffff:0:0:1"]
)
ADDRESSES4 = MORE4 | st.ip_addresses(v=4).map(str)
ADDRESSES6 = MORE6 | MORE4.map("::ffff:{}".format) | st.ip_addresses(v=6).map(str)


def pack_address(text: str) -> bytes:
    return inet_pton(AF_INET6 if ":" in text else AF_INET, text)


def normal(text: str) -> str:
    return inet_ntop(AF_INET6 if ":" in text else AF_INET, pack_address(text))


def is_unspecific(text: str) -> bool:
    """Tell whether an address stands for the machine itself; 127.0.0.1 in all its forms."""
    text = normal(text).removeprefix("::ffff:")
    return text in ("0.0.0.0", "::", "::1") or text.startswith("127.")


class Outcome:
    """What a program did: its result, the errno it chose, what it wrote, what it bound."""

    def __init__(self) -> None:
        self.result = -1
        self.number = 0
        self.address = ""
        self.source = ""
        self.bound: bytes = b""
        self.binds = 0


def ask(
    code: bytes, address: str = "", source: str = "", *, socket: str = "", refuse_bind: bool = False
) -> Outcome:
    """Run a program on a struct bpf_sock_addr: to ``address``, of a socket bound to ``socket``."""
    assert not find_unreached(code)
    outcome = Outcome()

    def bind(machine: Machine, arguments: list[int]) -> int:
        outcome.bound = machine.read(arguments[1], arguments[2])
        outcome.binds += 1
        return -errno.EINVAL if refuse_bind else 0

    def set_errno(_machine: Machine, arguments: list[int]) -> int:
        outcome.number = 2**64 - arguments[0]
        return 0

    six = ":" in address
    at, source_at = (8, 44) if six else (4, 40)
    context = bytearray(64) + pack("<Q", Machine.address(0))
    for where, text in ((at, address), (source_at, source)):
        if text:
            context[where : where + len(pack_address(text))] = pack_address(text)
    bound = bytearray(80)
    if socket:
        where = 28 if ":" in socket else 24
        bound[where : where + len(pack_address(socket))] = pack_address(socket)
    machine = Machine(bytes(context), (bytes(bound),), {64: bind, 187: set_errno})
    outcome.result = machine.run(code)
    family, size = (AF_INET6, 16) if six else (AF_INET, 4)
    outcome.address = inet_ntop(family, bytes(machine.context[at : at + size]))
    outcome.source = inet_ntop(family, bytes(machine.context[source_at : source_at + size]))
    return outcome


@given(ADDRESSES4)
def test_bind4(address: str) -> None:
    outcome = ask(shared.plan_bind4(BOTH), address)
    if address in (A4, A4_MORE):
        assert (outcome.result, outcome.address) == (3, address)
    elif is_unspecific(address):
        assert (outcome.result, outcome.address) == (3, A4)
    else:
        assert (outcome.result, outcome.number) == (0, errno.EADDRNOTAVAIL)


@given(ADDRESSES6)
def test_bind6(address: str) -> None:
    address = normal(address)
    outcome = ask(shared.plan_bind6(BOTH), address)
    mapped = address.startswith("::ffff:") and "." in address
    if address in (A6, A6_MORE, f"::ffff:{A4}", f"::ffff:{A4_MORE}"):
        assert (outcome.result, outcome.address) == (3, address)
    elif is_unspecific(address):
        assert (outcome.result, outcome.address) == (3, f"::ffff:{A4}" if mapped else A6)
    else:
        assert (outcome.result, outcome.number) == (0, errno.EADDRNOTAVAIL)
    if mapped:
        assert ask(shared.plan_bind6(ONLY6), address).result == 0


@given(ADDRESSES4)
def test_connect4(address: str) -> None:
    """Goes to where it is told, or to the own address for loopback; always from the own one."""
    code = shared.plan_connect4(BOTH)
    outcome = ask(code, address)
    assert outcome.result == 1
    assert outcome.address == (A4 if is_unspecific(address) else address)
    assert outcome.bound == pack("<HH", AF_INET, 0) + pack_address(A4) + bytes(8)
    bound = ask(code, address, socket=A4_MORE)
    assert (bound.result, bound.binds) == (1, 0)
    assert ask(code, address, socket=FOREIGN4).result == 0
    assert ask(code, address, refuse_bind=True).result == 0
    assert ask(shared.plan_connect4(ONLY6), address).number == errno.ENETUNREACH


@given(ADDRESSES6)
def test_connect6(address: str) -> None:
    address = normal(address)
    mapped = address.startswith("::ffff:") and "." in address
    own = f"::ffff:{A4}" if mapped else A6
    code = shared.plan_connect6(BOTH)
    outcome = ask(code, address)
    assert outcome.result == 1
    assert outcome.address == (own if is_unspecific(address) else address)
    assert outcome.bound == pack("<HHI", AF_INET6, 0, 0) + pack_address(own) + bytes(4)
    bound = ask(code, address, socket=f"::ffff:{A4_MORE}" if mapped else A6_MORE)
    assert (bound.result, bound.binds) == (1, 0)
    assert ask(code, address, socket=FOREIGN6).result == 0
    assert ask(code, address, socket=A6 if mapped else f"::ffff:{A4}").result == 0
    assert ask(code, address, refuse_bind=True).result == 0
    if mapped:
        assert ask(shared.plan_connect6(ONLY6), address).number == errno.ENETUNREACH


@given(ADDRESSES4, MORE4)
def test_sendmsg4(address: str, source: str) -> None:
    outcome = ask(shared.plan_sendmsg4(BOTH), address, source)
    if source in (A4, A4_MORE, "0.0.0.0"):
        assert outcome.result == 1
        assert outcome.address == (A4 if is_unspecific(address) else address)
        assert outcome.source == (A4 if source == "0.0.0.0" else source)
    else:
        assert (outcome.result, outcome.number) == (0, errno.EADDRNOTAVAIL)
    assert ask(shared.plan_sendmsg4(ONLY6), address, source).result == 0


@given(MORE6 | st.ip_addresses(v=6).map(str), MORE6)
def test_sendmsg6(address: str, source: str) -> None:
    address = normal(address)
    outcome = ask(shared.plan_sendmsg6(BOTH), address, source)
    if source in (A6, A6_MORE, "::"):
        assert outcome.result == 1
        assert outcome.address == (A6 if address in ("::", "::1") else address)
        assert outcome.source == (A6 if source == "::" else source)
    else:
        assert (outcome.result, outcome.number) == (0, errno.EADDRNOTAVAIL)


def ask_socket(own: Own, context: bytes) -> tuple[int, int]:
    """Run the program of new sockets; return its result, and the errno that it chose."""
    chosen = [0]

    def set_errno(_machine: Machine, arguments: list[int]) -> int:
        chosen[0] = 2**64 - arguments[0]
        return 0

    code = shared.plan_socket(own)
    assert not find_unreached(code)
    return Machine(context, (), {187: set_errno}).run(code), chosen[0]


@pytest.mark.parametrize("says_why", [True, False])
@pytest.mark.parametrize("own", [(A4, A6), (A4,), (A6,)])
def test_sockets(own: tuple[str, ...], *, says_why: bool) -> None:
    """Ping sockets (datagrams of ICMP) need what the host's ping_group_range says, too."""
    allowed = {(1, 6), (2, 17), (2, 136), (2, 1), (2, 58)}
    families = {AF_INET6 if ":" in one else AF_INET for one in own}
    for family in (AF_INET, AF_INET6):
        for kind in (1, 2, 3, 5):
            for protocol in (0, 1, 2, 6, 17, 58, 132, 136, 255, 262):
                context = pack("<5I", 0, family, kind, protocol, 0)
                result, number = ask_socket(Own(own, says_why=says_why), context)
                assert result == (family in families and (kind, protocol) in allowed)
                expected = errno.EPERM if family in families else errno.EAFNOSUPPORT
                assert number == (0 if result or not says_why else expected)


def carry(own: Own, source: str, target: str, *, incoming: bool) -> int:
    """Run a program of packets on the beginning of one."""
    if ":" in source:
        packet = b"\x60" + bytes(7) + pack_address(source) + pack_address(target)
    else:
        packet = b"\x45" + bytes(11) + pack_address(source) + pack_address(target)

    def load_bytes(machine: Machine, arguments: list[int]) -> int:
        _context, offset, to, size, _unused = arguments
        machine.write(to, packet[offset : offset + size])
        return 0

    context = bytes(16) + (b"\x86\xdd" if ":" in source else b"\x08\x00") + bytes(2)
    code = shared.plan_packets(own, incoming=incoming)
    assert not find_unreached(code)
    return Machine(context, (), {26: load_bytes}).run(code)


@given(ADDRESSES4, ADDRESSES4)
def test_packets_of_ipv4(source: str, target: str) -> None:
    assert carry(BOTH, source, target, incoming=True) == (target in (A4, A4_MORE))
    wanted = source in (A4, A4_MORE) and not target.startswith("127.")
    assert carry(BOTH, source, target, incoming=False) == wanted
    assert not carry(ONLY6, A4, A4, incoming=True)


@given(MORE6, MORE6)
def test_packets_of_ipv6(source: str, target: str) -> None:
    assert carry(BOTH, source, target, incoming=True) == (target in (A6, A6_MORE))
    wanted = source in (A6, A6_MORE) and target != "::1"
    assert carry(BOTH, source, target, incoming=False) == wanted
    assert not carry(ONLY4, A6, A6, incoming=False)


def test_packets_of_other_protocols_and_short_ones_are_dropped() -> None:
    code = shared.plan_packets(BOTH, incoming=True)
    assert Machine(bytes(16) + b"\x08\x06" + bytes(2)).run(code) == 0
    context = bytes(16) + b"\x08\x00" + bytes(2)
    helpers = {26: lambda _machine, _arguments: -errno.EFAULT}
    assert Machine(context, (), helpers).run(code) == 0


def test_plan() -> None:
    program = Program()
    cgroup = program.before.open("/c", 0)
    shared.plan_shared(program, [A4], cgroup, "/c")
    calls = [one for one in program.before.operations if one.name == "bpf"]
    names = ["socket", "in", "out", "bind4", "connect4", "send4"]
    assert [one.what.split()[3] for one in calls[::2]] == names
    assert {one.facility for one in calls} == {"net"}
    program = Program()
    shared.plan_shared(program, [A6], program.before.open("/c", 0), "/c")
    assert len([one for one in program.before.operations if one.name == "bpf"]) == 18


def test_no_v2() -> None:
    with pytest.raises(UnsupportedError, match="cgroup v2") as raised:
        shared.plan_shared(Program(), [A4], None, "")
    assert raised.value.hint == "mount -t cgroup2 none /sys/fs/cgroup/unified"


def test_what_an_old_kernel_lacks() -> None:
    program = Program()
    shared.plan_shared(program, [A4], program.before.open("/c", 0), "/c")
    error = OperationError(errno.EINVAL, "Invalid argument", program.before.operations[1])
    told = shared.translate(error)
    assert "load the program socket of /c: Invalid argument" in told.message
    assert told.hint and "CONFIG_CGROUP_BPF" in told.hint


@pytest.mark.parametrize(
    ("release", "expected"),
    [("6.1.0-9-amd64", True), ("6.18.44-fc", True), ("5.15.0", False), ("7.0-rc1", True)],
)
def test_choice_of_the_errno(release: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Uname:
        def __init__(self) -> None:
            self.release = release

    monkeypatch.setattr("os.uname", Uname)
    assert shared.read_says_why() is expected


def test_rights_over_the_hosts_network() -> None:
    def config(*names: str, user: bool = False) -> dict[str, Any]:
        namespaces = [{"type": "user"}] if user else []
        capabilities = {"bounding": ["CAP_KILL", *names]}
        return {"linux": {"namespaces": namespaces}, "process": {"capabilities": capabilities}}

    shared.check_rights(config())
    shared.check_rights(config("CAP_NET_ADMIN", user=True))
    for name in shared.RIGHTS:
        with pytest.raises(SpecError, match=f"{name} would let the jail"):
            shared.check_rights(config(name))
