"""The processes of a jail, as the host sees them.

Owns: `read_processes`.  Out of scope: how they are shown.

Everything is read from /proc, where a process can vanish at any moment; its name and its command
line are its own to choose.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from jailrun.cgroups import control
from jailrun.engine.record import Record
from jailrun.engine.state import ALIVE, read_status
from jailrun.errors import ConflictError

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class JailProcess:
    """One process: its pid on the host and in the jail, its user in the jail, what it has used."""

    pid: int
    jail_pid: int | None
    uid: int | None
    state: str
    memory_bytes: int
    cpu_seconds: float
    command: list[str]
    name: str


def read_processes(record: Record) -> list[JailProcess]:
    """Return the processes of a running or paused jail; raise ConflictError where it is neither."""
    status = read_status(record)
    if status not in ALIVE:
        raise ConflictError(f"jail {record.name} has no processes: it is {status}")
    depth = len(_read_status_file(record.pid).get("NSpid", "").split())
    found = []
    for pid in control.processes(record.cgroups):
        try:
            found.append(_read_process(pid, depth))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
    return found


def _read_status_file(pid: int) -> dict[str, str]:
    try:
        text = Path(f"/proc/{pid}/status").read_text(errors="backslashreplace")
    except (FileNotFoundError, ProcessLookupError):
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    return {key: value.strip() for key, _, value in pairs}


def _read_process(pid: int, depth: int) -> JailProcess:
    status = _read_status_file(pid)
    if not status:
        raise ProcessLookupError
    # NSpid (proc(5), Linux 4.1): the pid in each namespace, ours first; the jail's is as deep as
    # that of its init, deeper ones are nested in it.
    pids = status.get("NSpid", "").split()
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0")
    return JailProcess(
        pid=pid,
        jail_pid=int(pids[depth - 1]) if 0 < depth <= len(pids) else None,
        uid=_jail_uid(pid, int(status["Uid"].split()[1])),
        state=status["State"][:1],
        memory_bytes=int(status.get("VmRSS", "0").split()[0]) * 1024,
        cpu_seconds=(int(fields[11]) + int(fields[12])) / TICKS,
        command=[os.fsdecode(word) for word in words.split(b"\0")] if words else [],
        name=status["Name"],
    )


def _jail_uid(pid: int, host_uid: int) -> int | None:
    """Return a user id as the process's own user namespace has it, None where it has none."""
    for line in Path(f"/proc/{pid}/uid_map").read_text().splitlines():
        inside, outside, count = map(int, line.split())
        if outside <= host_uid < outside + count:
            return host_uid - outside + inside
    return None
