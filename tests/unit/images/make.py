"""Archives and trees for the tests of images."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path


class Member:
    """One member of an archive, as short to write as it can be."""

    def __init__(
        self,
        name: str,
        kind: bytes = tarfile.REGTYPE,
        *,
        data: bytes = b"",
        link: str = "",
        mode: int = 0o644,
        mtime: float = 1000,
        owner: tuple[int, int] | None = None,
        device: tuple[int, int] = (0, 0),
        pax: dict[str, str] | None = None,
    ) -> None:
        self.info = tarfile.TarInfo(name)
        self.info.type = kind
        self.info.size = len(data)
        self.info.linkname = link
        self.info.mode = mode
        self.info.mtime = mtime
        self.info.uid, self.info.gid = owner or (os.getuid(), os.getgid())
        self.info.devmajor, self.info.devminor = device
        self.info.pax_headers = pax or {}
        self.data = data


def folder(name: str, mode: int = 0o755, mtime: float = 1000) -> Member:
    """Return a folder."""
    return Member(name, tarfile.DIRTYPE, mode=mode, mtime=mtime)


def symlink(name: str, target: str) -> Member:
    """Return a symbolic link."""
    return Member(name, tarfile.SYMTYPE, link=target)


def hard_link(name: str, target: str) -> Member:
    """Return a hard link."""
    return Member(name, tarfile.LNKTYPE, link=target)


def pack(members: Iterable[Member], mode: str = "w") -> bytes:
    """Return an archive; ``mode`` is that of `tarfile.open`, such as ``w:gz``."""
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer,
        mode=mode,  # type: ignore[call-overload]
        format=tarfile.PAX_FORMAT,
        encoding="utf-8",
        errors="surrogateescape",
    ) as archive:
        for member in members:
            archive.addfile(member.info, io.BytesIO(member.data))
    return buffer.getvalue()


SMALL = (
    folder("bin"),
    Member("bin/sh", data=b"#!", mode=0o4755),
    folder("etc"),
    Member("etc/passwd", data=b"root:x:0:0::/:/bin/sh\n"),
    symlink("lib", "usr/lib"),
    hard_link("bin/ash", "bin/sh"),
)


def write_archive(path: Path, members: Iterable[Member] = SMALL, mode: str = "w") -> Path:
    """Write an archive to ``path``."""
    path.write_bytes(pack(members, mode))
    return path
