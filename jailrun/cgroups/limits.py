"""OCI ``linux.resources`` as settings: this text into that file of that controller.

Owns: which section belongs to which controller, and the choice of back end (`v1`, `v2`),
controller by controller.  Pure.  Out of scope: writing them (`plan`, `live`), the device
list (`devices`), what a value may be (`jailrun.spec`).

As other runtimes do, and as engines rely on: 0 for a memory, swap, CPU or pids limit means "not
given"; a negative one means "no limit".
"""

from __future__ import annotations

from jailrun.cgroups import v1, v2
from jailrun.cgroups.settings import Setting, Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

CPUSET = ("cpus", "mems")


def limited_controllers(resources: Mapping[str, Any]) -> set[str]:
    """Return the controllers, under their v1 and v2 names, that ``resources`` has values for."""
    found: set[str] = set()
    for section, controllers in (
        ("memory", ("memory",)),
        ("pids", ("pids",)),
        ("blockIO", ("blkio", "io")),
        ("hugepageLimits", ("hugetlb",)),
        ("rdma", ("rdma",)),
    ):
        if resources.get(section):
            found.update(controllers)
    cpu = resources.get("cpu") or {}
    if any(cpu.get(key) for key in CPUSET):
        found.add("cpuset")
    if any(key not in CPUSET for key in cpu):
        found.add("cpu")
    network = resources.get("network") or {}
    if network.get("classID") is not None:
        found.add("net_cls")
    if network.get("priorities"):
        found.add("net_prio")
    found.update(file.partition(".")[0] for file in resources.get("unified") or {})
    found.discard("cgroup")
    return found


def plan_settings(resources: Mapping[str, Any], target: Target) -> list[Setting]:
    """Return the writes for ``resources``, in an order that suits a new cgroup."""
    settings: list[Setting] = []
    back_ends = {1: v1.SECTIONS, 2: v2.SECTIONS}
    for section, controller in (
        ("memory", "memory"),
        ("pids", "pids"),
        ("hugepageLimits", "hugetlb"),
        ("rdma", "rdma"),
    ):
        if values := resources.get(section):
            version = target.version(controller, section)
            settings += back_ends[version][section](values, target)
    if cpu := resources.get("cpu"):
        if any(key not in CPUSET for key in cpu):
            settings += back_ends[target.version("cpu", "cpu")]["cpu"](cpu, target)
        if any(cpu.get(key) for key in CPUSET):
            target.version("cpuset", "cpu.cpus" if cpu.get("cpus") else "cpu.mems")
            for key in CPUSET:
                if cpu.get(key):
                    settings.append(Setting("cpuset", f"cpuset.{key}", cpu[key], f"cpu.{key}"))
    if block := resources.get("blockIO"):
        version = 1 if target.hierarchies.of("blkio") else target.version("io", "blockIO")
        settings += back_ends[version]["blockIO"](block, target)
    if network := resources.get("network"):
        settings += v1.network(network, target)
    if unified := resources.get("unified"):
        settings += v2.unified(unified, target)
    return settings
