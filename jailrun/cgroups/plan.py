"""The operations that make, fill and join the cgroups of a jail.

Owns: the order.  Pure, but for `read_facts`, which the caller runs before.  Out of scope: which
hierarchies (`hierarchy.place`), which values (`limits`, `devices`), running it (the engine).

In ``before``, for each hierarchy: the parents (which may exist), the jail's cgroup (which may
not), its limits, and a descriptor to join by.  In ``child``: ``0`` into each v1 ``tasks`` file.
The descriptors are opened by the caller because the kernel asks for the rights of who opened them
(since Linux 5.16), and ``0`` by the child itself, while it has one thread, because that spares
the RCU grace period of moving another process: 0.03 ms instead of 8 to 17 ms.  On v2 the child is
cloned into the cgroup.  A cgroup namespace is to be unshared after the last of these.

A hierarchy costs a start and stop 0.09 to 0.11 ms on Linux 6.18: 0.02 to 0.04 for mkdir, 0.01 to
open, 0.03 to join, 0.02 to 0.04 for rmdir.  The device list adds 0.07 for its first line.
That is why cpuset, blkio and the like are joined only when they limit something (`live` moves a
running jail into them), and freezer only where there is no v2.
"""

from __future__ import annotations

import errno
import os

from jailrun.cgroups import devices as dev
from jailrun.cgroups.hierarchy import ACCOUNTED, PARENT, UNIFIED, default_parent, read_text
from jailrun.cgroups.limits import limited_controllers, plan_settings
from jailrun.cgroups.settings import Target
from jailrun.errors import ConflictError, UnsupportedError
from jailrun.kernel import bpf
from jailrun.kernel.constants import AT_FDCWD
from jailrun.kernel.files import read_own_status
from jailrun.kernel.operation import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from jailrun.cgroups.hierarchy import Hierarchies, Hierarchy
    from jailrun.cgroups.settings import Setting
    from jailrun.kernel.operation import Slot
    from jailrun.kernel.program import Program

LOCK_SH = 1  # asm-generic/fcntl.h
# On our v2 parent: the controllers that we enabled above it, for `control.release` to take back.
ENABLED = "user.jailrun.enabled"


class Facts:
    """What the plan has to know about the host beside its hierarchies.

    ``features``: files in the root of the block I/O controller; empty if no limit needs them.
    ``cpuset``: (directory, cpus, mems) of each parent of a v1 cpuset, from the top; a new cpuset
    is empty and takes no process, so a parent that is empty or missing gets its parent's sets.
    ``enabled``: the v2 controllers that a jail, this or one before it, had to enable in the root.
    ``umask``: the caller's, which its directories are made with; unknown, it is the strictest.
    """

    __slots__ = ("cpuset", "enabled", "features", "umask")

    def __init__(
        self,
        features: frozenset[str] = frozenset(),
        cpuset: tuple[tuple[str, str, str], ...] = (),
        enabled: str = "",
        umask: int = 0o777,
    ) -> None:
        self.features = features
        self.cpuset = cpuset
        self.enabled = enabled
        self.umask = umask


class Joined:
    """How the child gets in: ``cgroup_fd`` is for clone3 (CLONE_INTO_CGROUP), None without v2."""

    __slots__ = ("cgroup_fd",)

    def __init__(self, cgroup_fd: Slot | None) -> None:
        self.cgroup_fd = cgroup_fd


def read_facts(
    config: Mapping[str, Any], hierarchies: Hierarchies, cgroups: Mapping[str, str]
) -> Facts:
    """Read what `plan` needs; raise `ConflictError` if a cgroup of the jail exists already.

    Call it before the record is written: what exists is not ours, and must not be released.
    """
    for path in cgroups.values():
        if os.access(path, os.F_OK):
            raise ConflictError(
                f"the cgroup {path} exists already",
                hint=f"if no jail uses it, it was left over: rmdir {path}",
            )
    resources = (config.get("linux") or {}).get("resources") or {}
    facts = read_resource_facts(resources, hierarchies, cgroups)
    facts.umask = int(read_own_status("Umask"), 8)
    return facts


def read_resource_facts(
    resources: Mapping[str, Any], hierarchies: Hierarchies, cgroups: Mapping[str, str]
) -> Facts:
    """Read the facts for ``resources`` alone, as an update needs them."""
    features: frozenset[str] = frozenset()
    block = hierarchies.of("blkio") or hierarchies.of("io")
    if block and resources.get("blockIO"):
        features = frozenset(os.listdir(block.mount))
    cpuset = hierarchies.of("cpuset")
    chain: list[tuple[str, str, str]] = []
    if cpuset and cpuset.version == 1 and cpuset.id in cgroups:
        sets = ("", "")
        for directory in (cpuset.mount, *parents(cpuset, cgroups[cpuset.id])):
            sets = (
                _read_set(directory, "cpus") or sets[0],
                _read_set(directory, "mems") or sets[1],
            )
            chain.append((directory, *sets))
    return Facts(features, tuple(chain), _read_enabled(resources, hierarchies))


def _read_enabled(resources: Mapping[str, Any], hierarchies: Hierarchies) -> str:
    unified = hierarchies.unified
    wanted = enabled_controllers(resources, unified) if unified else []
    if not unified or not wanted:
        return ""
    present = read_text(f"{unified.mount}/cgroup.subtree_control").split()
    missing = [one for one in wanted if one not in present]
    try:
        before = os.getxattr(default_parent(unified), ENABLED).decode().split()
    except OSError:
        before = []
    return " ".join(dict.fromkeys(before + missing)) if missing else ""


def _read_set(directory: str, name: str) -> str:
    try:
        return read_text(f"{directory}/cpuset.{name}").strip()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):  # missing, or being removed
            return ""
        raise


def parents(hierarchy: Hierarchy, path: str) -> list[str]:
    """Return the directories between the mount and the cgroup at ``path``, from the top."""
    mount = hierarchy.mount.rstrip("/")
    parts = path[len(mount) + 1 :].split("/")[:-1]
    return ["/".join((mount, *parts[: index + 1])) for index in range(len(parts))]


def missing_parents(hierarchies: Hierarchies, cgroups: Mapping[str, str]) -> list[str]:
    """Return the directories that `plan` will make above the jail's own and that are not there.

    Those below our own parent are left out: they are looked after in any case.
    """
    return [
        directory
        for item in hierarchies.items
        if item.id in cgroups and not cgroups[item.id].startswith(f"{default_parent(item)}/")
        for directory in parents(item, cgroups[item.id])
        if not os.access(directory, os.F_OK)
    ]


def lock_path(cgroups: Mapping[str, str], hierarchies: Hierarchies | None = None) -> str:
    """Return the directory whose lock guards the making and removing of the shared parents.

    It is the root of one hierarchy, which every jail on this host agrees on whatever its record
    and run folder: v2's, or else the freezer's, or else the first by name.
    """
    chosen = UNIFIED if UNIFIED in cgroups else min(cgroups, key=lambda i: ("freezer" not in i, i))
    if hierarchies:
        for item in hierarchies.items:
            if item.id == chosen:
                return item.mount
    head, found, _tail = cgroups[chosen].partition(f"/{PARENT}/")
    return head if found else ""


def plan(
    config: Mapping[str, Any],
    program: Program,
    hierarchies: Hierarchies,
    cgroups: Mapping[str, str],
    facts: Facts | None = None,
) -> Joined:
    """Add all operations for the cgroups of a new jail; raise what this host cannot enforce.

    ``cgroups`` is the record that `hierarchy.place` returned.
    """
    facts = facts or Facts()
    resources = (config.get("linux") or {}).get("resources") or {}
    program.enter("cgroups")
    settings = plan_settings(resources, Target(hierarchies, facts.features))
    if (config.get("jailrun") or {}).get("swap") == "default":
        # Nobody asked for it: a host that does not count swap may leave it unlimited.
        for setting in settings:
            setting.optional |= setting.path.endswith("memory.swap")
    rules = dev.parse_rules(resources.get("devices"))
    used = [item for item in hierarchies.items if item.id in cgroups]
    lock = _lock(program, lock_path(cgroups, hierarchies))
    for item in used:
        _make(program, item, cgroups[item.id], resources, facts)
    if lock:
        program.before.close(lock)
    _write(program, settings, hierarchies, cgroups, facts)
    joined = plan_join(program, cgroups)
    if not dev.is_everything(rules):
        _enforce_devices(program, rules, hierarchies, cgroups, joined)
    return joined


def _enforce_devices(
    program: Program,
    rules: list[dev.Rule],
    hierarchies: Hierarchies,
    cgroups: Mapping[str, str],
    joined: Joined,
) -> None:
    """Add the device list: by the v1 controller where it is, else by a program on v2."""
    controller = hierarchies.of("devices")
    if controller and controller.id in cgroups:
        _write_device_lines(program, rules, cgroups[controller.id])
    elif joined.cgroup_fd is not None:
        _attach_device_program(program, rules, joined.cgroup_fd, cgroups[UNIFIED])
    else:
        raise UnsupportedError(
            f"{dev.PATH}: this host has neither the devices controller nor cgroup v2",
            hint="mount -t cgroup2 none /sys/fs/cgroup/unified",
        )


def plan_join(program: Program, cgroups: Mapping[str, str]) -> Joined:
    """Add the operations by which a new process joins cgroups that exist, as an exec does."""
    program.enter("cgroups")
    cgroup_fd = None
    for identifier, path in cgroups.items():
        if identifier == UNIFIED:
            cgroup_fd = program.before.open(
                path, os.O_RDONLY | os.O_DIRECTORY, what="open the cgroup", result="cgroup"
            )
        else:
            file = f"{path}/tasks"
            tasks = program.before.open(file, os.O_WRONLY, what="open", result="tasks")
            program.child.write(tasks, b"0", what="join the cgroup by", object=file)
    return Joined(cgroup_fd)


def _lock(program: Program, path: str) -> Slot | None:
    """Hold off the removal of parents that are empty until our cgroup is in them."""
    if not path:
        return None
    fd = program.before.open(path, os.O_RDONLY | os.O_DIRECTORY, what="open", result="lock")
    program.before.call("flock", fd, LOCK_SH, what="lock", object=path)
    return fd


def enabled_controllers(resources: Mapping[str, Any], hierarchy: Hierarchy) -> list[str]:
    """Return the v2 controllers that a jail needs, in the order of the hierarchy."""
    wanted = {*ACCOUNTED, *limited_controllers(resources)}
    return [one for one in hierarchy.controllers if one in wanted]


def _make(
    program: Program,
    hierarchy: Hierarchy,
    path: str,
    resources: Mapping[str, Any],
    facts: Facts,
) -> None:
    """Add the directories, from the top: parents that may exist, and the jail's own."""
    before = program.before
    above = parents(hierarchy, path)
    enable = ""
    if hierarchy.version == 2:
        enable = " ".join(f"+{one}" for one in enabled_controllers(resources, hierarchy))
    sets = {directory: values for directory, *values in facts.cpuset}
    for directory in (hierarchy.mount, *above):
        if directory is not hierarchy.mount:
            before.mkdir(directory, 0o755, what="make the cgroup", allow=(errno.EEXIST,))
            if directory == default_parent(hierarchy):
                _open_to_all(program, directory, facts)
            if "cpuset" in hierarchy.controllers and hierarchy.version == 1:
                for name, value in zip(("cpus", "mems"), sets.get(directory, ()), strict=False):
                    _put(program, f"{directory}/cpuset.{name}", value, f"write {value} to")
        if facts.enabled and enable and directory == default_parent(hierarchy):
            fd = before.open(directory, os.O_RDONLY | os.O_DIRECTORY, what="open")
            mark = facts.enabled.encode()
            before.call(
                "fsetxattr",
                fd,
                ENABLED,
                Struct(mark, label=repr(facts.enabled)),
                len(mark),
                0,
                allow=(errno.EOPNOTSUPP, errno.EPERM),
                what="note what was enabled above",
                object=directory,
            )
            before.close(fd)
        if enable:
            file = f"{directory}/cgroup.subtree_control"
            _put(program, file, enable, f"enable {enable} in")
    before.mkdir(path, 0o755, what="make the cgroup")
    _open_to_all(program, path, facts)


def _open_to_all(program: Program, directory: str, facts: Facts) -> None:
    """Add letting the jail's ids look into a cgroup that is ours, where the umask forbids it."""
    if 0o755 & facts.umask:
        program.before.fchmodat(AT_FDCWD, directory, 0o755, what="make the cgroup")


def _put(program: Program, path: str, text: str, what: str, *, optional: bool = False) -> None:
    allow = (errno.ENOENT,) if optional else ()
    fd = program.before.open(path, os.O_WRONLY, what=what, allow=allow)
    program.before.write(fd, text.encode(), what=what, object=path)
    program.before.close(fd)


def _write(
    program: Program,
    settings: list[Setting],
    hierarchies: Hierarchies,
    cgroups: Mapping[str, str],
    facts: Facts,
) -> None:
    """Add the limits; a v1 cpuset gets what is not given from its parent, in full."""
    for setting in settings:
        _put(
            program,
            f"{directory_of(setting.controller, hierarchies, cgroups)}/{setting.file}",
            setting.data,
            f"set {setting.path} to {setting.data!r} in",
            optional=setting.optional,
        )
    if facts.cpuset:
        cpuset = directory_of("cpuset", hierarchies, cgroups)
        given = {setting.file for setting in settings}
        for name, value in zip(("cpus", "mems"), facts.cpuset[-1][1:], strict=True):
            if f"cpuset.{name}" not in given:
                _put(program, f"{cpuset}/cpuset.{name}", value, f"write {value} to")


def directory_of(controller: str, hierarchies: Hierarchies, cgroups: Mapping[str, str]) -> str:
    """Return the jail's directory on the hierarchy of ``controller``; ``cgroup`` is v2's own."""
    hierarchy = hierarchies.of(controller)
    return cgroups[hierarchy.id if hierarchy else UNIFIED]


def _write_device_lines(program: Program, rules: list[dev.Rule], path: str) -> None:
    """Add v1's list: one descriptor a file, one write a line."""
    lines = dev.plan_lines(rules)
    for file in dict.fromkeys(file for file, _line in lines):
        where = f"{path}/{file}"
        fd = program.before.open(where, os.O_WRONLY, what="open")
        for _file, line in lines:
            if _file == file:
                what = f"write the device rule {line!r} to"
                program.before.write(fd, line.encode(), what=what, object=where)
        program.before.close(fd)


def _attach_device_program(
    program: Program, rules: list[dev.Rule], cgroup_fd: Slot, path: str
) -> None:
    """Add v2's list; it goes when the cgroup does.  What the cgroups above allow is asked, too."""
    hook = bpf.Hook("devices", bpf.BPF_PROG_TYPE_CGROUP_DEVICE, bpf.BPF_CGROUP_DEVICE)
    bpf.plan_attach(program.before, hook, dev.plan_bpf(rules), cgroup_fd, path)
