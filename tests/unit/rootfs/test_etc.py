"""The jail's own files in /etc: what is asked of the kernel, and what may fail without a word."""

from __future__ import annotations

import errno
from _struct import unpack

from jailrun.kernel import constants as c
from jailrun.kernel.operation import Operation, Slot, Struct
from jailrun.kernel.program import Program
from jailrun.rootfs.etc import plan_etc

PLACE = "/run/jailrun"
FILES = {"hosts": "127.0.0.1\tlocalhost\n", "resolv.conf": "", "hostname": "web\n"}


def compile_plan(files: dict[str, str]) -> tuple[list[Operation], Slot]:
    """Return the operations that show files, and the root that they are shown in."""
    program = Program()
    root = program.before.open("/root", 0)
    plan_etc(program, root, files, PLACE)
    return program.child.operations, root


def named(operations: list[Operation], name: str) -> list[Operation]:
    """Return the operations of one system call."""
    return [operation for operation in operations if operation.name == name]


def test_nothing_to_show() -> None:
    """No file system is made for no file."""
    assert compile_plan({})[0] == []


def test_the_look_up_is_confined() -> None:
    """/etc is found within the root, whatever link it is; below it there are plain names only."""
    operations, root = compile_plan(FILES)
    (opened,) = named(operations, "openat2")
    assert opened.args[:2] == (root, "etc")
    how = opened.args[2]
    assert isinstance(how, Struct)
    assert isinstance(how.parts[0], bytes)
    assert unpack("<QQQ", how.parts[0])[2] == c.RESOLVE_IN_ROOT | c.RESOLVE_NO_MAGICLINKS
    (made,) = named(operations, "mkdirat")
    assert made.args[:2] == (root, "etc")
    etc = opened.result
    targets = named(operations, "mknodat")
    assert [operation.args[:2] for operation in targets] == [(etc, name) for name in FILES]


def test_links_are_covered_not_followed() -> None:
    """A mount on a link in the last place takes its place: MOVE_MOUNT_T_SYMLINKS is not there."""
    operations, _root = compile_plan(FILES)
    place, *files = named(operations, "move_mount")
    assert place.args[2:4] == (c.AT_FDCWD, PLACE)
    assert [operation.args[3] for operation in files] == list(FILES)
    assert all(operation.args[4] == c.MOVE_MOUNT_F_EMPTY_PATH for operation in files)


def test_every_file_is_a_copy_of_its_own() -> None:
    """What is mounted is the file alone, not the file system that it is on."""
    operations, _root = compile_plan(FILES)
    copies = named(operations, "open_tree")
    mounted = named(operations, "move_mount")[1:]
    assert [one.args[0] for one in mounted] == [one.result for one in copies]
    written = [one.result for one in named(operations, "openat")]
    assert [one.args[0] for one in copies] == written


def test_empty_files_are_not_written() -> None:
    """write(2) of nothing would be for nothing."""
    operations, _root = compile_plan(FILES)
    assert [one.object for one in named(operations, "write")] == ["/etc/hosts", "/etc/hostname"]


def test_size_is_limited() -> None:
    """What the files need, and 64 KiB for the jail to write."""
    operations, _root = compile_plan({"hosts": "x" * 100_000})
    options = {str(one.args[2]): one.args[3] for one in named(operations, "fsconfig")}
    assert options["size"] == "165536"
    assert options["nr_inodes"] == "8"


def test_bytes_of_the_host_are_kept() -> None:
    """The host's resolv.conf may hold anything."""
    operations, _root = compile_plan(
        {"resolv.conf": b"# \xff\x00\n".decode(errors="surrogateescape")}
    )
    (written,) = named(operations, "write")
    assert isinstance(written.args[1], Struct)
    assert written.args[1].parts == (b"# \xff\x00\n",)


def test_only_a_missing_place_is_passed_over() -> None:
    """A root that cannot be written may lack /etc; everything else is an error."""
    operations, _root = compile_plan(FILES)
    cannot_make = (errno.EEXIST, errno.EROFS, errno.EACCES)
    allowed = {
        "mkdirat": [cannot_make],
        "mknodat": [cannot_make] * 3,
        "openat2": [(errno.ENOENT,)],
        "move_mount": [(), *[(errno.ENOENT,)] * 3],
    }
    for name, errors in allowed.items():
        assert [operation.allow for operation in named(operations, name)] == errors
    assert all(not operation.allow for operation in operations if operation.name not in allowed)


def test_cost() -> None:
    """A number to be looked at when it changes: each start makes these calls."""
    operations, _root = compile_plan(dict.fromkeys(FILES, "text\n"))
    assert len(operations) == 24
