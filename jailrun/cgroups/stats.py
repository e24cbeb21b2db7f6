"""What a jail uses, and which limits it ran into, read from its cgroups.

Owns: `stats`, in the shape of ``runc events --stats``, and `read_events`, which is to be called
before the cgroups are removed and says afterwards why a jail ended.  What a controller that the
jail is not in would say is left out, never 0.  Out of scope: rates, and the host's own figures.
"""

from __future__ import annotations

from jailrun.cgroups.hierarchy import UNIFIED, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

NSEC_PER_USEC = 1000
NO_LIMIT = 2**64 - 1  # as runc writes "none"
V1_NO_LIMIT = 2**63 - 4096 * 16  # v1 writes the largest multiple of a page below 2^63
TICK_NSEC = 10_000_000  # cpuacct.stat is in USER_HZ, which is 100 on every architecture we run on


class Reader:
    """The files of a jail's cgroups, found by controller; nothing there reads as None."""

    def __init__(self, cgroups: Mapping[str, str]) -> None:
        self.unified = cgroups.get(UNIFIED, "")
        self.v1 = {
            controller: path
            for identifier, path in cgroups.items()
            if identifier != UNIFIED
            for controller in identifier.split(",")
        }

    def text(self, controller: str, file: str, *, version: int = 0) -> str | None:
        """Return the text of a file, None if the jail has no such file."""
        path = self.v1.get(controller, self.unified)
        if version == 2:
            path = self.unified
        if not path:
            return None
        try:
            return read_text(f"{path}/{file}")
        except OSError:
            return None

    def number(self, controller: str, file: str) -> int | None:
        """Return the number in a file; `NO_LIMIT` for "max" and v1's equivalent."""
        text = self.text(controller, file)
        if text is None:
            return None
        return parse_limit(text.strip())

    def table(self, controller: str, file: str, *, version: int = 0) -> dict[str, int]:
        """Return a file of lines ``key number`` as a dict, empty if there is none."""
        return parse_table(self.text(controller, file, version=version) or "")


def parse_limit(text: str) -> int:
    """Return a limit as a number."""
    if text in ("max", "-1"):
        return NO_LIMIT
    number = int(text)
    return NO_LIMIT if number >= V1_NO_LIMIT else number


def parse_table(text: str) -> dict[str, int]:
    """Return lines of ``key number`` as a dict."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}


def _known(**values: int | None) -> dict[str, int]:
    return {key: value for key, value in values.items() if value is not None}


def read_events(cgroups: Mapping[str, str]) -> dict[str, int]:
    """Return how often each limit was hit, and the peaks; a key is there if the host counts it.

    oom_kill (processes killed), oom and memory_max (times at the limit; on v1 that of memory or
    that of memory plus swap, and always 0 on Linux 6.18: there a peak at the limit tells it),
    memory_peak and swap_peak (bytes), pids_max (forks refused),
    pids_peak, nr_periods, nr_throttled, throttled_usec.
    """
    reader = Reader(cgroups)
    events: dict[str, int] = {}
    if "memory" in reader.v1:
        control = reader.table("memory", "memory.oom_control")
        # Where memory plus swap is no more than memory, that counter is the one that counts.
        limits = (reader.number("memory", f"{one}.failcnt") for one in ("memory", "memory.memsw"))
        hits = [count for count in limits if count is not None]
        events |= _known(
            oom_kill=control.get("oom_kill"),
            memory_max=sum(hits) if hits else None,
            memory_peak=reader.number("memory", "memory.max_usage_in_bytes"),
            memory_and_swap_peak=reader.number("memory", "memory.memsw.max_usage_in_bytes"),
        )
    else:
        table = reader.table("memory", "memory.events")
        events |= _known(
            oom_kill=table.get("oom_kill"),
            oom=table.get("oom"),
            memory_max=table.get("max"),
            memory_high=table.get("high"),
            memory_peak=reader.number("memory", "memory.peak"),
            swap_max=reader.table("memory", "memory.swap.events").get("max"),
            swap_peak=reader.number("memory", "memory.swap.peak"),
        )
    events |= _known(
        pids_max=reader.table("pids", "pids.events").get("max"),
        pids_peak=reader.number("pids", "pids.peak"),
    )
    throttling = _throttling(reader)
    if "throttledTime" in throttling:
        events["nr_periods"] = throttling["periods"]
        events["nr_throttled"] = throttling["throttledPeriods"]
        events["throttled_usec"] = throttling["throttledTime"] // NSEC_PER_USEC
    return events


def stats(cgroups: Mapping[str, str]) -> dict[str, Any]:
    """Return what the jail uses now: cpu in ns, memory in bytes, pids, blkio, hugetlb."""
    reader = Reader(cgroups)
    found = {
        "cpu": _cpu(reader),
        "memory": _memory_v1(reader) if "memory" in reader.v1 else _memory_v2(reader),
        "pids": _known(
            current=reader.number("pids", "pids.current"),
            limit=reader.number("pids", "pids.max"),
        ),
        "blkio": _blkio_v1(reader) if "blkio" in reader.v1 else _blkio_v2(reader),
        "hugetlb": _hugetlb(reader),
        "pressure": _pressure(reader),
    }
    return {key: value for key, value in found.items() if value}


def _throttling(reader: Reader) -> dict[str, int]:
    table = reader.table("cpu", "cpu.stat")
    if "nr_throttled" not in table:
        return {}
    nsec = table.get("throttled_time", table.get("throttled_usec", 0) * NSEC_PER_USEC)
    return {
        "periods": table["nr_periods"],
        "throttledPeriods": table["nr_throttled"],
        "throttledTime": nsec,
    }


def _cpu(reader: Reader) -> dict[str, Any]:
    usage: dict[str, Any] = {}
    if "cpuacct" in reader.v1:
        usage |= _known(total=reader.number("cpuacct", "cpuacct.usage"))
        percpu = reader.text("cpuacct", "cpuacct.usage_percpu")
        if percpu:
            usage["percpu"] = [int(word) for word in percpu.split()]
        ticks = reader.table("cpuacct", "cpuacct.stat")
        for key, name in (("system", "kernel"), ("user", "user")):
            if key in ticks:
                usage[name] = ticks[key] * TICK_NSEC
    else:  # also where the cpu controller is on v1: cpu.stat counts on every v2 cgroup
        table = reader.table("cpu", "cpu.stat", version=2)
        for key, name in (
            ("usage_usec", "total"),
            ("system_usec", "kernel"),
            ("user_usec", "user"),
        ):
            if key in table:
                usage[name] = table[key] * NSEC_PER_USEC
    found = {"usage": usage, "throttling": _throttling(reader)}
    return {key: value for key, value in found.items() if value}


def _memory_v1(reader: Reader) -> dict[str, Any]:
    raw = reader.table("memory", "memory.stat")
    found: dict[str, Any] = {"cache": raw.get("total_cache", raw.get("cache", 0))}
    for name, prefix in (
        ("usage", "memory"),
        ("swap", "memory.memsw"),
        ("kernel", "memory.kmem"),
        ("kernelTCP", "memory.kmem.tcp"),
    ):
        entry = _known(
            limit=reader.number("memory", f"{prefix}.limit_in_bytes"),
            usage=reader.number("memory", f"{prefix}.usage_in_bytes"),
            max=reader.number("memory", f"{prefix}.max_usage_in_bytes"),
            failcnt=reader.number("memory", f"{prefix}.failcnt"),
        )
        if entry:
            found[name] = entry
    found["raw"] = raw
    return found


def _memory_v2(reader: Reader) -> dict[str, Any]:
    raw = reader.table("memory", "memory.stat")
    if not raw:
        return {}
    found: dict[str, Any] = {"cache": raw.get("file", 0)}
    usage = _known(
        limit=reader.number("memory", "memory.max"),
        usage=reader.number("memory", "memory.current"),
        max=reader.number("memory", "memory.peak"),
        failcnt=reader.table("memory", "memory.events").get("max"),
    )
    found["usage"] = usage
    limit = reader.number("memory", "memory.swap.max")
    swapped = reader.number("memory", "memory.swap.current")
    if limit is not None and swapped is not None:
        both = min(limit + usage.get("limit", NO_LIMIT), NO_LIMIT)
        # As on v1, and in OCI: memory and swap together.
        found["swap"] = {"limit": both, "usage": swapped + usage.get("usage", 0)}
    if "kernel" in raw:
        found["kernel"] = {"usage": raw["kernel"]}
    found["raw"] = raw
    return found


def _blkio_v1(reader: Reader) -> dict[str, Any]:
    found = {}
    for name, file in (
        ("ioServiceBytesRecursive", "blkio.throttle.io_service_bytes_recursive"),
        ("ioServicedRecursive", "blkio.throttle.io_serviced_recursive"),
    ):
        found[name] = parse_blkio(reader.text("blkio", file) or "")
    return {key: value for key, value in found.items() if value}


def parse_blkio(text: str) -> list[dict[str, Any]]:
    """Return v1's lines ``major:minor operation value``."""
    entries = []
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3:
            major, minor = words[0].split(":")
            entries.append(_entry(major, minor, words[1], words[2]))
    return entries


def _entry(major: str, minor: str, operation: str, value: str) -> dict[str, Any]:
    return {"major": int(major), "minor": int(minor), "op": operation, "value": int(value)}


def _blkio_v2(reader: Reader) -> dict[str, Any]:
    found: dict[str, list[dict[str, Any]]] = {}
    names = {
        "rbytes": ("ioServiceBytesRecursive", "Read"),
        "wbytes": ("ioServiceBytesRecursive", "Write"),
        "rios": ("ioServicedRecursive", "Read"),
        "wios": ("ioServicedRecursive", "Write"),
    }
    for line in (reader.text("io", "io.stat") or "").splitlines():
        device, *words = line.split()
        major, _, minor = device.partition(":")
        for key, _, value in (word.partition("=") for word in words):
            if key in names and minor:
                name, operation = names[key]
                found.setdefault(name, []).append(_entry(major, minor, operation, value))
    return found


def _hugetlb(reader: Reader) -> dict[str, dict[str, int]]:
    from os import listdir

    directory = reader.v1.get("hugetlb", reader.unified)
    try:
        files = listdir(directory) if directory else []
    except OSError:
        files = []
    found = {}
    for file in files:
        if file.startswith("hugetlb.") and file.count(".") == 2:
            size = file.split(".")[1]
            if file.endswith(".max"):
                found[size] = _known(
                    usage=reader.number("hugetlb", f"hugetlb.{size}.current"),
                    limit=reader.number("hugetlb", file),
                    failcnt=reader.table("hugetlb", f"hugetlb.{size}.events").get("max"),
                )
            elif file.endswith(".limit_in_bytes"):
                found[size] = _known(
                    usage=reader.number("hugetlb", f"hugetlb.{size}.usage_in_bytes"),
                    limit=reader.number("hugetlb", file),
                    max=reader.number("hugetlb", f"hugetlb.{size}.max_usage_in_bytes"),
                    failcnt=reader.number("hugetlb", f"hugetlb.{size}.failcnt"),
                )
    return found


def _pressure(reader: Reader) -> dict[str, dict[str, dict[str, float]]]:
    """Return the stall figures of v2 (PSI), in per cent of 10, 60 and 300 s, and in µs."""
    found = {}
    for resource in ("cpu", "io", "memory"):
        text = reader.text("", f"{resource}.pressure", version=2)
        if text:
            found[resource] = {
                line.split()[0]: {
                    key: float(value)
                    for key, _, value in (word.partition("=") for word in line.split()[1:])
                }
                for line in text.splitlines()
            }
    return found
