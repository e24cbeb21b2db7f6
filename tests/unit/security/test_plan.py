"""The order of the last steps before exec, as data."""

from __future__ import annotations

from typing import Any

import pytest

from jailrun.errors import SpecError, UnsupportedError
from jailrun.kernel.program import Program
from jailrun.security.plan import (
    Facts,
    has_user_namespace,
    plan_credentials,
    plan_limits,
    read_facts,
)

FILTER = bytes(16)
ALL = 2**41 - 1


def config(**process: Any) -> dict[str, Any]:
    return {"process": process, "linux": {"namespaces": [{"type": "user"}]}}


def facts(**changed: Any) -> Facts:
    values: dict[str, Any] = {
        "last_cap": 3,
        "limits": {7: (1000, 2000)},
        "lsms": (),
        "permitted": ALL,
    }
    return Facts(**values | changed)


def plan(
    wanted: dict[str, Any], program: Program, known: Facts, *, filter_bytes: bytes | None = None
) -> None:
    """Plan all the steps, for the first process of a jail."""
    plan_limits(wanted, program, known)
    plan_credentials(wanted, program, known, filter_bytes=filter_bytes)


def steps(wanted: dict[str, Any], known: Facts | None = None) -> list[str]:
    """Return the child's calls by name, prctl by its option."""
    program = Program()
    plan(wanted, program, known or facts(), filter_bytes=FILTER)
    options = {8: "keepcaps", 47: "ambient", 38: "no_new_privs", 28: "securebits"}
    return [
        options[each.args[0]]
        if each.name == "prctl" and isinstance(each.args[0], int)
        else each.name
        for each in program.child.operations
    ]


SWITCH = [
    "keepcaps",
    "setgroups",
    "setresgid",
    "setresuid",
    "keepcaps",
    "capset",
    "ambient",
    "umask",
]


def test_filter_comes_last_with_no_new_privs() -> None:
    assert steps(config(noNewPrivileges=True)) == [
        *("keyctl", "drop", *SWITCH, "no_new_privs", "seccomp"),
    ]


def test_filter_comes_first_without() -> None:
    """Installing it then takes CAP_SYS_ADMIN, which the next steps take away."""
    assert steps(config()) == ["keyctl", "seccomp", "drop", *SWITCH]


def test_limits_and_personality_come_before() -> None:
    wanted = config(rlimits=[{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}])
    wanted["linux"]["personality"] = {"domain": "LINUX32"}
    assert steps(wanted)[:3] == ["prlimit64", "personality", "keyctl"]


def test_securebits_come_before_the_sets() -> None:
    wanted = config() | {"jailrun": {"securebits": ["noroot", "noroot-locked"]}}
    order = steps(wanted)
    assert order.index("setresuid") < order.index("securebits") < order.index("capset")
    with pytest.raises(SpecError, match="'root' is not a securebit"):
        steps(config() | {"jailrun": {"securebits": ["root"]}})


def test_ids() -> None:
    program = Program()
    user = {"uid": 1000, "gid": 100, "additionalGids": [5, 6], "umask": 0o77}
    plan(config(user=user), program, facts())
    lines = {each.name: each.describe() for each in program.child.operations}
    assert "setgroups(2, [5, 6])" in lines["setgroups"]
    assert "(100, 100, 100)" in lines["setresgid"]
    assert "(1000, 1000, 1000)" in lines["setresuid"]
    assert "umask(63)" in lines["umask"]


def test_limit_above_the_callers_is_raised_by_the_caller() -> None:
    program = Program()
    rlimits = [
        {"type": "RLIMIT_NOFILE", "soft": 3000, "hard": 4000},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]
    plan(config(rlimits=rlimits), program, facts())
    assert [each.describe() for each in program.attach.operations] == [
        "prlimit64(<pid0>, 7, {1000, 4000}, 0)  # raise limit RLIMIT_NOFILE"
    ]
    assert [repr(each.args[2]) for each in program.child.operations[:2]] == [
        "{3000, 4000}",
        "{0, 0}",
    ]


def test_priorities_are_set_by_the_caller() -> None:
    program = Program()
    wanted = config(
        scheduler={"policy": "SCHED_BATCH", "nice": 5},
        ioPriority={"class": "IOPRIO_CLASS_IDLE", "priority": 0},
    )
    plan(wanted, program, facts())
    assert [each.name for each in program.attach.operations] == ["sched_setattr", "ioprio_set"]


def test_label() -> None:
    wanted = config(apparmorProfile="jail")
    with pytest.raises(UnsupportedError, match="needs AppArmor"):
        steps(wanted)
    program = Program()
    plan(wanted, program, facts(lsms=("apparmor",)))
    assert "exec jail" in " ".join(each.describe() for each in program.child.operations)
    with pytest.raises(UnsupportedError, match="needs SELinux"):
        steps(config(selinuxLabel="system_u:system_r:jail_t"))
    assert "openat" not in steps(config(apparmorProfile="unconfined"))


def test_without_user_namespace_the_caller_must_hold_what_it_gives() -> None:
    given = {"permitted": ["CAP_CHOWN"]}
    wanted = {"process": {"capabilities": given}, "linux": {"namespaces": [{"type": "pid"}]}}
    assert not has_user_namespace(wanted)
    with pytest.raises(UnsupportedError, match="CAP_CHOWN: jailrun runs without it"):
        steps(wanted, facts(permitted=0))
    assert "capset" in steps(config(capabilities=given), facts(permitted=0))


def test_facts_are_read_as_far_as_needed() -> None:
    plain = read_facts(config())
    assert (plain.limits, plain.lsms, plain.permitted) == ({}, (), 0)
    limited = read_facts(config(rlimits=[{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]))
    assert limited.limits[7][0] > 0
