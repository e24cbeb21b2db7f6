"""`jailrun.units`: what is read, what is refused, and that each format reads back."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailrun import units
from jailrun.errors import JailError

MEGA = 1024**2


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("64M", 64 * MEGA),
        ("64m", 64 * MEGA),
        ("64mb", 64 * MEGA),
        ("64MiB", 64 * MEGA),
        ("1.5G", 1536 * MEGA),
        ("512k", 512 * 1024),
        ("4096", 4096),
        ("4096b", 4096),
        ("0.5k", 512),
        ("1.0000001k", 1024),
        ("2t", 2 * 1024**4),
        ("9223372036854775807", 2**63 - 1),
        (4096, 4096),
    ],
)
def test_sizes(text: str | int, size: int) -> None:
    assert units.parse_size(text) == size


JUNK = [
    *("", " ", "x", "-1", "+1", "1 ", " 1", "1\n", "1e3", "0x10", "1_000", "nan", "inf", "\u0661"),
    *("\uff11", "1\u00b2", "1\0", "--1", "1.2.3", ".", ".5", "5.", "1,5", "9" * 5000),
]


@pytest.mark.parametrize("text", [*JUNK, "1.5", "1.5b", "64 M", "64MM", "64K\u0131", "1\u212a"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(JailError, match="is not a size") as caught:
        units.parse_size(text)
    assert caught.value.hint


@pytest.mark.parametrize("value", [-1, True, 1.5, None, [], b"1"])
def test_what_is_no_size_in_python(value: Any) -> None:
    with pytest.raises(JailError, match="is not a size"):
        units.parse_size(value)


def test_sizes_beyond_the_kernel_are_refused() -> None:
    for text in ("9223372036854775808", "8E", 2**63):
        with pytest.raises(JailError, match="is too large"):
            units.parse_size(text)


def test_the_error_names_what_it_is_about() -> None:
    with pytest.raises(JailError, match=r"^memory '12X' is not a size$"):
        units.parse_size("12X", "memory")


@given(st.integers(0, 2**63 - 1))
def test_sizes_read_back(size: int) -> None:
    assert units.parse_size(units.format_size(size)) == size
    assert units.format_size_about(size)


def test_sizes_for_people() -> None:
    assert units.format_size(64 * MEGA) == "64M"
    assert units.format_size_about(0) == "0B"
    assert units.format_size_about(64.4 * MEGA) == "64.4M"
    assert units.format_size_about(999 * MEGA) == "999M"
    assert units.format_size_about(1023 * MEGA) == "1.0G"


@pytest.mark.parametrize(
    ("text", "usec"),
    [
        ("5s", 5_000_000),
        ("5", 5_000_000),
        ("0", 0),
        ("1h30m", 5_400_000_000),
        ("500ms", 500_000),
        ("1.5s", 1_500_000),
        ("1d2h3m4s5ms6us", 93_784_005_006),
        (2, 2_000_000),
        (0.25, 250_000),
    ],
)
def test_durations(text: str | float, usec: int) -> None:
    assert units.parse_duration(text) == usec


@pytest.mark.parametrize("text", [*JUNK, "5x", "1m1h", "1s1s", "s", "1h 2m", "5S", "1ms1", "h1"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(JailError, match="is not a duration"):
        units.parse_duration(text)


@pytest.mark.parametrize("value", [-1, -0.5, math.nan, math.inf, True])
def test_what_is_no_duration_in_python(value: float) -> None:
    with pytest.raises(JailError, match="is not a duration"):
        units.parse_duration(value)


@given(st.integers(0, 2**63 - 1))
def test_durations_read_back(usec: int) -> None:
    assert units.parse_duration(units.format_duration(usec)) == usec


@pytest.mark.parametrize(("text", "cpus"), [("2", 2.0), ("0.5", 0.5), (1, 1.0), (0.25, 0.25)])
def test_cpus(text: str | float, cpus: float) -> None:
    assert units.parse_cpus(text) == cpus


@pytest.mark.parametrize("value", [*JUNK, -1, -0.5, math.nan, math.inf, True, 1e300, 10**400])
def test_what_is_no_number_of_cpus(value: str | float) -> None:
    with pytest.raises(JailError, match="is not a number of CPUs"):
        units.parse_cpus(value)


@pytest.mark.parametrize(
    ("text", "numbers", "shortest"),
    [
        ("0", [0], "0"),
        ("0-1,3", [0, 1, 3], "0-1,3"),
        ("3,1,0", [0, 1, 3], "0-1,3"),
        ("0-2,1-4", [0, 1, 2, 3, 4], "0-4"),
        ("007", [7], "7"),
    ],
)
def test_cpu_sets(text: str, numbers: list[int], shortest: str) -> None:
    assert units.parse_cpuset(text) == numbers
    assert units.format_cpuset(numbers) == shortest


@pytest.mark.parametrize(
    "text",
    [
        *(junk for junk in JUNK if junk != "1,5"),
        "1-",
        "-",
        "1-0",
        "0-99999999999",
        "1,,2",
        ",",
        "1-2-3",
        "8192",
        "0 - 1",
    ],
)
def test_what_is_no_cpu_set(text: str) -> None:
    with pytest.raises(JailError, match="the CPU set"):
        units.parse_cpuset(text)


@given(st.sets(st.integers(0, 8191), min_size=1))
def test_cpu_sets_read_back(numbers: set[int]) -> None:
    assert units.parse_cpuset(units.format_cpuset(numbers)) == sorted(numbers)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100mbit", 100_000_000),
        ("1.5gbit", 1_500_000_000),
        ("10mbps", 80_000_000),
        ("8bit", 8),
        (8, 8),
    ],
)
def test_rates(text: str | int, rate: int) -> None:
    assert units.parse_rate(text) == rate


@pytest.mark.parametrize("text", [*JUNK, "100", "100m", "1mbyte", "00", -8, True])
def test_what_is_no_rate(text: str | int) -> None:
    with pytest.raises(JailError, match="is not a rate"):
        units.parse_rate(text)


@pytest.mark.parametrize("text", ["0", "0bit", "0mbit", "0.1bit", 0])
def test_a_rate_of_nothing(text: str | int) -> None:
    with pytest.raises(JailError, match="a rate of 0 lets nothing pass") as caught:
        units.parse_rate(text)
    assert caught.value.hint


@given(st.integers(1, 2**63 - 1))
def test_rates_read_back(rate: int) -> None:
    assert units.parse_rate(units.format_rate(rate)) == rate


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("nofile=1024:2048", ("RLIMIT_NOFILE", 1024, 2048)),
        ("nofile=1024", ("RLIMIT_NOFILE", 1024, 1024)),
        ("core=unlimited", ("RLIMIT_CORE", 2**64 - 1, 2**64 - 1)),
        ("core=0:-1", ("RLIMIT_CORE", 0, 2**64 - 1)),
    ],
)
def test_ulimits(text: str, limit: tuple[str, int, int]) -> None:
    assert units.parse_ulimit(text) == limit
    assert units.parse_ulimit(units.format_ulimit(*limit)) == limit


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nofile", "is not a limit"),
        ("nofile=", "is not a limit"),
        ("nofile=1:", "is not a limit"),
        ("=1", "names no limit"),
        ("files=1", "names no limit"),
        ("NOFILE=1", "names no limit"),
        ("nofile=2:1", "soft value above the hard one"),
        ("nofile=x", "is not a value"),
        ("nofile=1:2:3", "is not a value"),
        ("nofile=-2", "is not a value"),
        ("nofile=18446744073709551616", "is not a value"),
    ],
)
def test_what_is_no_ulimit(text: str, message: str) -> None:
    with pytest.raises(JailError, match=message):
        units.parse_ulimit(text)


def test_user_ids() -> None:
    assert units.parse_user_ids("1000") == (1000, None)
    assert units.parse_user_ids("1000:100") == (1000, 100)
    assert units.parse_user_ids(0) == (0, None)
    for text in (*JUNK, "root", "1:", ":1", "1:2:3", "4294967295", "0:4294967295"):
        with pytest.raises(JailError, match="is not a pair of ids"):
            units.parse_user_ids(text)


def test_id_ranges() -> None:
    mapping = {"containerID": 0, "hostID": 100_000, "size": 65_536}
    assert units.parse_id_range(units.format_id_range(mapping)) == (0, 100_000, 65_536)
    for text in (*JUNK, "0:0", "0:0:0", "0:4294967294:2", "0:-1:1", "0:0:0:0"):
        with pytest.raises(JailError, match="the id range"):
            units.parse_id_range(text)


def test_integers() -> None:
    assert units.parse_integer("5", "pids") == 5
    assert units.parse_integer("-5", "score", low=-10) == -5
    assert units.parse_integer(7, "pids") == 7
    values: list[str | int] = [*JUNK, -1, True, "11"]
    for value in values:
        with pytest.raises(JailError, match="is not valid"):
            units.parse_integer(value, "pids", high=10)


def test_pairs() -> None:
    assert units.parse_pair("a=b=c") == ("a", "b=c")
    assert units.parse_pair("a=") == ("a", "")
    for text in ("", "=", "=b", "a", "a=\0"):
        with pytest.raises(JailError, match="is not a pair"):
            units.parse_pair(text)


PARSERS: list[Callable[[str], object]] = [
    units.parse_size,
    units.parse_duration,
    units.parse_cpus,
    units.parse_cpuset,
    units.parse_rate,
    units.parse_ulimit,
    units.parse_user_ids,
    units.parse_id_range,
    units.parse_pair,
    lambda text: units.parse_integer(text, "number", low=-5, high=5),
]
near_misses = st.text("0123456789.-+,:=eE kKmMgGbitsh\u0661\uff15\u212a", max_size=12)


@given(st.text() | near_misses, st.sampled_from(PARSERS))
def test_parsers_raise_nothing_else(text: str, parse: Callable[[str], object]) -> None:
    try:
        parse(text)
    except JailError as error:
        assert "\n" not in error.message
        assert len(error.message) < 200
