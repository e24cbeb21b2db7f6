"""Changing what a jail does: start what was created, signal, pause, resume, update, delete.

Owns: these verbs, each under the lock of the jail's record.  Out of scope: making a jail
(`jailrun.engine.launch`), entering it (`jailrun.engine.enter`).
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import time
from _struct import unpack_from

from jailrun.cgroups import control, live, stats
from jailrun.engine.hooks import run_hooks, run_poststop
from jailrun.engine.identity import is_alive
from jailrun.engine.launch import DEADLINE_SECONDS
from jailrun.engine.payload import load_operation
from jailrun.engine.record import Lock, Record, load, remove_remains
from jailrun.engine.release import release, release_running_parts
from jailrun.engine.state import (
    ALIVE,
    CREATED,
    PAUSED,
    RUNNING,
    STOPPED,
    find_orphans,
    read_status,
)
from jailrun.engine.translate import translate
from jailrun.errors import ConflictError, JailError
from jailrun.kernel.execute import EXECUTING, FAILED, NOTED, REPORT_BYTES, send_signal
from jailrun.kernel.operation import Operation, OperationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jailrun.spec.model import Resources

MONITOR_SECONDS = 5.0  # it only finds the record gone, and ends
UNKNOWN = 255  # the exit status of a jail whose end nobody saw


def start(name: str) -> None:
    """Start the payload of a created jail; raise what its exec fails with."""
    with Lock(name) as record:
        _require(record, (CREATED,), "start")
        hooks = record.read_hooks()
        run_hooks(hooks, "startContainer", record, inside="root")
        report = os.open(f"{record.folder}/report", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            go = os.open(f"{record.folder}/start", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(go, b"\0")
            finally:
                os.close(go)
            _await_exec(record, report)
        except OSError as error:
            if error.errno == errno.ENXIO:
                raise ConflictError(f"jail {name} was killed before it was started") from error
            raise JailError(f"cannot start jail {name}: {error.strerror}") from error
        finally:
            os.close(report)
        for file in ("start", "report", "operations.json"):
            os.unlink(f"{record.folder}/{file}")
        record.started = time.time()
        record.write()
        run_hooks(hooks, "poststart", record)


def _await_exec(record: Record, report: int) -> None:
    """Read the reports of the process that was held, up to its exec."""
    poll = select.poll()
    poll.register(report, select.POLLIN)
    notes: list[tuple[Operation, int]] = []
    executing = False
    while poll.poll(DEADLINE_SECONDS * 1000):
        data = os.read(report, 64 * REPORT_BYTES)
        if not data:
            if executing:
                return
            raise JailError(f"jail {record.name} was killed while it started")
        for at in range(0, len(data), REPORT_BYTES):
            kind, row, value = unpack_from("<IIi", data, at)
            executing |= kind == EXECUTING
            if kind in (FAILED, NOTED):
                operation = load_operation(record.folder, row)
                if kind == FAILED:
                    _await_end(record)
                    error = OperationError(value, os.strerror(value), operation)
                    raise translate(error, notes) from error
                notes.append((operation, value))
    raise JailError(f"jail {record.name} did not start in {DEADLINE_SECONDS:.0f} s")


def _await_end(record: Record) -> None:
    """Wait until a jail's init, which has said that it ends, is gone or a zombie."""
    try:
        pidfd = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return
    await_end(pidfd, DEADLINE_SECONDS)
    os.close(pidfd)


def _require(record: Record, states: tuple[str, ...], verb: str) -> str:
    status = read_status(record)
    if status not in states:
        hints: dict[str, str] = {
            PAUSED: f"resume it first: jailrun resume {record.name}",
            STOPPED: f"remove it: jailrun rm {record.name}",
        }
        if verb == "pause":
            hints.pop(PAUSED)
        raise ConflictError(
            f"cannot {verb} jail {record.name}: it is {status}", hint=hints.get(status)
        )
    return status


def signal(name: str, number: int, *, everyone: bool = False) -> None:
    """Send a signal to a jail's init, or to ``everyone`` in it; raise where it has ended."""
    with Lock(name) as record:  # it waits for the end of a start
        _require(record, ALIVE, "signal")
    if everyone:
        _signal_all(record, number)
        return
    pidfd = open_init(record)
    try:
        if not send_signal(pidfd, number):
            raise ConflictError(f"cannot signal jail {name}: it is stopped")
    finally:
        os.close(pidfd)


def _signal_all(record: Record, number: int) -> None:
    if number == 9:
        control.kill(record.cgroups)
        return
    for pid in control.processes(record.cgroups):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def open_init(record: Record) -> int:
    """Return a pidfd of a jail's init; raise ConflictError where it has ended."""
    gone = ConflictError(f"jail {record.name} is stopped")
    try:
        pidfd = os.pidfd_open(record.pid)
    except (ProcessLookupError, ValueError, OSError) as error:
        raise gone from error
    # Looked at again, since between the record and the pidfd the pid may have found a new owner.
    if read_status(record) not in ALIVE:
        os.close(pidfd)
        raise gone
    return pidfd


def pause(name: str) -> None:
    """Freeze every process of a running jail."""
    with Lock(name) as record:
        _require(record, (RUNNING,), "pause")
        control.freeze(record.cgroups)


def resume(name: str) -> None:
    """Let a paused jail go on."""
    with Lock(name) as record:
        _require(record, (PAUSED,), "resume")
        control.thaw(record.cgroups)


def update(name: str, resources: Resources) -> None:
    """Change the limits of a jail that runs; all of them or none."""
    with Lock(name) as record:
        _require(record, ALIVE, "update")
        record.cgroups = live.widen(resources, record.cgroups)
        record.write()
        live.update(resources, record.cgroups)
        config = record.read_config()
        linux = config.setdefault("linux", {})
        merged: dict[str, Any] = {**linux.get("resources", {})}
        for key, value in resources.items():
            old = merged.get(key)
            both = isinstance(old, dict) and isinstance(value, dict)
            merged[key] = {**old, **value} if both else value  # type: ignore[dict-item]
        linux["resources"] = merged  # type: ignore[typeddict-item]
        record.write_config(config)


def finish(name: str, status: int | None, *, alive_fd: int = -1) -> list[str]:
    """Note that a jail has ended, with its exit status where it is known, and give back the rest.

    A jail that was to be removed at its end is; of another the record, the files and the log stay.
    ``alive_fd`` is what `Record.hold` gave; it is closed here.  Returns warnings: what the poststop
    hooks failed with.
    """
    try:
        with Lock(name) as record:
            hooks = record.read_hooks()
            record.finished = time.time()
            record.status = UNKNOWN if status is None else status
            if record.remove:
                if alive_fd >= 0:
                    # Who waits has this file open, and reads the status there when it is gone.
                    os.pwrite(alive_fd, str(record.status).encode(), 0)
                release(record)
            else:
                # Before the cgroups go: what tells why a jail ended, once it has.
                record.events = _read_events(record)
                release_running_parts(record)
                record.write()
                if alive_fd >= 0:
                    os.pwrite(alive_fd, str(record.status).encode(), 0)
            return run_poststop(hooks, record)
    finally:
        if alive_fd >= 0:
            os.close(alive_fd)


def _read_events(record: Record) -> dict[str, int]:
    try:
        return stats.read_events(record.cgroups) if record.cgroups else {}
    except (JailError, OSError):
        return {}  # someone removes the jail at the same time


def delete(name: str, *, force: bool = False) -> list[str]:
    """Remove a jail and all that it has; one that runs only by ``force``, which kills it.

    Returns warnings: what its poststop hooks failed with.
    """
    with Lock(name) as record:
        status = read_status(record)
        if status in ALIVE and not force and status != CREATED:
            raise ConflictError(
                f"cannot remove jail {name}: it is {status}",
                hint=f"stop it first: jailrun stop {name}, or: jailrun rm --force {name}",
            )
        hooks = record.read_hooks()
        monitor = _open_monitor(record)
        release(record)
        warnings = []
        if record.status is None and record.started:
            warnings = run_poststop(hooks, record)
    if monitor >= 0:
        # It holds the published ports: who removes a jail may start the next one at once.
        await_end(monitor, MONITOR_SECONDS)
        os.close(monitor)
    return warnings


def _open_monitor(record: Record) -> int:
    """Return a pidfd of the monitor of a jail that has published ports, -1 where there is none."""
    published = record.network is not None and record.network["publish"]
    if not published or record.attached or record.owner_pid == os.getpid():
        return -1
    try:
        monitor = os.pidfd_open(record.owner_pid)
    except (ProcessLookupError, ValueError):
        return -1
    if not is_alive(record.owner_pid, record.owner_start_time):
        os.close(monitor)
        return -1
    return monitor


def await_end(pidfd: int, seconds: float) -> None:
    """Wait until a process has ended, but not for ever."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll(seconds * 1000)


def recover() -> list[str]:
    """Remove what crashes left: jails that nobody will finish; return their names."""
    remove_remains()
    removed = []
    for name in find_orphans():
        try:
            delete(name, force=True)
        except JailError:
            continue  # someone else removes it, or `jailrun rm --force` will say why it stays
        removed.append(name)
    return removed


def _await_init(record: Record) -> None:
    """Wait for the end of a jail's init."""
    try:
        pidfd = open_init(record)
    except ConflictError:
        return
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    try:
        poll.poll()
    finally:
        os.close(pidfd)


def wait(name: str) -> int:
    """Wait for the end of a jail; return its exit status, 128 + n for signal n.

    Returns 255 where nobody was there to note it: its monitor, or the caller that ran it in the
    foreground, was killed.
    """
    record = load(name)
    if record.status is not None:
        return record.status
    alive = record.open_alive()
    try:
        _await_init(record)
        fcntl.flock(alive, fcntl.LOCK_SH)  # until the status is in it, or nobody is left to write
        text = os.pread(alive, 16, 0)
        return int(text) if text else UNKNOWN
    finally:
        os.close(alive)
