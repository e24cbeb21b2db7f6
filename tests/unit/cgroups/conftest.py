"""Hosts of each kind, as the texts that their kernels show."""

from __future__ import annotations

import pytest

from jailrun.cgroups.hierarchy import Hierarchies, parse_hierarchies

V1_CONTROLLERS = (
    "cpu,cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "hugetlb",
)
V2_CONTROLLERS = "cpuset cpu io memory hugetlb pids rdma misc"
TMPFS = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"


def mount_line(number: int, point: str, fstype: str, options: str, root: str = "/") -> str:
    return f"{number} 31 0:{number} {root} {point} rw,relatime - {fstype} {fstype} rw,{options}\n"


def make_v1(
    controllers: tuple[str, ...] = V1_CONTROLLERS, unified: str | None = None
) -> Hierarchies:
    """Return a v1 host, or with ``unified`` a hybrid one with these controllers on v2."""
    mounts, own = TMPFS, ""
    for number, names in enumerate(controllers, 40):
        point = f"/sys/fs/cgroup/{names}"
        mounts += mount_line(number, point, "cgroup", names)
        own += f"{number}:{names}:/user.slice\n"
    mounts += mount_line(60, "/sys/fs/cgroup/systemd", "cgroup", "xattr,name=systemd")
    own += "60:name=systemd:/user.slice\n"
    if unified is not None:
        mounts += mount_line(61, "/sys/fs/cgroup/unified", "cgroup2", "nsdelegate")
        own += "0::/user.slice\n"
    files = {"/sys/fs/cgroup/unified/cgroup.controllers": f"{unified}\n"}
    return parse_hierarchies(own, mounts, files.__getitem__)


@pytest.fixture
def v1() -> Hierarchies:
    """Return a host with v1 alone."""
    return make_v1()


@pytest.fixture
def hybrid() -> Hierarchies:
    """Return a host with v1, and v2 beside it that has hugetlb alone."""
    return make_v1(V1_CONTROLLERS[:-1], "hugetlb")


@pytest.fixture
def v2() -> Hierarchies:
    """Return a host with v2 alone."""
    mounts = mount_line(25, "/sys/fs/cgroup", "cgroup2", "nsdelegate,memory_recursiveprot")
    return parse_hierarchies("0::/user.slice/session-1.scope\n", mounts, lambda _: V2_CONTROLLERS)
