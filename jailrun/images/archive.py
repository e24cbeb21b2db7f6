"""Import the tar file of a root file system.

Owns: `import_tar`, `import_archive`, the limits, what becomes of each kind of member.  Out of
scope: reading the archive (`jailrun.images.tarread`), writing below a root
(`jailrun.images.unpack`), archives of images with layers.
"""

from __future__ import annotations

import errno
import math
import os
import platform
import stat
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from jailrun.errors import ImageError, UnsupportedError
from jailrun.images import lookup, store
from jailrun.images.lookup import Image
from jailrun.images.progress import Progress, Silent
from jailrun.images.seal import seal
from jailrun.images.store import Manifest
from jailrun.images.tarread import Reader, decompress, read_members
from jailrun.images.tarstream import is_kept_xattr
from jailrun.images.unpack import MORE_ROOM, Attributes, Unpacker, settle, split_path

_MEMBERS = 5_000_000
_REPORT_BYTES = 8 << 20
_CHUNK = 1 << 20
_XATTR = "SCHILY.xattr."


@dataclass(frozen=True)
class Limits:
    """What an archive may take: bytes of its files, and members."""

    total_bytes: int
    members: int


def free_limits(folder: Path) -> Limits:
    """Return the limits that the free space of ``folder`` sets, less a reserve of 5 %."""
    space = os.statvfs(folder)
    reserve = min(space.f_blocks * space.f_frsize // 20, 1 << 30)
    inodes = space.f_favail - space.f_files // 20 if space.f_files else _MEMBERS
    total = max(space.f_bavail * space.f_frsize - reserve, 0)
    return Limits(total, max(min(inodes, _MEMBERS), 0))


def import_tar(
    path: str | Path,
    name: str,
    progress: Progress | None = None,
    *,
    config: dict[str, Any] | None = None,
    devices: bool = False,
    limits: Limits | None = None,
) -> Image:
    """Take the root file system in a tar file into the store, under ``name``.

    The file may be plain or compressed by gzip, xz, bzip2 or zstd.  ``config`` is the image's
    configuration (see `lookup.Image`).  Device nodes are refused unless ``devices`` says
    otherwise; those in the top ``dev`` are left out, as every jail gets a ``/dev`` of its own.
    """
    reference = lookup.normalise(name)
    progress = progress or Silent()
    with (
        store.hold_lock(lookup.file_name(reference), lambda: _tell_waiting(progress, reference)),
        _open_archive(Path(path)) as file,
    ):
        options = _Options(devices, limits, config or {})
        manifest = _import(file, Path(path), options, progress, name=reference)
        return store.add_image(manifest, reference=reference)


def import_archive(path: Path, progress: Progress | None = None) -> Image:
    """Take a tar file that is run by its path into the store, once for each state of the file."""
    progress = progress or Silent()
    with _open_archive(path) as file:
        pointer = lookup.archive_path(os.fstat(file.fileno()))
        lock = f"archive-{Path(pointer).name}"
        with store.hold_lock(lock, lambda: _tell_waiting(progress, str(path))):
            digest = lookup.read_pointer(pointer)
            if digest is not None:
                return lookup.load(str(path), digest)
            manifest = _import(file, path, _Options(False, None, {}), progress, name="")
            image = store.add_image(manifest, archive=(pointer, path.absolute()))
        image.reference = str(path)
        return image


def _tell_waiting(progress: Progress, what: str) -> None:
    progress.step(f"wait for another process that imports {what}")


@dataclass(frozen=True)
class _Options:
    devices: bool
    limits: Limits | None
    config: dict[str, Any]


def _import(
    file: IO[bytes], path: Path, options: _Options, progress: Progress, *, name: str
) -> Manifest:
    """Unpack the archive and put its tree into the store; return the manifest to be written."""
    try:
        with store.workspace() as space, decompress(file, path, progress) as stream:
            tree = space.path / "tree"
            tree.mkdir(mode=0o755)
            tree.chmod(0o755)
            limits = options.limits or free_limits(space.path)
            progress.step(f"unpack {path.name}")
            reader = Reader(stream, path)
            work = _Import(reader, tree, limits, progress, devices=options.devices)
            work.run()
            _check_is_root(tree, path)
            progress.step("compute the content address")
            digest, _ = seal(str(tree))
            store.add_layer(space, tree, digest)
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        raise ImageError(f"cannot import {path}:{where} {error.strerror}") from error
    return Manifest(
        layers=(digest,),
        config=options.config,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(work.newest)),
        architecture=platform.machine(),
        name=name,
    )


def _check_is_root(tree: Path, path: Path) -> None:
    names = {entry.name for entry in tree.iterdir()}
    if not names:
        raise ImageError(f"the archive {path} is empty")
    if names & {"oci-layout", "manifest.json"} and not names & {"bin", "usr", "etc", "sbin"}:
        raise UnsupportedError(
            f"{path} is an archive of images with layers, not of one root file system",
            hint="export one with docker export or podman export, and import that",
        )


@contextmanager
def _open_archive(path: Path) -> Iterator[IO[bytes]]:
    try:
        # Without O_NONBLOCK the open of a fifo would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ImageError(f"cannot open the archive {path}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ImageError(f"cannot import {path}: it is not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        yield file


class _Import:
    """One run over an archive."""

    def __init__(
        self, reader: Reader, tree: Path, limits: Limits, progress: Progress, *, devices: bool
    ) -> None:
        self._reader = reader
        self._tree = tree
        self._limits = limits
        self._progress = progress
        self._devices = devices
        self._bytes = 0
        self._reported = 0
        self._left_out = 0
        self.newest = 0

    def run(self) -> None:
        """Unpack every member."""
        root_fd = os.open(self._tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        unpacker = Unpacker(root_fd, self._limits.members)
        try:
            for member in read_members(self._reader):
                unpacker.count()
                self._add(unpacker, member)
            unpacker.finish()
        finally:
            unpacker.close()
            os.close(root_fd)
        if self._left_out:
            self._progress.warn(
                f"left out {self._left_out} device nodes of /dev: every jail gets its own"
            )

    def _add(self, unpacker: Unpacker, member: tarfile.TarInfo) -> None:
        parts = split_path(os.fsencode(member.name))
        attributes = self._attributes(member)
        if member.isdir():
            unpacker.add_folder(parts, attributes)
        elif member.issym():
            unpacker.add_symlink(parts, attributes, os.fsencode(member.linkname))
        elif member.islnk():
            unpacker.add_hard_link(parts, split_path(os.fsencode(member.linkname)))
        elif member.isfifo():
            unpacker.add_node(parts, attributes, stat.S_IFIFO, 0)
        elif member.ischr() or member.isblk():
            self._add_device(unpacker, member, parts, attributes)
        else:
            self._add_file(unpacker, member, parts, attributes)

    def _attributes(self, member: tarfile.TarInfo) -> Attributes:
        try:
            mtime = math.floor(member.mtime)
        except (ValueError, OverflowError):  # "nan" and "inf" are numbers to float()
            mtime = 0
        xattrs = {
            key.removeprefix(_XATTR): value.encode("utf-8", "surrogateescape")
            for key, value in member.pax_headers.items()
            if key.startswith(_XATTR) and is_kept_xattr(key.removeprefix(_XATTR))
        }
        plain = Attributes(member.mode, member.uid, member.gid, mtime, xattrs)
        attributes = settle(plain, member.name)
        self.newest = max(self.newest, attributes.mtime)
        return attributes

    def _add_device(
        self,
        unpacker: Unpacker,
        member: tarfile.TarInfo,
        parts: tuple[bytes, ...],
        attributes: Attributes,
    ) -> None:
        kind = "character" if member.ischr() else "block"
        if not self._devices:
            if parts[:1] == (b"dev",):
                self._left_out += 1
                return
            raise ImageError(
                f"the archive has the {kind} device {member.name!r} outside of /dev",
                hint="if it belongs there, import the archive with --devices",
            )
        if (member.devmajor, member.devminor) == (0, 0):
            raise ImageError(f"the archive has a whiteout, {member.name!r}: it is a layer, no root")
        try:
            device = os.makedev(member.devmajor, member.devminor)
        except (OverflowError, ValueError):
            raise self._reader.damaged(f"{member.name!r} is an impossible device") from None
        form = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
        unpacker.add_node(parts, attributes, form, device)

    def _add_file(
        self,
        unpacker: Unpacker,
        member: tarfile.TarInfo,
        parts: tuple[bytes, ...],
        attributes: Attributes,
    ) -> None:
        if member.size < 0:
            raise self._reader.damaged(f"{member.name!r} has a negative size")
        self._bytes += member.size
        if self._bytes > self._limits.total_bytes:
            raise ImageError(
                f"the archive unpacks to more than {self._limits.total_bytes >> 20} MiB, "
                "all that the image store has room for",
                hint=MORE_ROOM,
            )
        pieces = [(0, member.size)]
        if member.issparse():
            pieces = self._check_map(member)
        self._reader.seek(member.offset_data)
        unpacker.add_file(parts, attributes, lambda fd: self._write(fd, member, pieces))

    def _check_map(self, member: tarfile.TarInfo) -> list[tuple[int, int]]:
        """Return where a sparse file has data; it must be in order and within the file."""
        entries: list[tuple[int, int]] = getattr(member, "sparse", None) or []
        pieces = [(int(offset), int(size)) for offset, size in entries]
        end = 0
        for offset, size in pieces:
            if offset < end or size < 0 or offset + size > member.size:
                raise self._reader.damaged(f"the map of the sparse file {member.name!r} is wrong")
            end = offset + size
        return pieces

    def _write(
        self, descriptor: int, member: tarfile.TarInfo, pieces: list[tuple[int, int]]
    ) -> None:
        for offset, size in pieces:
            os.lseek(descriptor, offset, os.SEEK_SET)
            left = size
            while left:
                data = self._reader.read_data(min(left, _CHUNK))
                if not data:
                    raise self._reader.damaged(f"it ends within {member.name!r}")
                left -= len(data)
                view = memoryview(data)
                while view:
                    written = os.write(descriptor, view)
                    if written == 0:
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    view = view[written:]
        if member.issparse():
            os.ftruncate(descriptor, member.size)
        if self._reader.tell() - self._reported >= _REPORT_BYTES:
            self._reported = self._reader.tell()
            self._progress.advance(self._reported, None, "B")
