"""Turn a folder that was unpacked or built into a tree fit to be a layer.

Owns: mount points every root needs, times, what is taken away.  Out of scope: the content address
(`jailrun.images.tarstream`), the store's folders (`jailrun.images.store`).

The tree may be hostile: every step goes through descriptors and follows no link.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterable

from jailrun.images.tarstream import hash_tree

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOUNT_POINTS = {"proc": 0o555, "sys": 0o555, "dev": 0o755, "run": 0o755, "tmp": 0o1777}
_FOLDERS = {**_MOUNT_POINTS, "etc": 0o755, "root": 0o700}
_FILES = ("hostname", "hosts", "resolv.conf")
_SECOND = 1_000_000_000


def seal(root: str, *, newest: int | None = None) -> tuple[str, int]:
    """Make the tree at ``root`` complete and its times definite; return its digest and bytes.

    ``newest`` (seconds since 1970) replaces every later modification time, so that what a build
    wrote today has the same address as what it wrote yesterday.
    """
    root_fd = os.open(root, _FOLDER)
    try:
        added = _add_mount_points(root_fd)
        times = _touch_times(newest)
        _fix(root_fd, times)
        if newest is None:  # what we added has today's time; an import knows no better one
            for path in added:
                os.utime(path, (0, 0), dir_fd=root_fd, follow_symlinks=False)
        os.fchmod(root_fd, stat.S_IMODE(os.fstat(root_fd).st_mode) | 0o555)
        _set_time(root_fd, times)
        _sync_filesystem(root_fd)
    finally:
        os.close(root_fd)
    return hash_tree(root)


def _touch_times(newest: int | None) -> int | None:
    return None if newest is None else newest * _SECOND


def _add_mount_points(root_fd: int) -> list[str]:
    """Add the folders and files on which a start mounts, so that it need not make them.

    What is there stays as it is, links included: that an image is fit to run is checked by the
    start, which resolves each target within the root.
    """
    added = []
    before = os.fstat(root_fd)
    for name, mode in _FOLDERS.items():
        if _make_folder(root_fd, name, mode):
            added.append(name)
    try:
        etc_fd = os.open("etc", _FOLDER, dir_fd=root_fd)
    except OSError:  # a link, or a file: not ours to mend
        return added
    try:
        etc_before = os.fstat(etc_fd)
        for name in _FILES:
            if _make_file(etc_fd, name):
                added.append(f"etc/{name}")
        if "etc" not in added:
            os.utime(etc_fd, ns=(etc_before.st_atime_ns, etc_before.st_mtime_ns))
    finally:
        os.close(etc_fd)
    os.utime(root_fd, ns=(before.st_atime_ns, before.st_mtime_ns))
    return added


def _make_folder(parent_fd: int, name: str, mode: int) -> bool:
    try:
        os.mkdir(name, 0o700, dir_fd=parent_fd)
    except FileExistsError:
        return False
    descriptor = os.open(name, _FOLDER, dir_fd=parent_fd)
    try:
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)
    return True


def _make_file(parent_fd: int, name: str) -> bool:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, 0o644, dir_fd=parent_fd)
    except FileExistsError:
        return False
    try:
        os.fchmod(descriptor, 0o644)
    finally:
        os.close(descriptor)
    return True


def _fix(folder_fd: int, newest_ns: int | None) -> None:
    """Remove sockets and settle the times of all that is below ``folder_fd``."""
    names: Iterable[str] = os.listdir(folder_fd)
    for name in names:
        status = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
        if stat.S_ISSOCK(status.st_mode):
            os.unlink(name, dir_fd=folder_fd)
            continue
        if stat.S_ISDIR(status.st_mode):
            inner_fd = os.open(name, _FOLDER, dir_fd=folder_fd)
            try:
                _fix(inner_fd, newest_ns)
                _set_time(inner_fd, newest_ns, status)
            finally:
                os.close(inner_fd)
            continue
        wanted = _settled(status.st_mtime_ns, newest_ns)
        if wanted != status.st_mtime_ns:
            os.utime(name, ns=(wanted, wanted), dir_fd=folder_fd, follow_symlinks=False)


def _set_time(folder_fd: int, newest_ns: int | None, status: os.stat_result | None = None) -> None:
    status = status or os.fstat(folder_fd)
    wanted = _settled(status.st_mtime_ns, newest_ns)
    os.utime(folder_fd, ns=(wanted, wanted))


def _settled(time_ns: int, newest_ns: int | None) -> int:
    if newest_ns is not None and time_ns > newest_ns:
        return newest_ns
    return time_ns // _SECOND * _SECOND


def _sync_filesystem(descriptor: int) -> None:
    """Write the file system of ``descriptor`` to its disk (one call, not one for each file)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        if number != errno.EINVAL:
            raise OSError(number, os.strerror(number))
