"""Reading a file of a jail's root from the host: the root is hostile, and so is every name in it.

Owns: `open_in_root`, `open_in_layers` and `read_regular`.  Nothing here follows a link out of the
root, waits for a FIFO, or opens a device: what a path leads to is looked at (O_PATH) before it is
opened.  Out of scope: a jail that runs, whose mounts the host does not see.
"""

from __future__ import annotations

import errno
import os
import stat
from _struct import pack

from jailrun.kernel import constants as c
from jailrun.kernel.execute import load_executor, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_LINKS = 40  # as the kernel: MAXSYMLINKS, linux/namei.h
MAX_TRIES = 16
OPAQUE = ("user.overlay.opaque", "trusted.overlay.opaque")
WHITEOUT = ("user.overlay.whiteout", "trusted.overlay.whiteout")
_PASS = c.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def open_in_root(root_fd: int, path: str) -> int:
    """Return an O_PATH descriptor of what ``path`` means to a process whose root is ``root_fd``.

    openat2(2), Linux 5.6.  Raises OSError; ELOOP for a magic link.
    """
    how = pack("<QQQ", c.O_PATH | os.O_CLOEXEC, 0, c.RESOLVE_IN_ROOT | c.RESOLVE_NO_MAGICLINKS)
    buffer = bytearray(how + os.fsencode(path) + b"\0")
    place = load_executor().address(buffer)
    for _ in range(MAX_TRIES):
        try:
            return syscall("openat2", root_fd, place + len(how), place, len(how))
        except BlockingIOError:
            continue  # something was renamed while ".." was resolved
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), path)


def open_in_layers(layers: Sequence[str], path: str) -> int:
    """Return an O_PATH descriptor of what ``path`` is in an overlay of ``layers``, top first.

    Whiteouts, opaque folders and links from one layer into another count as they do once mounted.
    """
    roots: list[int] = []
    try:
        for layer in layers:
            roots.append(os.open(layer, c.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        return open_in_root(roots[0], path) if len(roots) == 1 else _walk(roots, path)
    finally:
        for fd in roots:
            os.close(fd)


def _walk(roots: list[int], path: str) -> int:
    """Resolve a path, one name after the other: a place is the folders that make it, top first."""
    opened: list[int] = []
    trail = [roots]
    names = _names(path)
    links = 0
    try:
        while names:
            name = names.pop()
            if name == "..":
                del trail[max(len(trail) - 1, 1) :]
                continue
            found = _look_up(trail[-1], name, opened)
            kind = os.fstat(found[0]).st_mode
            if stat.S_ISLNK(kind):
                links += 1
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                target = os.readlink("", dir_fd=found[0])
                if target.startswith("/"):
                    del trail[1:]
                names += _names(target)
            elif stat.S_ISDIR(kind):
                trail.append(found)
            elif names:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            else:
                opened.remove(found[0])
                return found[0]
        return os.open(".", c.O_PATH | os.O_CLOEXEC, dir_fd=trail[-1][0])
    finally:
        for fd in opened:
            os.close(fd)


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")][::-1]


def _look_up(folders: list[int], name: str, opened: list[int]) -> list[int]:
    """Return what makes up ``name``: several folders, or one thing of another kind."""
    found: list[int] = []
    for folder in folders:
        try:
            fd = os.open(name, _PASS, dir_fd=folder)
        except FileNotFoundError:
            continue
        opened.append(fd)
        status = os.fstat(fd)
        is_folder = stat.S_ISDIR(status.st_mode)
        if is_folder or (not found and not _is_whiteout(status, fd)):
            found.append(fd)
        if not is_folder or _has_attribute(fd, OPAQUE):
            break
    if not found:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return found


def _is_whiteout(status: os.stat_result, fd: int) -> bool:
    if stat.S_ISCHR(status.st_mode):
        return status.st_rdev == 0
    # Linux 6.7
    return stat.S_ISREG(status.st_mode) and not status.st_size and _has_attribute(fd, WHITEOUT)


def _has_attribute(fd: int, names: tuple[str, ...]) -> bool:
    for name in names:
        try:
            # An O_PATH descriptor gives no attributes; the link of /proc leads to the same file.
            os.getxattr(f"/proc/self/fd/{fd}", name)
        except OSError:
            continue
        return True
    return False


def read_regular(fd: int, limit: int) -> bytes:
    """Return at most ``limit`` bytes of an O_PATH descriptor's file, and close the descriptor.

    Raises OSError (EINVAL) where it is not a regular file: a device may act on being opened.
    """
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        file = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(fd)
    parts = []
    try:
        while limit > 0 and (part := os.read(file, min(limit, 1 << 16))):
            parts.append(part)
            limit -= len(part)
    finally:
        os.close(file)
    return b"".join(parts)
