"""Capabilities: the table, the masks, what is refused, the steps as data."""

from __future__ import annotations

from typing import Any

import pytest

from jailrun.errors import SpecError, UnsupportedError
from jailrun.kernel.program import Program
from jailrun.security import capabilities

LAST = capabilities.LAST_KNOWN


def test_numbers_are_the_kernels() -> None:
    # linux/capability.h
    assert capabilities.NUMBERS["CAP_CHOWN"] == 0
    assert capabilities.NUMBERS["CAP_SETPCAP"] == 8
    assert capabilities.NUMBERS["CAP_NET_RAW"] == 13
    assert capabilities.NUMBERS["CAP_SYS_ADMIN"] == 21
    assert capabilities.NUMBERS["CAP_SYS_RESOURCE"] == 24
    assert capabilities.NUMBERS["CAP_SETFCAP"] == 31
    assert capabilities.NUMBERS["CAP_SYSLOG"] == 34
    assert capabilities.NUMBERS["CAP_CHECKPOINT_RESTORE"] == 40 == LAST


def test_mask_and_names_are_inverse() -> None:
    names = ["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_BPF"]
    assert capabilities.capability_mask(names) == 1 | 1 << 21 | 1 << 39
    assert capabilities.mask_names(capabilities.capability_mask(names)) == names
    assert capabilities.mask_names(1 << 63) == ["CAP_63"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [("NET_RAW", "write CAP_NET_RAW"), ("cap_net_raw", "write CAP_NET_RAW"), ("CAP_FLY", None)],
)
def test_unknown_name(name: str, hint: str | None) -> None:
    process = {"capabilities": {"bounding": ["CAP_CHOWN", name]}}
    with pytest.raises(SpecError) as caught:
        capabilities.capability_sets(process, LAST)
    assert caught.value.path == "process.capabilities.bounding[1]"
    assert caught.value.hint == hint


def test_capability_that_the_host_does_not_have() -> None:
    process = {"capabilities": {"bounding": ["CAP_BPF", "CAP_CHECKPOINT_RESTORE"]}}
    with pytest.raises(UnsupportedError, match="does not have CAP_CHECKPOINT_RESTORE") as caught:
        capabilities.capability_sets(process, 39)
    assert caught.value.hint == "its last capability is CAP_BPF"


def test_effective_must_be_permitted() -> None:
    process = {"capabilities": {"effective": ["CAP_KILL"]}}
    with pytest.raises(SpecError, match="CAP_KILL is not in permitted"):
        capabilities.capability_sets(process, LAST)


def test_nothing_is_given_by_default() -> None:
    assert set(capabilities.capability_sets({}, LAST).values()) == {0}


def test_ambient_is_what_can_be_ambient() -> None:
    both = ["CAP_KILL", "CAP_CHOWN"]
    process: dict[str, Any] = {
        "capabilities": {"permitted": both, "inheritable": ["CAP_KILL"], "ambient": both}
    }
    sets = capabilities.capability_sets(process, LAST)
    assert capabilities.mask_names(sets["ambient"]) == ["CAP_KILL"]


def test_inheritable_is_empty_unless_asked_for() -> None:
    """CVE-2022-29162."""
    names = ["CAP_KILL", "CAP_CHOWN"]
    process = {"capabilities": {"bounding": names, "effective": names, "permitted": names}}
    assert capabilities.capability_sets(process, LAST)["inheritable"] == 0


def test_caller_cannot_give_what_it_lacks() -> None:
    masks = {"permitted": 0b110, "inheritable": 0}
    capabilities.check_held(masks, 0b111)
    with pytest.raises(UnsupportedError, match="CAP_DAC_READ_SEARCH: jailrun runs without it"):
        capabilities.check_held(masks, 0b011)


def test_steps() -> None:
    program = Program()
    names = ["CAP_CHOWN", "CAP_KILL"]
    process = {
        "capabilities": {
            "bounding": names,
            "effective": ["CAP_CHOWN"],
            "permitted": names,
            "inheritable": ["CAP_KILL"],
            "ambient": ["CAP_KILL"],
        }
    }
    masks = capabilities.capability_sets(process, 6)
    capabilities.plan_bounding(program.child, masks["bounding"], 6)
    capabilities.plan_sets(program.child, masks)
    calls = [(each.name, each.args) for each in program.child.operations]
    assert [name for name, _ in calls] == ["drop", "capset", "prctl", "prctl"]
    assert calls[0][1] == (0b1011110,)
    assert repr(calls[1][1][1]) == "{0x1, 0x21, 0x20}"
    assert calls[2][1] == (47, 4, 0, 0, 0)
    assert calls[3][1] == (47, 2, 5, 0, 0)


def test_what_is_dropped_is_named() -> None:
    program = Program()
    capabilities.plan_bounding(program.child, 0b1001, 5)
    (operation,) = program.child.operations
    dropped = "CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FSETID CAP_KILL"
    assert operation.describe() == f"drop(54)  # drop capabilities {dropped}"


def test_nothing_is_dropped_where_all_is_kept() -> None:
    program = Program()
    capabilities.plan_bounding(program.child, 2**64 - 1, LAST)
    assert program.child.operations == []


def test_reads_of_this_host() -> None:
    assert 30 < capabilities.read_last_cap() < 64
    assert 0 <= capabilities.read_permitted() < 1 << 64
