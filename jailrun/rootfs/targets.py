"""Paths inside a root, which are hostile: an image may have a link to anywhere in its place.

Owns: `plan_target`.  Every step is resolved by the kernel from the root's descriptor
(openat2(2), RESOLVE_IN_ROOT), and what was resolved is used by descriptor, not by name again.
"""

from __future__ import annotations

import errno
import stat

from jailrun.kernel import constants as c

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailrun.kernel.lane import Lane
    from jailrun.kernel.program import Slot

IN_ROOT = c.RESOLVE_IN_ROOT | c.RESOLVE_NO_MAGICLINKS
# These may be no links at all: who reads /proc or /dev trusts what is there.
PLAIN = ("proc", "sys", "dev")


def split_path(path: str) -> list[str]:
    """Return the names in an absolute path; ``..`` stays below the root."""
    names: list[str] = []
    for name in path.split("/"):
        if name == "..":
            if names:
                names.pop()
        elif name not in ("", "."):
            names.append(name)
    return names


def plan_target(lane: Lane, root: Slot, path: str, *, directory: bool, create: bool = True) -> Slot:
    """Add opening ``path`` inside ``root``, made where it is missing; return its O_PATH slot."""
    names = split_path(path)
    if create:
        plan_create(lane, root, names, directory=directory)
    resolve = IN_ROOT | (c.RESOLVE_NO_SYMLINKS if names[:1] and names[0] in PLAIN else 0)
    kind = c.O_DIRECTORY if directory else 0
    return lane.openat2(
        root,
        "/".join(names) or ".",
        c.O_PATH | kind,
        resolve=resolve,
        what="reach the mount point",
        object=path,
        hint="the root has something else there: a symbolic link, or a file where a folder must be",
    )


def plan_create(lane: Lane, root: Slot, names: list[str], *, directory: bool) -> None:
    """Add making the last of ``names``, and the folders above it, where they are missing."""
    parent = root
    path = "/" + "/".join(names)
    # A read-only root may have it already; if not, reaching it fails with the better message.
    fine = (errno.EEXIST, errno.EROFS, errno.EACCES)
    for depth, name in enumerate(names, 1):
        if depth < len(names) or directory:
            lane.mkdirat(parent, name, 0o755, what="make the mount point", object=path, allow=fine)
        else:
            lane.mknodat(
                parent,
                name,
                stat.S_IFREG | 0o644,
                what="make the mount point",
                object=path,
                allow=fine,
            )
        if depth < len(names):
            resolve = IN_ROOT | (c.RESOLVE_NO_SYMLINKS if names[0] in PLAIN else 0)
            above = "/".join(names[:depth])
            opened = lane.openat2(
                root, above, c.O_PATH | c.O_DIRECTORY, resolve=resolve,
                what="reach the mount point", object=path,
            )  # fmt: skip
            parent = opened
