"""The content address of a tree: SHA-256 of the one tar stream that describes it.

Owns: the stream's form, `hash_tree`.  Out of scope: preparing the tree (`jailrun.images.seal`),
reading archives (`jailrun.images.unpack`).

The stream is a POSIX (pax) archive that tar programs can read, made the same way every time:

* members in the order of their paths' bytes, component by component, the root (``./``) first;
  a folder's name ends with a slash, a folder stands before what is in it;
* times in whole seconds; numeric owners, no names; the mode's lowest twelve bits;
* a file with several names is stored at the first of them, the others are hard links to that;
* extended attributes as ``SCHILY.xattr.<name>``, sorted, only the kinds in `is_kept_xattr`;
* a pax header only where a plain one cannot hold the value, its records sorted;
* a socket is an error (`seal` removes them), and two zero blocks are the end.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator

_BLOCK = 512
_CHUNK = 1 << 20
_NO_FOLLOW = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_TYPES = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}


def is_kept_xattr(name: str) -> bool:
    """Tell whether an extended attribute is part of an image.

    Overlay's own attributes never are: in a layer they would be orders to the kernel.
    """
    if name.startswith("user."):
        return not name.startswith("user.overlay.")
    return name == "security.capability"


def read_xattrs(target: int | str) -> dict[str, bytes]:
    """Return the attributes of an open file, or of the path of a link, that belong to an image."""
    follow = isinstance(target, int)
    try:
        names = os.listxattr(target, follow_symlinks=follow)
    except OSError as error:
        if error.errno in {errno.ENOTSUP, errno.EPERM}:
            return {}
        raise
    return {
        name: os.getxattr(target, name, follow_symlinks=follow)
        for name in sorted(names)
        if is_kept_xattr(name)
    }


def _octal(number: int, width: int) -> bytes | None:
    digits = b"%0*o" % (width - 1, number)
    return digits + b"\0" if number >= 0 and len(digits) < width else None


def _pax_record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + 1
    while len(b"%d" % length) + len(body) != length:
        length = len(b"%d" % length) + len(body)
    return b"%d" % length + body


def _ustar(
    name: bytes, kind: bytes, numbers: dict[bytes, int], link: bytes, device: int
) -> tuple[bytes, dict[bytes, bytes]]:
    """Return a header block, and the values that it has no room for."""
    records: dict[bytes, bytes] = {}

    def field(key: bytes, width: int) -> bytes:
        encoded = _octal(numbers[key], width)
        if encoded is None:
            records[key] = b"%d" % numbers[key]
            return b"0" * (width - 1) + b"\0"
        return encoded

    if len(name) > 100 or not name.isascii():
        records[b"path"] = name
    if len(link) > 100 or not link.isascii():
        records[b"linkpath"] = link
    is_device = kind in b"34"
    block = b"".join(
        [
            name[:100].ljust(100, b"\0"),
            field(b"mode", 8),
            field(b"uid", 8),
            field(b"gid", 8),
            field(b"size", 12),
            field(b"mtime", 12),
            b" " * 8,
            kind,
            link[:100].ljust(100, b"\0"),
            b"ustar\x0000",
            bytes(64),
            _octal(os.major(device) if is_device else 0, 8) or b"",
            _octal(os.minor(device) if is_device else 0, 8) or b"",
            bytes(167),
        ]
    )
    checksum = b"%06o\0 " % sum(block)
    return block[:148] + checksum + block[156:], records


def format_header(
    name: bytes,
    kind: bytes,
    status: os.stat_result,
    *,
    size: int = 0,
    link: bytes = b"",
    xattrs: dict[str, bytes] | None = None,
) -> bytes:
    """Return the header of one member, with its pax header before it where one is needed."""
    numbers = {
        b"mode": stat.S_IMODE(status.st_mode),
        b"uid": status.st_uid,
        b"gid": status.st_gid,
        b"size": size,
        b"mtime": int(status.st_mtime_ns // 1_000_000_000),
    }
    block, records = _ustar(name, kind, numbers, link, status.st_rdev)
    for key, value in (xattrs or {}).items():
        records[b"SCHILY.xattr." + key.encode()] = value
    if not records:
        return block
    body = b"".join(_pax_record(key, records[key]) for key in sorted(records))
    none = dict.fromkeys((b"mode", b"uid", b"gid", b"mtime"), 0)
    before, _ = _ustar(b"././@PaxHeader", b"x", {**none, b"size": len(body)}, b"", 0)
    return before + body + bytes(-len(body) % _BLOCK) + block


def write_stream(root_fd: int, write: Callable[[bytes], object]) -> int:
    """Write the stream of the tree below ``root_fd``; return the bytes of its regular files."""
    seen: dict[tuple[int, int], bytes] = {}
    total = 0
    for name, parent_fd, leaf in _walk(root_fd, b""):
        total += _write_member(name, parent_fd, leaf, seen, write)
    write(bytes(2 * _BLOCK))
    return total


def _walk(folder_fd: int, prefix: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    """Yield each member with the descriptor of its folder, in the order of the stream."""
    if not prefix:
        yield b"./", folder_fd, b"."
        prefix = b"./"
    for leaf in sorted(os.fsencode(name) for name in os.listdir(folder_fd)):
        status = os.stat(leaf, dir_fd=folder_fd, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            yield prefix + leaf, folder_fd, leaf
            continue
        yield prefix + leaf + b"/", folder_fd, leaf
        inner_fd = os.open(leaf, _NO_FOLLOW | os.O_DIRECTORY, dir_fd=folder_fd)
        try:
            yield from _walk(inner_fd, prefix + leaf + b"/")
        finally:
            os.close(inner_fd)


def _write_member(
    name: bytes,
    parent_fd: int,
    leaf: bytes,
    seen: dict[tuple[int, int], bytes],
    write: Callable[[bytes], object],
) -> int:
    status = os.stat(leaf, dir_fd=parent_fd, follow_symlinks=False)
    kind = _TYPES.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        raise OSError(errno.EINVAL, "a socket cannot be part of an image", os.fsdecode(name))
    identity = (status.st_dev, status.st_ino)
    if kind != b"5" and status.st_nlink > 1:
        if identity in seen:
            write(format_header(name, b"1", status, link=seen[identity]))
            return 0
        seen[identity] = name
    if kind == b"2":
        target = os.readlink(leaf, dir_fd=parent_fd)
        write(format_header(name, kind, status, link=os.fsencode(target)))
        return 0
    if kind not in b"05":
        write(format_header(name, kind, status))
        return 0
    descriptor = os.open(leaf, _NO_FOLLOW, dir_fd=parent_fd)
    try:
        xattrs = read_xattrs(descriptor)
        size = status.st_size if kind == b"0" else 0
        write(format_header(name, kind, status, size=size, xattrs=xattrs))
        if size:
            _copy(descriptor, size, name, write)
        return size
    finally:
        os.close(descriptor)


def _copy(descriptor: int, size: int, name: bytes, write: Callable[[bytes], object]) -> None:
    left = size
    while left:
        chunk = os.read(descriptor, min(left, _CHUNK))
        if not chunk:
            raise OSError(errno.EIO, "the file shrank while it was read", os.fsdecode(name))
        write(chunk)
        left -= len(chunk)
    write(bytes(-size % _BLOCK))


def hash_tree(root: str) -> tuple[str, int]:
    """Return the digest (``sha256:<hex>``) of the tree at ``root``, and its files' bytes."""
    state = hashlib.sha256()
    root_fd = os.open(root, _NO_FOLLOW | os.O_DIRECTORY)
    try:
        total = write_stream(root_fd, state.update)
    finally:
        os.close(root_fd)
    return f"sha256:{state.hexdigest()}", total
