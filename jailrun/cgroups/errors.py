"""What a refused write to a cgroup file means, and what can be done about it.

Owns: the translation of `OSError`, from a program or from a live write, into the errors of the
facility; the one place for its hints.  Out of scope: refusals that need no write (`limits`).
"""

from __future__ import annotations

import errno
import os

from jailrun.errors import CgroupError, ConflictError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailrun.errors import JailError

# file, or the beginning of its name: errno names and the hint; the longest match counts
_TABLE = """
memory.limit_in_bytes EBUSY: the jail uses more now: free some, or see memory.usage_in_bytes
memory.limit_in_bytes EINVAL: memory plus swap must not be below memory; give both
memory.memsw.limit_in_bytes EINVAL: memory plus swap must not be below memory; give both
memory.memsw.limit_in_bytes EBUSY: the jail uses more memory and swap than that now
memory.memsw.limit_in_bytes ENOENT: boot with swapaccount=1, or leave the swap limit out
memory.swap.max ENOENT: boot with swapaccount=1, or leave the swap limit out
memory.kmem.tcp EBUSY: set it before the jail has sockets
memory.swappiness EINVAL: swappiness is 0 to 100
memory.oom_control EINVAL: it is 0 or 1
cpu.cfs_quota_us EINVAL: at least 1000 µs, and not beyond the share of the parent cgroup
cpu.cfs_period_us EINVAL: 1000 to 1000000 µs, and the quota not beyond the parent's share
cpu.cfs_burst_us EINVAL: burst must not be above quota
cpu.max.burst EINVAL: burst must not be above quota
cpu.max EINVAL: a quota is at least 1000 µs, a period 1000 to 1000000 µs
cpu.shares EINVAL: shares cannot be set while cpu.idle is 1
cpu.weight EINVAL: shares cannot be set while cpu.idle is 1
cpu.weight ERANGE: a weight is 1 to 10000
cpu.rt_ EINVAL: give the parent cgroup real-time runtime first: cpu.rt_runtime_us there
cpu.rt_ EBUSY: real-time processes in it need more than that
cpu.rt_ ENOENT: the kernel needs CONFIG_RT_GROUP_SCHED
cpu.idle ENOENT: cpu.idle came with Linux 5.15
cpuset. EINVAL ERANGE EACCES: choose from cpuset.cpus and cpuset.mems of the parent cgroup
cpuset. ENOSPC: a set with processes must not be empty
cpuset. EBUSY: a child cgroup uses what would be taken away
pids.max EINVAL: a number of processes is 0 to 4194304
io. EINVAL ENODEV: name a whole disk by its numbers as lsblk shows them, not a partition
io.bfq.weight ENOENT: weights need BFQ (modprobe bfq) or CONFIG_BLK_CGROUP_IOCOST
io.bfq.weight EOPNOTSUPP: the disk has no BFQ: echo bfq > /sys/block/DISK/queue/scheduler
blkio. EINVAL ENODEV: name a whole disk by its numbers as lsblk shows them, not a partition
blkio.weight ENOENT: weights need the BFQ scheduler: modprobe bfq
blkio.bfq.weight_device EOPNOTSUPP: the disk has no BFQ: echo bfq > /sys/block/DISK/queue/scheduler
hugetlb. ENOENT: the page sizes of this kernel: ls /sys/kernel/mm/hugepages
net_prio.ifpriomap ENODEV EINVAL: name an interface of the host: ip link
rdma.max ENODEV: the devices: ls /sys/class/infiniband
devices. EPERM: the parent cgroup lacks that device, as in a container that is not privileged
devices. EINVAL: remove what is below the cgroup first
tasks EINVAL: a real-time process needs cpu.rt_runtime_us; start with chrt -o 0
tasks ENOSPC: the jail's cpuset.cpus or cpuset.mems is empty
cgroup.subtree_control EBUSY: processes are in that cgroup itself: move them into a child of it
cgroup.subtree_control ENOENT: the cgroup above has not enabled it: see its cgroup.controllers
cgroup.subtree_control EOPNOTSUPP: that cgroup is threaded: choose another linux.cgroupsPath
 EROFS: cgroups are mounted read-only: remount them, or run the outer container privileged
 EACCES: run as root
 EPERM: run as root with CAP_SYS_ADMIN; in a container, run it privileged
 EAGAIN: cgroup.max.descendants or cgroup.max.depth of a cgroup above is reached
 ENOSPC: this kernel has no room for another cgroup: see /proc/cgroups
 ENODEV: the cgroup was removed meanwhile
"""


def find_hint(file: str, number: int) -> str | None:
    """Return what to do after ``file`` refused a write with the errno ``number``."""
    name = errno.errorcode.get(number, "")
    best, length = None, -1
    for line in _TABLE.splitlines():
        words, _, hint = line.partition(": ")
        prefix, *names = words.split(" ")
        if name in names and file.startswith(prefix) and len(prefix) > length:
            best, length = hint, len(prefix)
    return best


def refusal(number: int, what: str, path: str, *, making: bool = False) -> JailError:
    """Return the error for ``cannot {what} {path}``, refused with the errno ``number``."""
    file = path.rpartition("/")[2]
    message = f"cannot {what} {path}: {os.strerror(number)}"
    if making and number == errno.EEXIST:
        return ConflictError(message, hint=f"if no jail uses it, it was left over: rmdir {path}")
    if number == errno.ENOENT and not making:
        hint = find_hint(file, number) or f"this kernel, or this cgroup, has no {file}"
        return UnsupportedError(message, hint=hint)
    return CgroupError(message, hint=find_hint(file, number))


def translate(error: OSError) -> JailError:
    """Return the facility's error for one that a program's operation, or a call, raised."""
    operation = getattr(error, "operation", None)
    number = error.errno or 0
    if operation is None:
        return refusal(number, "use", str(error.filename or "the cgroups"))
    what = operation.what or operation.name
    result = refusal(number, what, operation.object, making=operation.name == "mkdirat")
    if result.hint is None:
        result.hint = operation.hint or None
    return result
