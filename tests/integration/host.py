"""The host as data: what a test could leave behind, before and after it.

Owns: `read_host` and `find_leftovers`.  Out of scope: when they are compared (``ground``).

A thing that is new after a test is looked at again until it is gone, for some seconds: the kernel
takes cgroups and links apart a little later than it says, and another session of tests may be at
work on the same machine.  What stays is named.
"""

from __future__ import annotations

import gc
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from jailrun.kernel import constants as c
from jailrun.kernel.execute import syscall
from jailrun.net import nft

SECONDS = 4.0  # until a thing that is still there counts as left behind
OURS = "jailrun"  # the firewall's tables
RTF_CACHE = 0x01000000  # linux/ipv6_route.h
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


def read_addresses() -> set[str]:
    """Return the addresses of the links, but for those that the kernel gives them by itself."""
    found = set()
    last = ""
    for line in Path("/proc/net/fib_trie").read_text().splitlines():
        mark, _, text = line.strip().partition(" ")
        if mark == "|--":
            last = text
        elif line.strip() == "/32 host LOCAL":
            found.add(last)
    for line in Path("/proc/net/if_inet6").read_text().splitlines():
        address, _index, prefix, scope, _flags, link = line.split()
        if scope != "20":  # of the link: it comes with its carrier
            found.add(f"{address}/{int(prefix, 16)} at {link}")
    return found


def read_routes() -> set[str]:
    """Return the routes, without what the kernel counts or adds by itself."""
    found = set()
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        link, target, gateway, _flags, _count, _use, metric, mask = line.split()[:8]
        found.add(f"{target}/{mask} through {gateway} at {link}, metric {metric}")
    for line in Path("/proc/net/ipv6_route").read_text().splitlines():
        target, prefix, _source, _, gateway, metric, _count, _use, flags, link = line.split()
        if not target.startswith(("fe80", "ff")) and not int(flags, 16) & RTF_CACHE:
            found.add(f"{target}/{prefix} through {gateway} at {link}, metric {metric}")
    return found


def read_rules() -> set[str]:
    """Return all of the firewall, each chain, rule and element of a set by itself."""
    nft = shutil.which("nft")
    if nft is None:
        return set()
    words = [nft, "--json", "--stateless", "list", "ruleset"]
    listed = subprocess.run(words, capture_output=True, text=True, check=False)
    found = set()
    for entry in json.loads(listed.stdout or '{"nftables": []}')["nftables"]:
        ((kind, thing),) = entry.items()
        if kind == "metainfo":
            continue
        name = f"{thing.get('family')} {thing.get('table', '')} {kind} {thing.get('name', '')}"
        if thing.get("table", thing.get("name")) == OURS:
            thing.pop("handle", None)  # ours may be made anew; others' are not even touched
        for element in thing.pop("elem", ()):
            found.add(f"{name}: {json.dumps(element, sort_keys=True)}")
        found.add(f"{name}: {json.dumps(thing, sort_keys=True)}")
    return found


def read_network_settings() -> set[str]:
    """Return what a network could change of the kernel's settings."""
    names = ("forwarding", "accept_ra", "route_localnet", "rp_filter", "proxy_arp", "proxy_ndp")
    tops = [Path("/proc/sys/net/ipv4/ip_forward")]
    tops += [Path(f"/proc/sys/net/ipv{family}/ip_nonlocal_bind") for family in "46"]
    for link in ("all", "default", *read_links()):
        tops += [Path(f"/proc/sys/net/ipv{ip}/conf/{link}/{name}") for ip in "46" for name in names]
    found = set()
    for path in tops:
        try:
            found.add(f"{path}: {path.read_text().strip()}")
        except OSError:
            continue  # one family alone has it, or the link is gone
    return found


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
    """Return what is in the folders of jails: writable layers, logs, records, leases, networks."""
    data, run = (Path(os.environ[name]) for name in ("JAILRUN_DATA", "JAILRUN_RUN"))
    folders = (data / "scratch", data / "logs", data / "networks", run / "jails", run / "ids")
    found = {str(path) for folder in folders if folder.is_dir() for path in folder.iterdir()}
    for folder, folders_in, files in os.walk((run / "networks").resolve()):
        for one in folders_in + files:
            path = Path(folder, one)
            found.add(f"{path} → {path.readlink()}" if path.is_symlink() else str(path))
    return found


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
    "address": read_addresses,
    "route": read_routes,
    "firewall": read_rules,
    "network setting": read_network_settings,
    "loop device": read_loops,
    "process": read_processes,
    "open descriptor": read_descriptors,
    "file": read_folders,
    "state of the calling process": read_own_state,
}


# What no other session can take down.
OURS_ALONE = (
    *("mount", "state of the calling process"),
    *("link", "address", "route", "firewall", "network setting"),
)


def read_host() -> Things:
    """Return what there is, by kind; the socket that a process keeps for the firewall is none."""
    nft.close()
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
    return [
        *(
            f"{kind} left behind: {one}"
            for kind in READERS
            for one in sorted(now[kind] - before[kind])
        ),
        *(f"{kind} gone: {one}" for kind in OURS_ALONE for one in sorted(before[kind] - now[kind])),
    ]
