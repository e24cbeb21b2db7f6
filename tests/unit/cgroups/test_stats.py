"""Figures and events, from folders made to look like cgroups."""

from __future__ import annotations

from pathlib import Path

import pytest

from jailrun.cgroups.live import restoring_text
from jailrun.cgroups.stats import NO_LIMIT, parse_limit, read_events, stats

V1_FILES = {
    "memory": {
        "memory.limit_in_bytes": "67108864\n",
        "memory.usage_in_bytes": "4096\n",
        "memory.max_usage_in_bytes": "8192\n",
        "memory.failcnt": "3\n",
        "memory.memsw.limit_in_bytes": "9223372036854771712\n",
        "memory.memsw.usage_in_bytes": "5000\n",
        "memory.memsw.max_usage_in_bytes": "9000\n",
        "memory.memsw.failcnt": "1\n",
        "memory.stat": "cache 10\ntotal_cache 20\n",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    },
    "cpu,cpuacct": {
        "cpu.stat": "nr_periods 10\nnr_throttled 4\nthrottled_time 5000000\n",
        "cpuacct.usage": "123\n",
        "cpuacct.usage_percpu": "100 23 \n",
        "cpuacct.stat": "user 3\nsystem 1\n",
    },
    "pids": {"pids.current": "2\n", "pids.max": "max\n", "pids.events": "max 7\n"},
    "blkio": {
        "blkio.throttle.io_service_bytes_recursive": "8:0 Read 5\n8:0 Write 6\nTotal 11\n",
    },
}
V2_FILES = {
    "unified": {
        "memory.max": "max\n",
        "memory.current": "4096\n",
        "memory.peak": "8192\n",
        "memory.swap.max": "0\n",
        "memory.swap.current": "0\n",
        "memory.events": "low 0\nhigh 1\nmax 3\noom 2\noom_kill 2\n",
        "memory.stat": "anon 1\nfile 20\nkernel 7\n",
        "cpu.stat": "usage_usec 5\nuser_usec 3\nsystem_usec 2\n"
        "nr_periods 10\nnr_throttled 4\nthrottled_usec 5000\n",
        "pids.current": "2\n",
        "pids.max": "32\n",
        "pids.events": "max 7\n",
        "io.stat": "8:0 rbytes=5 wbytes=6 rios=1 wios=2 dbytes=0 dios=0\n",
        "hugetlb.2MB.max": "max\n",
        "hugetlb.2MB.current": "0\n",
        "cpu.pressure": "some avg10=1.50 avg60=0.00 avg300=0.00 total=12\n",
    }
}


def make(folder: Path, files: dict[str, dict[str, str]]) -> dict[str, str]:
    """Write the files below ``folder``; return the record."""
    for identifier, texts in files.items():
        directory = folder / identifier
        directory.mkdir()
        for name, text in texts.items():
            (directory / name).write_text(text)
    return {identifier: str(folder / identifier) for identifier in files}


def test_v1(tmp_path: Path) -> None:
    cgroups = make(tmp_path, V1_FILES)
    found = stats(cgroups)
    assert found["memory"]["usage"] == {"limit": 67108864, "usage": 4096, "max": 8192, "failcnt": 3}
    assert found["memory"]["swap"]["limit"] == NO_LIMIT
    assert found["memory"]["cache"] == 20
    assert found["cpu"]["usage"] == {
        "total": 123, "percpu": [100, 23], "kernel": 10_000_000, "user": 30_000_000,
    }  # fmt: skip
    assert found["cpu"]["throttling"] == {
        "periods": 10, "throttledPeriods": 4, "throttledTime": 5_000_000,
    }  # fmt: skip
    assert found["pids"] == {"current": 2, "limit": NO_LIMIT}
    assert found["blkio"]["ioServiceBytesRecursive"][1] == {
        "major": 8, "minor": 0, "op": "Write", "value": 6,
    }  # fmt: skip
    assert "hugetlb" not in found
    events = read_events(cgroups)
    assert events["oom_kill"] == 2
    assert events["memory_max"] == 4, "at the limit of memory, and of memory plus swap"
    assert events["pids_max"] == 7
    assert events["throttled_usec"] == 5000


def test_v2(tmp_path: Path) -> None:
    cgroups = make(tmp_path, V2_FILES)
    found = stats(cgroups)
    assert found["memory"]["usage"] == {"limit": NO_LIMIT, "usage": 4096, "max": 8192, "failcnt": 3}
    assert found["memory"]["swap"] == {"limit": NO_LIMIT, "usage": 4096}
    assert found["memory"]["kernel"] == {"usage": 7}
    assert found["cpu"]["usage"] == {"total": 5000, "kernel": 2000, "user": 3000}
    assert found["cpu"]["throttling"]["throttledTime"] == 5_000_000
    assert found["pids"] == {"current": 2, "limit": 32}
    assert found["blkio"]["ioServicedRecursive"][0]["value"] == 1
    assert found["hugetlb"] == {"2MB": {"usage": 0, "limit": NO_LIMIT}}
    assert found["pressure"]["cpu"]["some"]["avg10"] == 1.5
    events = read_events(cgroups)
    assert events == {
        "oom_kill": 2, "oom": 2, "memory_max": 3, "memory_high": 1, "memory_peak": 8192,
        "pids_max": 7, "nr_periods": 10, "nr_throttled": 4, "throttled_usec": 5000,
    }  # fmt: skip


def test_nothing_left() -> None:
    """A record of cgroups that are gone has no figures, and is no error."""
    gone = {"memory": "/nonexistent/a", "unified": "/nonexistent/b"}
    assert read_events(gone) == {}
    assert stats({}) == {}
    assert read_events({}) == {}


@pytest.mark.parametrize(
    ("text", "number"),
    [("max", NO_LIMIT), ("-1", NO_LIMIT), ("9223372036854771712", NO_LIMIT), ("5", 5)],
)
def test_parse_limit(text: str, number: int) -> None:
    assert parse_limit(text) == number


@pytest.mark.parametrize(
    ("file", "old", "new", "back"),
    [
        ("memory.limit_in_bytes", "4096\n", "8192", "4096"),
        ("cpuset.cpus", "\n", "0", "\n"),
        ("io.max", "8:0 rbps=5 wbps=max\n", "8:0 wbps=3", "8:0 rbps=5 wbps=max"),
        ("io.max", "", "8:0 wbps=3", "8:0 rbps=max wbps=max riops=max wiops=max"),
        ("io.weight", "default 100\n8:0 50\n", "default 7", "default 100"),
        ("io.weight", "default 100\n", "8:0 7", "8:0 default"),
        ("io.bfq.weight", "100\n", "7", "100"),
        ("blkio.throttle.read_bps_device", "8:0 5\n8:16 6\n", "8:16 9", "8:16 6"),
        ("blkio.throttle.read_bps_device", "8:0 5\n", "8:16 9", "8:16 0"),
        ("net_prio.ifpriomap", "lo 0\neth0 3\n", "eth0 9", "eth0 3"),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", "1", "0"),
    ],
)
def test_what_takes_a_write_back(file: str, old: str, new: str, back: str) -> None:
    assert restoring_text(file, old, new) == back
