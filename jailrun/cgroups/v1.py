"""The v1 back end of `limits`: which file takes which value.

Sources: Documentation/admin-guide/cgroup-v1/, config-linux.md.  Pure.  Out of scope: devices.
"""

from __future__ import annotations

from jailrun.cgroups.settings import (
    Setting,
    device_line,
    memory_and_swap,
    refuse_kernel_memory,
    unsupported,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from jailrun.cgroups.settings import Target

THROTTLES = (
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device"),
)


def memory(values: Mapping[str, Any], _target: Target) -> list[Setting]:
    """Return the settings of ``memory``: the limit before memory plus swap, which is above it."""
    refuse_kernel_memory(values)
    limit, swap = memory_and_swap(values)
    if values.get("useHierarchy") is False:
        raise unsupported(
            "memory.useHierarchy",
            "false is not possible: since Linux 5.11 a cgroup's children always count to it",
            "leave it out",
        )
    settings = []
    if limit:
        settings.append(Setting("memory", "memory.limit_in_bytes", limit, "memory.limit"))
    if swap:
        # Lifting what was not asked for is no fault where swap is not counted.
        file, optional = "memory.memsw.limit_in_bytes", not values.get("swap")
        settings.append(Setting("memory", file, swap, "memory.swap", optional=optional))
    for key, file in (
        ("reservation", "memory.soft_limit_in_bytes"),
        ("kernelTCP", "memory.kmem.tcp.limit_in_bytes"),
    ):
        if values.get(key):
            settings.append(Setting("memory", file, values[key], f"memory.{key}"))
    if values.get("swappiness") is not None:
        settings.append(
            Setting("memory", "memory.swappiness", values["swappiness"], "memory.swappiness")
        )
    if values.get("disableOOMKiller") is not None:
        disabled = int(values["disableOOMKiller"])
        settings.append(
            Setting("memory", "memory.oom_control", disabled, "memory.disableOOMKiller")
        )
    return settings


def cpu(values: Mapping[str, Any], _target: Target) -> list[Setting]:
    """Return the settings of ``cpu`` but for the sets; periods first, as quotas are within them."""
    settings = []
    for key, file in (
        ("shares", "cpu.shares"),
        ("period", "cpu.cfs_period_us"),
        ("quota", "cpu.cfs_quota_us"),
        ("realtimePeriod", "cpu.rt_period_us"),
        ("realtimeRuntime", "cpu.rt_runtime_us"),
    ):
        if values.get(key):
            value = max(values[key], -1)
            settings.append(Setting("cpu", file, value, f"cpu.{key}"))
    for key, file in (("burst", "cpu.cfs_burst_us"), ("idle", "cpu.idle")):
        if values.get(key) is not None:
            settings.append(Setting("cpu", file, values[key], f"cpu.{key}"))
    return settings


def pids(values: Mapping[str, Any], _target: Target) -> list[Setting]:
    """Return the setting of ``pids``; the same file on v1 and v2."""
    limit = values.get("limit") or 0
    text = str(limit) if limit > 0 else "max"
    return [Setting("pids", "pids.max", text, "pids.limit")] if limit else []


def block_io(values: Mapping[str, Any], target: Target) -> list[Setting]:
    """Return the settings of ``blockIO``; weights are those of the BFQ scheduler where it is."""
    settings = []
    scheduler = "blkio.bfq" if "blkio.bfq.io_service_bytes" in target.features else "blkio"
    if values.get("leafWeight"):
        raise unsupported(
            "blockIO.leafWeight",
            "leaf weights went with the CFQ scheduler, Linux 5.0",
            "leave it out",
        )
    if values.get("weight"):
        settings.append(Setting("blkio", f"{scheduler}.weight", values["weight"], "blockIO.weight"))
    for index, device in enumerate(values.get("weightDevice") or ()):
        path = f"blockIO.weightDevice[{index}]"
        if device.get("leafWeight"):
            raise unsupported(
                f"{path}.leafWeight", "leaf weights went with the CFQ scheduler", "leave it out"
            )
        if device.get("weight"):
            line = f"{device_line(device, path)} {device['weight']}"
            settings.append(Setting("blkio", f"{scheduler}.weight_device", line, path))
    for key, file in THROTTLES:
        for index, device in enumerate(values.get(key) or ()):
            path = f"blockIO.{key}[{index}]"
            line = f"{device_line(device, path)} {device['rate']}"
            settings.append(Setting("blkio", file, line, path))
    return settings


def hugetlb(values: Iterable[Mapping[str, Any]], _target: Target) -> list[Setting]:
    """Return the settings of ``hugepageLimits``: what is used, and what mmap(2) reserves."""
    settings = []
    for index, entry in enumerate(values):
        path, size = f"hugepageLimits[{index}]", entry["pageSize"]
        for kind in ("", "rsvd."):
            file = f"hugetlb.{size}.{kind}limit_in_bytes"
            settings.append(Setting("hugetlb", file, entry["limit"], path, optional=bool(kind)))
    return settings


def network(values: Mapping[str, Any], target: Target) -> list[Setting]:
    """Return the settings of ``network``, which has no counterpart on v2."""
    settings = []
    if values.get("classID") is not None:
        target.version("net_cls", "network.classID")
        settings.append(Setting("net_cls", "net_cls.classid", values["classID"], "network.classID"))
    if values.get("priorities"):
        target.version("net_prio", "network.priorities")
        for index, entry in enumerate(values["priorities"]):
            line = f"{entry['name']} {entry['priority']}"
            path = f"network.priorities[{index}]"
            settings.append(Setting("net_prio", "net_prio.ifpriomap", line, path))
    return settings


def rdma(values: Mapping[str, Mapping[str, Any]], _target: Target) -> list[Setting]:
    """Return the settings of ``rdma``; the same file on v1 and v2."""
    settings = []
    for device, limits in values.items():
        words = [device]
        for key, word in (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object")):
            if limits.get(key) is not None:
                words.append(f"{word}={limits[key]}")
        settings.append(Setting("rdma", "rdma.max", " ".join(words), f"rdma.{device}"))
    return settings


SECTIONS: dict[str, Callable[[Any, Target], list[Setting]]] = {
    "memory": memory,
    "cpu": cpu,
    "pids": pids,
    "blockIO": block_io,
    "hugepageLimits": hugetlb,
    "rdma": rdma,
}
