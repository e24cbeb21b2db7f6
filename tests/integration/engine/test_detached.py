"""Detached jails: a small monitor stays, notes the end, and is all that stays."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from pathlib import Path

import pytest

from jailrun.engine import lifecycle
from jailrun.engine.launch import Request
from jailrun.engine.monitor import launch_detached
from jailrun.engine.record import list_names, load
from jailrun.engine.state import read_status
from jailrun.errors import CommandNotFoundError, ConflictError, JailError
from jailrun.kernel.execute import send_signal
from tests.integration.host import read_processes, read_stat, reap_orphans
from tests.integration.jails import Build, Config, Jails, eventually, new_name


@pytest.fixture
def log(session_data: Path, jails: Jails) -> Path:
    """Return the path of a log."""
    return session_data / "logs" / f"{new_name()}.log"


def detach(config: Config, log: Path, **request: object) -> str:
    """Start a detached jail; return its name."""
    name = new_name()
    launch_detached(config, Request(name, log=str(log), **request))  # type: ignore[arg-type]
    return name


def kill(pid: int) -> None:
    """Kill a process of ours and wait for its end."""
    pidfd = os.pidfd_open(pid)
    send_signal(pidfd, 9)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(10_000)
    os.close(pidfd)


ENDS_ON_USR1 = "trap 'exit 4' USR1; while :; do :; done"


def end(name: str) -> None:
    """End a jail that runs ENDS_ON_USR1, whose trap may not be there yet."""

    def ended() -> bool:
        with contextlib.suppress(JailError):
            lifecycle.signal(name, 10)
        return name not in list_names() or read_status(load(name)) == "stopped"

    eventually(ended, "it is stopped")


def monitor_of(name: str) -> int:
    """Return the pid of a jail's monitor."""
    stat = read_stat(str(load(name).pid))
    assert stat
    return int(stat[2])


def test_status_and_log(config: Build, log: Path) -> None:
    """Its output is in the log, its status in the record; it is removed when asked."""
    name = detach(config("sh", "-c", "echo out; echo err >&2; exit 3"), log)
    assert lifecycle.wait(name) == 3
    assert sorted(log.read_text().split()) == ["err", "out"]
    record = load(name)
    assert (read_status(record), record.status) == ("stopped", 3)
    lifecycle.delete(name)
    assert not log.exists()


def test_removed_at_its_end(config: Build, log: Path) -> None:
    """With remove nothing is left, and who waits still gets the status."""
    name = detach(config("sh", "-c", ENDS_ON_USR1), log, remove=True)
    waiter = os.fork()
    if waiter == 0:
        status = 1
        try:
            status = lifecycle.wait(name)
        finally:
            os._exit(status)
    end(name)
    assert os.waitstatus_to_exitcode(os.waitpid(waiter, 0)[1]) == 4
    eventually(lambda: not list_names(), "it is removed")
    assert not log.exists()


def test_outlives_its_caller(config: Build, log: Path) -> None:
    """The caller may end, or be killed: the jail runs on, with the monitor as its parent."""
    reader, writer = os.pipe()
    caller = os.fork()
    if caller == 0:
        try:
            name = detach(config("sh", "-c", "while :; do :; done"), log)
            os.write(writer, name.encode())
        finally:
            os._exit(0)
    os.waitpid(caller, 0)
    os.close(writer)
    name = os.read(reader, 100).decode()
    os.close(reader)
    assert lifecycle.recover() == []
    assert read_status(load(name)) == "running"
    lifecycle.signal(name, 9)
    assert lifecycle.wait(name) == 137
    lifecycle.delete(name)


def test_what_stays_is_small(config: Build, log: Path) -> None:
    """One process outside of the jail, without a library, with the log and the lock open."""
    name = detach(config("sh", "-c", "while :; do :; done"), log)
    monitor = monitor_of(name)
    command = Path(f"/proc/{monitor}/cmdline")
    eventually(lambda: "monitor" in command.read_text(), "it is the monitor")
    rollup = Path(f"/proc/{monitor}/smaps_rollup").read_text().splitlines()
    pss = next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
    assert pss <= 1024
    fds = {fd.readlink() for fd in Path(f"/proc/{monitor}/fd").iterdir()}
    assert {path.name for path in fds} <= {"null", "alive", log.name}
    lifecycle.delete(name, force=True)
    reap_orphans()


def test_monitor_is_killed(config: Build, log: Path) -> None:
    """Without its monitor a jail runs on; its end is seen, its status is not known."""
    name = detach(config("sh", "-c", ENDS_ON_USR1), log)
    kill(monitor_of(name))
    assert lifecycle.recover() == []
    assert read_status(load(name)) == "running"
    end(name)
    assert lifecycle.wait(name) == 255
    lifecycle.delete(name)


def test_monitor_of_a_jail_to_remove_is_killed(config: Build, log: Path) -> None:
    """A jail that nobody will remove is removed by the next command."""
    name = detach(config("sh", "-c", ENDS_ON_USR1), log, remove=True)
    kill(monitor_of(name))
    end(name)
    reap_orphans()
    assert lifecycle.recover() == [name]
    assert list_names() == []


def test_delete_while_it_is_watched(config: Build, log: Path) -> None:
    """A forced removal and the monitor's own work do not get in each other's way."""
    for _ in range(5):
        name = detach(config("sh", "-c", "while :; do :; done"), log, remove=True)
        lifecycle.delete(name, force=True)
        assert list_names() == []

    def gone() -> bool:
        reap_orphans()
        return not read_processes()

    eventually(gone, "the monitors are gone")


def test_errors_come_back(config: Build, log: Path, jails: Jails) -> None:
    """A start that fails is the caller's error, of its kind, with its hint."""
    with pytest.raises(CommandNotFoundError, match="no-such-program") as caught:
        detach(config("no-such-program"), log)
    assert caught.value.hint
    running = jails.begin(config("sh", "-c", "echo ready; cat"))
    with pytest.raises(ConflictError, match="is taken"):
        launch_detached(config("true"), Request(running.name, log=str(log)))
    with pytest.raises(JailError, match="needs a log"):
        launch_detached(config("true"), Request(new_name()))
    running.wait()
    log.unlink(missing_ok=True)


def test_terminal(config: Build, log: Path) -> None:
    """The terminal of a detached jail is copied to its log."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)

    def receive() -> int:
        fds = socket.recv_fds(ours, 100, 1)[1]
        return fds[0]

    name = new_name()
    built = config("sh", "-c", "tty; exit 2", process={"terminal": True})
    launch_detached(built, Request(name, log=str(log), console_fd=theirs.fileno()), receive)
    ours.close()
    theirs.close()
    assert lifecycle.wait(name) == 2
    assert log.read_text().split() == ["/dev/pts/0"]
    lifecycle.delete(name)


def test_attached_jail_dies_with_its_caller(config: Build) -> None:
    """SIGKILL of who runs a jail in the foreground ends the jail; the next command removes it."""
    from jailrun.engine.launch import launch
    from jailrun.engine.payload import Streams

    name = new_name()
    reader, writer = os.pipe()
    caller = os.fork()
    if caller == 0:
        try:
            null = os.open("/dev/null", os.O_RDWR)
            streams = Streams((null, null, null))
            built = config("sh", "-c", "trap '' TERM HUP INT; while :; do :; done")
            launch(built, Request(name, streams=streams, attached=True, remove=True))
            os.write(writer, b"x")
            while True:
                os.read(os.pipe()[0], 1)
        finally:
            os._exit(1)
    os.close(writer)
    assert os.read(reader, 1) == b"x"
    os.close(reader)
    kill(caller)
    os.waitpid(caller, 0)
    eventually(lambda: read_status(load(name)) == "stopped", "it is stopped")
    reap_orphans()
    assert lifecycle.recover() == [name]
