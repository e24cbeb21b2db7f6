"""The descriptors between a Python program and a command in a jail.

Owns: pipes, feeding and reading them until the command has ended, its reaping, and which
descriptors a forked child of the program must not keep.  No threads: one poll(2) loop.
Out of scope: starting the command.
"""

from __future__ import annotations

import fcntl
import os
import select
import time
from _struct import unpack
from _thread import RLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# As subprocess has them, whose own may be used, too.
PIPE, STDOUT, DEVNULL = -1, -2, -3
CHUNK_BYTES = 1 << 16
FIONREAD = 0x541B  # asm-generic/ioctls.h
UNKNOWN = 255  # the status of a child that someone else has reaped


# --- descriptors that are ours alone -------------------------------------------------------------
# A copy of one of these in a forked child would keep a jail alive that its owner has left, or
# keep a command waiting for the end of its input.
_own: set[int] = set()
_own_lock = RLock()


def _close_in_child() -> None:
    for fd in _own:
        os.close(fd)
    _own.clear()
    _own_lock.release()


os.register_at_fork(
    before=_own_lock.acquire, after_in_parent=_own_lock.release, after_in_child=_close_in_child
)


def make_pipe() -> tuple[int, int]:
    """Return both ends of a pipe; the one to write to is closed in forked children."""
    with _own_lock:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        _own.add(writer)
    return reader, writer


def own(fd: int) -> int:
    """Have a descriptor closed in forked children."""
    with _own_lock:
        _own.add(fd)
    return fd


def disown(fd: int) -> None:
    """Leave a descriptor that was ours alone for another to close."""
    with _own_lock:
        _own.discard(fd)


def close(fd: int) -> None:
    """Close a descriptor; nothing for -1, or in a forked child, which has it no more."""
    with _own_lock:
        if fd in _own:
            _own.discard(fd)
            os.close(fd)


# --- one command ---------------------------------------------------------------------------------
class Exchange:
    """A command's standard streams where all of it is fed and collected: `run` and Jail.run.

    ``theirs`` are the command's 0, 1 and 2, ``made`` those of them that were made for it.
    """

    __slots__ = ("_feed", "_rest", "made", "outputs", "said", "theirs")

    def __init__(self, data: bytes | str | None, *, capture: bool) -> None:
        self._rest = memoryview(data.encode() if isinstance(data, str) else data or b"")
        self._feed = -1
        self.made: list[int] = []
        self.outputs: list[int] = []
        self.said: list[list[bytes]] = [[], []]
        self.theirs = [-1, 1, 2]
        try:
            if data is None:
                self.theirs[0] = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
            else:
                self.theirs[0], self._feed = make_pipe()
                os.set_blocking(self._feed, False)
                self.made.append(self.theirs[0])
            if capture:
                for place in (1, 2):
                    reader, self.theirs[place] = os.pipe2(os.O_CLOEXEC)
                    self.outputs.append(reader)
                    self.made.append(self.theirs[place])
        except BaseException:
            self.close()
            raise

    def close_theirs(self) -> None:
        """Close the ends that are the command's now."""
        if self.theirs[0] >= 0:
            os.close(self.theirs[0])
        for fd in self.made:
            if fd != self.theirs[0]:
                os.close(fd)
        self.made = []
        self.theirs = [-1, 1, 2]

    def close(self) -> None:
        """Close everything."""
        self.close_theirs()
        self._close_feed()
        for fd in self.outputs:
            os.close(fd)
        self.outputs = []

    def _close_feed(self) -> None:
        fd, self._feed = self._feed, -1
        close(fd)

    def go_on(self, pidfd: int, seconds: float | None) -> bool:
        """Feed and read until the process of ``pidfd`` ends; return False after ``seconds``.

        Its end counts, not that of its output, which a process that it left behind may keep open.
        """
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        for fd in self.outputs:
            poll.register(fd, select.POLLIN)
        if self._feed >= 0:
            poll.register(self._feed, select.POLLOUT)
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            left = None if deadline is None else max(deadline - time.monotonic(), 0) * 1000
            ready = poll.poll(left)
            if not ready and left is not None:
                return False
            ended = False
            for fd, _ in ready:
                if fd == pidfd:
                    ended = True
                elif fd == self._feed:
                    self._write(poll)
                else:
                    self._read(fd, poll)
            if ended:
                self._drain()
                self._close_feed()
                return True

    def _write(self, poll: select.poll) -> None:
        """Write what the pipe takes; close it after the last byte, or when nobody reads."""
        try:
            while self._rest:
                self._rest = self._rest[os.write(self._feed, self._rest[:CHUNK_BYTES]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            pass  # the command did not want all of it
        poll.unregister(self._feed)
        self._close_feed()

    def _read(self, fd: int, poll: select.poll) -> None:
        data = os.read(fd, CHUNK_BYTES)
        if data:
            self.said[self.outputs.index(fd)].append(data)
        else:
            poll.unregister(fd)

    def _drain(self) -> None:
        """Read what the command had written when it ended, and no more than that."""
        for fd, said in zip(self.outputs, self.said, strict=False):
            left = unpack("i", fcntl.ioctl(fd, FIONREAD, b"\0\0\0\0"))[0]
            while left > 0 and (data := os.read(fd, left)):
                said.append(data)
                left -= len(data)

    def collect(self) -> tuple[bytes, bytes]:
        """Return what it wrote to standard output and standard error."""
        return b"".join(self.said[0]), b"".join(self.said[1])


def reap(pid: int, pidfd: int) -> tuple[int, float]:
    """Wait for a child's end; return its exit status, or -signal, and its CPU time in seconds.

    Where someone else in this process reaped it already, its status is lost and 255 is returned.
    """
    try:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)  # it is still that process
        _, status, usage = os.wait4(pid, 0)
    except ChildProcessError:
        return UNKNOWN, 0.0
    return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime


def has_ended(pidfd: int, seconds: float | None) -> bool:
    """Wait for the process of a pidfd to end; return False after ``seconds``."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(None if seconds is None else max(seconds, 0) * 1000))


def check_command(command: Sequence[str]) -> list[str]:
    """Return the words of a command as a list; raise TypeError where it is one string."""
    if isinstance(command, str | bytes):
        raise TypeError(f"a command is a list of words, as {str(command).split()!r}")
    return [os.fsdecode(word) for word in command]
