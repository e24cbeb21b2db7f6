"""Both executors run a program to the same results, errors and reports."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jailrun.kernel import constants as c
from jailrun.kernel import fallback
from jailrun.kernel.encode import encode
from jailrun.kernel.execute import Execution, reap
from jailrun.kernel.files import read_own_status
from jailrun.kernel.operation import NOTE, OperationError, Slot, Struct, Text
from jailrun.kernel.program import Program
from jailrun.net import netlink

ALLOWED = (errno.ENOENT, errno.EBADF, errno.EEXIST)


def executors() -> list[ModuleType]:
    """Return both."""
    native = pytest.importorskip("jailrun.kernel._execute")
    return [native, fallback]


# What to do, with which earlier result, and which errors are none.
STEP = st.tuples(
    st.sampled_from(["open", "missing", "mkdir", "close", "write", "text", "umask", "struct"]),
    st.integers(0, 20),
    st.sets(st.sampled_from(ALLOWED), max_size=3),
)


def add_step(
    program: Program, slots: list[Slot], step: tuple[str, int, set[int]], top: str
) -> None:
    """Add one harmless operation."""
    kind, choice, allowed = step
    allow = tuple(sorted(allowed))
    lane = program.before
    earlier = slots[choice % len(slots)] if slots else -1
    if kind == "open":
        slots.append(lane.open(f"{top}/file", os.O_RDWR, allow=allow))
    elif kind == "missing":
        slots.append(lane.open(f"{top}/missing", 0, allow=allow))
    elif kind == "mkdir":
        slots.append(lane.mkdir(f"{top}/folder{choice % 3}", allow=allow))
    elif kind == "close":
        slots.append(lane.call("fcntl", earlier, 3, 0, allow=allow))  # F_GETFL
    elif kind == "write":
        slots.append(lane.call("write", earlier, Struct(b"data"), 4, allow=allow))
    elif kind == "text" and isinstance(earlier, Slot):
        slots.append(lane.open(Text(f"{top}/%", earlier), 0, allow=(*allow, errno.ENOENT)))
    elif kind == "struct":
        held = earlier if isinstance(earlier, Slot) else program.pid
        slots.append(lane.call("fcntl", held, 1030, Struct(bytes(8), holes={0: held}), allow=allow))
    else:
        slots.append(lane.umask(0o022))


def list_descriptors() -> set[int]:
    """Return the open descriptors of this process."""
    found = {int(path.name) for path in Path("/proc/self/fd").iterdir()}
    return {fd for fd in found if Path(f"/proc/self/fd/{fd}").is_symlink()}


def run(executor: ModuleType, steps: list[tuple[str, int, set[int]]], top: str) -> object:
    """Run the steps; return the error and its place, the slots, and what they made."""
    for name in ("folder0", "folder1", "folder2"):
        if Path(top, name).is_dir():
            Path(top, name).rmdir()
    Path(top, "file").write_text("")
    program = Program()
    slots: list[Slot] = []
    for step in steps:
        add_step(program, slots, step, top)
    encoded = encode(program, executor.address)
    before = list_descriptors()
    error = executor.run(encoded.buffer, *encoded.before)
    values = [encoded.read_slot(slot) for slot in slots]
    for fd in list_descriptors() - before:
        os.close(fd)
    made = sorted(path.name for path in Path(top).iterdir())
    return error if error[0] else (0, 0), values, made


@pytest.mark.requires("native")
@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
@given(steps=st.lists(STEP, max_size=12))
def test_same_results(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, set[int]]]
) -> None:
    """Of a program of harmless calls, with failures allowed and not."""
    top = str(tmp_path_factory.getbasetemp())
    folder = Path(top, "steps")
    folder.mkdir(exist_ok=True)
    native, ctypes = (run(executor, steps, str(folder)) for executor in executors())
    assert native == ctypes


def test_child_reports(executor: str) -> None:
    """What the child says: notes, the failure with its operation, its waiting."""
    program = Program()
    child = program.child
    child.call("chdir", "/no/such", what="look", allow=(errno.ENOENT,), flags=NOTE)
    child.wait_for_caller()
    child.mkdir("/proc/no-such", what="make the folder")
    execution = Execution(program)
    execution.spawn()
    assert execution.wait(60) is False
    ((operation, number),) = execution.notes
    assert (operation.what, number) == ("look", errno.ENOENT)
    execution.go()
    with pytest.raises(OperationError, match="cannot make the folder /proc/no-such") as caught:
        execution.wait(60)
    assert caught.value.operation is child.operations[-1]
    assert execution.pidfd == -1


def test_child_executes(executor: str) -> None:
    """To the exec, and its status after."""
    program = Program()
    child = program.child
    child.reset_signals()
    child.announce_exec()
    child.execve("/bin/sh", ["sh", "-c", "exit 9"], ["A=b"])
    execution = Execution(program)
    execution.spawn()
    assert execution.wait(60) is True
    assert reap(execution.pidfd) == 9


def test_capabilities_are_dropped(executor: str, tmp_path: Path) -> None:
    """Those of the mask, and no other."""
    program = Program()
    child = program.child
    child.drop_capabilities(1 << 21 | 1 << 0 | 1 << 40, what="drop", object="three")
    child.announce_exec()
    script = f"exec grep CapBnd /proc/self/status >{tmp_path}/said"
    child.execve("/bin/sh", ["sh", "-c", script], ["PATH=/bin:/usr/bin"])
    execution = Execution(program)
    execution.spawn()
    assert execution.wait(60) is True
    assert reap(execution.pidfd) == 0
    left = int((tmp_path / "said").read_text().split()[1], 16)
    assert left == int(read_own_status("CapBnd"), 16) & ~(1 << 21 | 1 << 0 | 1 << 40)


def test_capability_that_cannot_be_dropped(executor: str) -> None:
    """The error says which operation it was."""
    program = Program()
    program.child.drop_capabilities(1 << 62, what="drop capabilities", object="CAP_62")
    execution = Execution(program)
    execution.spawn()
    with pytest.raises(OperationError, match="cannot drop capabilities CAP_62") as caught:
        execution.wait(60)
    assert caught.value.errno == errno.EINVAL
    assert caught.value.operation is program.child.operations[-1]


def test_child_that_is_killed(executor: str) -> None:
    """An end without a word is an error of its own."""
    program = Program()
    program.child.wait_for_caller()
    execution = Execution(program)
    execution.spawn()
    execution.wait(60)
    assert execution.abandon() == -9


def test_deadline(executor: str) -> None:
    """A child that says nothing is given up."""
    program = Program()
    reader, writer = os.pipe()
    program.keep(reader)
    program.child.read_exact(reader, 1)
    execution = Execution(program)
    execution.spawn()
    with pytest.raises(TimeoutError):
        execution.wait(0.0)
    execution.abandon()
    os.close(reader)
    os.close(writer)


def test_caller_that_is_gone(executor: str) -> None:
    """A child whose caller has died while it waits ends by itself."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        program = Program()
        program.keep(writer)
        program.child.wait_for_caller()
        program.child.mkdir("/never")
        execution = Execution(program)
        execution.spawn()
        execution.wait(60)
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    assert os.read(reader, 1) == b""  # nobody has the other end any more
    os.close(reader)


def test_short_write_is_an_error(executor: str, tmp_path: Path) -> None:
    """A write that must be whole, and is not, fails."""
    reader, writer = os.pipe2(os.O_NONBLOCK)
    program = Program()
    program.before.write(writer, bytes(1 << 20), what="write")
    with pytest.raises(OperationError, match="cannot write"):
        Execution(program).run_before()
    os.close(reader)
    os.close(writer)


def test_many_kept_descriptors(executor: str) -> None:
    """The child has exactly what it was given, in whatever order the numbers are."""
    null = os.open("/dev/null", os.O_RDONLY)
    files = [os.dup2(null, place) for place in (900, 50, 400)]
    program = Program()
    program.keep(*files, 900)
    program.child.wait_for_caller()
    execution = Execution(program)
    execution.spawn()
    execution.wait(60)
    fds = {int(path.name) for path in Path(f"/proc/{execution.pid}/fd").iterdir()}
    execution.abandon()
    for fd in (null, *files):
        os.close(fd)
    assert {0, 1, 2, 50, 400, 900} <= fds
    assert len(fds) <= 8  # and its two pipes


def routing_socket() -> socket.socket:
    """Return one of this process's network namespace, where the tests below only ask."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, netlink.NETLINK_ROUTE)


def test_message_to_the_kernel(executor: str) -> None:
    """What the kernel told of before it said that all is well is the result."""
    program = Program()
    with routing_socket() as asked:
        index = program.before.netlink(asked.fileno(), netlink.get_link("lo"), what="find")
        execution = Execution(program)
        execution.run_before()
        assert execution.read_slot(index) == socket.if_nametoindex("lo")
        with pytest.raises(BlockingIOError):
            asked.recv(64, socket.MSG_DONTWAIT)  # all of the answer was read


def test_message_that_is_refused(executor: str) -> None:
    """The kernel's errno is that of the operation; one that is allowed leaves an empty slot."""
    program = Program()
    lane = program.before
    with routing_socket() as asked:
        fd = asked.fileno()
        missing = netlink.get_link("no-such-link")
        index = lane.netlink(fd, missing, what="find", object="it", allow=(errno.ENODEV,))
        skipped = lane.netlink(fd, netlink.set_up(index, "it"))
        lane.netlink(fd, missing, what="find", object="no-such-link")
        execution = Execution(program)
        with pytest.raises(OperationError, match="cannot find no-such-link: No such device"):
            execution.run_before()
        assert (execution.read_slot(index), execution.read_slot(skipped)) == (-1, -1)


def test_answers_to_others_are_passed_over(executor: str) -> None:
    """Only the one that has the message's number counts."""
    program = Program()
    with routing_socket() as asked:
        (earlier,) = netlink.get_link("lo").parts
        assert isinstance(earlier, bytes)
        asked.send(earlier)
        program.before.netlink(asked.fileno(), netlink.get_link("no-such-link"), what="find")
        with pytest.raises(OperationError) as caught:
            Execution(program).run_before()
        assert caught.value.errno == errno.ENODEV


def test_message_that_cannot_be_sent(executor: str) -> None:
    """A failure of the sending is one of the operation, too."""
    program = Program()
    reader, writer = os.pipe()
    program.before.netlink(writer, netlink.get_link("lo"), what="ask")
    with pytest.raises(OperationError, match="cannot ask") as caught:
        Execution(program).run_before()
    assert caught.value.errno == errno.ENOTSOCK
    os.close(reader)
    os.close(writer)


def test_messages_of_the_child(executor: str) -> None:
    """In a network namespace of its own, with the index that an earlier one gave."""
    program = Program()
    program.clone_flags = c.CLONE_NEWNET
    child = program.child
    fd = child.socket(socket.AF_NETLINK, socket.SOCK_RAW, netlink.NETLINK_ROUTE)
    link = child.netlink(fd, netlink.get_link("lo"))
    child.netlink(fd, netlink.set_up(link, "lo"), what="bring up", object="lo")
    child.netlink(fd, netlink.add_address(link, "192.0.2.7", 32), what="add")
    child.netlink(fd, netlink.add_address(link, "192.0.2.7", 32), what="add it", object="again")
    execution = Execution(program)
    execution.spawn()
    with pytest.raises(OperationError, match="cannot add it again: File exists") as caught:
        execution.wait(60)
    assert caught.value.operation is child.operations[-1]
