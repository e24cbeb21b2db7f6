"""What the compiler and the checks must know of the host, as plain data.

Owns: `HostFacts`, `DeviceNode`, and the two functions that read them.  Everything else in
`jailrun.spec` is pure and gets these as arguments.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


class HostFacts:
    """What decides whether this host can honour a request; None is "not known, do not refuse"."""

    __slots__ = ("apparmor", "cpu_numbers", "memory_bytes", "rlimits", "selinux")

    def __init__(
        self,
        *,
        cpu_numbers: Collection[int],
        memory_bytes: int,
        rlimits: Mapping[str, int] | None = None,
        apparmor: bool = False,
        selinux: bool = False,
    ) -> None:
        self.cpu_numbers = cpu_numbers  # the CPUs that the caller may use
        self.memory_bytes = memory_bytes
        self.rlimits = rlimits  # hard limits that the caller cannot raise, by OCI type
        self.apparmor = apparmor
        self.selinux = selinux

    @property
    def cpus(self) -> int:
        """Return how many CPUs a jail here can use."""
        return len(self.cpu_numbers)


class DeviceNode:
    """What stat(2) says of a device."""

    __slots__ = ("kind", "major", "minor", "mode")

    def __init__(self, kind: str, major: int, minor: int, mode: int = 0o666) -> None:
        self.kind = kind  # "c" or "b"
        self.major = major
        self.minor = minor
        self.mode = mode


def read_host_facts(*, rlimits: Mapping[str, int] | None = None) -> HostFacts:
    """Read the facts of this host, as the calling process sees them."""
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return HostFacts(
        cpu_numbers=os.sched_getaffinity(0),
        memory_bytes=memory_bytes,
        rlimits=rlimits,
        apparmor=os.access("/sys/kernel/security/apparmor", os.F_OK),
        selinux=os.access("/sys/fs/selinux/enforce", os.F_OK),
    )


def read_device(path: str) -> DeviceNode | None:
    """Return the device that ``path`` on the host is, None where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    if stat.S_ISCHR(status.st_mode):
        kind = "c"
    elif stat.S_ISBLK(status.st_mode):
        kind = "b"
    else:
        return None
    return DeviceNode(
        kind,
        os.major(status.st_rdev),
        os.minor(status.st_rdev),
        stat.S_IMODE(status.st_mode),
    )
