"""Standing by a process in a jail until it ends: its signals, its terminal, its exit status.

Owns: which signals go on to the process, what one does that it has not asked for, and the loop
that waits.  Out of scope: the bytes of a terminal (`jailrun.cli.terminal`), and starting anything.

    jailrun gets            the process gets
    TERM, HUP, USR1, …      the same.  The init of a pid namespace never sees a signal that it has
                            no handler for, pid_namespaces(7): there the jail is killed instead,
                            so that such a signal ends it, as it would outside; and so
                            does the key for INT or QUIT in the jail's terminal
    INT, TERM               the same, and at the third within ten seconds the jail is killed
    TSTP                    nothing.  We stop, with the terminal as it was found
    WINCH, with a terminal  the new size
"""

from __future__ import annotations

import os
import select
import sys
import time

from jailrun.cgroups import control
from jailrun.cli.terminal import Console, Guard, Relay, find_terminal, read_size
from jailrun.engine.payload import Streams
from jailrun.kernel.execute import reap, send_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Mapping
    from types import FrameType
    from typing import Any, Self

    from jailrun.kernel.execute import Execution
    from jailrun.spec.model import Process
else:
    import _signal as signal  # without the enumerations, whose import costs 3 ms

SIGKILL = signal.SIGKILL
URGENT = (signal.SIGINT, signal.SIGTERM)
PATIENCE = 3  # so many of them …
PATIENCE_SECONDS = 10.0  # … in so short a time kill the jail
_REALTIME = tuple(range(signal.SIGRTMIN, signal.SIGRTMAX + 1))
# What ends a process that has no handler for it, signal(7).
ENDING = frozenset(
    (
        *URGENT,
        *(signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2),
        *(signal.SIGALRM, signal.SIGPWR, *_REALTIME),
    )
)
HARMLESS = (signal.SIGCONT, signal.SIGWINCH)
# A caller that ignores these (nohup; a shell's background) wants them to do nothing.
LEFT_IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)


def ensure_standard_streams() -> None:
    """Open /dev/null in each place of 0, 1 and 2 that the caller left closed.

    Else the next file that we open takes the place, and becomes a stream of the jail's.
    """
    for place in range(3):
        try:
            os.fstat(place)
        except OSError:
            fd = os.open("/dev/null", os.O_RDWR)
            if fd != place:
                os.dup2(fd, place)
                os.close(fd)
            os.set_inheritable(place, True)
            if place == 2 and sys.stderr is None:
                sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
            elif place == 1 and sys.stdout is None:
                sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115


class Signals:
    """Takes the signals of this process, to be read from ``fd``, while it is entered."""

    def __init__(self, *, terminal: bool = False) -> None:
        self.starting = True
        self._numbers = [*sorted(ENDING), *HARMLESS, *([signal.SIGTSTP] if terminal else [])]
        self._urgent = 0
        self._handlers: list[tuple[int, Any]] = []
        self._old_wakeup_fd = -1
        self.fd = self._write_fd = -1

    def __enter__(self) -> Self:
        self.fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._old_wakeup_fd = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for number in self._numbers:
            old = signal.getsignal(number)
            if number not in LEFT_IGNORED or old is not signal.SIG_IGN:
                signal.signal(number, self._note)
                self._handlers.append((number, old))
        return self

    def __exit__(self, *_: object) -> None:
        for number, old in self._handlers:
            signal.signal(number, signal.SIG_DFL if old is None else old)
        signal.set_wakeup_fd(self._old_wakeup_fd)
        os.close(self.fd)
        os.close(self._write_fd)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        """Leave the signal for `read`, as a start takes milliseconds; but one can hang."""
        if self.starting and number in URGENT:
            self._urgent += 1
            if self._urgent >= PATIENCE:
                raise KeyboardInterrupt

    def read(self) -> bytes:
        """Return the numbers of the signals that came since the last time."""
        try:
            return os.read(self.fd, 4096)
        except BlockingIOError:
            return b""


class Receiver:
    """The process in the jail that our signals go to.

    ``is_init``: it is the first of a pid namespace.  ``kill``: what kills more than the process.
    """

    def __init__(
        self, pid: int, pidfd: int, *, is_init: bool, kill: Callable[[], None] | None = None
    ) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.is_init = is_init
        self.ended_by = 0
        self._kill = kill
        self._urgent: list[float] = []

    def forward(self, number: int) -> None:
        """Let the process have a signal; see the module."""
        if number in URGENT:
            now = time.monotonic()
            recent = [then for then in self._urgent if now - then < PATIENCE_SECONDS]
            self._urgent = [*recent, now]
            if len(self._urgent) >= PATIENCE:
                self.kill()
                return
        if not self._end_by_default(number):
            send_signal(self.pidfd, number)

    def press(self, number: int, group: int) -> None:
        """Let a signal from the jail's terminal, for that process group, end an init in it."""
        try:
            if os.getpgid(self.pid) == group:
                self._end_by_default(number)
        except ProcessLookupError:
            return

    def _end_by_default(self, number: int) -> bool:
        """Do to the init of a pid namespace what the kernel spares it; return whether it was."""
        if not self.is_init or number not in ENDING or not has_default_action(self.pid, number):
            return False
        self.ended_by = self.ended_by or number
        self.kill()
        return True

    def kill(self) -> None:
        """End the process, with all of the jail if it is its init."""
        send_signal(self.pidfd, SIGKILL)
        if self._kill:
            self._kill()

    def host_status(self, status: int) -> int:
        """Return what we exit with: the status, or 128 + n for the signal that ended it."""
        if status == -SIGKILL and self.ended_by:
            status = -self.ended_by
        return 128 - status if status < 0 else status


def has_default_action(pid: int, number: int) -> bool:
    """Tell whether a process neither handles nor ignores nor blocks a signal; proc(5)."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:  # noqa: PTH123
            text = file.read()
    except OSError:
        return False
    return is_default(text, number)


def is_default(status: bytes, number: int) -> bool:
    """Tell the same from the text of /proc/PID/status."""
    for line in status.split(b"\n"):
        field, _, mask = line.partition(b":")
        if field in (b"SigBlk", b"SigIgn", b"SigCgt") and int(mask, 16) >> (number - 1) & 1:
            return False
    return True


class Session:
    """All that joins the caller to a process in a jail, from before its start to its end.

    To be entered around both.  ``streams`` and ``console_fd`` are for the engine.
    """

    def __init__(self, *, interactive: bool, tty: bool) -> None:
        self.interactive = interactive
        self.tty = tty
        self._terminal_fd = find_terminal()
        self._guard = Guard(self._terminal_fd)
        self._signals = Signals(terminal=tty)
        self._console = Console() if tty else None
        self.console_fd = self._console.fd if self._console else None
        null = -1 if interactive else os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self.streams = Streams((0 if interactive else null, 1, 2))
        if null >= 0:
            os.close(null)  # the streams have a copy

    def __enter__(self) -> Self:
        self._guard.__enter__()
        self._signals.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._guard.restore()
        self._signals.__exit__()
        self.streams.close()
        if self._console:
            self._console.close()

    def set_size(self, process: Process) -> None:
        """Say in an OCI process how large its terminal is to be."""
        size = read_size(self._terminal_fd) if self.tty else None
        if size:
            process["consoleSize"] = {"height": size[0], "width": size[1]}

    def attend(
        self, execution: Execution, *, is_init: bool, cgroups: Mapping[str, str] | None = None
    ) -> int:
        """Stand by the process until its end; return its exit status, 128 + n for signal n."""

        def kill_all() -> None:
            # A frozen process dies when it is thawed, one of another pid namespace by itself.
            if cgroups:
                control.kill(cgroups)

        receiver = Receiver(execution.pid, execution.pidfd, is_init=is_init, kill=kill_all)
        if not self._console:
            return attend(execution, receiver, self._signals)
        source = 0 if self.interactive else None
        relay = Relay(self._console.receive(), source, 1, self._guard)
        try:
            if self.interactive:
                self._guard.make_raw()
            relay.resize()
            return attend(execution, receiver, self._signals, relay)
        finally:
            relay.close()


def attend(
    execution: Execution, receiver: Receiver, signals: Signals, relay: Relay | None = None
) -> int:
    """Wait for the process to end, and reap it; return its exit status, 128 + n for signal n."""
    signals.starting = False
    ended = False
    while not ended or (relay and relay.has_output()):
        poll = select.poll()
        poll.register(signals.fd, select.POLLIN)
        if not ended:
            poll.register(execution.pidfd, select.POLLIN)
        if relay:
            relay.register(poll)
        for fd, _events in poll.poll():
            if fd == signals.fd:
                _take_signals(signals.read(), receiver, relay, ended=ended)
            elif fd == execution.pidfd:
                ended = True
                if relay:
                    relay.finish()
            elif relay and not relay.handle(fd):
                receiver.forward(signal.SIGHUP)  # the caller's terminal is gone
        while relay and relay.pressed and not ended:
            receiver.press(*relay.pressed.pop())
    pidfd, execution.pidfd = execution.pidfd, -1
    return receiver.host_status(reap(pidfd))


def _take_signals(numbers: bytes, receiver: Receiver, relay: Relay | None, *, ended: bool) -> None:
    for number in numbers:
        if relay and number == signal.SIGTSTP:
            relay.suspend()
        elif relay and number == signal.SIGWINCH:
            relay.resize()
        elif ended and relay and number in ENDING:
            relay.drop_output()  # nobody reads it, and we are asked to end
        elif not ended:
            if relay and number == signal.SIGCONT:
                relay.resume()
            receiver.forward(number)
