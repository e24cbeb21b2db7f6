"""Programs as data: lanes, slots, words, and what --explain prints."""

from __future__ import annotations

import errno

import pytest

from jailrun.kernel import constants as c
from jailrun.kernel.operation import OperationError, Slot, Struct, Text
from jailrun.kernel.program import Program


def test_every_call_returns_a_slot_of_its_own() -> None:
    """Slots are numbered over all lanes, in the order of the calls."""
    program = Program()
    slots = [
        program.before.open("/a", 0),
        program.child.mkdir("/b"),
        program.attach.close(3),
        program.child.umask(0),
    ]
    assert len({slot.index for slot in slots}) == 4
    assert [program.slots[slot.index] for slot in slots] == slots
    assert all(isinstance(slot, Slot) for slot in slots)


def test_lanes_are_apart() -> None:
    """Each lane has its own operations; together they are in the order of running."""
    program = Program()
    program.child.mkdir("/child")
    program.before.mkdir("/before")
    program.attach.mkdir("/attach")
    assert [operation.object for operation in program.operations()] == [
        *("/before", "/child", "/attach")
    ]


def test_facility_is_that_of_who_added_it() -> None:
    """An error can say whose step it was."""
    program = Program()
    program.enter("rootfs")
    program.before.mkdir("/a")
    program.enter("cgroups")
    program.child.mkdir("/b")
    assert [operation.facility for operation in program.operations()] == ["rootfs", "cgroups"]


def test_object_is_the_path_unless_said() -> None:
    """The words of an error."""
    program = Program()
    program.child.mkdir("/a", what="make the folder")
    program.child.mkdir("/a", what="make the folder", object="/shown")
    texts = [
        str(OperationError(errno.EROFS, "Read-only file system", operation))
        for operation in program.child.operations
    ]
    assert texts == [
        "cannot make the folder /a: Read-only file system",
        "cannot make the folder /shown: Read-only file system",
    ]


def test_error_without_words() -> None:
    """A call with no purpose given is named by itself."""
    program = Program()
    program.child.close(7)
    error = OperationError(errno.EBADF, "Bad file descriptor", program.child.operations[0])
    assert str(error) == "cannot close: Bad file descriptor"
    assert error.errno == errno.EBADF


def test_every_descriptor_is_close_on_exec() -> None:
    """Whatever opens something sets the flag itself."""
    program = Program()
    lane = program.child
    lane.open("/a", 0)
    lane.openat(3, "a", 0)
    lane.socket(2, 1)
    lane.open_tree(3, "a", 0)
    lane.fsopen("tmpfs")
    lane.fsmount(3)
    flags = [c.O_CLOEXEC, c.O_CLOEXEC, c.SOCK_CLOEXEC, c.OPEN_TREE_CLOEXEC, 1, 1]
    places = [2, 2, 1, 2, 1, 1]
    for operation, place, flag in zip(lane.operations, places, flags, strict=True):
        argument = operation.args[place]
        assert isinstance(argument, int)
        assert argument & flag, operation.describe()


def test_write_file_opens_and_closes() -> None:
    """One file is three calls, and it is never made or truncated."""
    program = Program()
    program.child.write_file("/proc/x", b"1", what="set")
    names = [operation.name for operation in program.child.operations]
    assert names == ["openat", "write", "close"]
    flags = program.child.operations[0].args[2]
    assert isinstance(flags, int)
    assert not flags & 0o1100  # O_CREAT, O_TRUNC


def test_explain() -> None:
    """Lane after lane, the caller's work in the middle where the child waits."""
    program = Program()
    folder = program.before.open("/folder", 0, what="open", result="folder")
    program.child.fchdir(folder, what="enter")
    program.child.wait_for_caller()
    program.child.chdir("/x", what="enter")
    program.attach.write_file(Text("/proc/%/uid_map", program.pid), b"0 1 2\n", what="map")
    lines = program.explain()
    text = "\n".join(lines)
    order = ["the caller", "openat", "the new process", "fchdir", "while", "uid_map", "'/x'"]
    places = [text.index(word) for word in order]
    assert places == sorted(places)
    assert any("<folder" in line for line in lines if "fchdir" in line)


def test_text_shows_its_slots() -> None:
    """A number that is not known yet is shown by name."""
    slot = Slot(3, "pid")
    assert str(Text("/proc/%/ns/user", slot)) == "/proc/<pid3>/ns/user"


def test_binary_data_is_not_printed() -> None:
    """A terminal sees no control characters of a filter or a path."""
    program = Program()
    program.child.write(1, bytes(range(256)))
    program.child.mkdir(b"a\x1b[2J")
    assert all("\x1b" not in line and "\x00" not in line for line in program.explain())


@pytest.mark.parametrize("value", [None, 1.5, object()])
def test_what_is_no_argument(value: object) -> None:
    """A mistake is found when the program is put into memory."""
    from jailrun.kernel.encode import encode

    program = Program()
    program.child.call("close", value)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not an argument"):
        encode(program, lambda _buffer: 0)


def test_message_reads_as_what_it_asks() -> None:
    """--explain shows a message's label, not its bytes."""
    program = Program()
    message = Struct(bytes(40), label="RTM_GETLINK {eth0}")
    link = program.child.netlink(3, message, what="find", object="eth0", hint="look", result="link")
    (operation,) = program.child.operations
    assert operation.describe() == "netlink(3, RTM_GETLINK {eth0})  # find eth0"
    assert (link.kind, operation.hint) == ("link", "look")
