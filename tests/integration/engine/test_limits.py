"""Limits of the whole jail: its cgroups are joined, and what is at a limit is stopped and told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jailrun.cgroups.hierarchy import UNIFIED, read_hierarchies
from jailrun.engine import lifecycle
from jailrun.engine.record import load
from jailrun.errors import ConflictError, JailError
from tests.integration.jails import Build, Jails, eventually

MIB = 1 << 20


def read_cgroups(pid: int | str) -> dict[str, str]:
    """Return hierarchy → path from /proc/PID/cgroup."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return {line.split(":")[1]: line.split(":", 2)[2] for line in lines}


def test_joined_everywhere(jails: Jails, config: Build) -> None:
    """The payload is in the jail's cgroup of every hierarchy that it has one on."""
    running = jails.begin(config("sh", "-c", "echo ready; cat"))
    record = load(running.name)
    assert record.cgroups
    theirs = read_cgroups(running.pid)
    for identifier, folder in record.cgroups.items():
        path = theirs["" if identifier == UNIFIED else identifier]
        assert path == f"/jailrun/{running.name}"
        assert folder.endswith(path)
        pids = (Path(folder) / "cgroup.procs").read_text().split()
        assert str(running.pid) in pids
    running.wait()
    assert not any(Path(folder).exists() for folder in record.cgroups.values())


@pytest.mark.requires("cgroup:memory")
def test_memory(jails: Jails, config: Build) -> None:
    """Who needs more memory than the jail has is killed, and the record says why."""
    limit = {"memory": {"limit": 16 * MIB, "swap": 16 * MIB}}
    running = jails.start(
        config("sh", "-c", "head -c 100m /dev/zero | tail", linux={"resources": limit}),
        remove=False,
    )
    ended = running.wait()
    assert ended.status != 0
    record = load(running.name)
    assert record.status == ended.status
    assert record.events["oom_kill"] >= 1
    lifecycle.delete(running.name)


@pytest.mark.requires("cgroup:memory")
def test_memory_of_the_first_process(jails: Jails, config: Build) -> None:
    """An init that is killed for its memory ends the jail with 137."""
    limit = {"memory": {"limit": 16 * MIB, "swap": 16 * MIB}}
    process = {"args": ["tail", "/dev/zero"]}
    ended = jails.run(config("tail", process=process, linux={"resources": limit}))
    assert ended.status == 137


@pytest.mark.requires("cgroup:pids")
def test_pids(jails: Jails, config: Build) -> None:
    """A process too many is EAGAIN, which a shell says as such."""
    limit = {"pids": {"limit": 4}}
    command = "cat & cat & cat & cat & cat & echo no"
    ended = jails.run(config("sh", "-c", command, linux={"resources": limit}))
    assert "Resource temporarily unavailable" in ended.stderr


@pytest.mark.requires("cgroup:pids")
def test_fork_bomb(jails: Jails, config: Build) -> None:
    """A fork bomb stays in its jail, is seen, and is gone with it."""
    limit = {"pids": {"limit": 64}}
    command = "echo ready; bomb() { bomb | bomb & }; bomb; cat"
    running = jails.begin(config("sh", "-c", command, linux={"resources": limit}), remove=True)
    record = load(running.name)
    pids = next((path for key, path in record.cgroups.items() if "pids" in key.split(",")), "")
    pids = pids or record.cgroups[UNIFIED]
    events = Path(pids, "pids.events")
    eventually(lambda: events.read_text().split()[1] != "0", "the limit is hit")
    lifecycle.delete(running.name, force=True)
    running.first = False
    assert running.wait().status == 137


def test_limit_of_a_controller_that_is_missing(jails: Jails, config: Build) -> None:
    """A limit that this host cannot enforce is an error, never ignored."""
    missing = [one for one in ("rdma", "hugetlb", "blkio") if not read_hierarchies().of(one)]
    if "rdma" not in missing:
        pytest.skip("this host has rdma")
    limit = {"rdma": {"mlx5_1": {"hcaHandles": 1}}}
    with pytest.raises(JailError, match="rdma"):
        jails.run(config("true", linux={"resources": limit}))


@pytest.mark.parametrize(
    "limit",
    [
        {"cpu": {"cpus": "900-901"}},
        {"cpu": {"quota": 1, "period": 100000}},
        {"memory": {"limit": 1 << 70}},
        {"unified": {"no.such.file": "1"}},
        {"blockIO": {"throttleReadBpsDevice": [{"major": 999, "minor": 0, "rate": 1}]}},
    ],
    ids=str,
)
def test_impossible_limits(jails: Jails, config: Build, limit: dict[str, object]) -> None:
    """What the kernel refuses is an error of one line, and nothing is left."""
    with pytest.raises(JailError):
        jails.run(config("true", linux={"resources": limit}))


def test_existing_cgroup_is_not_taken(jails: Jails, config: Build) -> None:
    """A cgroup that someone else made is neither used nor removed."""
    item = read_hierarchies().items[0]
    folder = Path(item.mount) / "jrt-foreign"
    folder.mkdir()
    try:
        with pytest.raises(ConflictError, match="exists already"):
            jails.run(config("true", linux={"cgroupsPath": "/jrt-foreign"}))
        assert folder.is_dir()
    finally:
        folder.rmdir()


def test_cgroups_path(jails: Jails, config: Build) -> None:
    """The config may say where; the parents that were made are removed again."""
    running = jails.begin(
        config("sh", "-c", "echo ready; cat", linux={"cgroupsPath": "/jrt-group/a/b"})
    )
    assert set(read_cgroups(running.pid).values()) >= {"/jrt-group/a/b"}
    running.wait()
    groups = [Path(item.mount) / "jrt-group" for item in read_hierarchies().items]
    left = [group for group in groups if group.is_dir()]
    for group in left:
        os.removedirs(group / "a")
    assert not left
