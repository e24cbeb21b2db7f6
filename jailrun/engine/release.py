"""Undoing a jail from its record alone: after its end, a failed start, or a crash at any point.

Owns: `release`, which is also how a host is repaired.  Every step may have been done already, or
never have been reached; a step that fails does not keep the others from being done.
"""

from __future__ import annotations

import os
import select

from jailrun import paths, rootfs
from jailrun.cgroups import control
from jailrun.engine.identity import is_alive
from jailrun.engine.network import hold_devices
from jailrun.errors import JailError
from jailrun.kernel.execute import send_signal
from jailrun.security.ids import read_leases, release_range

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jailrun.engine.record import Record


def release(record: Record) -> None:
    """Kill what is left of the jail and remove all that it had on the host, the record last.

    Raises the first error after all steps have been tried; the record then stays.
    """
    steps: list[Callable[[], None]] = [
        lambda: hold_devices(record),
        lambda: _kill_init(record),
        lambda: release_running_parts(record),
        lambda: rootfs.release(record.writable),
        lambda: _release_log(record),
        lambda: _release_range(record),
    ]
    first: Exception | None = None
    for step in steps:
        try:
            step()
        except (JailError, OSError) as error:
            first = first or error
    if first:
        raise JailError(
            f"cannot remove all of jail {record.name}: {first}",
            hint=getattr(first, "hint", None) or f"try again: jailrun rm --force {record.name}",
        ) from first
    record.remove_folder()


def release_running_parts(record: Record) -> None:
    """Give back what only a running jail needs: cgroups, addresses; files and record stay.

    Who calls it writes the record after it.
    """
    control.end(record.cgroups, record.cgroup_parents)
    if record.network:
        from jailrun.net import member

        member.release(record.network, record.name)
        record.network = None


def _kill_init(record: Record) -> None:
    """Kill the init, if it is still that process; all of its pid namespace goes with it."""
    if not is_alive(record.pid, record.start_time):
        return
    try:
        pidfd = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return
    try:
        # Between the look and the pidfd the pid may have got another process.
        if is_alive(record.pid, record.start_time):
            send_signal(pidfd, 9)
            if control.is_frozen(record.cgroups):
                control.thaw(record.cgroups)  # on v1 it would not die before
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.poll(10_000)
    finally:
        os.close(pidfd)


def _release_log(record: Record) -> None:
    if record.log:
        try:
            os.unlink(record.log)
        except FileNotFoundError:
            return


def _release_range(record: Record) -> None:
    first_ids = [record.first_id] if record.first_id else _find_ranges(record.name)
    for first_id in first_ids:
        release_range(paths.run_dir(), first_id, record.name)


def _find_ranges(name: str) -> list[int]:
    """Return the ranges that a jail holds whose record was not written after it took one."""
    leases = read_leases(paths.run_dir())
    return [first_id for first_id, holder in leases.items() if holder == name]
