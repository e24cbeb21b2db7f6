"""What can be done to a jail: signal, pause, resume, update, wait, delete; what it says it is."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from jailrun.cgroups.hierarchy import UNIFIED
from jailrun.engine import lifecycle
from jailrun.engine.record import list_names, load
from jailrun.engine.state import list_records, read_status
from jailrun.errors import ConflictError, JailError, NotFoundError
from jailrun.kernel.execute import send_signal
from tests.integration.jails import Build, Jails, Running, eventually, new_name


@pytest.fixture
def jail(jails: Jails, config: Build) -> Running:
    """Return a jail that says what it is told, and ends with its input."""
    command = "echo ready; while read line; do echo $line; done; exit 5"
    return jails.begin(config("sh", "-c", command), remove=False)


def read_cpu(name: str) -> int:
    """Return the processor time that a jail has used, in nanoseconds or microseconds."""
    cgroups = load(name).cgroups
    for key, path in cgroups.items():
        if "cpuacct" in key.split(","):
            return int(Path(path, "cpuacct.usage").read_text())
    return int(Path(cgroups[UNIFIED], "cpu.stat").read_text().split()[1])


def test_states(jails: Jails, jail: Running) -> None:
    """running, paused, running, stopped, gone: read from the kernel each time."""
    name = jail.name
    assert [status for record, status in list_records() if record.name == name] == ["running"]
    lifecycle.pause(name)
    assert read_status(load(name)) == "paused"
    lifecycle.resume(name)
    assert read_status(load(name)) == "running"
    send_signal(jail.execution.pidfd, 9)
    eventually(lambda: read_status(load(name)) == "stopped", "it is stopped, with nobody reaping")
    assert jail.wait().status == 137
    assert (read_status(load(name)), load(name).status) == ("stopped", 137)
    lifecycle.delete(name)
    assert list_names() == []


def test_signal(jails: Jails, config: Build) -> None:
    """A signal reaches the init, one that has ended is an error."""
    traps = "trap 'echo usr1' USR1; trap 'exit 5' TERM"
    command = f"{traps}; echo ready; while :; do :; done"
    jail = jails.begin(config("sh", "-c", command), remove=False)
    lifecycle.signal(jail.name, 10)
    assert jail.read_line() == "usr1"
    lifecycle.signal(jail.name, 15)
    assert jail.wait().status == 5
    with pytest.raises(ConflictError, match="stopped"):
        lifecycle.signal(jail.name, 15)
    with pytest.raises(NotFoundError):
        lifecycle.signal("jrt-none", 15)
    lifecycle.delete(jail.name)


def test_signal_everyone(jails: Jails, config: Build) -> None:
    """All processes of the jail get it, those that ignore everything else, too."""
    command = "for i in 1 2 3; do (trap '' TERM INT HUP; echo up; sleep 60) & done; wait"
    running = jails.start(config("sh", "-c", command), remove=False)
    for _ in range(3):
        running.read_line()
    lifecycle.signal(running.name, 9, everyone=True)
    assert running.wait().status == 137
    lifecycle.delete(running.name)


@pytest.mark.requires("freezer")
def test_pause(jails: Jails, config: Build) -> None:
    """A paused jail uses no processor time; resumed, it goes on."""
    command = "echo ready; while :; do :; done"
    running = jails.begin(config("sh", "-c", command))
    lifecycle.pause(running.name)
    before = read_cpu(running.name)
    jails_state = Path(f"/proc/{running.pid}/stat")
    for _ in range(50):  # of ours, in which it would have run
        sum(range(20_000))
        jails_state.read_text()
    assert read_cpu(running.name) == before
    with pytest.raises(ConflictError, match="paused"):
        lifecycle.pause(running.name)
    lifecycle.resume(running.name)
    eventually(lambda: read_cpu(running.name) > before, "it runs again")
    with pytest.raises(ConflictError, match="running"):
        lifecycle.resume(running.name)
    send_signal(running.execution.pidfd, 9)
    running.wait()


@pytest.mark.requires("freezer")
def test_delete_paused(jail: Running) -> None:
    """A paused jail can be killed and removed."""
    lifecycle.pause(jail.name)
    with pytest.raises(ConflictError, match="paused"):
        lifecycle.delete(jail.name)
    lifecycle.delete(jail.name, force=True)
    jail.first = False
    assert jail.wait().status == 137


@pytest.mark.requires("cgroup:memory", "cgroup:pids")
def test_update(jail: Running) -> None:
    """Limits change while it runs, and the config with them."""
    lifecycle.update(jail.name, {"memory": {"limit": 64 << 20}, "pids": {"limit": 33}})
    record = load(jail.name)
    resources = record.read_config()["linux"]["resources"]
    assert resources["memory"]["limit"] == 64 << 20
    assert resources["pids"]["limit"] == 33
    assert resources["devices"]  # what was there before
    found = [
        Path(path, name).read_text().strip()
        for path in record.cgroups.values()
        for name in ("memory.limit_in_bytes", "memory.max", "pids.max")
        if Path(path, name).exists()
    ]
    assert sorted(found) == sorted([str(64 << 20), "33"])
    jail.wait()
    lifecycle.delete(jail.name)


@pytest.mark.requires("cgroup:cpuset")
def test_update_into_another_hierarchy(jail: Running) -> None:
    """A limit of a controller that the jail was not in, and its end all the same."""
    lifecycle.update(jail.name, {"cpu": {"cpus": "0"}})
    status = Path(f"/proc/{jail.pid}/status").read_text()
    assert "Cpus_allowed_list:\t0\n" in status
    jail.wait()
    lifecycle.delete(jail.name)


def test_update_that_fails(jail: Running) -> None:
    """Of an impossible update nothing is kept."""
    before = load(jail.name).read_config()
    with pytest.raises(JailError):
        lifecycle.update(jail.name, {"pids": {"limit": 44}, "cpu": {"cpus": "900"}})
    assert load(jail.name).read_config() == before
    pids = [Path(path, "pids.max") for path in load(jail.name).cgroups.values()]
    assert all(path.read_text().strip() != "44" for path in pids if path.exists())
    jail.wait()
    lifecycle.delete(jail.name)


def test_delete(jail: Running) -> None:
    """A running jail is removed by force only, a second delete says that it is gone."""
    with pytest.raises(ConflictError, match="it is running") as caught:
        lifecycle.delete(jail.name)
    assert "rm --force" in (caught.value.hint or "")
    lifecycle.delete(jail.name, force=True)
    jail.first = False
    assert jail.wait().status == 137
    for force in (False, True):
        with pytest.raises(NotFoundError):
            lifecycle.delete(jail.name, force=force)


def test_deletes_at_once(jail: Running) -> None:
    """Of several deletes at once one removes, the others say that it is gone."""
    results: list[str] = []

    def delete() -> None:
        try:
            lifecycle.delete(jail.name, force=True)
            results.append("removed")
        except NotFoundError:
            results.append("gone")

    threads = [threading.Thread(target=delete) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["gone", "gone", "gone", "removed"]
    jail.first = False
    jail.wait()


def test_wait(jails: Jails, jail: Running) -> None:
    """Another process waits for the end and gets the status."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(jail.pipes.stdin)
            os.close(jail.alive)
            status = lifecycle.wait(jail.name)
        finally:
            os._exit(status)
    assert jail.wait().status == 5
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    assert lifecycle.wait(jail.name) == 5
    lifecycle.delete(jail.name)
    with pytest.raises(NotFoundError):
        lifecycle.wait(jail.name)


def test_wait_for_a_jail_that_is_removed(jails: Jails, config: Build) -> None:
    """Who waits gets the status of a jail that is removed at its end, too."""
    running = jails.begin(config("sh", "-c", "echo ready; cat; exit 6"))
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(running.pipes.stdin)
            os.close(running.alive)
            os.write(writer, b"x")
            status = lifecycle.wait(running.name)
        finally:
            os._exit(status)
    os.read(reader, 1)
    os.close(reader)
    os.close(writer)
    assert running.wait().status == 6
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in (6, 1)


def test_recover_leaves_what_is_well(jails: Jails, jail: Running) -> None:
    """Jails that run, wait or have ended and were kept are none of its business."""
    assert lifecycle.recover() == []
    jail.wait()
    assert lifecycle.recover() == []
    assert read_status(load(jail.name)) == "stopped"
    lifecycle.delete(jail.name)


def test_record_that_is_damaged(own_folders: Path) -> None:
    """A record that cannot be read is named, and the others are listed."""
    folder = own_folders / "jails" / "jrt-damaged"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text("{")
    with pytest.raises(JailError, match=r"record\.json is damaged"):
        load("jrt-damaged")
    assert list_records() == []
    (folder / "record.json").unlink()
    folder.rmdir()


def test_pid_that_has_another_owner(jails: Jails, jail: Running) -> None:
    """A pid alone is not a jail: its start time must fit."""
    record = load(jail.name)
    jail.wait()
    record = load(jail.name)
    record.pid, record.status = os.getpid(), None
    assert read_status(record) == "stopped"
    record.write()
    with pytest.raises(ConflictError):
        lifecycle.signal(jail.name, 9)
    lifecycle.delete(jail.name, force=True)


def test_range_is_given_back(jails: Jails, config: Build, own_folders: Path) -> None:
    """The lease of a jail's ids goes with the jail."""
    leases = own_folders / "ids"
    running = jails.begin(config("sh", "-c", "echo ready; cat"))
    assert [path.readlink() for path in leases.iterdir()] == [Path(running.name)]
    running.wait()
    assert list(leases.iterdir()) == []


def test_ranges_are_used_up(jails: Jails, config: Build, own_folders: Path) -> None:
    """Without a free range the start says so, and makes nothing."""
    leases = own_folders / "ids"
    leases.mkdir(parents=True)
    for number in range(4096):
        (leases / str(number)).symlink_to("jrt-other")
    with pytest.raises(JailError, match="range of user ids"):
        jails.run(config("true"), name=new_name())
    assert list_names() == []
    (leases / "17").unlink()
    ended = jails.run(config("cat", "/proc/self/uid_map"))
    assert int(ended.stdout.split()[1]) == 0x70000000 + 17 * 65536
    for path in leases.iterdir():
        path.unlink()
