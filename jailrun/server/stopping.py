"""Ending a jail: ask its init, wait, and kill what does not listen.

Owns: `stop`, `parse_signal`, `stop_signal`.  Out of scope: sending signals
(`jailrun.engine.lifecycle`).
"""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path

from jailrun.engine import lifecycle
from jailrun.engine.record import Record, load
from jailrun.engine.state import ALIVE, CREATING, PAUSED, RUNNING, read_status
from jailrun.errors import ConflictError, JailError, NotFoundError
from jailrun.units import show

STOP_SIGNAL = "org.opencontainers.image.stopSignal"  # annotation, image-spec "annotations.md"
SECONDS = 10.0
# rt_sigtimedwait and its successor: x86-64, arm64, their 32-bit programs (asm/unistd.h).
SIGNAL_WAITS = (128, 137, 177, 421)
THREAD_FIELDS = ("SigBlk", "SigCgt", "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")


def parse_signal(text: str) -> int:
    """Return the number of a signal given as ``TERM``, ``SIGTERM``, ``15`` or ``RTMIN+1``."""
    word = text.upper().removeprefix("SIG")
    if word.isascii() and word.isdigit() and 0 < int(word) < signal.NSIG:
        return int(word)
    name, plus, offset = word.partition("+" if "+" in word else "-")
    known = getattr(signal, f"SIG{name}", None) if name.isalnum() else None
    if isinstance(known, signal.Signals):
        number = int(known)
        if not plus:
            return number
        if name in ("RTMIN", "RTMAX") and offset.isascii() and offset.isdigit():
            number += int(offset) if plus == "+" else -int(offset)
            if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
                return number
    raise JailError(
        f"{show(text)} is not a signal",
        hint="write a name or number, as TERM, SIGKILL, 9 or RTMIN+3; kill -l lists them",
    )


def stop_signal(record: Record) -> int:
    """Return the signal with which the image of a jail asks to be stopped; SIGTERM otherwise."""
    wanted = record.read_config().get("annotations", {}).get(STOP_SIGNAL)
    return parse_signal(wanted) if wanted else int(signal.SIGTERM)


def stop(name: str, *, seconds: float = SECONDS, number: int | None = None) -> None:
    """End a jail: send its stop signal, or signal ``number``, and SIGKILL after ``seconds``.

    Returns when it has ended and its record says so; at once for one that is stopped.
    """
    record = load(name)
    status = read_status(record)
    if status == CREATING:
        raise ConflictError(f"cannot stop jail {name}: it is being created")
    if status not in ALIVE:
        return
    try:
        pidfd = lifecycle.open_init(record)
    except ConflictError:
        _await_end(name)  # it ended by itself
        return
    try:
        if not _ends_by(record, pidfd, status, seconds, number):
            _kill(name)
            await_end_of(pidfd, None)
    finally:
        os.close(pidfd)
    _await_end(name)


def _ends_by(record: Record, pidfd: int, status: str, seconds: float, number: int | None) -> bool:
    """Ask a jail to end; return whether it did within ``seconds``."""
    if status not in (RUNNING, PAUSED):
        return False  # created: there is no payload yet to be asked
    number = stop_signal(record) if number is None else number
    heard = hears(record.pid, number)
    try:
        lifecycle.signal(record.name, number)
        if status == PAUSED:
            lifecycle.resume(record.name)  # it gets the signal only now
    except ConflictError:
        return await_end_of(pidfd, 0)
    return await_end_of(pidfd, seconds if heard else 0)


def hears(pid: int, number: int) -> bool:
    """Return False where it is certain that a signal from outside does nothing to a process.

    To the first process of a pid namespace the kernel does not deliver a signal that it neither
    catches nor blocks, SIGKILL and SIGSTOP excepted (pid_namespaces(7)): to wait would be in vain.
    """
    if number in (signal.SIGKILL, signal.SIGSTOP):
        return True
    try:
        pids = _read_status(Path(f"/proc/{pid}"), ("NSpid",))[0].split()
        is_first = len(pids) > 1 and pids[-1] == "1"
        tasks = list(Path(f"/proc/{pid}/task").iterdir()) if is_first else []
        return not tasks or any(_may_take(task, number) for task in tasks)
    except (OSError, ValueError):
        return True  # it has just ended, or may not be looked at


def _may_take(task: Path, number: int) -> bool:
    """Return whether a thread may get a signal, now or later."""
    before = _read_status(task, THREAD_FIELDS)
    if (int(before[0], 16) | int(before[1], 16)) >> (number - 1) & 1:
        return True
    call = (task / "syscall").read_text().split()[0]
    # While a thread waits for signals they are not among those shown as blocked; and what was read
    # of one that has run meanwhile does not belong together.
    return (
        not call.isdigit()
        or int(call) in SIGNAL_WAITS
        or before != _read_status(task, THREAD_FIELDS)
    )


def _read_status(folder: Path, fields: tuple[str, ...]) -> list[str]:
    """Return some fields of a process's, or a thread's, file status (proc(5))."""
    pairs = (line.split(":", 1) for line in (folder / "status").read_text("latin-1").splitlines())
    values = {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}
    return [values.get(field, "0") for field in fields]


def _kill(name: str) -> None:
    try:
        lifecycle.signal(name, signal.SIGKILL, everyone=True)
    except (ConflictError, NotFoundError):
        return  # it ended meanwhile


def await_end_of(pidfd: int, seconds: float | None) -> bool:
    """Wait for the end of a process; return whether it has ended after ``seconds``."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if seconds is None:
        return bool(poll.poll())
    deadline = time.monotonic() + seconds
    while not (
        ended := bool(poll.poll(min(max(deadline - time.monotonic(), 0) * 1000, 2**31 - 1)))
    ):
        if time.monotonic() >= deadline:
            break
    return ended


def _await_end(name: str) -> None:
    """Wait until the end is in the record, or the record is gone."""
    try:
        lifecycle.wait(name)
    except (NotFoundError, FileNotFoundError):
        return
