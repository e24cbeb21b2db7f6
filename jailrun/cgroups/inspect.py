"""The v1 cgroups of a jail as cgroupspy's nodes: every file of a controller as an attribute.

Owns: making the nodes from a record, and what cgroupspy lacks, in the same shape: the pids,
freezer and hugetlb controllers, and the block I/O files that it has not or names with a blank at
the end.  For inspection, on the floors that need not be lean.  Out of scope: v2 (`stats` reads
it), and anything on the way of a start: importing this costs 10 to 17 ms, because cgroupspy
imports logging, while a whole start makes, fills and joins six hierarchies in 1 ms.

    node = read_nodes(record)["memory"]
    node.controller.limit_in_bytes          # 67108864
    node.controller.list_interfaces()       # every file it knows
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cgroupspy.contenttypes import DeviceThrottle
from cgroupspy.controllers import BlkIOController, Controller
from cgroupspy.interfaces import (
    BaseFileInterface,
    DictFile,
    FlagFile,
    IntegerFile,
    TypedFile,
)
from cgroupspy.nodes import Node

from jailrun.cgroups.hierarchy import UNIFIED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class LimitFile(BaseFileInterface):  # type: ignore[misc]
    """A number, or "max", which is None."""

    def sanitize_get(self, value: str) -> int | None:
        """Return the number."""
        return None if value == "max" else int(value)

    def sanitize_set(self, value: int | None) -> str:
        """Return what to write."""
        return "max" if value is None else str(value)


class PidsController(Controller):  # type: ignore[misc]
    """The pids controller."""

    current = IntegerFile("pids.current", readonly=True)
    peak = IntegerFile("pids.peak", readonly=True)  # Linux 6.6
    events = DictFile("pids.events", readonly=True)
    max = LimitFile("pids.max")


class FreezerController(Controller):  # type: ignore[misc]
    """The freezer; to freeze and wait for it use `control.freeze`."""

    state = BaseFileInterface("freezer.state")
    self_freezing = FlagFile("freezer.self_freezing", readonly=True)
    parent_freezing = FlagFile("freezer.parent_freezing", readonly=True)


class HugetlbController(Controller):  # type: ignore[misc]
    """The hugetlb controller, with the page sizes of x86-64."""

    limit_2mb = IntegerFile("hugetlb.2MB.limit_in_bytes")
    usage_2mb = IntegerFile("hugetlb.2MB.usage_in_bytes", readonly=True)
    limit_1gb = IntegerFile("hugetlb.1GB.limit_in_bytes")
    usage_1gb = IntegerFile("hugetlb.1GB.usage_in_bytes", readonly=True)


class DiskController(BlkIOController):  # type: ignore[misc]
    """blkio, with the write throttles under the names that the kernel has, and BFQ's weight."""

    throttle_write_bps_device = TypedFile(
        "blkio.throttle.write_bps_device", contenttype=DeviceThrottle, many=True
    )
    throttle_write_iops_device = TypedFile(
        "blkio.throttle.write_iops_device", contenttype=DeviceThrottle, many=True
    )
    bfq_weight = IntegerFile("blkio.bfq.weight")


# list_interfaces looks at the class alone, not at those it inherits from.
for _name, _interface in vars(BlkIOController).items():
    if isinstance(_interface, BaseFileInterface) and _name not in vars(DiskController):
        setattr(DiskController, _name, _interface)

CONTROLLERS = {name.decode(): kind for name, kind in Node.CONTROLLERS.items()} | {
    "blkio": DiskController,
    "freezer": FreezerController,
    "hugetlb": HugetlbController,
    "pids": PidsController,
}


class JailNode(Node):  # type: ignore[misc]
    """One cgroup of a jail with one of its controllers; ``node.controller.<file>``."""

    def __init__(self, path: str, controller: str) -> None:
        self._kind = CONTROLLERS[controller]
        self._name = controller
        super().__init__(path)

    def _get_controller_type(self) -> bytes:
        return self._name.encode()

    def _get_controller(self) -> Any:
        return self._kind(self)


def read_nodes(cgroups: Mapping[str, str]) -> dict[str, JailNode]:
    """Return controller → node for the v1 cgroups of a record; the tree is not walked."""
    return {
        controller: JailNode(path, controller)
        for identifier, path in cgroups.items()
        if identifier != UNIFIED
        for controller in identifier.split(",")
        if controller in CONTROLLERS
    }
