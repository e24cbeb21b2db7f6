"""The v2 back end of `limits`: which file takes which value, and the conversions from v1's units.

Sources: Documentation/admin-guide/cgroup-v2.rst, config-linux.md.  Pure.  Out of scope: devices.
"""

from __future__ import annotations

from jailrun.cgroups.settings import (
    PATH,
    Setting,
    device_line,
    memory_and_swap,
    refuse_kernel_memory,
    unsupported,
)
from jailrun.cgroups.v1 import pids, rdma
from jailrun.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from jailrun.cgroups.settings import Target

V1_ONLY = "cgroup v2 has no such setting"
THROTTLES = (
    ("throttleReadBpsDevice", "rbps"),
    ("throttleWriteBpsDevice", "wbps"),
    ("throttleReadIOPSDevice", "riops"),
    ("throttleWriteIOPSDevice", "wiops"),
)
# What is not a limit but acts on processes or on the tree.
CORE_LIMITS = ("cgroup.max.depth", "cgroup.max.descendants", "cgroup.pressure")


def weight_from_shares(shares: int) -> int:
    """Return cpu.weight (1 to 10000) for v1's cpu.shares (2 to 262144).

    The curve that runc (1.4) and crun (1.23) use: 2 → 1, 1024 → 100, 262144 → 10000, quadratic
    between the logarithms, so that the default of the one is the default of the other.  (The
    straight line used before gave 39 for 1024.)  This converter rounds up.
    """
    from math import ceil, log2

    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    x = log2(shares)
    return ceil(10 ** ((x * x + 125 * x) / 612 - 7 / 34))


def io_weight(weight: int) -> int:
    """Return io.weight (1 to 10000) for OCI's weight (10 to 1000), a straight line as runc's."""
    return 1 + (max(weight, 10) - 10) * 9999 // 990


def _bytes(value: int) -> str:
    return "max" if value < 0 else str(value)


def memory(values: Mapping[str, Any], target: Target) -> list[Setting]:
    """Return the settings of ``memory``; OCI's swap is memory plus swap, v2's is swap alone."""
    refuse_kernel_memory(values)
    limit, swap = memory_and_swap(values)
    for key, hint in (
        ("kernelTCP", "leave it out: memory.limit counts socket buffers too"),
        ("swappiness", "leave it out, or set vm.swappiness on the host"),
    ):
        if values.get(key) is not None and values[key] != -1:
            raise unsupported(f"memory.{key}", V1_ONLY, hint)
    if values.get("disableOOMKiller"):
        raise unsupported(
            "memory.disableOOMKiller", V1_ONLY, 'leave it out, or use unified {"memory.high": …}'
        )
    if values.get("useHierarchy") is False:
        raise unsupported("memory.useHierarchy", "on cgroup v2 it is always true", "leave it out")
    settings = []
    if limit:
        settings.append(Setting("memory", "memory.max", _bytes(limit), "memory.limit"))
    if swap > 0 and not limit:
        present = target.present("memory", "memory.max", "max")
        if present == "max":
            raise SpecError(f"{PATH}.memory.swap", "needs memory.limit, which it includes")
        limit = int(present)
        if swap < limit:
            raise SpecError(f"{PATH}.memory.swap", f"{swap} is below the present limit {limit}")
    if swap:
        only = swap if swap < 0 else swap - limit
        # Lifting what was not asked for is no fault where swap is not counted.
        file, optional = "memory.swap.max", not values.get("swap")
        settings.append(Setting("memory", file, _bytes(only), "memory.swap", optional=optional))
    if values.get("reservation"):
        low = _bytes(values["reservation"])
        settings.append(Setting("memory", "memory.low", low, "memory.reservation"))
    return settings


def cpu(values: Mapping[str, Any], target: Target) -> list[Setting]:
    """Return the settings of ``cpu`` but for the sets."""
    settings = []
    for key in ("realtimeRuntime", "realtimePeriod"):
        if values.get(key):
            raise unsupported(
                f"cpu.{key}", V1_ONLY, "boot with systemd.unified_cgroup_hierarchy=0 for v1"
            )
    if values.get("shares"):
        weight = weight_from_shares(values["shares"])
        settings.append(Setting("cpu", "cpu.weight", weight, "cpu.shares"))
    quota, period = values.get("quota") or 0, values.get("period") or 0
    if quota or period:
        old_quota, old_period = target.present("cpu", "cpu.max", "max 100000").split()
        text = old_quota if not quota else "max" if quota < 0 else str(quota)
        path = "cpu.quota" if quota else "cpu.period"
        settings.append(Setting("cpu", "cpu.max", f"{text} {period or old_period}", path))
    for key, file in (("burst", "cpu.max.burst"), ("idle", "cpu.idle")):
        if values.get(key) is not None:
            settings.append(Setting("cpu", file, values[key], f"cpu.{key}"))
    return settings


def block_io(values: Mapping[str, Any], target: Target) -> list[Setting]:
    """Return the settings of ``blockIO``.

    io.weight (by the io.cost model) and io.bfq.weight (by the BFQ scheduler) are both set, as
    which of them acts is up to each disk; the second alone where this kernel lacks the first.
    """
    settings = []
    if values.get("leafWeight"):
        raise unsupported("blockIO.leafWeight", V1_ONLY, "leave it out")
    has_cost = "io.cost.qos" in target.features
    weights = [("default", values["weight"], "blockIO.weight")] if values.get("weight") else []
    for index, device in enumerate(values.get("weightDevice") or ()):
        path = f"blockIO.weightDevice[{index}]"
        if device.get("leafWeight"):
            raise unsupported(f"{path}.leafWeight", V1_ONLY, "leave it out")
        if device.get("weight"):
            which = device_line(device, path)
            weights.append((which, device["weight"], path))
    for which, weight, path in weights:
        if has_cost:
            settings.append(Setting("io", "io.weight", f"{which} {io_weight(weight)}", path))
        settings.append(
            Setting("io", "io.bfq.weight", f"{which} {weight}", path, optional=has_cost)
        )
    rates: dict[str, list[str]] = {}
    paths: dict[str, str] = {}
    for key, word in THROTTLES:
        for index, device in enumerate(values.get(key) or ()):
            path = f"blockIO.{key}[{index}]"
            which = device_line(device, path)
            # OCI: 0 is no limit, as in v1's files.
            rates.setdefault(which, []).append(f"{word}={device['rate'] or 'max'}")
            paths.setdefault(which, path)
    settings += [
        Setting("io", "io.max", f"{which} {' '.join(words)}", paths[which])
        for which, words in rates.items()
    ]
    return settings


def hugetlb(values: Iterable[Mapping[str, Any]], _target: Target) -> list[Setting]:
    """Return the settings of ``hugepageLimits``: what is used, and what mmap(2) reserves."""
    settings = []
    for index, entry in enumerate(values):
        path, size = f"hugepageLimits[{index}]", entry["pageSize"]
        for kind in ("", "rsvd."):
            file = f"hugetlb.{size}.{kind}max"
            settings.append(Setting("hugetlb", file, entry["limit"], path, optional=bool(kind)))
    return settings


def unified(values: Mapping[str, str], target: Target) -> list[Setting]:
    """Return the settings of ``unified``: v2 files by name, of controllers on v2."""
    settings = []
    hierarchies = target.hierarchies
    for file, text in values.items():
        path = f'unified["{file}"]'
        controller, dot, _rest = file.partition(".")
        if "/" in file or not dot or not _rest:
            raise SpecError(f"{PATH}.{path}", "is not the name of a cgroup v2 file")
        if hierarchies.unified is None:
            raise unsupported(path, "this host has cgroup v1 only", "give the OCI limit instead")
        if controller == "cgroup":
            if file not in CORE_LIMITS:
                valid = ", ".join(CORE_LIMITS)
                raise SpecError(f"{PATH}.{path}", f"is not a limit; of cgroup.* only {valid}")
        else:
            _check_side(controller, path, target)
        settings.append(Setting(controller, file, text, path))
    return settings


def _check_side(controller: str, path: str, target: Target) -> None:
    """Raise where ``controller`` is on v1, saying where it lives."""
    other = target.hierarchies.of("blkio" if controller == "io" else controller)
    if other and other.version == 1:
        raise unsupported(
            path,
            f"the {controller} controller is on cgroup v1 here, at {other.mount}",
            "give the OCI limit instead, or boot with systemd.unified_cgroup_hierarchy=1",
        )
    target.version(controller, path)


SECTIONS: dict[str, Callable[[Any, Target], list[Setting]]] = {
    "memory": memory,
    "cpu": cpu,
    "pids": pids,
    "blockIO": block_io,
    "hugepageLimits": hugetlb,
    "rdma": rdma,
}
