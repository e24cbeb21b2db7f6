"""What the plans of this facility must know of the host, read once before they are made.

Owns: `Facts` and reading them.  Plans are pure: they get these instead of looking.
"""

from __future__ import annotations

import os
import stat

from jailrun.errors import RootfsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailrun.spec.model import Config, Device


class Facts:
    """Facts of the host and of the jail to be.

    ``kinds`` says of masked and read-only paths of /proc and /sys what they are ("directory",
    "file", "absent"): the jail sees the same kernel.
    ``nodes`` says of the config's devices where the host has them, by path in the jail.
    ``directories`` says of each bind mount's source (absolute) whether it is a directory,
    ``own`` which namespaces the jail gets new (OCI types) and ``joined`` which by path,
    ``writable`` is the folder that holds the upper layer, None where the root is written directly
    or not at all, ``bundle`` is what relative paths count from, ``cgroups`` are the jail's
    directories by hierarchy.
    """

    __slots__ = (
        "bundle",
        "cgroups",
        "directories",
        "joined",
        "kinds",
        "meeting_place",
        "nodes",
        "own",
        "throw_away",
        "writable",
    )

    def __init__(
        self,
        *,
        own: set[str],
        joined: set[str] | None = None,
        meeting_place: str,
        bundle: str = "/",
        writable: str | None = None,
        directories: dict[str, bool] | None = None,
        cgroups: dict[str, str] | None = None,
        throw_away: bool = False,
    ) -> None:
        self.own = own
        self.joined = joined or set()
        self.meeting_place = meeting_place
        self.bundle = bundle
        self.writable = writable
        self.directories = directories or {}
        self.cgroups = cgroups or {}
        self.kinds: dict[str, str] = {}
        self.throw_away = throw_away  # the writable layer goes when the jail ends
        self.nodes: dict[str, str] = {}

    @property
    def in_user_namespace(self) -> bool:
        """Whether the jail's root is not the host's."""
        return "user" in self.own or "user" in self.joined

    def absolute(self, path: str) -> str:
        """Return a path of the host, counted from the bundle where it is relative."""
        return path if path.startswith("/") else os.path.normpath(f"{self.bundle}/{path}")


def read_facts(config: Config, facts: Facts) -> None:
    """Look at the sources of bind mounts and at the root; raise RootfsError if one is missing."""
    for mount in config.get("mounts", []):
        options = mount.get("options", [])
        if "bind" in options or "rbind" in options or mount.get("type") == "bind":
            source = facts.absolute(mount.get("source", ""))
            facts.directories[source] = _is_directory(
                source, f"cannot mount {source} on {mount['destination']}"
            )
    linux = config.get("linux", {})
    if facts.in_user_namespace:
        for device in linux.get("devices", []):
            if device["type"] != "p":
                facts.nodes[device["path"]] = _find_node(device)
    for path in linux.get("maskedPaths", []) + linux.get("readonlyPaths", []):
        if path.startswith(("/proc/", "/sys/")):
            facts.kinds[path] = _kind(path)
    root = config.get("root")
    if root and not config.get("jailrun", {}).get("layers"):
        path = facts.absolute(root["path"])
        if not _is_directory(path, f"cannot use {path} as root"):
            raise RootfsError(f"cannot use {path} as root: not a directory")


def _is_directory(path: str, what: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except OSError as error:
        hint = f"make it first: mkdir -p {path}" if isinstance(error, FileNotFoundError) else None
        raise RootfsError(f"{what}: {error.strerror}", hint=hint) from error


def _find_node(device: Device) -> str:
    """Return the path of a device on the host, where nothing else can be shown in the jail."""
    number = os.makedev(device.get("major", 0), device.get("minor", 0))
    is_kind = stat.S_ISBLK if device["type"] == "b" else stat.S_ISCHR
    folder = "block" if device["type"] == "b" else "char"
    candidates = [device["path"]]
    try:
        with open(f"/sys/dev/{folder}/{os.major(number)}:{os.minor(number)}/uevent") as file:
            names = [line[8:].strip() for line in file if line.startswith("DEVNAME=")]
            candidates += [f"/dev/{name}" for name in names]
    except FileNotFoundError:
        pass  # the kernel does not know it; the path may be right all the same
    for path in candidates:
        try:
            status = os.stat(path)
        except OSError:
            continue
        if is_kind(status.st_mode) and status.st_rdev == number:
            return path
    what = f"{device['type']} {os.major(number)} {os.minor(number)}"
    raise RootfsError(
        f"cannot make the device {device['path']}: the host has no device {what}, and in a user "
        "namespace none can be made",
        hint=f"make it on the host: mknod {device['path']} {what}, or run with --userns host",
    )


def _kind(path: str) -> str:
    try:
        return "directory" if stat.S_ISDIR(os.stat(path).st_mode) else "file"
    except OSError:
        return "absent"
