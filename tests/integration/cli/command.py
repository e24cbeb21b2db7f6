"""The command line as a user has it: a program that is started, in a terminal or not.

Owns: `jailrun`, `Command` (one that runs), `Terminal` (one in a terminal), `assert_refused`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jailrun.engine.record import load
from jailrun.engine.state import RUNNING, read_status
from tests.integration.jails import eventually

PROGRAM = str(Path(__file__).resolve().parents[3] / "bin" / "jailrun")
SECONDS = 60.0  # a deadline, never a measure
Done = subprocess.CompletedProcess[str]


def jailrun(
    *words: str,
    stdin: str | None = None,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
) -> Done:
    """Run a command line to its end; without ``stdin`` it has none to read."""
    done = subprocess.run(
        [PROGRAM, *words],
        input=None if stdin is None else stdin.encode(),
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        timeout=SECONDS,
        check=False,
        cwd=cwd,
        env={**os.environ, **(env or {})},
    )
    # Not as text: that would hide a carriage return.
    output, errors = (each.decode(errors="replace") for each in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(done.args, done.returncode, output, errors)


def output_of(*words: str, stdin: str | None = None) -> str:
    """Return what a command line that succeeds prints."""
    done = jailrun(*words, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def assert_refused(done: Done, text: str, status: int = 125) -> None:
    """Assert that a command line failed with a message in one or two lines that has ``text``."""
    assert done.returncode == status, done
    assert text in done.stderr
    assert done.stdout == ""
    assert_clean(done.stderr)


def assert_clean(stderr: str) -> None:
    """Assert that an error is a message and at most a hint."""
    lines = stderr.splitlines()
    assert "Traceback" not in stderr
    assert "internal error" not in stderr
    assert lines[0].startswith("jailrun: ")
    assert all(line.startswith("  hint: ") for line in lines[1:])
    assert 1 <= len(lines) <= 2, stderr


def read_some(fd: int, said: bytes) -> bytes:
    """Return the next piece of output, b"" at its end; fail where none comes."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(SECONDS * 1000), f"no more output after {said!r}"
    try:
        return os.read(fd, 65536)
    except OSError:  # EIO: a terminal that nobody has open any more
        return b""


def send(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal, and wait until the process has taken it: a second one would merge with it."""
    process.send_signal(number)
    status = Path(f"/proc/{process.pid}/status")

    def is_taken() -> bool:
        lines = status.read_text().splitlines()
        waiting = [line for line in lines if line.startswith(("SigPnd", "ShdPnd"))]
        return all(not int(line.split()[1], 16) for line in waiting)

    eventually(is_taken, f"it takes signal {number}")


def reset_signals() -> None:
    """Undo, in a new process, what a shell does to its jobs in the background."""
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


def take_terminal() -> None:
    """Make, in a new process, its standard input its controlling terminal."""
    reset_signals()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def await_running(name: str) -> None:
    """Wait until the record says that a jail runs: it can print something a little before."""
    eventually(lambda: read_status(load(name)) == RUNNING, f"{name} runs")


class Command:
    """A command line that runs, with pipes as its streams."""

    def __init__(self, *words: str, **options: Any) -> None:
        self.words = words
        options.setdefault("stdin", subprocess.PIPE)
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.PIPE)
        self.process = subprocess.Popen([PROGRAM, *words], preexec_fn=reset_signals, **options)
        self.said = b""

    def read_some(self) -> bytes:
        """Return the next piece of its output, b"" at its end."""
        assert self.process.stdout is not None
        return read_some(self.process.stdout.fileno(), self.said)

    def read_line(self) -> str:
        """Return the next line of its output, as soon as it is there."""
        while b"\n" not in self.said:
            data = self.read_some()
            assert data, f"it ended after {self.said!r}: {self._read_errors()}"
            self.said += data
        line, _, self.said = self.said.partition(b"\n")
        return line.decode()

    def _read_errors(self) -> str:
        return self.process.stderr.read().decode() if self.process.stderr else ""

    def send(self, number: int) -> None:
        """Send it a signal."""
        send(self.process, number)

    def end(self) -> tuple[int, str, str]:
        """Wait for its end; return its exit status (-n for signal n), output and errors."""
        output, errors = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, (self.said + output).decode(), errors.decode()

    def drop(self) -> None:
        """End it after a test that has failed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(SECONDS)
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()


class Terminal:
    """A terminal with a command line in it, as a terminal emulator makes it."""

    def __init__(self, words: Sequence[str], size: tuple[int, int] = (24, 80)) -> None:
        self.master, self.slave = os.openpty()
        termios.tcsetwinsize(self.slave, size)
        self.found = termios.tcgetattr(self.slave)
        self.said = b""
        self.process = subprocess.Popen(
            [PROGRAM, *words],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def type(self, text: str) -> None:
        """Type on its keyboard."""
        os.write(self.master, text.encode())

    def see(self, text: str) -> str:
        """Return what is shown up to ``text``, as soon as that is shown."""
        wanted = text.encode()
        while wanted not in self.said:
            data = read_some(self.master, self.said)
            assert data, f"it ended after {self.said!r}"
            self.said += data
        seen, _, self.said = self.said.partition(wanted)
        return seen.decode(errors="replace")

    def send(self, number: int) -> None:
        """Send jailrun a signal."""
        send(self.process, number)

    def resize(self, rows: int, columns: int) -> None:
        """Change its size."""
        termios.tcsetwinsize(self.master, (rows, columns))

    @property
    def is_raw(self) -> bool:
        """Whether lines are not edited in it."""
        return not termios.tcgetattr(self.slave)[3] & termios.ICANON

    @property
    def is_as_found(self) -> bool:
        """Whether its settings are those of the beginning."""
        return termios.tcgetattr(self.slave) == self.found

    def await_stop(self) -> None:
        """Wait until jailrun is stopped; proc(5)."""
        stat = Path(f"/proc/{self.process.pid}/stat")
        eventually(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "it stops")

    def end(self) -> int:
        """Wait for the end of jailrun, reading on; return its exit status."""
        deadline = time.monotonic() + SECONDS
        poll = select.poll()
        poll.register(self.master, select.POLLIN)
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it does not end after {self.said!r}"
            if poll.poll(5):
                self.said += os.read(self.master, 65536)
        while poll.poll(0):
            self.said += os.read(self.master, 65536)
        return self.process.returncode

    def drop(self) -> None:
        """Close it, as a window is closed."""
        for fd in {self.master, self.slave} - {-1}:
            os.close(fd)
        self.master = self.slave = -1
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(SECONDS)
        self.process.kill()
        self.process.wait()
