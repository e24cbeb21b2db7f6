"""The jail's own /etc/hosts, /etc/resolv.conf and /etc/hostname, whatever its root has there.

Owns: `plan_etc`.  Out of scope: what they say (`jailrun.net.names`), and whether the user mounts
something there (the caller leaves that file out).

The files lie on a small file system of the jail's own, of which it sees nothing but them: each
is mounted on its name in /etc.  They are not written into the root, which may be read-only, an
image's, or a folder that others use; they go with the jail, whose root may write to them meanwhile.

An image may have links in their place: Debian's has /etc/resolv.conf lead to a file of
systemd-resolved in /run.  The mount is on the link itself, not on what it leads to: nothing is made
outside of /etc, and it stays in sight when the jail mounts a /run of its own.
"""

from __future__ import annotations

import errno
import os
import stat

from jailrun.kernel import constants as c
from jailrun.rootfs.targets import IN_ROOT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailrun.kernel.lane import Lane
    from jailrun.kernel.program import Program, Slot

SIZE = 1 << 16  # bytes of the file system: what the jail's root can write into it
INODES = 8
# Where the mount point is missing in a root that cannot be written, there is no /etc to be read.
CANNOT_MAKE = (errno.EEXIST, errno.EROFS, errno.EACCES)
MISSING = (errno.ENOENT,)
ATTRIBUTES = c.MOUNT_ATTR_NOSUID | c.MOUNT_ATTR_NODEV | c.MOUNT_ATTR_NOEXEC


def plan_etc(program: Program, root: Slot, files: dict[str, str], place: str) -> None:
    """Add showing ``files``, text by name, in /etc, owned by the jail's root and writable for it.

    ``place`` is a folder of the host that nothing of the plan looks into any more; it is covered in
    the jail's mount namespace, until the change of root.
    """
    if not files:
        return
    program.enter("rootfs")
    child = program.child
    child.mkdirat(root, "etc", 0o755, what="make the folder", object="/etc", allow=CANNOT_MAKE)
    etc = child.openat2(
        root, "etc", c.O_PATH | c.O_DIRECTORY, resolve=IN_ROOT, what="open", object="/etc",
        allow=MISSING, hint="the root has a file there, or a link that leads to no folder",
    )  # fmt: skip
    data = {name: text.encode("utf-8", "surrogateescape") for name, text in files.items()}
    own = _plan_file_system(child, sum(map(len, data.values())))
    # Before Linux 6.15 only what is attached can be copied.  It is not taken away again, since that
    # makes the kernel wait for all its processors: the place goes with the host's root.
    child.move_mount(own, c.AT_FDCWD, place, what="mount a file system for /etc on")
    for name, content in data.items():
        _plan_file(child, own, etc, name, content)


def _plan_file_system(child: Lane, needed: int) -> Slot:
    what = "mount a file system for /etc"
    fs = child.fsopen("tmpfs", what=what)
    child.fsconfig_string(fs, "source", "tmpfs", what=what)
    child.fsconfig_string(fs, "size", str(SIZE + needed), what=what)
    child.fsconfig_string(fs, "nr_inodes", str(INODES), what=what)
    child.fsconfig_create(fs, what=what)
    return child.fsmount(fs, ATTRIBUTES, what=what)


def _plan_file(child: Lane, own: Slot, etc: Slot, name: str, content: bytes) -> None:
    """Add one file; where /etc is missing, and so its slot is empty, nothing is shown."""
    path = f"/etc/{name}"
    what = "write"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    fd = child.openat(own, name, flags, 0o644, what=what, object=path)
    if content:
        child.write(fd, content, what=what, object=path)
    child.mknodat(
        etc, name, stat.S_IFREG | 0o644, what="make the mount point", object=path,
        allow=CANNOT_MAKE,
    )  # fmt: skip
    copy = child.open_tree(
        fd, "", c.OPEN_TREE_CLONE | c.AT_EMPTY_PATH, what="mount a file on", object=path
    )
    # A link in the last place is not followed.
    child.move_mount(
        copy, etc, name, what="mount a file on", object=path, allow=MISSING,
        hint="the root has a folder there",
    )  # fmt: skip
