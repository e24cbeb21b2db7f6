"""One limit as a write, and what both back ends of `limits` share.

Owns: `Setting`, `Target`, and the checks that are the same on v1 and v2.  Pure.  Out of scope:
which value goes where (`v1`, `v2`), writing it (`plan`, `live`).
"""

from __future__ import annotations

from jailrun.errors import SpecError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from jailrun.cgroups.hierarchy import Hierarchies

PATH = "linux.resources"
# How the controller is had where it is missing: the kernel's configuration, and the boot option.
KERNEL_OPTIONS = {
    "memory": "CONFIG_MEMCG, and cgroup_enable=memory on the kernel command line",
    "cpu": "CONFIG_CGROUP_SCHED",
    "cpuset": "CONFIG_CPUSETS",
    "pids": "CONFIG_CGROUP_PIDS",
    "blkio": "CONFIG_BLK_CGROUP",
    "io": "CONFIG_BLK_CGROUP",
    "hugetlb": "CONFIG_CGROUP_HUGETLB",
    "net_cls": "CONFIG_CGROUP_NET_CLASSID and a v1 mount: mount -t cgroup -o net_cls none DIR",
    "net_prio": "CONFIG_CGROUP_NET_PRIO and a v1 mount: mount -t cgroup -o net_prio none DIR",
    "rdma": "CONFIG_CGROUP_RDMA",
    "devices": "CONFIG_CGROUP_DEVICE",
    "misc": "CONFIG_CGROUP_MISC",
}


class Setting:
    """One write: ``data`` into ``file`` in the jail's cgroup on the hierarchy of ``controller``.

    ``path`` is the JSON path that asked for it.  ``optional``: no fault if there is no such file.
    """

    __slots__ = ("controller", "data", "file", "optional", "path")

    def __init__(
        self, controller: str, file: str, data: object, path: str, *, optional: bool = False
    ) -> None:
        self.controller = controller
        self.file = file
        self.data = str(data)
        self.path = f"{PATH}.{path}"
        self.optional = optional

    def __repr__(self) -> str:
        return f"<{self.controller} {self.file}={self.data!r}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Setting) and (self.file, self.data) == (other.file, other.data)

    __hash__ = None  # type: ignore[assignment]


class Target:
    """What the settings are for: a host, its features, and the jail's present values.

    ``features``: files found in the root of the block I/O controller (`plan.read_facts`).
    ``read``: returns the present text of a file of a controller; None for a jail yet to be made.
    """

    __slots__ = ("features", "hierarchies", "read")

    def __init__(
        self,
        hierarchies: Hierarchies,
        features: frozenset[str] = frozenset(),
        read: Callable[[str, str], str] | None = None,
    ) -> None:
        self.hierarchies = hierarchies
        self.features = features
        self.read = read

    def present(self, controller: str, file: str, default: str) -> str:
        """Return the present text of a file, ``default`` for a jail yet to be made."""
        return self.read(controller, file).strip() if self.read else default

    def version(self, controller: str, path: str) -> int:
        """Return 1 or 2; raise `UnsupportedError` where this host lacks ``controller``."""
        version = self.hierarchies.version(controller)
        if not version:
            options = KERNEL_OPTIONS.get(controller, f"the {controller} controller")
            raise UnsupportedError(
                f"{PATH}.{path}: this host has no {controller} cgroup controller",
                hint=f"the kernel needs {options}; `jailrun check` shows what there is",
            )
        return version


def unsupported(path: str, why: str, hint: str) -> UnsupportedError:
    """Return the error for a value that this host has no way to enforce."""
    return UnsupportedError(f"{PATH}.{path}: {why}", hint=hint)


def memory_and_swap(memory: Mapping[str, Any]) -> tuple[int, int]:
    """Return (limit, limit of memory plus swap), checked against each other; 0 is not given."""
    limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
    if limit < 0 and not swap:
        swap = -1  # else the kernel refuses memory without a limit below a limit on both
    if 0 < swap < limit:
        raise SpecError(
            f"{PATH}.memory.swap",
            f"{swap} is memory plus swap and must not be below memory.limit {limit}",
            hint=f"for no swap give {limit}, for any amount -1",
        )
    return limit, swap


def refuse_kernel_memory(memory: Mapping[str, Any]) -> None:
    """Raise for ``memory.kernel``, which no kernel since Linux 5.16 enforces."""
    if (memory.get("kernel") or 0) > 0:
        raise unsupported(
            "memory.kernel",
            "a limit on kernel memory alone is not enforced since Linux 5.16 and on cgroup v2",
            "leave it out: memory.limit counts kernel memory too",
        )


def device_line(device: Mapping[str, Any], path: str) -> str:
    """Return ``major:minor`` of a block device entry."""
    try:
        return f"{device['major']:d}:{device['minor']:d}"
    except KeyError as error:
        raise SpecError(f"{PATH}.{path}", f"{error.args[0]} is missing") from None
