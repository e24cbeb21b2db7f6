"""The host as data: what a test could leave behind, before and after it.

Owns: `read_host` and `find_leftovers`.  Out of scope: when they are compared (``ground``).

A thing that is new after a test is looked at again until it is gone, for some seconds: the kernel
takes cgroups and links apart a little later than it says, and another session of tests may be at
work on the same machine.  What stays is named.
"""

from __future__ import annotations

import gc
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from jailrun.kernel import constants as c
from jailrun.kernel.execute import syscall

SECONDS = 4.0  # until a thing that is still there counts as left behind
Things = dict[str, set[str]]


def read_mounts() -> set[str]:
    """Return the mount table of this process, line by line."""
    return set(Path("/proc/self/mountinfo").read_text().splitlines())


def read_cgroups() -> set[str]:
    """Return the cgroups below ours on every hierarchy, but for those that others run jails in."""
    own = {process.partition(" ")[0] for process in read_processes()}
    found = set()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if right.startswith("cgroup"):
            top = Path(left.split(" ")[4]) / "jailrun"
            found |= {
                folder
                for folder, _folders, _files in os.walk(top)
                if not (pids := read_pids(folder)) or pids & own
            }
    return found


def read_pids(cgroup: str) -> set[str]:
    """Return the processes of a cgroup."""
    try:
        return set(Path(cgroup, "cgroup.procs").read_text().split())
    except OSError:
        return set()  # it is gone


def read_links() -> set[str]:
    """Return the network interfaces."""
    return {path.name for path in Path("/sys/class/net").iterdir()}


def read_tables() -> set[str]:
    """Return the nftables tables."""
    nft = shutil.which("nft")
    if nft is None:
        return set()
    listed = subprocess.run([nft, "list", "tables"], capture_output=True, text=True, check=False)
    return set(listed.stdout.splitlines())


def read_loops() -> set[str]:
    """Return the loop devices in use, with their files."""
    found = set()
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found.add(f"{file.parts[3]}: {file.read_text().strip()}")
        except OSError:
            continue  # it was detached meanwhile
    return found


def read_stat(pid: str) -> tuple[str, str, str] | None:
    """Return name, state and parent of a process, None if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    head, _, tail = text.rpartition(")")
    state, parent = tail.split()[:2]
    return head.partition("(")[2], state, parent


def read_processes() -> set[str]:
    """Return all that descends from this process and lives.

    It adopts what its children leave behind (`adopt_orphans`), so nothing gets away.
    """
    children: dict[str, list[str]] = {}
    names = {}
    for pid in filter(str.isdigit, [path.name for path in Path("/proc").iterdir()]):
        stat = read_stat(pid)
        if stat and stat[1] not in "ZX":
            names[pid] = stat[0]
            children.setdefault(stat[2], []).append(pid)
    found: set[str] = set()
    todo = [str(os.getpid())]
    while todo:
        for pid in children.get(todo.pop(), []):
            found.add(f"{pid} {names[pid]}")
            todo.append(pid)
    return found


def adopt_orphans() -> None:
    """Have this process, not PID 1, become the parent of what its descendants leave behind."""
    syscall("prctl", 36, 1)  # PR_SET_CHILD_SUBREAPER


def reap_orphans() -> None:
    """Reap what has ended, so that it is not seen again."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def read_descriptors() -> set[str]:
    """Return the open descriptors of this process, with what they are."""
    found = set()
    for fd in list(Path("/proc/self/fd").iterdir()):
        try:
            found.add(f"{fd.name} → {fd.readlink()}")
        except FileNotFoundError:
            continue  # the one of the listing itself
    return found


def read_folders() -> set[str]:
    """Return what is in the folders of jails: writable layers, logs, records, leases."""
    data, run = (Path(os.environ[name]) for name in ("JAILRUN_DATA", "JAILRUN_RUN"))
    folders = (data / "scratch", data / "logs", run / "jails", run / "ids")
    return {str(path) for folder in folders if folder.is_dir() for path in folder.iterdir()}


def read_own_state() -> set[str]:
    """Return what a start could change in the process that makes it."""
    umask = os.umask(0o077)
    os.umask(umask)
    status = Path("/proc/self/status").read_text().splitlines()
    kept = ("Uid", "Gid", "Groups", "CapEff", "NoNewPrivs", "Seccomp", "SigBlk", "SigIgn")
    return {
        f"dumpable {syscall('prctl', c.PR_GET_DUMPABLE)}",
        f"cwd {Path.cwd()}",
        f"umask {umask:o}",
        f"cgroup {Path('/proc/self/cgroup').read_text()}",
        f"oom score {Path('/proc/self/oom_score_adj').read_text()}",
        f"nice {os.getpriority(os.PRIO_PROCESS, 0)}",
        f"personality {Path('/proc/self/personality').read_text()}",
        f"host name {os.uname().nodename}",
        *(f"namespace {kind.readlink()}" for kind in Path("/proc/self/ns").iterdir()),
        *(line for line in status if line.split(":")[0] in kept),
    }


READERS: dict[str, Callable[[], set[str]]] = {
    "mount": read_mounts,
    "cgroup": read_cgroups,
    "link": read_links,
    "nftables table": read_tables,
    "loop device": read_loops,
    "process": read_processes,
    "open descriptor": read_descriptors,
    "file": read_folders,
    "state of the calling process": read_own_state,
}


def read_host() -> Things:
    """Return what there is, by kind."""
    return {kind: read() for kind, read in READERS.items()}


def find_leftovers(before: Things) -> list[str]:
    """Return in words what is there now and was not before, or is gone; wait for what goes."""
    deadline = time.monotonic() + SECONDS
    gc.collect()
    reap_orphans()
    now = read_host()
    for kind, read in READERS.items():
        # Only what was new at the end of the test: not what other sessions made since.
        left = now[kind] - before[kind]
        while left and time.monotonic() < deadline:
            select.poll().poll(5)
            reap_orphans()
            left &= read()
        now[kind] = now[kind] & before[kind] | left
    ours = ("mount", "state of the calling process")  # other sessions may take down the rest
    return [
        *(
            f"{kind} left behind: {one}"
            for kind in READERS
            for one in sorted(now[kind] - before[kind])
        ),
        *(f"{kind} gone: {one}" for kind in ours for one in sorted(before[kind] - now[kind])),
    ]
