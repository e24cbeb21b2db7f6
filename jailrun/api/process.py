"""A command that runs in a jail while the program goes on, as subprocess.Popen is for a process.

Owns: `Process`.  Out of scope: starting it (`jailrun.api.jail.Jail.start`).
"""

from __future__ import annotations

import os
from _thread import allocate_lock

from jailrun.api import streams
from jailrun.api.result import JailTimeoutError, host_status
from jailrun.api.streams import DEVNULL, PIPE, STDOUT
from jailrun.kernel.execute import send_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO, Self, TypeAlias

    # A descriptor, an open file, PIPE, DEVNULL, for stderr STDOUT, or None: the caller's own.
    Stream: TypeAlias = int | IO[bytes] | IO[str] | None

SIGTERM, SIGKILL = 15, 9


class Ends:
    """Both ends of a process's standard streams, until it has started."""

    __slots__ = ("files", "made", "theirs")

    def __init__(self, stdin: Stream, stdout: Stream, stderr: Stream) -> None:
        self.made: list[int] = []
        self.theirs: list[int] = []
        self.files: list[int] = [-1, -1, -1]
        try:
            for place, wanted in enumerate((stdin, stdout, stderr)):
                self.theirs.append(self._open(place, wanted))
        except BaseException:
            self.close()
            raise

    def _open(self, place: int, wanted: Stream) -> int:
        if wanted is None:
            return place
        if not isinstance(wanted, int):
            return wanted.fileno()
        if wanted == PIPE:
            return self._make_pipe(place)
        if wanted == DEVNULL:
            fd = os.open("/dev/null", (os.O_WRONLY if place else os.O_RDONLY) | os.O_CLOEXEC)
            self.made.append(fd)
            return fd
        if wanted == STDOUT and place == 2:
            return self.theirs[1]
        if wanted < 0:
            raise ValueError(f"{wanted} is no descriptor")
        return wanted

    def _make_pipe(self, place: int) -> int:
        if place:
            self.files[place], theirs = os.pipe2(os.O_CLOEXEC)
        else:
            theirs, self.files[place] = os.pipe2(os.O_CLOEXEC)
        self.made.append(theirs)
        return theirs

    def close_theirs(self) -> None:
        """Close the ends that are the process's now."""
        while self.made:
            os.close(self.made.pop())

    def close(self) -> None:
        """Close everything, where the process could not be started."""
        self.close_theirs()
        for place, fd in enumerate(self.files):
            if fd >= 0:
                os.close(fd)
            self.files[place] = -1


class Process:
    """A command in a jail; made by `Jail.start`.  It ends with its jail at the latest.

    ``pid``  its number on the host, ``pidfd`` the descriptor of it; ``command`` its words
    ``stdin``, ``stdout``, ``stderr``  the program's ends of its pipes, None where it has none

    Any thread may use it.  At the end of a ``with`` block its pipes are closed and it is waited
    for.  One that is dropped goes on until it, or its jail, ends.
    """

    def __init__(
        self,
        command: Sequence[str],
        pid: int,
        pidfd: int,
        files: Sequence[int] = (-1, -1, -1),
    ) -> None:
        self.command = list(command)
        self.pid = pid
        self.pidfd = pidfd
        self._ended: int | None = None
        self._lock = allocate_lock()
        self.cpu_seconds = 0.0
        self.stdin = os.fdopen(files[0], "wb") if files[0] >= 0 else None
        self.stdout = os.fdopen(files[1], "rb") if files[1] >= 0 else None
        self.stderr = os.fdopen(files[2], "rb") if files[2] >= 0 else None

    @property
    def status(self) -> int | None:
        """Its exit status, 128 + n where signal n ended it; None while it is not known to have."""
        return None if self._ended is None else host_status(self._ended)

    def poll(self) -> int | None:
        """Return its exit status, None while it runs; do not wait."""
        if self._ended is None and streams.has_ended(self.pidfd, 0):
            self.reap()
        return self.status

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; return its exit status.

        Raises JailTimeoutError after ``timeout`` seconds; it runs on then.  A process that fills
        a pipe which nobody reads never ends.
        """
        if self._ended is None and not streams.has_ended(self.pidfd, timeout):
            raise JailTimeoutError(self.command, timeout or 0.0)
        return host_status(self.reap())

    def reap(self) -> int:
        """Wait for its end; return its exit status, or minus the signal that ended it."""
        with self._lock:
            if self._ended is None:
                self._ended, self.cpu_seconds = streams.reap(self.pid, self.pidfd)
            return self._ended

    def signal(self, number: int) -> None:
        """Send it a signal; nothing where it has ended."""
        if self._ended is None:
            send_signal(self.pidfd, number)

    def terminate(self) -> None:
        """Ask it to end: SIGTERM."""
        self.signal(SIGTERM)

    def kill(self) -> None:
        """End it: SIGKILL."""
        self.signal(SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            for file in (self.stdout, self.stderr, self.stdin):
                if file is not None:
                    self._close(file)
        finally:
            self.wait()

    def _close(self, file: IO[bytes]) -> None:
        try:
            file.close()
        except BrokenPipeError:
            return  # it did not want the last of its input

    def __del__(self) -> None:
        # Not before: another thread may wait on it.
        pidfd = getattr(self, "pidfd", -1)
        if pidfd >= 0:
            os.close(pidfd)

    def __repr__(self) -> str:
        state = "runs" if self._ended is None else f"ended with {self.status}"
        return f"<Process {self.pid} {self.command!r} {state}>"
