"""Read a hostile tar archive, forward only and within limits.

Owns: decompression, `Reader`, `read_members`.  Out of scope: what becomes of the members
(`jailrun.images.archive`).

`tarfile` parses the headers, and nothing else of it is used: its extraction follows links, its
reading trusts sizes and sparse maps, and it takes a damaged header for the end.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import subprocess
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from jailrun.errors import ImageError
from jailrun.images.progress import Progress
from jailrun.images.tools import environment, require_tool

_CHUNK = 1 << 20
_HEADER_BYTES = 8 << 20  # of one member, with long names, attributes and the map of a sparse file
_XZ_MEMORY = 1 << 30
_PADDING = 10240  # bytes in one of tar's records
_DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError)
_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\0": "xz",
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "zstd",
}


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes; none at the end."""


@contextmanager
def decompress(file: IO[bytes], path: Path, progress: Progress) -> Iterator[Readable]:
    """Yield the plain stream of an archive, whatever it is compressed with."""
    start = os.pread(file.fileno(), 6, 0)  # the position stays, for a tool that inherits it
    form = next((form for magic, form in _MAGIC.items() if start.startswith(magic)), "")
    if form == "gzip":
        with gzip.GzipFile(fileobj=file, mode="rb") as stream:
            yield stream
    elif form == "xz":
        yield _Stepwise(file, lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY))
    elif form == "bzip2":
        yield _Stepwise(file, bz2.BZ2Decompressor)
    elif form == "zstd":
        with _run_zstd(file, require_tool("zstd", "zstd", progress), path) as stream:
            yield stream
    else:
        yield file


@contextmanager
def _run_zstd(file: IO[bytes], zstd: str, path: Path) -> Iterator[Readable]:
    command = ["setpriv", "--pdeathsig", "KILL", "--", zstd, "--decompress", "--stdout", "--quiet"]
    with subprocess.Popen(  # noqa: S603 - a fixed command
        command,
        stdin=file,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
    ) as process:
        try:
            if process.stdout is not None:
                yield process.stdout
                if process.stdout.read(1) == b"" and process.wait() != 0:
                    raise ImageError(f"the archive {path} is damaged or truncated: zstd failed")
        finally:
            process.kill()


class _Stepwise:
    """Reads an xz or bzip2 file, of one stream or several, never more than was asked for."""

    def __init__(self, file: IO[bytes], make: Any) -> None:
        self._file = file
        self._make = make
        self._inner = make()

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes; none at the end."""
        while True:
            if self._inner.eof:
                rest = self._inner.unused_data or self._file.read(_CHUNK)
                rest = rest.lstrip(b"\0")  # streams may be padded
                if not rest:
                    return b""
                self._inner = self._make()
                data = self._inner.decompress(rest, size)
            elif self._inner.needs_input:
                more = self._file.read(1 << 16)
                if not more:
                    raise EOFError
                data = self._inner.decompress(more, size)
            else:
                data = self._inner.decompress(b"", size)
            if data:
                return bytes(data)


class Reader:
    """The archive as `tarfile` wants it: a position that only moves forward, bounded headers."""

    def __init__(self, stream: Readable, path: Path) -> None:
        self._stream = stream
        self._path = path
        self._position = 0
        self.header_left = 0

    def tell(self) -> int:
        """Return the position in the plain stream."""
        return self._position

    def seekable(self) -> bool:
        """Tell `tarfile` that positions mean something."""
        return True

    def seek(self, position: int) -> int:
        """Skip to a later position."""
        if position < self._position:
            raise self.damaged("it points backwards")
        while self._position < position:
            if not self.read_data(min(position - self._position, _CHUNK)):
                raise self.damaged("it ends within a member")
        return position

    def read(self, size: int) -> bytes:
        """Return ``size`` bytes of a header, fewer only at the end."""
        self.header_left -= size
        if size < 0 or self.header_left < 0:
            raise self.damaged(f"a member's header takes more than {_HEADER_BYTES >> 20} MiB")
        parts = []
        while size > 0:
            data = self.read_data(size)
            if not data:
                break
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    def read_data(self, size: int) -> bytes:
        """Return up to ``size`` bytes of content; none at the end."""
        try:
            data = self._stream.read(size)
        except _DAMAGED as error:
            reason = getattr(error, "strerror", None) or str(error) or "it ends too early"
            raise self.damaged(reason) from error
        self._position += len(data)
        return data

    def damaged(self, reason: str) -> ImageError:
        """Return the error for an archive that cannot be read on."""
        return ImageError(f"the archive {self._path} is damaged or truncated: {reason}")

    def not_tar(self) -> ImageError:
        """Return the error for a file that is something else."""
        return ImageError(
            f"{self._path} is not a tar archive (plain, or compressed by gzip, xz, bzip2 or zstd)"
        )


class _Headers(tarfile.TarFile):
    """What the parsing of headers needs of a `tarfile.TarFile`; it reads no member by itself."""

    def next(self) -> None:
        """Keep the constructor from reading."""
        return


def read_members(reader: Reader) -> Iterator[tarfile.TarInfo]:
    """Yield each member; between two of them the caller may read the first one's content.

    Raises ImageError for what is no tar archive, is damaged, or lacks the mark of its end.
    """
    headers = _Headers(
        fileobj=reader,  # type: ignore[arg-type] # it is only told to tell, seek and read
        mode="r",
        encoding="utf-8",
        errors="surrogateescape",
    )
    first = True
    while True:
        reader.seek(headers.offset)
        reader.header_left = _HEADER_BYTES
        try:
            member = tarfile.TarInfo.fromtarfile(headers)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":
                break
            if first:
                raise reader.not_tar() from None
            raise reader.damaged(str(error)) from None
        except (ValueError, ArithmeticError, LookupError, TypeError, RecursionError) as error:
            raise reader.damaged(f"a header makes no sense ({error})") from error
        # A global header adds to all that follow: many of them must not fill the memory.
        if sum([len(value) for value in headers.pax_headers.values()]) > _HEADER_BYTES:
            raise reader.damaged("its global headers are too large")
        first = False
        yield member
    for _ in range(20):  # the sum of a compressed file comes last; more than padding is not read
        if not reader.read_data(_PADDING):
            break
