"""Hiding and sealing: masked and read-only paths, the change of root, the root's own options.

Owns: the last steps of the file system.  A masked file gets the host's /dev/null, opened by
descriptor before the root changes (an image cannot put another in its place), a masked folder an
empty read-only tmpfs.
"""

from __future__ import annotations

import errno

from jailrun.kernel import constants as c
from jailrun.rootfs.targets import IN_ROOT, split_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailrun.kernel.lane import Lane
    from jailrun.kernel.program import Program, Slot
    from jailrun.rootfs.facts import Facts
    from jailrun.spec.model import Config

PROPAGATION = {
    "shared": c.MS_SHARED, "slave": c.MS_SLAVE, "private": c.MS_PRIVATE,
    "unbindable": c.MS_UNBINDABLE,
}  # fmt: skip
# What a path that is not there fails with: there is nothing to hide.
ABSENT = (errno.ENOENT, errno.ENOTDIR)


def plan_masks(config: Config, program: Program, root: Slot, facts: Facts) -> None:
    """Add the read-only paths and the masked ones."""
    program.enter("rootfs")
    child = program.child
    linux = config.get("linux", {})
    for path in linux.get("readonlyPaths", []):
        if facts.kinds.get(path) != "absent":
            _plan_readonly(child, root, path)
    masked = [p for p in linux.get("maskedPaths", []) if facts.kinds.get(p) != "absent"]
    if not masked:
        return
    null = child.open("/dev/null", c.O_PATH, what="open")
    fs = child.fsopen("tmpfs", what="mount an empty folder")
    child.fsconfig_string(fs, "source", "masked")
    child.fsconfig_string(fs, "mode", "000", what="mount an empty folder")
    child.fsconfig_create(fs, what="mount an empty folder")
    attributes = (
        c.MOUNT_ATTR_RDONLY | c.MOUNT_ATTR_NOSUID | c.MOUNT_ATTR_NODEV | c.MOUNT_ATTR_NOEXEC
    )
    empty = child.fsmount(fs, attributes, what="mount an empty folder")
    # It is copied for each folder, and before Linux 6.15 only what is attached can be copied.
    # Where does not matter: this place, too, goes with the host's root.
    above = facts.meeting_place.rpartition("/")[0]
    child.move_mount(empty, c.AT_FDCWD, above, what="mount an empty folder on")
    for path in masked:
        kind = facts.kinds.get(path, "unknown")
        if kind != "file":
            _plan_mask(child, root, path, empty, c.O_DIRECTORY, ())
        if kind != "directory":
            _plan_mask(child, root, path, null, 0, (errno.EINVAL,) if kind == "unknown" else ())


def _plan_mask(
    child: Lane, root: Slot, path: str, cover: Slot, flags: int, mismatch: tuple[int, ...]
) -> None:
    """Add covering ``path`` with a copy of ``cover``; a file over a folder is a ``mismatch``."""
    name = "/".join(split_path(path))
    what = "mask"
    place = child.openat2(
        root, name, c.O_PATH | flags, resolve=IN_ROOT, allow=ABSENT, what=what, object=path
    )
    copy = child.open_tree(cover, "", c.OPEN_TREE_CLONE | c.AT_EMPTY_PATH, what=what, object=path)
    child.move_mount(copy, place, what=what, object=path, allow=mismatch)


def _plan_readonly(child: Lane, root: Slot, path: str) -> None:
    name = "/".join(split_path(path))
    what = "make read-only"
    place = child.openat2(
        root, name, c.O_PATH, resolve=IN_ROOT, allow=ABSENT, what=what, object=path
    )
    copy = child.open_tree(
        place, "", c.OPEN_TREE_CLONE | c.AT_RECURSIVE | c.AT_EMPTY_PATH, what=what, object=path
    )
    child.mount_setattr(copy, attr_set=c.MOUNT_ATTR_RDONLY, recursive=True, what=what, object=path)
    child.move_mount(copy, place, what=what, object=path)


def plan_pivot(program: Program, root: Slot) -> None:
    """Add the change of root: the old one ends up below the new and is detached."""
    program.enter("rootfs")
    child = program.child
    child.fchdir(root, what="enter the root")
    child.pivot_root(
        ".",
        ".",
        what="change the root",
        hint="the root must be a mount of its own, not the host's first (initramfs) one",
    )
    child.umount2(".", c.MNT_DETACH, what="let go of the host's root")
    child.chdir("/", what="enter the root")


def plan_seal(config: Config, program: Program) -> None:
    """Add the options of the root mount itself."""
    program.enter("rootfs")
    child = program.child
    wanted = config.get("linux", {}).get("rootfsPropagation", "")
    if wanted:
        flags = PROPAGATION[wanted.removeprefix("r")]
        recursive = c.MS_REC if wanted.startswith("r") else 0
        child.mount(0, "/", 0, flags | recursive, what=f"set the propagation {wanted} of")
    if config.get("root", {}).get("readonly"):
        root = child.open("/", c.O_PATH, what="open the root")
        child.mount_setattr(root, attr_set=c.MOUNT_ATTR_RDONLY, what="make the root read-only")
