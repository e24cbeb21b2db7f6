"""Reading the command line of ``jailrun run`` without Typer, whose import takes half of a start.

Owns: `read`.  Out of scope: help, completion and what is wrong with a command line: where a word
is not plainly one of those below, nothing is read and Typer has the say, which knows the same
options (a test compares the two).
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

FLAGS = {
    "-i": "interactive", "--interactive": "interactive", "-t": "tty", "--tty": "tty",
    "-d": "detach", "--detach": "detach", "--rm": "remove", "--init": "init",
    "--read-only": "read_only", "--privileged": "privileged", "--explain": "explain",
    "-q": "quiet", "--quiet": "quiet",
}  # fmt: skip
VALUES = {
    "--name": "name", "-m": "memory", "--memory": "memory", "--swap": "swap",
    "--memory-reservation": "memory_reservation", "--shm-size": "shm_size", "--cpus": "cpus",
    "--cpuset": "cpuset", "--cpuset-cpus": "cpuset", "-c": "cpu_shares",
    "--cpu-shares": "cpu_shares", "--pids": "pids", "--pids-limit": "pids",
    "--oom-score-adj": "oom_score_adj", "-u": "user", "--user": "user", "-w": "workdir",
    "--workdir": "workdir", "--entrypoint": "entrypoint", "-h": "hostname",
    "--hostname": "hostname", "--domainname": "domainname", "--ip": "ip", "--ip6": "ip6",
    "--mac-address": "mac_address", "--pid": "pid", "--ipc": "ipc", "--uts": "uts",
    "--userns": "userns", "--cgroupns": "cgroupns", "--format": "format",
}  # fmt: skip
LISTS = {
    "--device-read-bps": "device_read_bps", "--device-write-bps": "device_write_bps",
    "--device-read-iops": "device_read_iops", "--device-write-iops": "device_write_iops",
    "--ulimit": "ulimit", "--group-add": "groups", "-e": "env", "--env": "env",
    "--env-file": "env_file", "-v": "volumes", "--volume": "volumes", "--tmpfs": "tmpfs",
    "--device": "devices", "--cap-add": "cap_add", "--cap-drop": "cap_drop",
    "--security-opt": "security_opt", "--allow": "allow", "--sysctl": "sysctl",
    "--net": "network", "--network": "network", "-p": "publish", "--publish": "publish",
    "--deny": "deny", "--dns": "dns", "--dns-search": "dns_search",
    "--dns-option": "dns_option", "--add-host": "add_host",
    "--time-offset": "time_offset", "-l": "labels", "--label": "labels",
}  # fmt: skip


def read(words: Sequence[str]) -> dict[str, Any] | None:
    """Return what `jailrun.cli.run.run` would be called with, None where Typer is to read it."""
    if not words or words[0] != "run" or "_JAILRUN_COMPLETE" in os.environ or os.geteuid():
        return None
    given: dict[str, Any] = dict.fromkeys(FLAGS.values(), False)
    given |= dict.fromkeys([*VALUES.values(), *LISTS.values()])
    given["format"] = "text"
    rest = list(reversed(words[1:]))
    while rest and rest[-1].startswith("-"):
        if not _take(rest, given):
            return None
    if not rest:
        return None
    given["image"] = rest.pop()
    given["command"] = rest[::-1] or None
    return given


def _take(rest: list[str], given: dict[str, Any]) -> bool:
    """Take an option off the words that are left, next one last; False where it is not clear."""
    word = rest.pop()
    if word in FLAGS:
        given[FLAGS[word]] = True
        return True
    equals, value = "", ""
    if word.startswith("--"):
        word, equals, value = word.partition("=")
    elif len(word) > 2 and all(f"-{letter}" in FLAGS for letter in word[1:]):
        for letter in word[1:]:
            given[FLAGS[f"-{letter}"]] = True
        return True
    if word not in VALUES and word not in LISTS:
        return False
    if not equals:
        if not rest:
            return False
        value = rest.pop()
    if word in VALUES:
        given[VALUES[word]] = value
    else:
        given[LISTS[word]] = [*(given[LISTS[word]] or ()), value]
    return True
