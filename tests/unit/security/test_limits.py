"""Rlimits, priorities and the other values of one process: what is refused, and the numbers."""

from __future__ import annotations

import resource
from struct import unpack
from typing import Any

import pytest

from jailrun.errors import SpecError, UnsupportedError
from jailrun.security import limits


def rlimit(name: str = "RLIMIT_NOFILE", soft: object = 1, hard: object = 2) -> dict[str, Any]:
    return {"type": name, "soft": soft, "hard": hard}


@pytest.mark.parametrize("name", sorted(limits.RLIMITS))
def test_numbers_are_the_kernels(name: str) -> None:
    if hasattr(resource, name):
        assert limits.RLIMITS[name] == getattr(resource, name)


def test_parse() -> None:
    parsed = limits.parse_rlimits([rlimit(), rlimit("RLIMIT_CORE", 0, -1)])
    assert parsed == {7: (1, 2), 4: (0, limits.UNLIMITED)}


@pytest.mark.parametrize(
    ("entries", "path"),
    [
        ([rlimit("NOFILE")], "[0].type"),
        ([rlimit("RLIMIT_NOFILE"), rlimit("RLIMIT_NOFILE")], "[1].type"),
        ([rlimit(soft=3)], "[0].soft"),
        ([rlimit(soft=-1)], "[0].soft"),
        ([rlimit(hard=-2)], "[0].hard"),
        ([rlimit(hard="1k")], "[0].hard"),
        ([rlimit(hard=True)], "[0].hard"),
        ([rlimit(hard=2**64)], "[0].hard"),
        ([{"type": "RLIMIT_CPU"}], "[0].soft"),
        ([rlimit(name=["x"])], "[0].type"),  # type: ignore[arg-type]
    ],
)
def test_refused(entries: list[dict[str, Any]], path: str) -> None:
    with pytest.raises(SpecError) as caught:
        limits.parse_rlimits(entries)
    assert caught.value.path == f"process.rlimits{path}"


def test_hard_limit_of_the_host() -> None:
    host = {7: (1024, 20000)}
    limits.check_rlimits([rlimit(hard=20000)], host, can_raise=False)
    limits.check_rlimits([rlimit(hard=20001)], host, can_raise=True)
    with pytest.raises(UnsupportedError) as caught:
        limits.check_rlimits([rlimit(hard=-1)], host, can_raise=False)
    assert str(caught.value) == (
        "cannot set RLIMIT_NOFILE to unlimited: this host's hard limit is 20000"
    )
    assert "CAP_SYS_RESOURCE" in str(caught.value.hint)


def test_own_limits() -> None:
    own = limits.read_host_limits()
    assert all(0 <= soft <= hard <= limits.UNLIMITED for soft, hard in own.values())


def test_oom_score() -> None:
    limits.check_oom_score(None, 0, can_raise=False)
    limits.check_oom_score(500, 0, can_raise=False)
    limits.check_oom_score(-500, 0, can_raise=True)
    with pytest.raises(UnsupportedError, match="jailrun itself runs with 0"):
        limits.check_oom_score(-1, 0, can_raise=False)
    with pytest.raises(SpecError):
        limits.check_oom_score(1001, 0, can_raise=True)
    assert -1000 <= limits.read_oom_score() <= 1000


def test_scheduler() -> None:
    wanted = {"policy": "SCHED_FIFO", "priority": 10, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}
    fields = unpack("<IIQiIQQQ", limits.scheduler_attributes(wanted))
    assert fields == (48, 1, 1, 0, 10, 0, 0, 0)
    deadline = {"policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 2, "period": 3}
    assert unpack("<IIQiIQQQ", limits.scheduler_attributes(deadline))[5:] == (1, 2, 3)


@pytest.mark.parametrize(
    ("wanted", "key"),
    [
        ({}, "policy"),
        ({"policy": "FIFO"}, "policy"),
        ({"policy": "SCHED_FIFO"}, "priority"),
        ({"policy": "SCHED_FIFO", "priority": 100}, "priority"),
        ({"policy": "SCHED_OTHER", "priority": 1}, "priority"),
        ({"policy": "SCHED_OTHER", "nice": 20}, "nice"),
        ({"policy": "SCHED_OTHER", "runtime": 1}, "runtime"),
        ({"policy": "SCHED_OTHER", "flags": ["x"]}, "flags[0]"),
    ],
)
def test_scheduler_refused(wanted: dict[str, Any], key: str) -> None:
    with pytest.raises(SpecError) as caught:
        limits.scheduler_attributes(wanted)
    assert caught.value.path == f"process.scheduler.{key}"


def test_io_priority() -> None:
    assert limits.io_priority({"class": "IOPRIO_CLASS_BE", "priority": 5}) == 2 << 13 | 5
    assert limits.io_priority({"class": "IOPRIO_CLASS_IDLE"}) == 3 << 13
    for wrong in ({"class": "BE"}, {"class": "IOPRIO_CLASS_BE", "priority": 8}):
        with pytest.raises(SpecError):
            limits.io_priority(wrong)


def test_personality_and_umask() -> None:
    assert limits.personality_number({"domain": "LINUX32"}) == 8
    assert limits.umask_number({}) is None
    assert limits.umask_number({"umask": 0o27}) == 0o27
    for call, wrong in (
        (limits.personality_number, {"domain": "SVR4"}),
        (limits.personality_number, {"domain": "LINUX", "flags": ["x"]}),
        (limits.umask_number, {"umask": 0o1000}),
    ):
        with pytest.raises(SpecError):
            call(wrong)
