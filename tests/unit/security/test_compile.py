"""The compiler: actions, comparisons, checks with JSON paths, and the answer to newer calls."""

from __future__ import annotations

import copy
from errno import ENOSYS, EPERM
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jailrun.errors import SpecError
from jailrun.security import compile as compiler
from tests.unit.security.bpf import AARCH64, ALLOW, X86, X86_64, answer, run

GETPID, GETUID, KILL = 39, 102, 62


def profile(*rules: dict[str, Any], default: str = "SCMP_ACT_ALLOW", **keys: Any) -> dict[str, Any]:
    return {"defaultAction": default, "syscalls": list(rules), **keys}


def rule(*args: dict[str, Any], action: str = "SCMP_ACT_ERRNO", **keys: Any) -> dict[str, Any]:
    return {"names": ["kill"], "action": action, "args": list(args), **keys}


@pytest.mark.parametrize("action", sorted(compiler.ACTIONS))
def test_actions(action: str) -> None:
    default = "SCMP_ACT_LOG" if action == "SCMP_ACT_ALLOW" else "SCMP_ACT_ALLOW"
    program = compiler.compile_profile(profile(rule(action=action), default=default))
    expected = compiler.ACTIONS[action]
    if action in compiler.WITH_ERRNO:
        expected |= EPERM
    assert run(program, KILL) == expected
    assert run(program, GETPID) == compiler.ACTIONS[default]


def test_errno() -> None:
    program = compiler.compile_profile(
        profile(rule(errnoRet=99), default="SCMP_ACT_ERRNO", defaultErrnoRet=77)
    )
    assert answer(program, KILL) == 99
    assert answer(program, GETPID) == 77


@pytest.mark.parametrize(
    ("op", "matching", "other"),
    [
        ("SCMP_CMP_NE", [0, 2**63], [5]),
        ("SCMP_CMP_LT", [4], [5, 2**32, 2**63]),
        ("SCMP_CMP_LE", [4, 5], [6, 2**32]),
        ("SCMP_CMP_EQ", [5], [2**32 + 5]),
        ("SCMP_CMP_GE", [5, 6, 2**32], [4]),
        ("SCMP_CMP_GT", [6, 2**32], [5]),
    ],
)
def test_comparisons(op: str, matching: list[int], other: list[int]) -> None:
    condition = {"index": 1, "value": 5, "op": op}
    program = compiler.compile_profile(profile(rule(condition)))
    assert {answer(program, KILL, [0, value]) for value in matching} == {EPERM}
    assert {answer(program, KILL, [0, value]) for value in other} == {"allow"}


def test_masked_comparison() -> None:
    condition = {"index": 0, "value": 0xFF, "valueTwo": 0x12, "op": "SCMP_CMP_MASKED_EQ"}
    program = compiler.compile_profile(profile(rule(condition)))
    assert answer(program, KILL, [0x3412]) == EPERM
    assert answer(program, KILL, [0x3413]) == "allow"


def test_conditions_on_one_argument_are_alternatives() -> None:
    conditions = [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"} for value in (1, 2)]
    program = compiler.compile_profile(profile(rule(*conditions)))
    assert [answer(program, KILL, [value]) for value in (1, 2, 3)] == [EPERM, EPERM, "allow"]


def test_conditions_on_two_arguments_must_both_hold() -> None:
    conditions = [{"index": index, "value": 1, "op": "SCMP_CMP_EQ"} for index in (0, 1)]
    program = compiler.compile_profile(profile(rule(*conditions)))
    assert answer(program, KILL, [1, 1]) == EPERM
    assert answer(program, KILL, [1, 2]) == "allow"


def test_architectures() -> None:
    names = {"names": ["kill"], "action": "SCMP_ACT_ERRNO"}
    program = compiler.compile_profile(
        profile(names, architectures=["SCMP_ARCH_X86", "SCMP_ARCH_AARCH64"])
    )
    assert [answer(program, KILL), answer(program, 37, arch=X86)] == [EPERM, EPERM]
    assert answer(program, 129, arch=AARCH64) == EPERM
    assert answer(program, 37, arch=0x40000028) == ENOSYS  # arm, which is not listed


def test_unknown_names_are_skipped_and_can_be_listed() -> None:
    entry = {"names": ["kill", "killl"], "action": "SCMP_ACT_ERRNO"}
    assert answer(compiler.compile_profile(profile(entry)), KILL) == EPERM
    assert compiler.unknown_names(profile(entry)) == ["killl"]


def test_rule_of_the_default_is_none() -> None:
    program = compiler.compile_profile(profile(rule(action="SCMP_ACT_ALLOW")))
    assert run(program, KILL) == ALLOW


def test_newer_calls_do_not_exist() -> None:
    """Else libc takes the EPERM of an old profile for the answer of a call it has not got."""
    entry = {"names": ["getpid", "futex_waitv"], "action": "SCMP_ACT_ALLOW"}
    wanted = profile(entry, default="SCMP_ACT_ERRNO", architectures=["SCMP_ARCH_X86"])
    program = compiler.compile_profile(wanted)
    for arch, getpid in ((X86_64, GETPID), (X86, 20)):
        assert answer(program, getpid, arch=arch) == "allow"
        assert answer(program, 1, arch=arch) == EPERM
        assert answer(program, 449, arch=arch) == "allow"
        assert answer(program, 450, arch=arch) == ENOSYS
    assert answer(program, 0x40000000 | 39) == ENOSYS
    kill = compiler.compile_profile(profile(entry, default="SCMP_ACT_KILL_PROCESS"))
    assert answer(kill, 450) == ENOSYS
    log = compiler.compile_profile(profile(entry, default="SCMP_ACT_LOG"))
    assert run(log, 450) == compiler.ACTIONS["SCMP_ACT_LOG"]


EQUAL = {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}


@pytest.mark.parametrize(
    ("wanted", "path"),
    [
        ([], ""),
        ({}, ".defaultAction"),
        (profile(default="ALLOW"), ".defaultAction"),
        (profile(defaultErrnoRet=1), ".defaultErrnoRet"),
        (profile(default="SCMP_ACT_ERRNO", defaultErrnoRet=4096), ".defaultErrnoRet"),
        (profile(default="SCMP_ACT_ERRNO", defaultErrnoRet=True), ".defaultErrnoRet"),
        (profile(architectures="x86"), ".architectures"),
        (profile(architectures=["SCMP_ARCH_X86", "x86"]), ".architectures[1]"),
        (profile(architectures=[["SCMP_ARCH_X86"]]), ".architectures[0]"),
        (profile() | {"syscalls": {}}, ".syscalls"),
        (profile() | {"syscalls": [1]}, ".syscalls[0]"),
        (profile(rule() | {"names": []}), ".syscalls[0].names"),
        (profile(rule(), rule() | {"names": ["a", 1]}), ".syscalls[1].names[1]"),
        (profile(rule() | {"names": ["a\0"]}), ".syscalls[0].names[0]"),
        (profile(rule(action="SCMP_ACT_NO")), ".syscalls[0].action"),
        (profile(rule(errnoRet=-1)), ".syscalls[0].errnoRet"),
        (profile(rule(action="SCMP_ACT_TRAP", errnoRet=1)), ".syscalls[0].errnoRet"),
        (profile(rule() | {"args": EQUAL}), ".syscalls[0].args"),
        (profile(rule() | {"args": [1]}), ".syscalls[0].args[0]"),
        (profile(rule(EQUAL, EQUAL | {"index": 6})), ".syscalls[0].args[1].index"),
        (profile(rule(EQUAL | {"value": -1})), ".syscalls[0].args[0].value"),
        (profile(rule(EQUAL | {"value": 2**64})), ".syscalls[0].args[0].value"),
        (profile(rule(EQUAL | {"valueTwo": "1"})), ".syscalls[0].args[0].valueTwo"),
        (profile(rule(EQUAL | {"op": "=="})), ".syscalls[0].args[0].op"),
    ],
)
def test_malformed(wanted: Any, path: str) -> None:
    with pytest.raises(SpecError) as caught:
        compiler.compile_profile(wanted)
    assert caught.value.path == f"linux.seccomp{path}"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**65) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
VALID = profile(
    rule(EQUAL), default="SCMP_ACT_ERRNO", architectures=["SCMP_ARCH_X86"], flags=[], errnoRet=1
)


@settings(max_examples=300)
@given(st.data())
def test_any_change_is_refused_or_compiles(data: st.DataObject) -> None:
    wanted: Any = copy.deepcopy(VALID)
    place = wanted
    while True:
        key = data.draw(
            st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place)))
        )
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(JSON)
    try:
        program = compiler.compile_profile(wanted)
    except SpecError as error:
        assert error.path.startswith("linux.seccomp")
    else:
        assert len(program) % 8 == 0
