"""Paths inside a root: what is asked of the kernel, and what never is."""

from __future__ import annotations

from _struct import unpack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailrun.kernel import constants as c
from jailrun.kernel.operation import Struct
from jailrun.kernel.program import Program
from jailrun.rootfs.targets import plan_create, plan_target, split_path


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/", []),
        ("", []),
        ("//a///b/", ["a", "b"]),
        ("/a/./b", ["a", "b"]),
        ("/a/../b", ["b"]),
        ("/../../x", ["x"]),
        ("relative/x", ["relative", "x"]),
    ],
)
def test_split(path: str, names: list[str]) -> None:
    """Blank and dot names say nothing, two dots stay below the root."""
    assert split_path(path) == names


@given(st.text(alphabet="/.ab", max_size=20))
def test_split_never_leads_out(path: str) -> None:
    """Whatever the path."""
    assert not {"", ".", ".."} & set(split_path(path))


@pytest.mark.parametrize("path", ["/a/b/c", "/proc/x/y", "/dev/pts", "/x"])
def test_every_look_up_is_confined(path: str) -> None:
    """No name is looked up but from the root's descriptor, and never out of it."""
    program = Program()
    root = program.before.open("/root", 0)
    plan_target(program.child, root, path, directory=True)
    for operation in program.child.operations:
        assert operation.name in ("openat2", "mkdirat", "mknodat", "close")
        if operation.name == "openat2":
            assert operation.args[0] is root
            how = operation.args[2]
            assert isinstance(how, Struct)
            assert isinstance(how.parts[0], bytes)
            _flags, _mode, resolve = unpack("<QQQ", how.parts[0])
            assert resolve & c.RESOLVE_IN_ROOT
            assert resolve & c.RESOLVE_NO_MAGICLINKS
            plain = path.split("/")[1] in ("proc", "sys", "dev")
            assert bool(resolve & c.RESOLVE_NO_SYMLINKS) == plain
        if operation.name in ("mkdirat", "mknodat"):
            assert "/" not in str(operation.args[1])


def test_create_nothing_for_the_root() -> None:
    """The root itself is there."""
    program = Program()
    root = program.before.open("/root", 0)
    plan_create(program.child, root, [], directory=True)
    assert program.child.operations == []
