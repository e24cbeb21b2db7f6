"""The caller's terminal, and the one in the jail: raw mode, size, and the bytes between them.

Owns: leaving the caller's terminal as it was found, whatever becomes of the jail or of us; only
after SIGKILL of jailrun itself can nobody do that (type ``reset``).  Out of scope: making the
jail's terminal (`jailrun.rootfs`), waiting for anything (`jailrun.cli.foreground`).
"""

from __future__ import annotations

import errno
import fcntl
import os
import termios
from _socket import AF_UNIX, CMSG_SPACE, MSG_CMSG_CLOEXEC, SCM_RIGHTS, SOL_SOCKET, socketpair
from _struct import unpack

from jailrun.cli.modes import Modes
from jailrun.errors import JailError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import select
    import signal
    from typing import Any, Self
else:
    import _signal as signal  # without the enumerations, whose import costs 3 ms

TIOCGPTPEER = 0x5441  # asm-generic/ioctls.h, Linux 4.13
SOCK_STREAM, SOCK_CLOEXEC = 1, 0o2000000  # linux/net.h
POLLIN, POLLOUT = 1, 4  # asm-generic/poll.h
CHUNK = 65536
PIPE_BUF = 4096  # linux/limits.h: a pipe that can be written to takes so much without waiting
LAST_WORDS = 1 << 20  # so much is read of what the terminal holds when its process has ended
GONE = (errno.EIO, errno.EPIPE, errno.ECONNRESET, errno.ENXIO)
VMIN, VTIME = termios.VMIN, termios.VTIME
KEYS = ((termios.VINTR, signal.SIGINT), (termios.VQUIT, signal.SIGQUIT))


def find_terminal(places: tuple[int, ...] = (0, 1, 2)) -> int | None:
    """Return the first of these descriptors that is a terminal."""
    return next((fd for fd in places if os.isatty(fd)), None)


def require_terminal() -> None:
    """Refuse ``-i -t`` with a standard input that is none: nobody could type."""
    if not os.isatty(0):
        raise JailError(
            "-i with -t needs a terminal as standard input, and it is none",
            hint="leave out -t: echo words | jailrun run -i busybox cat",
        )


def read_size(fd: int | None) -> tuple[int, int] | None:
    """Return rows and columns of a terminal, None where it does not say."""
    if fd is None:
        return None
    try:
        rows, columns = termios.tcgetwinsize(fd)
    except (OSError, termios.error):
        return None
    return (rows, columns) if rows and columns else None


class Console:
    """The pair of sockets over which the master of the jail's terminal comes."""

    def __init__(self) -> None:
        self._ours, self._theirs = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        self.fd = self._theirs.fileno()  # the engine's console_fd

    def receive(self) -> int:
        """Return the master; it has been sent by the time the payload runs."""
        self._theirs.close()
        _, messages, _, _ = self._ours.recvmsg(64, CMSG_SPACE(4), MSG_CMSG_CLOEXEC)
        for level, kind, data in messages:
            if level == SOL_SOCKET and kind == SCM_RIGHTS and len(data) >= 4:
                return int(unpack("i", data[:4])[0])
        raise JailError("the jail's terminal did not come")

    def close(self) -> None:
        """Close both ends."""
        self._ours.close()
        self._theirs.close()


class Guard:
    """Keeps the settings of a terminal while it is entered, and puts them back at the end.

    A jail that was given the caller's own terminal as a stream can change them, too.  ``fd`` None
    is no terminal.
    """

    def __init__(self, fd: int | None) -> None:
        self.fd = fd
        self.raw = False
        self._found: list[Any] = []

    def __enter__(self) -> Self:
        if self.fd is not None:
            try:
                self._found = termios.tcgetattr(self.fd)
            except termios.error:
                self.fd = None
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()

    def make_raw(self) -> None:
        """Have every key at once and unchanged, and no output processed: cfmakeraw(3)."""
        if self.fd is None:
            return
        self.raw = True
        self._set(plan_raw(self._found))

    def restore(self) -> None:
        """Put the settings back; not while another job has the terminal: it is theirs then."""
        if self.fd is None:
            return
        self.raw = False
        try:
            if termios.tcgetattr(self.fd) == self._found or not self._is_ours():
                return
        except termios.error:
            return  # hung up
        # Should we come to be in the background now, this must not stop us.
        old = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        try:
            self._set(self._found)
        finally:
            signal.signal(signal.SIGTTOU, old)

    def _is_ours(self) -> bool:
        try:
            return os.tcgetpgrp(self.fd or 0) == os.getpgrp()
        except OSError:
            return True  # not our controlling terminal: it has no jobs of ours

    def _set(self, settings: list[Any]) -> None:
        try:
            termios.tcsetattr(self.fd or 0, termios.TCSANOW, settings)
        except termios.error:
            return  # hung up


def plan_raw(found: list[Any]) -> list[Any]:
    """Return the settings of a raw terminal, made from those that were found."""
    t = termios
    iflag, oflag, cflag, lflag, *speeds, characters = found
    iflag &= ~(t.IGNBRK | t.BRKINT | t.PARMRK | t.ISTRIP | t.INLCR | t.IGNCR | t.ICRNL | t.IXON)
    oflag &= ~t.OPOST
    cflag = cflag & ~(t.CSIZE | t.PARENB) | t.CS8
    lflag &= ~(t.ECHO | t.ECHONL | t.ICANON | t.ISIG | t.IEXTEN)
    characters = list(characters)
    characters[VMIN], characters[VTIME] = 1, 0
    return [iflag, oflag, cflag, lflag, *speeds, characters]


class Relay:
    """Carries bytes between the caller's streams and the master of the jail's terminal.

    ``source`` None: nothing is typed.  No write waits: a stalled terminal must not keep signals
    from the jail.  ``pressed``: keys that the jail's terminal makes signals of.
    """

    def __init__(self, master: int, source: int | None, sink: int, guard: Guard) -> None:
        self.master = master
        self.source = source
        self.sink = sink
        self.guard = guard
        self.size_fd = source if source is not None else find_terminal((sink, 0, 2))
        self._typed = bytearray()
        self._printed = bytearray()
        self._modes = Modes() if os.isatty(sink) else None
        self._owned = [master]
        self._finished = False
        self._last_key = b""
        self.pressed: list[tuple[int, int]] = []
        os.set_blocking(master, False)
        self._hold_open()
        self._own_sink()

    def _hold_open(self) -> None:
        """Hold the other side open, else reading fails while no process in the jail does."""
        try:
            flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
            self._owned.append(fcntl.ioctl(self.master, TIOCGPTPEER, flags))
        except OSError:
            return  # then the first such moment is the last

    def _own_sink(self) -> None:
        """Open the caller's terminal anew: others who have it open do not want O_NONBLOCK."""
        self._most = PIPE_BUF
        if self._modes is None:
            return
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            self.sink = os.open(f"/proc/self/fd/{self.sink}", flags)
        except OSError:
            return  # it is of another mount namespace
        self._owned.append(self.sink)
        self._most = CHUNK

    def register(self, poll: select.poll) -> None:
        """Say what is to be waited for now."""
        if not self._finished:
            wanted = POLLIN if len(self._printed) < CHUNK else 0
            wanted |= POLLOUT if self._typed else 0
            if wanted:
                poll.register(self.master, wanted)
            if self.source is not None and len(self._typed) < CHUNK:
                poll.register(self.source, POLLIN)
        if self._printed:
            poll.register(self.sink, POLLOUT)

    def handle(self, fd: int) -> bool:
        """Do what a descriptor is ready for; return False if the caller's terminal is gone."""
        if fd == self.master:
            if self._typed:
                self._write_master()
            self._read_master()
        elif fd == self.source:
            return self._read_source(fd)
        elif fd == self.sink:
            return self._write_sink()
        return True

    def _read_source(self, fd: int) -> bool:
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return True  # someone else reads it, too
        except OSError as error:
            if error.errno not in GONE:
                raise
            data = b""
        if not data:
            self.source = None
            return False
        self._note_keys(data)
        self._typed += data
        self._write_master()
        return True

    def _note_keys(self, data: bytes) -> None:
        """Note in ``pressed`` a signal that typing this causes, and the process group it is for."""
        before, self._last_key = self._last_key, data[-1:]
        try:
            _, _, _, lflag, _, _, characters = termios.tcgetattr(self.master)
            if not lflag & termios.ISIG:
                return
            for place, number in KEYS:
                key = characters[place]
                at = data.find(key) if key != b"\0" else -1
                quoted = (data[at - 1 : at] or before) == characters[termios.VLNEXT]
                if at >= 0 and not quoted:
                    self.pressed.append((number, os.tcgetpgrp(self.master)))
        except (OSError, termios.error):
            return

    def _write_master(self) -> None:
        try:
            del self._typed[: os.write(self.master, self._typed)]
        except BlockingIOError:
            return
        except OSError:
            self._typed.clear()

    def _read_master(self) -> int:
        """Read a piece, unless there is none now; return its length."""
        try:
            data = os.read(self.master, CHUNK)
        except BlockingIOError:
            return 0
        except OSError:
            self._finished = True  # EIO: nobody has the other side open
            return 0
        if self._modes:
            self._modes.follow(data)
        if self.sink >= 0:
            self._printed += data
        return len(data)

    def _write_sink(self) -> bool:
        try:
            del self._printed[: os.write(self.sink, self._printed[: self._most])]
        except BlockingIOError:
            return True
        except OSError:
            self.drop_output()
            return False
        return True

    def has_output(self) -> bool:
        """Tell whether there is something left to write."""
        return bool(self._printed)

    def drop_output(self) -> None:
        """Write nothing any more."""
        self._printed.clear()
        self.sink = -1

    def finish(self) -> None:
        """Read what the terminal still holds: its process has ended, so no more will come."""
        total = 0
        while not self._finished and total < LAST_WORDS:
            count = self._read_master()
            total += count
            if not count:
                break
        self._finished = True
        if self._modes and self.sink >= 0:
            self._printed += self._modes.undo()

    def resize(self) -> None:
        """Give the jail's terminal the size of the caller's."""
        size = read_size(self.size_fd)
        if size:
            try:
                termios.tcsetwinsize(self.master, size)
            except (OSError, termios.error):
                return

    def suspend(self) -> None:
        """Stop, with the terminal as it was found, until someone continues us."""
        raw = self.guard.raw
        self.guard.restore()
        os.kill(os.getpid(), signal.SIGSTOP)
        if raw:
            self.guard.make_raw()
        self.resize()

    def resume(self) -> None:
        """Take the terminal again after a stop, in which a shell may have changed it."""
        if self.guard.raw:
            self.guard.make_raw()
        self.resize()

    def close(self) -> None:
        """Let go of the jail's terminal."""
        while self._owned:
            os.close(self._owned.pop())
