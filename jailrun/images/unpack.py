"""Put the members of an archive into a folder that the archive cannot lead out of.

Owns: `Unpacker`, one method for each kind of member.  Out of scope: reading and limiting the
archive (`jailrun.images.archive`).

The archive is hostile.  Every path is walked from the root's descriptor, one component at a time,
and no component may be a link: links are data here, never followed.  ``..`` is refused, a leading
slash means the image's own root.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from jailrun.errors import ImageError
from jailrun.images.tarstream import is_kept_xattr

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DEEPEST = 200  # folders: hashing keeps one descriptor open for each level
_LONGEST = 4095  # bytes, PATH_MAX without its NUL
_LATEST = (1 << 34) - 1  # seconds; ext4 ends in 2446
MORE_ROOM = "jailrun image rm, or a store on a larger file system (JAILRUN_DATA)"
_NO_ID = (1 << 32) - 1  # (uid_t) -1 means "leave it" to chown

Parts = tuple[bytes, ...]


@dataclass(frozen=True)
class Attributes:
    """What every kind of member has; ids are kept as they are in the archive."""

    mode: int
    uid: int
    gid: int
    mtime: int
    xattrs: dict[str, bytes] = field(default_factory=dict)


def split_path(name: bytes) -> Parts:
    """Return the components of a member's name; ImageError for one that leaves the root."""
    shown = os.fsdecode(name)
    parts = tuple(part for part in name.split(b"/") if part not in {b"", b"."})
    if b".." in parts:
        raise ImageError(f"the archive is hostile or damaged: {_show(shown)} leads out of its root")
    if b"\0" in name:
        raise ImageError(f"the archive is hostile or damaged: {_show(shown)} has a NUL in its name")
    if len(parts) > _DEEPEST or len(name) > _LONGEST:
        raise ImageError(
            f"the archive's member {_show(shown)} is nested too deeply: "
            f"at most {_DEEPEST} folders and {_LONGEST} bytes"
        )
    return parts


def _show(name: str) -> str:
    return repr(name if len(name) <= 80 else name[:77] + "…")


class Unpacker:
    """Writes below one root folder, at most ``most`` members.

    `finish` sets what later members would have changed.
    """

    def __init__(self, root_fd: int, most: int) -> None:
        self._root_fd = root_fd
        self._most = most
        self._made = 0
        # What the root and folders get of which the archive says nothing: the same on every day.
        self._unsaid = Attributes(0o755, os.geteuid(), os.getegid(), 0)
        self._folders: dict[Parts, Attributes] = {(): self._unsaid}
        self._last: tuple[Parts, int] | None = None  # members come folder by folder

    def close(self) -> None:
        """Close the descriptor that is kept for the next member."""
        if self._last is not None:
            os.close(self._last[1])
            self._last = None

    def add_folder(self, parts: Parts, attributes: Attributes) -> None:
        """Make a folder, or give the one that is there other attributes."""
        self._folders[parts] = attributes
        if not parts:
            return
        parent_fd = self._open(parts[:-1], parts)
        if _kind(parent_fd, parts[-1]) == stat.S_IFDIR:
            return
        self._clear(parent_fd, parts)
        with _naming(parts):
            os.mkdir(parts[-1], 0o700, dir_fd=parent_fd)

    def add_file(self, parts: Parts, attributes: Attributes, write: Callable[[int], None]) -> None:
        """Make a regular file; ``write`` gets its descriptor."""
        parent_fd = self._make_room(parts)
        with _naming(parts):
            descriptor = os.open(parts[-1], _NEW_FILE, 0o600, dir_fd=parent_fd)
        try:
            with _naming(parts):
                write(descriptor)
                _set(descriptor, attributes)
        finally:
            os.close(descriptor)

    def add_symlink(self, parts: Parts, attributes: Attributes, target: bytes) -> None:
        """Make a symbolic link; where it leads is not our business."""
        if not target or b"\0" in target:
            raise ImageError(f"the archive is damaged: the link {_join(parts)} has no valid target")
        parent_fd = self._make_room(parts)
        with _naming(parts):
            os.symlink(target, parts[-1], dir_fd=parent_fd)
            _set_at(parent_fd, parts[-1], attributes)

    def add_hard_link(self, parts: Parts, target: Parts) -> None:
        """Give a file that the archive held before a further name."""
        if not target:
            raise ImageError(f"the archive is damaged: {_join(parts)} is a hard link to nothing")
        if parts == target:
            return
        source_fd = os.dup(self._open(target[:-1], parts, make=False))
        try:
            kind = _kind(source_fd, target[-1])
            if kind is None or kind == stat.S_IFDIR:
                raise ImageError(
                    f"the archive is damaged: {_join(parts)} is a hard link to {_join(target)}, "
                    + ("a folder" if kind else "which it does not hold before")
                )
            parent_fd = self._make_room(parts)
            with _naming(parts):
                os.link(
                    target[-1],
                    parts[-1],
                    src_dir_fd=source_fd,
                    dst_dir_fd=parent_fd,
                    follow_symlinks=False,
                )
        finally:
            os.close(source_fd)

    def add_node(self, parts: Parts, attributes: Attributes, kind: int, device: int) -> None:
        """Make a fifo or a device node (``kind`` is S_IFIFO, S_IFCHR or S_IFBLK)."""
        parent_fd = self._make_room(parts)
        with _naming(parts):
            os.mknod(parts[-1], 0o600 | kind, device, dir_fd=parent_fd)
            _set_at(parent_fd, parts[-1], attributes)
            os.chmod(parts[-1], attributes.mode & 0o7777, dir_fd=parent_fd)

    def finish(self) -> None:
        """Give the folders their attributes: last, since each new entry changes their time."""
        self.close()
        for parts in sorted(self._folders, key=len, reverse=True):
            try:
                folder_fd = os.dup(self._open(parts, parts, make=False))
            except ImageError:  # a later member replaced it by something else
                continue
            try:
                with _naming(parts):
                    _set(folder_fd, self._folders[parts])
            finally:
                os.close(folder_fd)
        self.close()

    def count(self) -> None:
        """Count a member, or a folder that only the path of one implies; each takes an inode."""
        self._made += 1
        if self._made > self._most:
            raise ImageError(
                f"the archive has more than {self._most} members, "
                "all that the image store has room for",
                hint=MORE_ROOM,
            )

    def _make_room(self, parts: Parts) -> int:
        """Return the descriptor of the folder in which ``parts`` can be made anew."""
        if not parts:
            raise ImageError("the archive is hostile or damaged: its root is not a folder")
        parent_fd = self._open(parts[:-1], parts)
        self._clear(parent_fd, parts)
        return parent_fd

    def _clear(self, parent_fd: int, parts: Parts) -> None:
        """Remove what an earlier member of the same name made; a full folder is an error."""
        kind = _kind(parent_fd, parts[-1])
        if kind is None:
            return
        with _naming(parts):
            if kind != stat.S_IFDIR:
                os.unlink(parts[-1], dir_fd=parent_fd)
                return
            try:
                os.rmdir(parts[-1], dir_fd=parent_fd)
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
                raise ImageError(
                    f"the archive is damaged: it has {_join(parts)} as a folder with content, "
                    "and again as something else"
                ) from None
        self._folders.pop(parts, None)

    def _open(self, folder: Parts, member: Parts, *, make: bool = True) -> int:
        """Return a descriptor of ``folder``, valid until the next call; make what is missing."""
        if self._last is not None and self._last[0] == folder:
            return self._last[1]
        current = os.dup(self._root_fd)
        for depth, part in enumerate(folder):
            inner = -1
            try:
                try:
                    inner = os.open(part, _FOLDER, dir_fd=current)
                except FileNotFoundError:
                    if not make:
                        raise
                    self.count()
                    os.mkdir(part, 0o755, dir_fd=current)
                    self._folders[folder[: depth + 1]] = self._unsaid
                    inner = os.open(part, _FOLDER, dir_fd=current)
            except OSError as error:
                place = _join(folder[: depth + 1])
                if error.errno in {errno.ELOOP, errno.ENOTDIR}:
                    raise ImageError(
                        f"the archive is hostile or damaged: {_join(member)} would go through "
                        f"{place}, which is not a folder"
                    ) from None
                raise ImageError(
                    f"cannot unpack {_join(member)}: {place}: {error.strerror}"
                ) from error
            finally:
                os.close(current)
            current = inner
        self.close()
        self._last = (folder, current)
        return current


def _kind(folder_fd: int, name: bytes) -> int | None:
    """Return the type bits of what is there; None where nothing is."""
    try:
        return stat.S_IFMT(os.stat(name, dir_fd=folder_fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ImageError(f"cannot unpack {_show(os.fsdecode(name))}: {error.strerror}") from error


def _set(descriptor: int, attributes: Attributes) -> None:
    """Owner first: changing it clears the set-id bits and the capabilities."""
    os.fchown(descriptor, attributes.uid, attributes.gid)
    os.fchmod(descriptor, attributes.mode & 0o7777)
    for name, value in attributes.xattrs.items():
        if is_kept_xattr(name):
            os.setxattr(descriptor, name, value)
    os.utime(descriptor, (attributes.mtime, attributes.mtime))


def _set_at(folder_fd: int, name: bytes, attributes: Attributes) -> None:
    os.chown(name, attributes.uid, attributes.gid, dir_fd=folder_fd, follow_symlinks=False)
    times = (attributes.mtime, attributes.mtime)
    os.utime(name, times, dir_fd=folder_fd, follow_symlinks=False)


def settle(attributes: Attributes, name: str) -> Attributes:
    """Return the attributes within what a file system holds; ImageError for impossible ids."""
    if not (0 <= attributes.uid < _NO_ID and 0 <= attributes.gid < _NO_ID):
        raise ImageError(
            f"the archive's member {_show(name)} has an impossible owner: "
            f"{attributes.uid}:{attributes.gid}"
        )
    mtime = min(max(attributes.mtime, 0), _LATEST)
    return Attributes(
        attributes.mode & 0o7777, attributes.uid, attributes.gid, mtime, attributes.xattrs
    )


def _join(parts: Parts) -> str:
    return _show(os.fsdecode(b"/".join(parts)) or "/")


@contextmanager
def _naming(parts: Parts) -> Iterator[None]:
    """Turn a failed system call into an error that names the member."""
    try:
        yield
    except OSError as error:
        raise ImageError(f"cannot unpack {_join(parts)}: {error.strerror}") from error
