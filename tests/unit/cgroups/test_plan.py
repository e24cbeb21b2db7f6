"""The program of a start: the calls in their order, for each kind of host."""

from __future__ import annotations

from errno import EBUSY, EEXIST, EINVAL, ENOENT, EROFS
from pathlib import Path
from typing import Any

import pytest

from jailrun.cgroups.errors import find_hint, refusal, translate
from jailrun.cgroups.hierarchy import Hierarchies, Hierarchy, place
from jailrun.cgroups.plan import Facts, Joined, parents, plan, plan_join, read_facts
from jailrun.errors import CgroupError, ConflictError, UnsupportedError
from jailrun.kernel.operation import Operation, OperationError, Slot
from jailrun.kernel.program import Program

ANY_DEVICE = [{"allow": True, "access": "rwm"}]


def describe(operation: Operation) -> str:
    """Return a call as one word of what matters here."""
    args = operation.args
    if operation.name == "mkdirat":
        may_exist = "?" if EEXIST in operation.allow else ""
        return f"mkdir{may_exist} {operation.object}"
    if operation.name == "openat":
        return f"open {operation.object}"
    if operation.name == "write":
        return f"write {args[1]!r}"
    return operation.name


def compile_plan(
    resources: dict[str, Any], hierarchies: Hierarchies, facts: Facts | None = None
) -> tuple[Program, Joined, list[str]]:
    config = {"linux": {"resources": {"devices": ANY_DEVICE} | resources}}
    program = Program()
    joined = plan(config, program, hierarchies, place(config, "web", hierarchies), facts)
    before = [describe(operation) for operation in program.before.operations]
    return program, joined, [call for call in before if call != "close"]


def test_v2(v2: Hierarchies) -> None:
    """Controllers are enabled from the root down; the child is cloned into the cgroup."""
    program, joined, before = compile_plan({"pids": {"limit": 5}}, v2)
    root = "/sys/fs/cgroup"
    assert before == [
        f"open {root}",
        "flock",
        f"open {root}/cgroup.subtree_control",
        "write '+cpu +memory +pids'",
        f"mkdir? {root}/jailrun",
        "fchmodat",  # whatever the caller's umask is
        f"open {root}/jailrun/cgroup.subtree_control",
        "write '+cpu +memory +pids'",
        f"mkdir {root}/jailrun/web",
        "fchmodat",
        f"open {root}/jailrun/web/pids.max",
        "write '5'",
        f"open {root}/jailrun/web",
    ]
    assert program.child.operations == []
    assert joined.cgroup_fd is program.before.operations[-1].result


def test_hybrid(hybrid: Hierarchies) -> None:
    """Limits are set before anybody is in, and the child joins v1 by itself."""
    program, joined, before = compile_plan({"memory": {"limit": 4096}}, hybrid)
    memory = "/sys/fs/cgroup/memory/jailrun"
    assert before.index(f"mkdir? {memory}") < before.index(f"mkdir {memory}/web")
    limit = before.index(f"open {memory}/web/memory.limit_in_bytes")
    assert before[limit + 1] == "write '4096'"
    assert limit < before.index(f"open {memory}/web/tasks")
    assert [describe(operation) for operation in program.child.operations] == ["write '0'"] * 3
    opened = {operation.result for operation in program.before.operations}
    for operation in program.child.operations:
        assert operation.args[0] in opened
        assert operation.object.endswith("/jailrun/web/tasks")
    assert joined.cgroup_fd is not None
    assert not any("subtree_control" in call for call in before), "no v2 controller is needed"
    assert all(operation.facility == "cgroups" for operation in program.operations())


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o777, 0o100])
def test_what_the_umask_takes_is_given_back(hybrid: Hierarchies, umask: int) -> None:
    """The jail's ids are to look into its cgroups, which the caller makes."""
    _program, _joined, before = compile_plan({}, hybrid, Facts(umask=umask))
    made = [call for call in before if call.startswith("mkdir")]
    assert before.count("fchmodat") == (0 if umask == 0o022 else len(made))


def test_v1_has_no_cgroup_to_clone_into(v1: Hierarchies) -> None:
    program, joined, before = compile_plan({}, v1)
    assert joined.cgroup_fd is None
    assert before[0] == "open /sys/fs/cgroup/freezer"
    assert len(program.child.operations) == 4


def test_cpuset_of_parents_that_are_new(hybrid: Hierarchies) -> None:
    """Each parent gets its sets before the next is made, the jail what it was not given."""
    root = "/sys/fs/cgroup/cpuset"
    facts = Facts(cpuset=((root, "0-1", "0"), (f"{root}/jailrun", "0-1", "0")))
    _program, _joined, before = compile_plan({"cpu": {"cpus": "1"}}, hybrid, facts)
    start = before.index(f"mkdir? {root}/jailrun")
    assert before[start : start + 7] == [
        f"mkdir? {root}/jailrun",
        "fchmodat",
        f"open {root}/jailrun/cpuset.cpus",
        "write '0-1'",
        f"open {root}/jailrun/cpuset.mems",
        "write '0'",
        f"mkdir {root}/jailrun/web",
    ]
    assert f"open {root}/jailrun/web/cpuset.mems" in before
    assert before[before.index(f"open {root}/jailrun/web/cpuset.cpus") + 1] == "write '1'"


def test_what_was_enabled_in_the_root_is_noted(v2: Hierarchies) -> None:
    _program, _joined, before = compile_plan({}, v2, Facts(enabled="pids"))
    assert before.index("fsetxattr") > before.index("mkdir? /sys/fs/cgroup/jailrun")


def test_devices(v1: Hierarchies, v2: Hierarchies) -> None:
    _program, _joined, before = compile_plan({"devices": []}, v1)
    path = "/sys/fs/cgroup/devices/jailrun/web"
    assert before.index(f"open {path}/devices.deny") < before.index(f"open {path}/devices.allow")
    assert "write 'c 1:3 rwm'" in before
    program, joined, before = compile_plan({"devices": []}, v2)
    assert before[-2:] == ["bpf", "bpf"]
    assert joined.cgroup_fd is not None
    _load, attach = (one for one in program.before.operations if one.name == "bpf")
    assert joined.cgroup_fd in attach.args[1].holes.values()  # type: ignore[union-attr]


def test_a_device_list_that_nothing_enforces_is_refused() -> None:
    host = Hierarchies([Hierarchy(1, "/c/memory", ["memory"])])
    with pytest.raises(UnsupportedError, match="neither the devices controller nor"):
        compile_plan({"devices": []}, host)
    compile_plan({}, host)


def test_join_of_an_exec(hybrid: Hierarchies) -> None:
    program = Program()
    joined = plan_join(program, place({}, "web", hybrid))
    assert not any(operation.name == "mkdirat" for operation in program.operations())
    assert len(program.child.operations) == 4
    assert joined.cgroup_fd


def test_explain_reads_well(hybrid: Hierarchies) -> None:
    program, _joined, _before = compile_plan({"pids": {"limit": 7}}, hybrid)
    text = "\n".join(program.explain())
    assert "set linux.resources.pids.limit to '7' in" in text


def test_parents() -> None:
    hierarchy = Hierarchy(2, "/c", ())
    assert parents(hierarchy, "/c/a/b/web") == ["/c/a", "/c/a/b"]
    assert parents(hierarchy, "/c/web") == []
    assert parents(Hierarchy(2, "/", ()), "/a/web") == ["/a"]


def test_facts_on_a_folder(tmp_path: Path) -> None:
    """Empty and missing cpusets inherit; what exists already is refused."""
    group = tmp_path / "group"
    group.mkdir()
    for directory, cpus in ((tmp_path, "0-3\n"), (group, "\n")):
        (directory / "cpuset.cpus").write_text(cpus)
        (directory / "cpuset.mems").write_text("0\n")
    hierarchies = Hierarchies([Hierarchy(1, str(tmp_path), ["cpuset"])])
    config = {"linux": {"cgroupsPath": "/group/sub/web", "resources": {"cpu": {"cpus": "1"}}}}
    cgroups = place(config, "web", hierarchies)
    assert read_facts(config, hierarchies, cgroups).cpuset == (
        (str(tmp_path), "0-3", "0"),
        (f"{group}", "0-3", "0"),
        (f"{group}/sub", "0-3", "0"),
    )
    (group / "sub" / "web").mkdir(parents=True)
    with pytest.raises(ConflictError, match="exists already"):
        read_facts(config, hierarchies, cgroups)


def fail(number: int, name: str, path: str, what: str, hint: str = "") -> OperationError:
    operation = Operation(name, 0, (), Slot(0, "x"), "cgroups", what, path, (), hint, 0)
    return OperationError(number, "why", operation)


def test_translate() -> None:
    error = translate(fail(EBUSY, "write", "/c/web/memory.limit_in_bytes", "set x in"))
    assert isinstance(error, CgroupError)
    assert str(error) == "cannot set x in /c/web/memory.limit_in_bytes: Device or resource busy"
    assert error.hint and "uses more" in error.hint
    error = translate(fail(EEXIST, "mkdirat", "/c/web", "make the cgroup"))
    assert isinstance(error, ConflictError)
    assert error.hint and "rmdir /c/web" in error.hint
    error = translate(fail(ENOENT, "openat", "/c/web/cpu.what", "set x in"))
    assert isinstance(error, UnsupportedError)
    assert error.hint == "this kernel, or this cgroup, has no cpu.what"
    error = translate(fail(EROFS, "mkdirat", "/c/web", "make the cgroup"))
    assert error.hint and "read-only" in error.hint
    assert isinstance(translate(OSError(EINVAL, "x", "/c/tasks")), CgroupError)


def test_the_longest_match_has_the_hint() -> None:
    assert find_hint("cpuset.cpus", EINVAL) == find_hint("cpuset.mems", EINVAL)
    assert find_hint("cpu.max.burst", EINVAL) == "burst must not be above quota"
    assert find_hint("cpu.max", EINVAL) != find_hint("cpu.max.burst", EINVAL)
    assert find_hint("memory.high", EINVAL) is None
    assert refusal(EINVAL, "set", "/c/memory.high").hint is None
