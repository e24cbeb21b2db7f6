"""The limits of a jail as the kernel has them now, whatever its record says.

Owns: `read_limits`, `can_limit_swap`.  Out of scope: setting them (`jailrun.engine.lifecycle`), and
what is used of them (`jailrun.cgroups.stats`).

v1 is read through cgroupspy's nodes (`jailrun.cgroups.inspect`), v2 from its files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jailrun.cgroups.hierarchy import UNIFIED
from jailrun.cgroups.inspect import read_nodes
from jailrun.cgroups.stats import NO_LIMIT, Reader, parse_limit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jailrun.cgroups.inspect import JailNode

NOTHING: dict[str, Any] = {}


def read_limits(cgroups: Mapping[str, str]) -> dict[str, Any]:
    """Return the limits in force; None is no limit, and what no controller limits is left out.

    ``memory_bytes``, ``memory_and_swap_bytes`` (v1) or ``swap_bytes`` (v2), ``cpus`` (quota by
    period), ``cpu_shares`` (v1) or ``cpu_weight`` (v2), ``cpuset``, ``pids``.
    """
    nodes = read_nodes(cgroups)
    reader = Reader(cgroups)
    found: dict[str, Any] = {}
    readers = {"memory": _memory_v1, "cpu": _cpu_v1, "cpuset": _cpuset_v1, "pids": _pids_v1}
    for controller, read in readers.items():
        if controller in nodes:
            try:
                found |= read(nodes[controller])
            except FileNotFoundError:
                continue  # the jail has ended
    if UNIFIED in cgroups:
        found = {**_read_v2(reader), **found}
    return found


def can_limit_swap(cgroups: Mapping[str, str]) -> bool:
    """Return whether the kernel counts a jail's swap; it does not if booted with swapaccount=0."""
    reader = Reader(cgroups)
    if "memory" in reader.v1:
        return reader.number("memory", "memory.memsw.limit_in_bytes") is not None
    return reader.number("memory", "memory.swap.max") is not None


def _none_if_unlimited(number: int) -> int | None:
    limit = parse_limit(str(number))
    return None if limit == NO_LIMIT else limit


def _memory_v1(node: JailNode) -> dict[str, Any]:
    found = {"memory_bytes": _none_if_unlimited(node.controller.limit_in_bytes)}
    try:
        found["memory_and_swap_bytes"] = _none_if_unlimited(node.controller.memsw_limit_in_bytes)
    except FileNotFoundError:  # booted with swapaccount=0
        return found
    return found


def _cpu_v1(node: JailNode) -> dict[str, Any]:
    quota = node.controller.cfs_quota_us  # cgroupspy has None for -1, which is no quota
    cpus = quota / node.controller.cfs_period_us if quota else None
    return {"cpus": cpus, "cpu_shares": node.controller.shares}


def _cpuset_v1(node: JailNode) -> dict[str, Any]:
    return {"cpuset": sorted(node.controller.cpus)}


def _pids_v1(node: JailNode) -> dict[str, Any]:
    return {"pids": node.controller.max}


def _read_v2(reader: Reader) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, controller, file in (
        ("memory_bytes", "memory", "memory.max"),
        ("swap_bytes", "memory", "memory.swap.max"),
        ("pids", "pids", "pids.max"),
    ):
        text = reader.text(controller, file, version=2)
        if text is not None:
            found[key] = _none_if_unlimited(parse_limit(text.strip()))
    cpu = reader.text("cpu", "cpu.max", version=2)
    if cpu is not None:
        quota, period = cpu.split()
        found["cpus"] = None if quota == "max" else int(quota) / int(period)
    weight = reader.text("cpu", "cpu.weight", version=2)
    if weight is not None:
        found["cpu_weight"] = int(weight)
    cpuset = reader.text("cpuset", "cpuset.cpus.effective", version=2)
    if cpuset is not None:
        found["cpuset"] = cpuset.strip()
    return found
