"""The verb logs: what a detached jail has written.

Owns: reading the end of a log and following it.  Out of scope: writing it (the jail itself, or the
monitor of its terminal).
"""

from __future__ import annotations

import ctypes
import os
import select
import sys
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Annotated

import typer

from jailrun.cli import output
from jailrun.cli.complete import complete_any
from jailrun.engine import lifecycle
from jailrun.engine.record import load
from jailrun.engine.state import ALIVE, read_status
from jailrun.errors import ConflictError, JailError, NotFoundError
from jailrun.units import parse_integer

if TYPE_CHECKING:
    from jailrun.engine.record import Record

BLOCK = 65536
IN_MODIFY, IN_CLOEXEC = 0x2, 0o2000000  # sys/inotify.h


def logs(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The jail.", autocompletion=complete_any)
    ],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the jail has ended.")
    ] = False,
    tail: Annotated[
        str,
        typer.Option("--tail", "-n", metavar="LINES", help="Begin so many lines before the end."),
    ] = "all",
) -> None:
    """Print what a detached jail has written.

    Standard output and standard error are in one log, in the order of writing.

    \b
    Examples:
      jailrun logs web
      jailrun logs --follow --tail 20 web
    """
    lines = None if tail == "all" else parse_integer(tail, "--tail")
    record = load(name)
    if not record.log:
        raise ConflictError(
            f"jail {name} has no log: it runs in the foreground",
            hint="start it with --detach to have one",
        )
    with ExitStack() as undo:
        pidfd = _open_init(record) if follow else -1
        if pidfd >= 0:
            undo.callback(os.close, pidfd)
        try:
            log = os.open(record.log, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise JailError(f"cannot read {record.log}: {error.strerror}") from error
        undo.callback(os.close, log)
        if lines is not None:
            os.lseek(log, find_tail(log, lines), os.SEEK_SET)
        copy(log)
        if pidfd >= 0:
            _follow(record, log, pidfd)


def _open_init(record: Record) -> int:
    """Return a pidfd of the jail's init, -1 where it has ended."""
    if read_status(record) not in ALIVE:
        return -1
    try:
        return lifecycle.open_init(record)
    except ConflictError:
        return -1


def find_tail(log: int, lines: int) -> int:
    """Return where the last ``lines`` lines of a file begin; an unfinished one counts."""
    end = start = os.fstat(log).st_size
    left = lines
    while start > 0 and left >= 0:
        begin = max(start - BLOCK, 0)
        block = os.pread(log, start - begin, begin)
        at = len(block)
        if start == end and block.endswith(b"\n"):
            at -= 1  # the end of the last line, not the beginning of one more
        if lines == 0:
            return end
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            left -= 1
            if left == 0:
                return begin + at + 1
        start = begin
    return 0 if lines else end


def copy(log: int) -> None:
    """Write what is left of a file to stdout, byte for byte."""
    while block := os.read(log, BLOCK):
        write_bytes(block)


def write_bytes(data: bytes) -> None:
    """Write to stdout, as `output.write` does for text."""
    stdout = output.open_stdout()
    try:
        stdout.buffer.write(data)
        stdout.buffer.flush()
    except BrokenPipeError:
        output.drop_stdout()
        raise typer.Exit(output.OUTPUT_CLOSED) from None
    except OSError as error:
        output.drop_stdout()
        raise JailError(f"cannot write to the standard output: {error.strerror}") from error


def _follow(record: Record, log: int, pidfd: int) -> None:
    """Copy what is added to a log until the jail has ended and all it said is there."""
    poll = select.poll()
    with ExitStack() as undo:
        changes = watch(log)
        undo.callback(os.close, changes)
        poll.register(changes, select.POLLIN)
        poll.register(pidfd, select.POLLIN)
        # So that a reader who went away is noticed while the jail says nothing.
        poll.register(sys.stdout.fileno(), select.POLLERR)
        copy(log)  # what was added between the first copy and the watch
        while True:
            ready = {fd: event for fd, event in poll.poll()}
            if changes in ready:
                os.read(changes, 4096)
            if pidfd in ready:
                break
            if ready.get(sys.stdout.fileno(), 0) & select.POLLERR:
                raise typer.Exit(output.OUTPUT_CLOSED)
            copy(log)
    # The monitor may still have some of a terminal's output to write.  A jail that was removed at
    # its end, as it was asked for, is no fault: we have the file open.
    with suppress(NotFoundError, FileNotFoundError):
        lifecycle.wait(record.name)
    copy(log)


def watch(log: int) -> int:
    """Return an inotify descriptor that can be read when an open file has been written to."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.inotify_init1(IN_CLOEXEC)
    if fd < 0:
        number = ctypes.get_errno()
        raise JailError(f"cannot follow the log: {os.strerror(number)}")
    if libc.inotify_add_watch(fd, f"/proc/self/fd/{log}".encode(), IN_MODIFY) < 0:
        number = ctypes.get_errno()
        os.close(fd)
        raise JailError(f"cannot follow the log: {os.strerror(number)}")
    return fd
