"""Who a process is: its pid and when it began, which name it for as long as the host is up.

Owns: reading /proc/PID/stat.  Out of scope: what a process is to a jail.
"""

from __future__ import annotations

import os


def read_stat(pid: int) -> tuple[str, int]:
    """Return the state letter and the start time (clock ticks) of a process, or ("", 0)."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return "", 0
    try:
        # The name, in parentheses, may hold anything: the fields count from its last ")".
        fields = os.read(fd, 4096).rpartition(b")")[2].split()
    except ProcessLookupError:
        return "", 0
    finally:
        os.close(fd)
    return fields[0].decode(), int(fields[19])


def read_start_time(pid: int) -> int:
    """Return when a process began, in ticks since boot (proc(5), field 22); 0 if it is gone."""
    return read_stat(pid)[1]


def is_alive(pid: int, start_time: int) -> bool:
    """Return whether the process that began then still runs; a zombie does not."""
    if pid <= 0:
        return False
    state, began = read_stat(pid)
    return began == start_time and state not in ("Z", "X", "")
