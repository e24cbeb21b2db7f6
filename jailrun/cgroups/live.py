"""Changes the limits of a jail that runs: all of them, or none.

Owns: the order of the writes, the undoing after a failure, and moving a jail into a hierarchy that
it was not in.  Out of scope: what is written (`limits`), the device list, which is fixed.

A value can be refused because of another that is changed with it (memory against memory plus
swap, quota against period and burst): what is refused is tried again after the rest, as long as
that gets something done.  This is right for every such pair, in either direction.
"""

from __future__ import annotations

import errno
import os

from jailrun.cgroups.control import freeze, is_frozen, processes, thaw, write_text
from jailrun.cgroups.errors import refusal
from jailrun.cgroups.hierarchy import UNIFIED, default_parent, read_hierarchies, read_text
from jailrun.cgroups.limits import limited_controllers, plan_settings
from jailrun.cgroups.plan import (
    ENABLED,
    Facts,
    directory_of,
    enabled_controllers,
    parents,
    read_resource_facts,
)
from jailrun.cgroups.settings import Target
from jailrun.errors import CgroupError, JailError, NotFoundError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from jailrun.cgroups.hierarchy import Hierarchies
    from jailrun.cgroups.settings import Setting

DEPENDENT = (errno.EINVAL, errno.EBUSY)  # refused because of another value, perhaps
# What takes a limit of one device back: v1 by 0; v2 has words.
NO_LIMIT = {"io.max": "rbps=max wbps=max riops=max wiops=max", "io.weight": "default"}


def widen(
    resources: Mapping[str, Any],
    cgroups: Mapping[str, str],
    hierarchies: Hierarchies | None = None,
) -> dict[str, str]:
    """Return the record with the hierarchies added that ``resources`` needs.

    Write it down before `update`, which makes the directories and moves the processes.
    """
    hierarchies = hierarchies or read_hierarchies()
    wider = dict(cgroups)
    for item in hierarchies.items:
        if item.id not in wider and not limited_controllers(resources).isdisjoint(item.controllers):
            wider[item.id] = item.mount.rstrip("/") + _relative_path(cgroups, hierarchies)
    return wider


def _relative_path(cgroups: Mapping[str, str], hierarchies: Hierarchies) -> str:
    for item in hierarchies.items:
        path = cgroups.get(item.id, "")
        if path.startswith(item.mount.rstrip("/") + "/"):
            return path[len(item.mount.rstrip("/")) :]
    raise CgroupError("none of the cgroups of the jail's record is mounted here")


def update(
    resources: Mapping[str, Any],
    cgroups: Mapping[str, str],
    hierarchies: Hierarchies | None = None,
) -> None:
    """Set the limits of OCI ``resources``; what it does not name stays.

    Raise, with every limit as it was before, if one of them is refused.  ``cgroups`` is what
    `widen` returned.
    """
    hierarchies = hierarchies or read_hierarchies()
    if resources.get("devices"):
        raise UnsupportedError(
            "linux.resources.devices: the device list of a running jail is fixed",
            hint="stop the jail, change its devices, start it",
        )
    if not any(os.path.isdir(path) for path in cgroups.values()):
        raise NotFoundError("cannot change the limits of the jail: its cgroups are gone")
    facts = read_resource_facts(resources, hierarchies, cgroups)
    target = Target(hierarchies, facts.features, lambda c, f: _present(c, f, hierarchies, cgroups))
    settings = plan_settings(resources, target)
    _check_usage(resources, hierarchies, cgroups)
    _enable(resources, hierarchies, cgroups, facts)
    undo: list[tuple[str, str]] = []
    new: list[str] = []
    try:
        _make_missing(hierarchies, cgroups, facts, new)
        _apply(settings, hierarchies, cgroups, undo)
        if new:
            _move(cgroups, new)
    except JailError:
        _restore(undo, new, hierarchies)
        raise


def _restore(undo: list[tuple[str, str]], new: list[str], hierarchies: Hierarchies) -> None:
    """Write back what was there and remove what was not; the first error is the one to raise."""
    for path, text in reversed(undo):
        try:
            write_text(path, text, "restore")
        except JailError:
            continue
    for path in new:
        root = next(i.mount for i in hierarchies.items if path.startswith(f"{i.mount}/"))
        try:
            for pid in processes({"": path}):
                _move_one(pid, f"{root}/cgroup.procs")
            os.rmdir(path)
        except (JailError, OSError):
            continue


def _present(
    controller: str, file: str, hierarchies: Hierarchies, cgroups: Mapping[str, str]
) -> str:
    path = f"{directory_of(controller, hierarchies, cgroups)}/{file}"
    try:
        return read_text(path)
    except OSError as error:
        raise refusal(error.errno or 0, "read", path) from error


def _check_usage(
    resources: Mapping[str, Any], hierarchies: Hierarchies, cgroups: Mapping[str, str]
) -> None:
    """Refuse a memory limit below what is used, if ``checkBeforeUpdate`` asks for that.

    v1 refuses by itself what it cannot reclaim; v2 takes the limit and kills.
    """
    memory = resources.get("memory") or {}
    limit = memory.get("limit") or 0
    if not memory.get("checkBeforeUpdate") or limit <= 0:
        return
    version = hierarchies.version("memory")
    file = "memory.current" if version == 2 else "memory.usage_in_bytes"
    used = int(_present("memory", file, hierarchies, cgroups))
    if used > limit:
        raise CgroupError(
            f"linux.resources.memory.limit: {limit} is below the {used} bytes in use",
            hint="free memory in the jail, or leave checkBeforeUpdate out",
        )


def _enable(
    resources: Mapping[str, Any],
    hierarchies: Hierarchies,
    cgroups: Mapping[str, str],
    facts: Facts,
) -> None:
    """Have the v2 controllers that ``resources`` needs in the jail's cgroup."""
    unified = hierarchies.unified
    if unified is None or UNIFIED not in cgroups:
        return
    present = read_text(f"{cgroups[UNIFIED]}/cgroup.controllers").split()
    missing = [c for c in enabled_controllers(resources, unified) if c not in present]
    if not missing:
        return
    words = " ".join(f"+{one}" for one in missing)
    above = parents(unified, cgroups[UNIFIED])
    if facts.enabled and default_parent(unified) in above:
        try:
            os.setxattr(default_parent(unified), ENABLED, facts.enabled.encode())
        except OSError:
            pass  # no extended attributes there: then it stays enabled
    for directory in (unified.mount, *above):
        write_text(f"{directory}/cgroup.subtree_control", words, f"enable {words} in")


def _make_missing(
    hierarchies: Hierarchies, cgroups: Mapping[str, str], facts: Facts, made: list[str]
) -> None:
    """Make the cgroups of the record that do not exist; add them to ``made``."""
    sets = {directory: values for directory, *values in facts.cpuset}
    for item in hierarchies.items:
        path = cgroups.get(item.id)
        if path is None or os.path.isdir(path):
            continue
        made.append(path)
        fallback: list[str] = []
        for directory in (*parents(item, path), path):
            try:
                os.mkdir(directory, 0o755)
            except FileExistsError:
                pass
            except OSError as error:
                raise refusal(error.errno or 0, "make the cgroup", directory) from error
            fallback = list(sets.get(directory, fallback))
            if item.version == 1 and "cpuset" in item.controllers:
                for name, value in zip(("cpus", "mems"), fallback, strict=False):
                    write_text(f"{directory}/cpuset.{name}", value, f"write {value} to")


def _apply(
    settings: list[Setting],
    hierarchies: Hierarchies,
    cgroups: Mapping[str, str],
    undo: list[tuple[str, str]],
) -> None:
    """Write all settings; add to ``undo`` what would restore each that was written."""
    pending = settings
    while pending:
        refused: list[tuple[Setting, OSError, str]] = []
        for setting in pending:
            path = f"{directory_of(setting.controller, hierarchies, cgroups)}/{setting.file}"
            try:
                old = read_text(path)
                fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.write(fd, setting.data.encode())
                finally:
                    os.close(fd)
            except OSError as error:
                if setting.optional and error.errno == errno.ENOENT:
                    continue
                refused.append((setting, error, path))
            else:
                undo.append((path, restoring_text(setting.file, old, setting.data)))
        stuck = len(refused) == len(pending)
        for setting, cause, path in refused:
            if stuck or cause.errno not in DEPENDENT:
                what = f"set {setting.path} to {setting.data!r} in"
                raise refusal(cause.errno or 0, what, path) from cause
        pending = [setting for setting, _cause, _path in refused]


def restoring_text(file: str, old: str, new: str) -> str:
    """Return what to write to ``file``, whose text was ``old``, after ``new`` was written.

    A file of lines, each for one device, is written line by line: what counts is the line for the
    device in ``new``; if it had none, it gets its "no limit".
    """
    key = new.split(" ", 1)[0]
    keyed = ":" in key or file in ("net_prio.ifpriomap", "rdma.max")
    if not keyed:
        if file.endswith("weight"):  # "default 100", and lines for devices
            return next((line for line in old.splitlines() if "default" in line), old.strip())
        if file == "memory.oom_control":  # oom_kill_disable 0, under_oom 0, oom_kill 0
            return old.split()[1]
        return old.strip() or "\n"
    for line in old.splitlines():
        if line.split(" ", 1)[0] == key:
            return line
    return f"{key} {NO_LIMIT.get(file, '0')}"


def _move(cgroups: Mapping[str, str], new: list[str]) -> None:
    """Move every process of the jail into the cgroups in ``new``, frozen so that none is born."""
    was_frozen = is_frozen(cgroups)
    if not was_frozen:
        freeze(cgroups)
    try:
        for path in new:
            for pid in processes(cgroups):
                _move_one(pid, f"{path}/cgroup.procs")
    finally:
        if not was_frozen:
            thaw(cgroups)


def _move_one(pid: int, file: str) -> None:
    """Move a process; one that was killed meanwhile is no fault."""
    try:
        write_text(file, str(pid), f"move the process {pid} by")
    except CgroupError as error:
        if getattr(error.__cause__, "errno", 0) != errno.ESRCH:
            raise
