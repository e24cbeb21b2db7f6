"""Which cgroup hierarchies this process sees, and where the cgroups of a jail go in them.

Owns: the map controller → hierarchy, parsed from /proc/self/cgroup and /proc/self/mountinfo, and
the choice of the parent.  Out of scope: what is written there (`limits`), and making anything.

On a v1 host each controller, or set of controllers, has a mount of its own; on a v2 host one
mount has all; on a hybrid host the v2 mount has what v1 has not taken, often nothing, and is used
all the same: it freezes, kills and lists best, and a process can be cloned into it.
"""

from __future__ import annotations

from jailrun.errors import SpecError, UnsupportedError
from jailrun.kernel.files import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

UNIFIED = "unified"  # the id of the v2 hierarchy
PARENT = "jailrun"  # our cgroup below the root of each hierarchy: all jails are in it
# Joined wherever they exist: what they count is shown later, and their limits can be set later.
ACCOUNTED = ("memory", "cpu", "cpuacct", "pids")


class Hierarchy:
    """One tree of cgroups: its mount, and the controllers that are on it."""

    __slots__ = ("controllers", "id", "mount", "own", "version", "writable")

    def __init__(
        self,
        version: int,
        mount: str,
        controllers: Iterable[str],
        own: str = "/",
        *,
        writable: bool = True,
    ) -> None:
        self.version = version
        self.mount = mount
        self.controllers = tuple(controllers)
        self.own = own  # the path of this process, from the root of its cgroup namespace
        self.writable = writable
        self.id = UNIFIED if version == 2 else ",".join(self.controllers)

    def __repr__(self) -> str:
        return f"<v{self.version} {self.id} at {self.mount}>"


class Hierarchies:
    """All hierarchies that are mounted where we can see them; v1 first, v2 last."""

    __slots__ = ("_by_controller", "items", "unified")

    def __init__(self, items: Iterable[Hierarchy]) -> None:
        self.items = sorted(items, key=lambda item: item.version)
        self.unified: Hierarchy | None = None
        self._by_controller: dict[str, Hierarchy] = {}
        for item in self.items:
            if item.version == 2:
                self.unified = item
            for controller in item.controllers:
                self._by_controller.setdefault(controller, item)

    def __repr__(self) -> str:
        return f"<{self.kind}: {', '.join(self._by_controller)}>"

    @property
    def kind(self) -> str:
        """Return ``v1``, ``v2``, ``hybrid``, or ``none``."""
        versions = {item.version for item in self.items}
        if len(versions) == 2:
            return "hybrid"
        return f"v{versions.pop()}" if versions else "none"

    def of(self, controller: str) -> Hierarchy | None:
        """Return the hierarchy that ``controller`` is on, None where this host has none."""
        return self._by_controller.get(controller)

    def version(self, controller: str) -> int:
        """Return 1 or 2, or 0 where this host does not have ``controller``."""
        found = self._by_controller.get(controller)
        return found.version if found else 0

    def controllers(self) -> list[str]:
        """Return all controllers, of all hierarchies."""
        return list(self._by_controller)


def parse_own_paths(cgroup_text: str) -> dict[str, str]:
    """Return controller → path from /proc/self/cgroup (cgroups(7)); ``""`` is v2."""
    paths = {}
    for line in cgroup_text.splitlines():
        _number, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            paths[controller] = path
    return paths


def _unescape(text: str) -> str:
    """Undo the octal escapes of mountinfo (blank, tab, newline, backslash, as in proc(5))."""
    if "\\" not in text:
        return text
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def _visible_mounts(mountinfo_text: str) -> list[tuple[str, str, str, str, str]]:
    """Return (root, mount point, options, type, super options) of the cgroup mounts in view.

    A later mount on the same point, or on a folder above it, hides an earlier one.
    """
    found: list[tuple[str, str, str, str, str]] = []
    for line in mountinfo_text.splitlines():
        left, _, right = line.partition(" - ")
        fields, tail = left.split(" "), right.split(" ")
        point = _unescape(fields[4])
        if found:
            below = point.rstrip("/") + "/"
            found = [one for one in found if one[1] != point and not one[1].startswith(below)]
        if tail[0] in ("cgroup", "cgroup2"):
            found.append((_unescape(fields[3]), point, fields[5], tail[0], tail[-1]))
    return found


def parse_hierarchies(
    cgroup_text: str, mountinfo_text: str, read: Callable[[str], str]
) -> Hierarchies:
    """Return the hierarchies from the two texts; ``read`` returns the text of a v2 file.

    Of several mounts of one hierarchy the one that shows most of it is used.
    """
    own = parse_own_paths(cgroup_text)
    best: dict[str, tuple[int, Hierarchy]] = {}
    for root, point, options, fstype, super_options in _visible_mounts(mountinfo_text):
        writable = "rw" in options.split(",")
        if fstype == "cgroup2":
            controllers = read(f"{point}/cgroup.controllers").split()
            hierarchy = Hierarchy(2, point, controllers, own.get("", "/"), writable=writable)
        else:
            # own has every v1 controller of this kernel that is mounted somewhere.
            controllers = [one for one in super_options.split(",") if one in own and one]
            controllers = [one for one in controllers if not one.startswith("name=")]
            if not controllers:  # name=systemd: a tree without a controller
                continue
            hierarchy = Hierarchy(1, point, controllers, own[controllers[0]], writable=writable)
        depth = 0 if root == "/" else root.count("/")
        # A writable mount first, then the one nearest to the hierarchy's root, then the first.
        rank = depth + (0 if writable else 1000)
        if hierarchy.id not in best or rank < best[hierarchy.id][0]:
            best[hierarchy.id] = (rank, hierarchy)
    return Hierarchies(hierarchy for _rank, hierarchy in best.values())


def read_text(path: str) -> str:
    """Return the text of a small kernel file."""
    return read_file(path).decode("utf-8", "surrogateescape")


_cache: list[Hierarchies] = []


def read_hierarchies(*, fresh: bool = False) -> Hierarchies:
    """Return this host's hierarchies; read once a process, again with ``fresh``."""
    if fresh or not _cache:
        found = parse_hierarchies(
            read_text("/proc/self/cgroup"), read_text("/proc/self/mountinfo"), read_text
        )
        _cache[:] = [found]
    return _cache[0]


def default_parent(hierarchy: Hierarchy) -> str:
    """Return the directory that the cgroups of jails are made in, on ``hierarchy``.

    It is the root of what we see of the hierarchy and not the cgroup that we are in, on purpose:
    a jail must outlive the session that started it and not count against its limits, and on v2 a
    cgroup with processes, as ours is, can have no limited children.  In a cgroup namespace or a
    nested container the root in view is the outer container's own cgroup.  Delegation to a
    systemd unit's cgroup (``Delegate=yes``) would be decided here, from ``hierarchy.own``.
    """
    return f"{hierarchy.mount.rstrip('/')}/{PARENT}"


def place(config: Mapping[str, Any], name: str, hierarchies: Hierarchies) -> dict[str, str]:
    """Return the record: hierarchy id → directory, for each hierarchy that the jail will be in.

    ``linux.cgroupsPath`` in place of the default: absolute from the root of what we see,
    relative from the default parent (config-linux.md, "Cgroups Path").
    """
    linux = config.get("linux") or {}
    path = linux.get("cgroupsPath") or ""
    if any(part in (".", "..") for part in path.split("/")) or "\n" in path or "\0" in path:
        raise SpecError("linux.cgroupsPath", f"{path!r} must not contain . or .. or a newline")
    path = "/".join(part for part in path.split("/") if part)
    absolute = (linux.get("cgroupsPath") or "").startswith("/")
    if absolute and not path:
        raise SpecError("linux.cgroupsPath", "'/' is the host's own cgroup")
    record = {}
    for item in _needed(linux.get("resources") or {}, hierarchies):
        parent = item.mount.rstrip("/") if absolute else default_parent(item)
        record[item.id] = f"{parent}/{path or name}"
        if not item.writable:
            raise UnsupportedError(
                f"the cgroup hierarchy {item.id} at {item.mount} is mounted read-only",
                hint=f"mount -o remount,rw {item.mount}",
            )
    if not record:
        raise UnsupportedError(
            "no cgroup hierarchy is mounted here",
            hint="mount -t cgroup2 none /sys/fs/cgroup",
        )
    return record


def _needed(resources: Mapping[str, Any], hierarchies: Hierarchies) -> list[Hierarchy]:
    from jailrun.cgroups.devices import is_everything, parse_rules
    from jailrun.cgroups.limits import limited_controllers

    wanted = {*ACCOUNTED, *limited_controllers(resources)}
    if not is_everything(parse_rules(resources.get("devices"))):
        wanted.add("devices")
    if not hierarchies.unified:
        wanted.add("freezer")
    return [
        item
        for item in hierarchies.items
        if item.version == 2 or not wanted.isdisjoint(item.controllers)
    ]
