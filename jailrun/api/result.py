"""How a command in a jail ended, and the errors that only Python programs get.

Owns: `Result`, `CommandFailedError`, `JailTimeoutError`.
"""

from __future__ import annotations

from jailrun.errors import JailError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Result:
    """How a command ended, what it said, and what it took.

    ``command``      the words it was started with
    ``status``       its exit status, 128 + n where signal n ended it
    ``signal``       the signal that ended it, 0 where it ended by itself
    ``stdout``, ``stderr``  what it wrote there, in bytes; empty where it was not captured
    ``cpu_seconds``  CPU time of the command and of all its children that have ended
    ``events``       how often the jail hit its limits, and its peaks: ``oom_kill``,
                     ``memory_peak`` (bytes), ``pids_max``, ``nr_throttled``, …; what this host
                     does not count is not there.  They count from the start of the jail.
    """

    __slots__ = ("command", "cpu_seconds", "events", "signal", "status", "stderr", "stdout")

    def __init__(
        self,
        command: Sequence[str],
        status: int,
        stdout: bytes = b"",
        stderr: bytes = b"",
        *,
        cpu_seconds: float = 0.0,
        events: Mapping[str, int] | None = None,
    ) -> None:
        self.command = list(command)
        self.status = host_status(status)
        self.signal = max(-status, 0)
        self.stdout = stdout
        self.stderr = stderr
        self.cpu_seconds = cpu_seconds
        self.events = dict(events or {})

    @property
    def text(self) -> str:
        """Standard output as text: UTF-8, with U+FFFD in place of what is not."""
        return self.stdout.decode("utf-8", "replace")

    @property
    def error_text(self) -> str:
        """Standard error as text."""
        return self.stderr.decode("utf-8", "replace")

    @property
    def memory_peak(self) -> int | None:
        """The most memory that the jail used at once, in bytes; None where no limit counts it."""
        return self.events.get("memory_peak")

    def check(self) -> Result:
        """Return the result itself; raise `CommandFailedError` where the status is not 0."""
        if self.status:
            raise CommandFailedError(self)
        return self

    def __repr__(self) -> str:
        said = f"stdout={_shorten(self.stdout)}, stderr={_shorten(self.stderr)}"
        return f"Result({self.command!r}, status={self.status}, {said})"


def host_status(status: int) -> int:
    """Return 128 + n for -n, as a shell does."""
    return 128 - status if status < 0 else status


def _shorten(data: bytes) -> str:
    return repr(data) if len(data) <= 200 else f"{data[:200]!r}…"


class CommandFailedError(JailError):
    """A command ended with another status than 0, and ``check`` was asked for.

    ``result`` has what it said; its last line of standard error is the hint.
    """

    def __init__(self, result: Result) -> None:
        how = f"signal {result.signal}" if result.signal else f"exit status {result.status}"
        if result.events.get("oom_kill"):
            how += ", and the jail ran out of memory"
        last = result.error_text.strip().rpartition("\n")[2]
        super().__init__(f"{result.command[0]} failed with {how}", hint=last or None)
        self.result = result
        self.exit_status = result.status

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.result,)


class JailTimeoutError(JailError):
    """A command did not end in time.  ``stdout`` and ``stderr`` are what it had said by then."""

    def __init__(
        self, command: Sequence[str], seconds: float, stdout: bytes = b"", stderr: bytes = b""
    ) -> None:
        super().__init__(f"{command[0]} did not end in {seconds:g} s")
        self.command = list(command)
        self.seconds = seconds
        self.stdout = stdout
        self.stderr = stderr

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.command, self.seconds, self.stdout, self.stderr)
