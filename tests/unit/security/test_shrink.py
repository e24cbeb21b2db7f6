"""Shrunk filters answer as libseccomp's own do."""

from __future__ import annotations

from struct import pack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jailrun.security import compile as compiler
from jailrun.security import profile
from jailrun.security.capabilities import NAMES
from jailrun.security.shrink import shrink_filter
from tests.unit.security.bpf import AARCH64, X86, X86_64, run

NUMBERS = [*range(480), 1000, 2**30 - 1, *(2**30 + number for number in (0, 1, 39, 500)), 2**32 - 1]
ARGS = [
    [value] * 6
    for value in (
        0,
        1,
        2,
        9,
        16,
        17,
        40,
        0x5412,
        0x541C,
        0x10000000,
        0xFFFFFFFF,
        1 << 32,
        2**64 - 1,
    )
] + [[0, 0x5412, 0], [16, 3, 9], [16, 3, 8], [0, 1 << 32 | 0x5412]]


def both(monkeypatch: pytest.MonkeyPatch, wanted: dict[str, Any]) -> tuple[bytes, bytes]:
    """Return a profile's filter as libseccomp makes it, and as we do."""
    ours = compiler.compile_profile(wanted)
    with monkeypatch.context() as patch:
        patch.setattr(compiler, "shrink_filter", lambda program: program)
        return compiler.compile_profile(wanted), ours


def assert_same(theirs: bytes, ours: bytes, numbers: list[int], args: list[list[int]]) -> None:
    for arch in (X86_64, X86, AARCH64, 0, 2**32 - 1):
        for number in numbers:
            for each in args:
                assert run(theirs, number, each, arch) == run(ours, number, each, arch)


@pytest.mark.parametrize(
    ("capabilities", "allow"),
    [((), ()), (("CAP_SYS_ADMIN",), ()), (("CAP_NET_RAW",), ("io_uring",)), (NAMES, ())],
)
def test_default_profiles(
    monkeypatch: pytest.MonkeyPatch, capabilities: tuple[str, ...], allow: tuple[str, ...]
) -> None:
    wanted = profile.default_profile(capabilities, allow)
    theirs, ours = both(monkeypatch, wanted)
    assert len(ours) < len(theirs) / 2
    assert_same(theirs, ours, NUMBERS, ARGS[:1])
    watched = [number for number in NUMBERS if number in (16, 41, 56, 135, 272, 310, 359, 54, 120)]
    assert_same(theirs, ours, watched, ARGS)


CALLS = st.sampled_from(
    ["read", "kill", "clone", "socket", "ioctl", "getpid", "futex_waitv", "ipc"]
)
CONDITION: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "index": st.integers(0, 5),
        "value": st.sampled_from([0, 1, 16, 2**32, 2**64 - 1]),
        "valueTwo": st.sampled_from([0, 1, 16]),
        "op": st.sampled_from(sorted(compiler.COMPARISONS)),
    }
)


def place_of(condition: Any) -> int:
    return int(condition["index"])


RULE = st.fixed_dictionaries(
    {
        "names": st.lists(CALLS, min_size=1, max_size=3),
        "action": st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_TRAP"]),
        "args": st.lists(CONDITION, max_size=2, unique_by=place_of),
    }
)
PROFILE = st.fixed_dictionaries(
    {
        "defaultAction": st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL"]),
        "architectures": st.sampled_from(
            [[], ["SCMP_ARCH_X86"], ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]]
        ),
        "syscalls": st.lists(RULE, max_size=4),
    }
)


@settings(max_examples=60)
@given(PROFILE)
def test_any_profile(wanted: dict[str, Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        theirs, ours = both(patch, wanted)
    numbers = [0, 1, 16, 39, 41, 56, 62, 449, 450, 20, 37, 54, 102, 117, 120, 359, 2**30 | 62]
    assert_same(theirs, ours, numbers, ARGS[:4] + ARGS[-5:-4])


@pytest.mark.parametrize(
    "program",
    [
        pack("<HBBI", 0x06, 0, 0, 0x7FFF0000),  # nothing to gain
        pack("<HBBIHBBIHBBI", 0x20, 0, 0, 0, 0x45, 0, 0, 1, 0x06, 0, 0, 0),  # jset
        pack("<HBBIHBBIHBBI", 0x20, 0, 0, 4, 0x54, 0, 0, 1, 0x06, 0, 0, 0),  # masked architecture
        # A look at an argument and then at the number again.
        pack(
            "<HBBIHBBIHBBIHBBI",
            *(0x20, 0, 0, 0),
            *(0x20, 0, 0, 16),
            *(0x20, 0, 0, 0),
            *(6, 0, 0, 0),
        ),
    ],
)
def test_what_is_not_understood_stays(program: bytes) -> None:
    assert shrink_filter(program) == program


def test_long_searches_jump_over_more_than_a_conditional_jump_can() -> None:
    actions = ["SCMP_ACT_ERRNO", "SCMP_ACT_TRAP"]
    known = [name for name in profile.words(*profile.BASE) if _number(name) >= 0]
    known.sort(key=_number)
    entries: list[dict[str, Any]] = [
        {"names": [name], "action": str(actions[place % 2])} for place, name in enumerate(known)
    ]
    wanted: dict[str, Any] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": entries}
    with pytest.MonkeyPatch.context() as patch:
        theirs, ours = both(patch, wanted)
    assert len(ours) // 8 > 300
    assert_same(theirs, ours, NUMBERS, ARGS[:1])


def _number(name: str) -> int:
    return int(compiler.load_library().seccomp_syscall_resolve_name(name.encode()))
