"""What is in /dev: the default nodes and links, the config's devices, the console.

Owns: making nodes.  In a user namespace nobody can make a device node: the host's own node is
bound over an empty file instead.  Out of scope: which devices may be used
(`jailrun.cgroups`).
"""

from __future__ import annotations

import errno
import os
import stat
from _struct import pack

from jailrun.kernel import constants as c
from jailrun.kernel.program import Struct
from jailrun.rootfs.mounts import has_mount
from jailrun.rootfs.targets import IN_ROOT, plan_target, split_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailrun.kernel.lane import Lane
    from jailrun.kernel.program import Program, Slot
    from jailrun.rootfs.facts import Facts
    from jailrun.spec.model import Config, Device, IDMapping

# config-linux.md, "Default Devices" and "/dev symbolic links"
DEFAULT_DEVICES = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
DEFAULT_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
)
KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


def plan_devices(config: Config, program: Program, root: Slot, facts: Facts) -> None:
    """Add the default nodes and links, unless the config shows another /dev, and its devices."""
    program.enter("rootfs")
    child = program.child
    if not _shows_other_dev(config):
        dev = _open_dev(child, root)
        devices = config.get("linux", {}).get("devices", [])
        listed = {tuple(split_path(device["path"])) for device in devices}
        for name, major, minor in DEFAULT_DEVICES:
            if ("dev", name) not in listed:
                _plan_default_node(child, dev, name, os.makedev(major, minor), facts)
        for name, target in DEFAULT_LINKS:
            child.symlinkat(
                target,
                dev,
                name,
                what="make the link",
                object=f"/dev/{name}",
                allow=(errno.EEXIST, errno.EROFS),
            )
        if has_mount(config, "/dev/pts", "devpts"):
            child.unlinkat(
                dev, "ptmx", what="replace", object="/dev/ptmx", allow=(errno.ENOENT, errno.EROFS)
            )
            child.symlinkat(
                "pts/ptmx",
                dev,
                "ptmx",
                what="make the link",
                object="/dev/ptmx",
                allow=(errno.EEXIST, errno.EROFS),
            )
    for device in config.get("linux", {}).get("devices", []):
        _plan_device(program, root, device, config, facts)


def _shows_other_dev(config: Config) -> bool:
    return any(
        split_path(mount["destination"]) == ["dev"]
        and (mount.get("type") == "bind" or {"bind", "rbind"} & set(mount.get("options", [])))
        for mount in config.get("mounts", [])
    )


def _open_dev(child: Lane, root: Slot) -> Slot:
    child.mkdirat(
        root, "dev", 0o755, what="make the folder", object="/dev", allow=(errno.EEXIST, errno.EROFS)
    )
    return child.openat2(
        root, "dev", c.O_PATH | c.O_DIRECTORY, resolve=IN_ROOT | c.RESOLVE_NO_SYMLINKS,
        what="open", object="/dev", hint="the root has a symbolic link or a file there",
    )  # fmt: skip


def _plan_default_node(child: Lane, dev: Slot, name: str, number: int, facts: Facts) -> None:
    path = f"/dev/{name}"
    exists = (errno.EEXIST,)
    if not facts.in_user_namespace:
        child.mknodat(
            dev,
            name,
            stat.S_IFCHR | 0o666,
            number,
            what="make the device",
            object=path,
            allow=exists,
        )
        child.fchmodat(dev, name, 0o666, what="make the device", object=path)
        return
    child.mknodat(
        dev, name, stat.S_IFREG | 0o666, what="make the device", object=path, allow=exists
    )
    node = child.open_tree(
        c.AT_FDCWD, path, c.OPEN_TREE_CLONE, what="take the host's device", object=path
    )
    # move_mount does not follow a link in the last place, should the image have one there.
    child.move_mount(node, dev, name, what="make the device", object=path)


def _plan_device(
    program: Program, root: Slot, device: Device, config: Config, facts: Facts
) -> None:
    """Add one device of the config."""
    child, path = program.child, device["path"]
    kind = KINDS[device["type"]]
    mode = kind | device.get("fileMode", 0o666) & 0o7777
    number = os.makedev(device.get("major", 0), device.get("minor", 0))
    what = "make the device"
    if facts.in_user_namespace and kind != stat.S_IFIFO:
        target = plan_target(child, root, path, directory=False)
        source = facts.nodes[path]
        node = child.open_tree(c.AT_FDCWD, source, c.OPEN_TREE_CLONE, what=what, object=path)
        child.move_mount(node, target, what=what, object=path)
        _plan_own_node(program, target, device, mode, number, config)
        return
    names = split_path(path)
    folder = plan_target(child, root, "/".join(names[:-1]), directory=True)
    gone = (errno.ENOENT, errno.EROFS)
    child.unlinkat(folder, names[-1], what="replace", object=path, allow=gone)
    child.mknodat(folder, names[-1], mode, number, what=what, object=path)
    child.fchmodat(folder, names[-1], mode & 0o7777, what=what, object=path)
    owner = device.get("uid", 0), device.get("gid", 0)
    child.fchownat(folder, names[-1], *owner, c.AT_SYMLINK_NOFOLLOW, what=what, object=path)


def _plan_own_node(
    program: Program, target: Slot, device: Device, mode: int, number: int, config: Config
) -> None:
    """Add covering the host's node with one that has the owner and mode that the config says.

    The caller makes it, on a file system that is mounted nowhere.  Before Linux 6.15 such a mount
    cannot be copied: there the host's node stays, with the host's owner and mode.
    """
    before, path, what = program.before, device["path"], "make the device"
    fs = before.fsopen("tmpfs", what=what, object=path)
    before.fsconfig_create(fs, what=what, object=path)
    folder = before.fsmount(fs, what=what, object=path)
    before.close(fs)
    before.mknodat(folder, "node", mode, number, what=what, object=path)
    before.fchmodat(folder, "node", mode & 0o7777, what=what, object=path)
    linux = config["linux"]
    uid = _host_id(linux.get("uidMappings", []), device.get("uid", 0))
    gid = _host_id(linux.get("gidMappings", []), device.get("gid", 0))
    before.fchownat(folder, "node", uid, gid, c.AT_SYMLINK_NOFOLLOW, what=what, object=path)
    node = before.open_tree(
        folder, "node", c.OPEN_TREE_CLONE, what=what, object=path, allow=(errno.EINVAL,)
    )
    before.close(folder)
    program.child.move_mount(node, target, what=what, object=path)


def _host_id(mappings: list[IDMapping], inside: int) -> int:
    """Return the host's id for one of the jail's; -1, which changes nothing, where it has none."""
    for mapping in mappings:
        if 0 <= inside - mapping["containerID"] < mapping["size"]:
            return mapping["hostID"] + inside - mapping["containerID"]
    return -1


def plan_console(config: Config, program: Program, root: Slot, socket: int) -> Slot:
    """Add making the payload's terminal, which is also /dev/console; return the slave's slot."""
    program.enter("rootfs")
    child = program.child
    slave = plan_terminal(config, program, root, socket)
    target = plan_target(child, root, "/dev/console", directory=False)
    what = "make the terminal"
    node = child.open_tree(
        slave, "", c.OPEN_TREE_CLONE | c.AT_EMPTY_PATH, what=what, object="/dev/console"
    )
    child.move_mount(node, target, what=what, object="/dev/console")
    return slave


def plan_terminal(config: Config, program: Program, root: Slot, socket: int) -> Slot:
    """Add making a terminal in the jail's devpts and sending its master over ``socket``.

    Returns the slot of the slave, which becomes a process's standard streams.
    """
    child = program.child
    process = config["process"]
    what = "make the terminal"
    hint = "the config must mount devpts on /dev/pts"
    master = child.openat2(
        root, "dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY, resolve=IN_ROOT | c.RESOLVE_NO_SYMLINKS,
        what=what, object="/dev/pts/ptmx", hint=hint,
    )  # fmt: skip
    child.ioctl(master, c.TIOCSPTLCK, Struct(pack("<i", 0), label="{0}"), what=what)
    size = process.get("consoleSize")
    if size:
        rows = Struct(pack("<HHHH", size["height"], size["width"], 0, 0), label=str(size))
        child.ioctl(master, c.TIOCSWINSZ, rows, what=what)
    slave = child.ioctl(master, c.TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY, what=what)
    user = process.get("user") or {"uid": 0, "gid": 0}
    if user["uid"]:
        child.call("fchown", slave, user["uid"], -1, what="give the terminal to its user")
    child.send_descriptor(socket, master, b"/dev/pts/ptmx\0", what="hand over the terminal")
    return slave
