"""The namespaces of a config as operations."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailrun.kernel import constants as c
from jailrun.kernel.program import Program
from jailrun.namespaces import (
    FLAGS,
    Namespaces,
    format_id_map,
    format_time_offsets,
    plan_joins,
    plan_names,
    plan_split,
    plan_sysctls,
    plan_user,
)


def build(*own: str, **joined: str) -> Any:
    """Return a config with these namespaces."""
    entries = [{"type": kind} for kind in own]
    entries += [{"type": kind, "path": path} for kind, path in joined.items()]
    return {"linux": {"namespaces": entries}}


def names(program: Program) -> list[str]:
    """Return the calls of the child."""
    return [operation.name for operation in program.child.operations]


def test_own() -> None:
    """All in one clone, but for those that are made later."""
    namespaces = Namespaces(build(*FLAGS))
    assert namespaces.joined == {}
    assert namespaces.clone_flags & (c.CLONE_NEWCGROUP | c.CLONE_NEWTIME) == 0
    assert namespaces.clone_flags | c.CLONE_NEWCGROUP | c.CLONE_NEWTIME == sum(FLAGS.values())
    assert namespaces.spawn_flags == 0  # the clock offsets are set before


def test_none_is_split() -> None:
    """Without joins and clocks the first clone is the one."""
    namespaces = Namespaces(build("pid", "user", "mount"))
    assert not namespaces.splits
    assert namespaces.spawn_flags == c.CLONE_NEWPID | c.CLONE_NEWUSER | c.CLONE_NEWNS


def test_user_is_joined_last() -> None:
    """Joining it gives up the rights that the other joins take."""
    config = build(user="/u", network="/n", pid="/p", mount="/m")
    program = Program()
    plan_joins(config, program, Namespaces(config))
    plan_split(program, Namespaces(config))
    joins = [op.object for op in program.child.operations if op.name == "setns"]
    assert joins[-1] == "/u"
    assert set(joins) == {"/u", "/n", "/p", "/m"}
    assert [op.object for op in program.before.operations] == joins
    assert names(program)[-1] == "clone"


def test_time() -> None:
    """The offsets are written between the unshare and the first process in it."""
    config = build("time", "pid")
    config["linux"]["timeOffsets"] = {"boottime": {"secs": 5, "nanosecs": 6}}
    program = Program()
    plan_joins(config, program, Namespaces(config))
    plan_split(program, Namespaces(config))
    assert names(program) == ["unshare", "openat", "write", "close", "clone"]
    assert format_time_offsets(config) == b"boottime 5 6\n"


def test_user_maps() -> None:
    """Written by the caller, to the process that it has made."""
    config = build("user")
    config["linux"]["uidMappings"] = [{"containerID": 0, "hostID": 1000, "size": 5}]
    config["linux"]["gidMappings"] = [{"containerID": 0, "hostID": 2000, "size": 5}]
    program = Program()
    plan_user(config, program, Namespaces(config))
    opened = [op for op in program.attach.operations if op.name == "openat"]
    assert [str(op.args[1]) for op in opened] == [
        f"/proc/<{program.pid.name}>/uid_map",
        f"/proc/<{program.pid.name}>/gid_map",
    ]
    nobody = Program()
    plan_user(build("pid"), nobody, Namespaces(build("pid")))
    assert nobody.operations() == []


@given(st.lists(st.tuples(*[st.integers(0, 2**32 - 1)] * 3), max_size=5))
def test_id_map(triples: list[tuple[int, int, int]]) -> None:
    """One line for each mapping, in order."""
    keys = ("containerID", "hostID", "size")
    mappings: Any = [dict(zip(keys, triple, strict=True)) for triple in triples]
    lines = format_id_map(mappings).decode().splitlines()
    assert [tuple(map(int, line.split())) for line in lines] == triples


def test_names_and_sysctls() -> None:
    """Only those that are asked for."""
    program = Program()
    plan_names({"hostname": "a", "linux": {}}, program)  # type: ignore[typeddict-item]
    plan_sysctls({"linux": {"sysctl": {"net.ipv4.ip_forward": "1"}}}, program)  # type: ignore[typeddict-item]
    assert names(program) == ["sethostname", "openat", "write", "close"]
    assert program.child.operations[1].object == "/proc/sys/net/ipv4/ip_forward"
    empty = Program()
    plan_names({}, empty)  # type: ignore[typeddict-item]
    plan_sysctls({}, empty)  # type: ignore[typeddict-item]
    assert empty.operations() == []


@pytest.mark.parametrize("kind", FLAGS)
def test_flag_of_each(kind: str) -> None:
    """Each kind is its own flag."""
    assert Namespaces(build(kind)).own == FLAGS[kind]
    assert Namespaces(build(kind)).has_own(kind)
