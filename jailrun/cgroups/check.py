"""What this host can and cannot limit, for ``jailrun check``.

Owns: the findings about cgroups.  Reads only, and makes one cgroup that it removes, to see.
Out of scope: printing, and what is not about cgroups.
"""

from __future__ import annotations

import os
import time

from jailrun.cgroups.hierarchy import PARENT, UNIFIED, Hierarchies, read_hierarchies, read_text
from jailrun.cgroups.settings import KERNEL_OPTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypedDict

    class Finding(TypedDict):
        """``state`` is ok, missing (cannot be limited) or broken (no jail can start)."""

        subject: str
        state: str
        detail: str
        hint: str


# What a user loses without it.
PURPOSE = {
    "memory": "memory and swap limits",
    "cpu": "CPU shares and quotas",
    "cpuset": "pinning to CPUs",
    "pids": "a limit on processes",
    "blkio": "disk weights and rates",
    "hugetlb": "huge page limits",
    "net_cls": "network.classID",
    "net_prio": "network.priorities",
    "rdma": "RDMA limits",
}
V1_ONLY = ("net_cls", "net_prio")


def check_host(hierarchies: Hierarchies | None = None) -> list[Finding]:
    """Return the findings, the host as a whole first, then controller by controller."""
    hierarchies = hierarchies or read_hierarchies(fresh=True)
    kind = hierarchies.kind
    if kind == "none":
        hint = "mount -t cgroup2 none /sys/fs/cgroup"
        return [_finding("cgroups", "broken", "no hierarchy is mounted", hint)]
    findings = [_finding("cgroups", "ok", f"{kind}: {', '.join(map(_where, hierarchies.items))}")]
    known = _kernel_controllers()
    for controller, purpose in PURPOSE.items():
        found = hierarchies.of("io") if controller == "blkio" else None
        found = hierarchies.of(controller) or found
        if found:
            detail = f"{purpose}: cgroup v{found.version} at {found.mount}"
            findings.append(_finding(controller, "ok", detail))
        elif kind == "v2" and controller in V1_ONLY:
            detail = f"no {purpose}: cgroup v2 has no such setting"
            findings.append(_finding(controller, "missing", detail))
        else:
            findings.append(_missing(controller, purpose, known))
    findings.append(_check_devices(hierarchies))
    findings.append(_check_freezer(hierarchies))
    findings += [_try_to_make(item.mount) for item in hierarchies.items]
    return findings


def _finding(subject: str, state: str, detail: str, hint: str = "") -> Finding:
    return {"subject": subject, "state": state, "detail": detail, "hint": hint}


def _where(item: object) -> str:
    return repr(item).strip("<>")


def _kernel_controllers() -> dict[str, bool]:
    """Return the controllers of this kernel, from /proc/cgroups, and whether they are enabled."""
    try:
        lines = read_text("/proc/cgroups").splitlines()[1:]
    except OSError:
        return {}
    return {words[0]: words[3] == "1" for words in (line.split() for line in lines)}


def _missing(controller: str, purpose: str, known: dict[str, bool]) -> Finding:
    if controller not in known:
        detail = f"no {purpose}: not in this kernel"
        hint = f"the kernel needs {KERNEL_OPTIONS[controller]}"
    elif not known[controller]:
        detail = f"no {purpose}: disabled at boot"
        hint = f"boot without cgroup_disable={controller}, or with cgroup_enable={controller}"
    else:
        detail = f"no {purpose}: mounted nowhere"
        path = f"/sys/fs/cgroup/{controller}"
        hint = f"mkdir {path} && mount -t cgroup -o {controller} none {path}"
    return _finding(controller, "missing", detail, hint)


def _check_devices(hierarchies: Hierarchies) -> Finding:
    found = hierarchies.of("devices")
    if found:
        return _finding("devices", "ok", f"device list: cgroup v1 at {found.mount}")
    if hierarchies.unified:
        return _finding("devices", "ok", "device list: a BPF program on cgroup v2")
    hint = "the kernel needs CONFIG_CGROUP_DEVICE, or cgroup v2 with CONFIG_CGROUP_BPF"
    return _finding("devices", "broken", "no device list can be enforced", hint)


def _check_freezer(hierarchies: Hierarchies) -> Finding:
    if hierarchies.unified:
        return _finding("freezer", "ok", f"cgroup.freeze at {hierarchies.unified.mount}")
    found = hierarchies.of("freezer")
    if found:
        return _finding("freezer", "ok", f"cgroup v1 at {found.mount}")
    hint = f"mkdir /sys/fs/cgroup/{UNIFIED} && mount -t cgroup2 none /sys/fs/cgroup/{UNIFIED}"
    return _finding("freezer", "missing", "no pausing of jails", hint)


def _try_to_make(mount: str) -> Finding:
    """Make and remove a cgroup, as every start does."""
    path = f"{mount.rstrip('/')}/{PARENT}-check-{os.getpid()}-{time.monotonic_ns()}"
    try:
        os.mkdir(path)
        os.rmdir(path)
    except OSError as error:
        hint = "run as root" if os.geteuid() else f"mount -o remount,rw {mount}"
        detail = f"cannot make a cgroup: {error.strerror}"
        return _finding(mount, "broken", detail, hint)
    return _finding(mount, "ok", "cgroups can be made")
