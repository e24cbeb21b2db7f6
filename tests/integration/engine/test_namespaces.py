"""Namespaces: each one new, inherited, or another jail's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jailrun.errors import NamespaceError, UnsupportedError
from tests.integration.jails import Build, Jails, MakeRoot, Probe, Running, mount_probe

KINDS = {
    "cgroup": "cgroup", "ipc": "ipc", "mount": "mnt", "network": "net", "pid": "pid",
    "time": "time", "user": "user", "uts": "uts",
}  # fmt: skip


def read_namespaces(pid: int | str = "self") -> dict[str, int]:
    """Return kind → number of a process's namespaces."""
    return {kind: Path(f"/proc/{pid}/ns/{name}").stat().st_ino for kind, name in KINDS.items()}


@pytest.fixture
def other(jails: Jails, config: Build) -> Running:
    """Return a running jail."""
    return jails.begin(config("sh", "-c", "echo ready; cat", hostname="other"))


def test_each_is_new(jails: Jails, config: Build) -> None:
    """A default jail has seven namespaces of its own, and the host's clocks."""
    running = jails.begin(config("sh", "-c", "echo ready; cat"))
    theirs, ours = read_namespaces(running.pid), read_namespaces()
    running.wait()
    assert {kind for kind in KINDS if theirs[kind] == ours[kind]} == {"time"}


@pytest.mark.parametrize(
    "without",
    [
        ("network",),
        ("ipc",),
        ("uts",),
        ("cgroup",),
        ("pid",),
        ("user",),
        ("network", "ipc", "uts", "pid", "cgroup"),
        ("network", "ipc", "uts", "pid", "cgroup", "user"),
    ],
    ids="+".join,
)
def test_inherited(probe: Probe, without: tuple[str, ...]) -> None:
    """A namespace that the config does not list is the caller's."""
    ours = read_namespaces()
    seen = probe("namespaces", "mounts", without=without)
    inherited = {kind for kind, name in KINDS.items() if seen["namespaces"][name] == ours[kind]}
    assert inherited == {*without, "time"}
    kinds = {mount["target"]: mount["type"] for mount in seen["mounts"]["mounts"]}
    assert kinds["/proc"] == "proc"
    assert kinds["/sys"] == "sysfs"
    assert kinds["/dev/mqueue"] == "mqueue"


def test_inherited_host_is_protected(probe: Probe) -> None:
    """In the host's own network and pid namespaces the jail still changes nothing of them."""
    seen = probe(
        "kill_all", "ptrace_init", "open_sysrq", "open_core_pattern", "open_sys_hugepage",
        "sethostname", "mount_tmpfs",
        without=("network", "pid", "uts", "ipc"),
    )  # fmt: skip
    assert {name for name, report in seen.items() if report.works} <= {"kill_all"}


@pytest.mark.parametrize("kind", ["network", "ipc", "uts", "cgroup"])
def test_joined(probe: Probe, other: Running, kind: str) -> None:
    """A namespace given by path is that one, the others are new."""
    theirs = read_namespaces(other.pid)
    path = f"/proc/{other.pid}/ns/{KINDS[kind]}"
    seen = probe("namespaces", "system", namespaces={kind: path})
    shared = {one for one, name in KINDS.items() if seen["namespaces"][name] == theirs[one]}
    assert shared == {kind, "time"}
    if kind == "uts":
        assert seen["system"]["hostname"] == "other"
    other.wait()


def test_joined_with_user(probe: Probe, other: Running, make_root: MakeRoot) -> None:
    """With the user namespace of another jail, its others can be entered as their root."""
    theirs = read_namespaces(other.pid)
    first = int(Path(f"/proc/{other.pid}/uid_map").read_text().split()[1])
    joined = ("user", "network", "ipc", "uts", "cgroup", "pid")
    seen = probe(
        "namespaces", "ids", "system",
        namespaces={kind: f"/proc/{other.pid}/ns/{KINDS[kind]}" for kind in joined},
        folder=str(make_root(owner=first)),
    )  # fmt: skip
    shared = {one for one, name in KINDS.items() if seen["namespaces"][name] == theirs[one]}
    assert shared == {*joined, "time"}
    assert (seen["ids"]["uid"], seen["ids"]["gid"]) == (0, 0)
    assert "1" in seen["system"]["processes"]
    assert str(seen["ids"]["pid"]) in seen["system"]["processes"]
    other.wait()


def test_joined_pid_does_not_show_the_host(probe: Probe, other: Running) -> None:
    """Who joins a pid namespace without its user namespace never sees the host's processes."""
    path = f"/proc/{other.pid}/ns/pid"
    try:
        seen = probe("system", namespaces={"pid": path})
    except (NamespaceError, UnsupportedError):
        pass  # saying that it cannot be done is as good
    else:
        assert len(seen["system"]["processes"]) <= 4
    other.wait()


def test_joined_mount_namespace(jails: Jails, config: Build, other: Running) -> None:
    """A jail puts its root into a copy, never into another jail's mount table."""
    before = Path(f"/proc/{other.pid}/mountinfo").read_text()
    path = f"/proc/{other.pid}/ns/mnt"
    with pytest.raises((NamespaceError, UnsupportedError)):
        jails.run(config("true", namespaces={"mount": path}))
    assert Path(f"/proc/{other.pid}/mountinfo").read_text() == before
    other.wait()


@pytest.mark.parametrize(
    ("kind", "path", "text"),
    [
        ("network", "/proc/self/ns/uts", "cannot join the network namespace /proc/self/ns/uts"),
        ("uts", "/proc/self/ns/net", "cannot join the uts namespace"),
        ("ipc", "/dev/null", "cannot join the ipc namespace /dev/null"),
        ("network", "/no/such/file", "cannot open the network namespace /no/such/file: No such"),
    ],
)
def test_wrong_path(jails: Jails, config: Build, kind: str, path: str, text: str) -> None:
    """A path that is not a namespace of that kind is named."""
    with pytest.raises(NamespaceError, match=text):
        jails.run(config("true", namespaces={kind: path}))


def test_names(probe: Probe) -> None:
    """Host name and domain name are the jail's."""
    seen = probe("system", hostname="web-1", domainname="example.org")["system"]
    assert (seen["hostname"], seen["domainname"]) == ("web-1", "example.org")


@pytest.mark.requires("time")
def test_time_offsets(jails: Jails, config: Build) -> None:
    """A jail can have been up for longer, or not as long, as the host."""
    offsets = {"boottime": {"secs": 1_000_000, "nanosecs": 5}, "monotonic": {"secs": 1_000_000}}
    command = ("sh", "-c", "cat /proc/uptime; cat /proc/self/timens_offsets")
    ended = jails.run(config(*command, namespaces={"time": None}, linux={"timeOffsets": offsets}))
    up = float(Path("/proc/uptime").read_text().split()[0])
    assert float(ended.lines[0].split()[0]) > 1_000_000
    assert float(ended.lines[0].split()[0]) <= 1_000_000 + up + 1
    assert ended.lines[1].split() == ["monotonic", "1000000", "0"]
    assert ended.lines[2].split() == ["boottime", "1000000", "5"]


@pytest.mark.requires("time")
def test_time_namespace_joined(probe: Probe, jails: Jails, config: Build) -> None:
    """The clocks of another jail."""
    other = jails.begin(
        config("sh", "-c", "echo ready; cat", namespaces={"time": None},
               linux={"timeOffsets": {"boottime": {"secs": 5000}}})
    )  # fmt: skip
    path = f"/proc/{other.pid}/ns/time"
    seen = probe("namespaces", namespaces={"time": path})["namespaces"]
    assert seen["time"] == Path(path).stat().st_ino
    other.wait()


@pytest.mark.requires("time")
def test_impossible_time_offset(jails: Jails, config: Build) -> None:
    """A clock below zero is refused with the reason."""
    with pytest.raises(NamespaceError, match="clock offsets") as caught:
        jails.run(
            config("true", namespaces={"time": None},
                   linux={"timeOffsets": {"boottime": {"secs": -10**12}}})
        )  # fmt: skip
    assert "above zero" in (caught.value.hint or "")


def test_loopback_is_up(jails: Jails, config: Build) -> None:
    """lo is the only interface, and it answers."""
    command = "ls /sys/class/net; cat /sys/class/net/lo/operstate /sys/class/net/lo/flags"
    ended = jails.run(config("sh", "-c", command))
    # unknown: what the kernel says of a loopback that is up; IFF_UP and IFF_LOOPBACK
    assert ended.lines == ["lo", "unknown", "0x9"]


def test_sysctls(jails: Jails, config: Build) -> None:
    """Kernel parameters of the jail's own namespaces, and no others."""
    sysctl = {"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1", "fs.mqueue.msg_max": "20"}
    command = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced " \
        "/proc/sys/fs/mqueue/msg_max"  # fmt: skip
    before = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    ended = jails.run(config("sh", "-c", command, linux={"sysctl": sysctl}))
    assert ended.lines == ["1", "1", "20"]
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == before


@pytest.mark.parametrize("key", ["vm.overcommit_memory", "kernel.core_pattern", "net.no.such"])
def test_sysctl_of_the_host(jails: Jails, config: Build, key: str) -> None:
    """A parameter of the host's is refused by name."""
    with pytest.raises(Exception, match=key.split(".")[-1]):
        jails.run(config("true", linux={"sysctl": {key: "1"}}))


def test_ranges_are_disjoint(jails: Jails, config: Build) -> None:
    """Two jails have no host id in common, and each sees 65536 ids."""
    two = [jails.begin(config("sh", "-c", "echo ready; cat")) for _ in range(2)]
    spans = []
    for running in two:
        inside, outside, size = map(int, Path(f"/proc/{running.pid}/uid_map").read_text().split())
        assert (inside, size) == (0, 65536)
        assert Path(f"/proc/{running.pid}/gid_map").read_text().split()[1] == str(outside)
        spans.append(range(outside, outside + size))
    assert not set(spans[0]) & set(spans[1])
    assert all(span.start > 10**9 for span in spans)
    for running in two:
        running.wait()


def test_given_mappings(jails: Jails, config: Build, probe_program: Path) -> None:
    """Mappings that the config gives are used as they are."""
    mappings = [
        {"containerID": 0, "hostID": 500_000, "size": 1000},
        {"containerID": 1000, "hostID": 700_000, "size": 10},
    ]
    linux = {"uidMappings": mappings, "gidMappings": mappings}
    process = {"user": {"uid": 1003, "gid": 7}}
    running = jails.begin(
        config("sh", "-c", "id -u; cat", linux=linux, process=process,
               jailrun={"user_range": None}, mounts=[mount_probe(probe_program)])
    )  # fmt: skip
    status = os.stat(f"/proc/{running.pid}")  # noqa: PTH116
    assert (status.st_uid, status.st_gid) == (700_003, 500_007)
    running.wait()
