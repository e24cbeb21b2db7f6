"""A program that becomes a daemon: starting one that has nothing of its caller, and outlives it.

Owns: the start, waiting for it, leaving the caller's cgroup.  Out of scope: which program, and
whether the one that runs is ours (`jailrun.net.resolver`).
"""

from __future__ import annotations

import os
import select

from jailrun.kernel.execute import reap, send_signal
from jailrun.kernel.files import read_file

SIGKILL = 9
PATH = "/usr/sbin:/usr/local/sbin:/sbin:/usr/bin:/usr/local/bin"
# What a caller may have set to be ignored, as Python does with SIGPIPE and SIGXFSZ: SIGHUP, SIGINT,
# SIGQUIT, SIGUSR1, SIGUSR2, SIGPIPE, SIGALRM, SIGTERM, SIGCHLD, SIGXFSZ.
DEFAULT_SIGNALS = (1, 2, 3, 10, 12, 13, 14, 15, 17, 25)


def spawn(command: list[str], log: str) -> int:
    """Run a program which becomes a daemon or fails, and says why in ``log``; return its pid."""
    return os.posix_spawn(
        command[0],
        command,
        {"PATH": PATH, "LC_ALL": "C"},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, 0, 1),
            (os.POSIX_SPAWN_OPEN, 2, log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        ],
        setsid=True,  # until it has a session of its own: a Ctrl-C is not for it
        setsigmask=(),
        setsigdef=DEFAULT_SIGNALS,
    )


def wait(pid: int, seconds: float) -> None:
    """Wait for the process that has been started; the daemon is another."""
    try:
        pidfd = os.pidfd_open(pid)
    except (ProcessLookupError, ValueError):
        return  # a caller that ignores SIGCHLD, or another has started it and ended
    if not has_ended(pidfd, seconds):
        send_signal(pidfd, SIGKILL)
    reap(pidfd)


def has_ended(pidfd: int, seconds: float) -> bool:
    """Wait for the end of a process, for some seconds; return whether it came."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def read_start_time(pid: int) -> int:
    """Return when a process began, in ticks since boot (proc(5), field 22); 0 if it is gone."""
    try:
        return int(read_file(f"/proc/{pid}/stat").rpartition(b")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return 0


# --- its cgroup ----------------------------------------------------------------------------------
def leave_cgroup(pid: int) -> None:
    """Take a process out of the unit that happened to start it, if that is allowed.

    It goes to the top of the hierarchies by which an init system ends all that is in a unit, where
    no folder has to be made, that someone would have to remove.
    """
    own = read_file("/proc/self/cgroup").decode("utf-8", "surrogateescape")
    mounts = read_file("/proc/self/mountinfo").decode("utf-8", "surrogateescape")
    for top in find_tops(own, mounts):
        try:
            fd = os.open(f"{top}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            continue  # mounted read-only, as in containers
        try:
            os.write(fd, str(pid).encode())
        except OSError:
            continue  # in a part of the hierarchy that was handed to someone
        finally:
            os.close(fd)


def find_tops(own: str, mounts: str) -> list[str]:
    """Return the tops of the hierarchies by which an init system knows its units, and we are below.

    ``own`` is /proc/self/cgroup (cgroups(7)), ``mounts`` /proc/self/mountinfo (proc(5)).
    """
    wanted = set()
    for line in own.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if path != "/" and number == "0":
            wanted.add("cgroup2")
        elif path != "/" and controllers == "name=systemd":
            wanted.add("name=systemd")
    tops: dict[str, str] = {}
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        kind = right.partition(" ")[0]
        options = right.rpartition(" ")[2].split(",")
        found = "cgroup2" if kind == "cgroup2" else "name=systemd"
        if found in wanted and (kind == "cgroup2" or (kind == "cgroup" and found in options)):
            tops.setdefault(found, left.split(" ")[4].replace("\\040", " "))
    return list(tops.values())
