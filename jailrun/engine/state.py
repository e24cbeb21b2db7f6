"""What a jail is doing, derived from the kernel each time it is asked.

Owns: the states and `read_status`.  Out of scope: changing them (`jailrun.engine.lifecycle`).

    creating     its maker is at work                  created   waits for its start
    running      its init runs                         paused    the same, frozen
    stopped      its init has ended                    incomplete  its maker died before it ran
"""

from __future__ import annotations

import os

from jailrun.cgroups import control
from jailrun.engine.identity import is_alive
from jailrun.engine.record import Record, list_names, load
from jailrun.errors import JailError

CREATING, CREATED, RUNNING, PAUSED, STOPPED, INCOMPLETE = (
    "creating", "created", "running", "paused", "stopped", "incomplete",
)  # fmt: skip
ALIVE = (CREATED, RUNNING, PAUSED)


def read_status(record: Record) -> str:
    """Return the state of a jail."""
    if record.status is not None:
        return STOPPED
    if is_alive(record.pid, record.start_time):
        if not record.started:
            waiting = os.path.exists(f"{record.folder}/operations.json")
            return CREATED if waiting else _made_or_not(record)
        return PAUSED if control.is_frozen(record.cgroups) else RUNNING
    if record.started:
        return STOPPED
    if record.pid and os.path.exists(f"{record.folder}/operations.json"):
        return STOPPED  # a created jail that was killed
    return _made_or_not(record)


def _made_or_not(record: Record) -> str:
    return CREATING if is_alive(record.owner_pid, record.owner_start_time) else INCOMPLETE


def find_orphans() -> list[str]:
    """Return the jails that nobody will ever finish or remove: what crashes left behind.

    Asked at every start: of a jail whose owner lives, only the record is read.
    """
    found = []
    alive: dict[tuple[int, int], bool] = {}
    for name in list_names():
        try:
            record = load(name)
            owner = (record.owner_pid, record.owner_start_time)
            if owner not in alive:
                alive[owner] = is_alive(*owner)
            if not alive[owner] and _is_orphan(record):
                found.append(name)
        except (JailError, FileNotFoundError):
            continue  # removed meanwhile
    return found


def _is_orphan(record: Record) -> bool:
    status = read_status(record)
    unfinished = record.attached and record.status is None
    return status == INCOMPLETE or unfinished or (record.remove and status == STOPPED)


def list_records() -> list[tuple[Record, str]]:
    """Return all jails with their states; one that is removed meanwhile is left out."""
    found = []
    for name in list_names():
        try:
            record = load(name)
            found.append((record, read_status(record)))
        except (JailError, FileNotFoundError):
            continue
    return found
