"""The device list in both encodings, against what the rules say one by one."""

from __future__ import annotations

from _struct import pack
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailrun.cgroups.devices import (
    ALL,
    ANY,
    DEFAULTS,
    MKNOD,
    READ,
    WRITE,
    exceptions,
    is_everything,
    parse_rules,
    plan_bpf,
    plan_lines,
)
from jailrun.errors import SpecError, UnsupportedError
from tests.unit.kernel.bpf_machine import Machine, find_unreached

Rule = tuple[bool, str, int, int, int]
DENY_ALL = {"allow": False, "access": "rwm"}
ALLOW_ALL = {"allow": True, "access": "rwm"}


def run_bpf(code: bytes, kind: int, major: int, minor: int, access: int) -> int:
    """Return the result of a program for one access."""
    return Machine(pack("<III", access << 16 | kind, major, minor)).run(code)


def is_allowed(rules: Iterable[Rule], kind: str, major: int, minor: int, access: int) -> bool:
    """Tell what the rules say: for each access by itself the last rule for the device counts."""
    for bit in (MKNOD, READ, WRITE):
        word = False
        for allow, rule_kind, rule_major, rule_minor, rule_access in rules:
            if (
                rule_kind in ("a", kind)
                and rule_major in (ANY, major)
                and rule_minor in (ANY, minor)
                and rule_access & bit
            ):
                word = allow
        if access & bit and not word:
            return False
    return True


NUMBERS = st.sampled_from([ANY, 1, 2])
WHOLE = st.tuples(st.booleans(), st.just("a"), st.just(ANY), st.just(ANY), st.just(ALL))
PART = st.tuples(st.booleans(), st.sampled_from("bc"), NUMBERS, NUMBERS, st.integers(1, 7))
RULES = st.lists(WHOLE | PART, max_size=8)


@given(RULES, st.sampled_from("bc"), st.integers(1, 3), st.integers(1, 3), st.integers(1, 7))
def test_bpf_says_what_the_rules_say(
    rules: list[Rule], kind: str, major: int, minor: int, access: int
) -> None:
    code = plan_bpf(rules)
    assert not find_unreached(code)
    result = run_bpf(code, 1 if kind == "b" else 2, major, minor, access)
    assert result == is_allowed(rules, kind, major, minor, access)


@given(RULES, st.sampled_from("bc"), st.integers(1, 3), st.integers(1, 3), st.integers(1, 7))
def test_v1_never_allows_more_than_the_rules(
    rules: list[Rule], kind: str, major: int, minor: int, access: int
) -> None:
    """v1 asks for one exception that has all of an access, and else falls back to the default."""
    try:
        default, found = exceptions(rules)
    except UnsupportedError:
        return

    def matches(key: tuple[str, int, int]) -> bool:
        return key[0] == kind and key[1] in (ANY, major) and key[2] in (ANY, minor)

    if default:  # an exception that has any of it refuses
        allowed = not any(mask & access for key, mask in found.items() if matches(key))
    else:
        allowed = any(access & ~mask == 0 for key, mask in found.items() if matches(key))
    if allowed:
        assert is_allowed(rules, kind, major, minor, access)
    if access in (MKNOD, READ, WRITE):
        assert allowed == is_allowed(rules, kind, major, minor, access)


def test_default_list() -> None:
    rules = parse_rules(None)
    assert tuple(rules) == DEFAULTS
    lines = plan_lines(rules)
    assert lines[0] == ("devices.deny", "a")
    assert ("devices.allow", "c 1:3 rwm") in lines
    assert ("devices.allow", "c *:* m") in lines
    assert ("devices.allow", "c 136:* rwm") in lines
    assert not any(line.startswith("c 10:") for _file, line in lines), (
        "no /dev/net/tun, no /dev/fuse"
    )
    assert not any(line.startswith(("c 1:1 ", "c 1:11")) for _file, line in lines), (
        "no mem, no kmsg"
    )


def test_list_as_engines_write_it() -> None:
    rules = parse_rules(
        [DENY_ALL, {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"}]
    )
    assert ("devices.allow", "c 10:229 rw") in plan_lines(rules)
    code = plan_bpf(rules)
    assert run_bpf(code, 2, 10, 229, READ | WRITE) == 1
    assert run_bpf(code, 2, 10, 200, READ) == 0
    assert run_bpf(code, 2, 10, 200, MKNOD) == 1
    assert run_bpf(code, 1, 8, 0, READ) == 0


def test_everything() -> None:
    assert is_everything(parse_rules([ALLOW_ALL]))
    assert is_everything(parse_rules([DENY_ALL, {"allow": True, "type": "a"}]))
    assert not is_everything(parse_rules([ALLOW_ALL, DENY_ALL]))
    assert not is_everything(parse_rules([]))
    one = {"allow": False, "type": "b", "major": 8, "minor": 0}
    assert not is_everything(parse_rules([ALLOW_ALL, one]))
    assert plan_lines(parse_rules([ALLOW_ALL, one])) == [
        ("devices.allow", "a"),
        ("devices.deny", "b 8:0 rw"),  # making nodes is in the defaults
    ]


def test_a_rule_for_all_types_with_one_access_is_two_rules() -> None:
    assert parse_rules([{"allow": True, "type": "a", "access": "r"}])[:2] == [
        (True, "b", ANY, ANY, READ),
        (True, "c", ANY, ANY, READ),
    ]


def test_v1_cannot_take_a_part_back() -> None:
    rules = parse_rules(
        [
            {"allow": True, "type": "c", "major": 10, "access": "rwm"},
            {"allow": False, "type": "c", "major": 10, "minor": 200, "access": "r"},
        ]
    )
    with pytest.raises(UnsupportedError, match="no such exception"):
        plan_lines(rules)
    assert run_bpf(plan_bpf(rules), 2, 10, 200, READ) == 0
    assert run_bpf(plan_bpf(rules), 2, 10, 201, READ) == 1


@pytest.mark.parametrize("rule", [{"type": "x"}, {"access": "rx"}, {"type": "p"}])
def test_bad_rule(rule: dict[str, str]) -> None:
    with pytest.raises(SpecError) as raised:
        parse_rules([DENY_ALL, {"allow": True} | rule])
    assert raised.value.path == "linux.resources.devices[1]"
