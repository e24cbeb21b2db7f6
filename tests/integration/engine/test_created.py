"""A jail that is created and waits for its start, as engines with two steps have it."""

from __future__ import annotations

import os
import select
from pathlib import Path
from typing import Any

import pytest

from jailrun.engine import lifecycle
from jailrun.engine.record import load
from jailrun.engine.state import read_status
from jailrun.errors import (
    CommandNotExecutableError,
    CommandNotFoundError,
    ConflictError,
    JailError,
)
from jailrun.kernel.execute import send_signal
from tests.integration.jails import Build, Jails, eventually


def create(jails: Jails, config: dict[str, Any]) -> Any:
    """Create a jail that waits."""
    return jails.start(config, hold=True, remove=False)


def test_create_and_start(jails: Jails, config: Build) -> None:
    """Nothing of the payload runs before the start; then it does."""
    running = create(jails, config("sh", "-c", "echo hello; exit 3"))
    record = load(running.name)
    assert read_status(record) == "created"
    assert record.pid == running.pid
    assert not select.select(running.outputs, [], [], 0)[0]
    lifecycle.start(running.name)
    assert read_status(load(running.name)) in ("running", "stopped")
    ended = running.wait()
    assert (ended.status, ended.stdout) == (3, "hello\n")
    assert read_status(load(running.name)) == "stopped"
    assert load(running.name).status == 3
    lifecycle.delete(running.name)


def test_start_from_another_process(jails: Jails, config: Build) -> None:
    """Who starts need not be who created."""
    running = create(jails, config("echo", "hello"))
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            lifecycle.start(running.name)
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert running.wait().stdout == "hello\n"
    lifecycle.delete(running.name)


@pytest.mark.parametrize(
    ("command", "error"),
    [("no-such-program", CommandNotFoundError), ("/etc", CommandNotExecutableError)],
)
def test_exec_fails_after_the_start(
    jails: Jails, config: Build, command: str, error: type[JailError]
) -> None:
    """The error of the exec reaches who starts."""
    running = create(jails, config(command))
    with pytest.raises(error, match=command):
        lifecycle.start(running.name)
    assert running.wait().status != 0
    assert read_status(load(running.name)) == "stopped"
    lifecycle.delete(running.name)


def test_start_twice(jails: Jails, config: Build) -> None:
    """A jail is started once."""
    running = create(jails, config("cat"))
    lifecycle.start(running.name)
    with pytest.raises(ConflictError, match="cannot start jail"):
        lifecycle.start(running.name)
    running.wait()
    with pytest.raises(ConflictError, match="it is stopped"):
        lifecycle.start(running.name)
    lifecycle.delete(running.name)


def test_delete_created(jails: Jails, config: Build) -> None:
    """A created jail can be removed without force."""
    running = create(jails, config("true"))
    lifecycle.delete(running.name)
    running.first = False
    assert running.wait().status == 137


def test_killed_before_the_start(jails: Jails, config: Build) -> None:
    """Killed while it waits: it is stopped, and starting it says so."""
    running = create(jails, config("true"))
    send_signal(running.execution.pidfd, 9)
    eventually(lambda: read_status(load(running.name)) == "stopped", "it is stopped")
    with pytest.raises(ConflictError, match="stopped"):
        lifecycle.start(running.name)
    running.wait()
    lifecycle.delete(running.name)


def test_signal_while_created(jails: Jails, config: Build) -> None:
    """runc's kill on a created jail ends it."""
    running = create(jails, config("true"))
    lifecycle.signal(running.name, 9)
    assert running.wait().status == 137
    lifecycle.delete(running.name)


def test_caller_is_gone_before_the_start(jails: Jails, config: Build) -> None:
    """A created jail outlives its creator, and another process starts it."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            running = create(jails, config("sh", "-c", "echo hello >/tmp/x; cat"))
            os.write(writer, running.name.encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    name = os.read(reader, 100).decode()
    os.close(reader)
    assert read_status(load(name)) == "created"
    assert lifecycle.recover() == []
    lifecycle.start(name)
    root = Path(f"/proc/{load(name).pid}/root/tmp/x")
    eventually(lambda: read_status(load(name)) == "stopped" or root.exists(), "it runs")
    lifecycle.delete(name, force=True)


def test_inside_cannot_start_itself(jails: Jails, config: Build) -> None:
    """The descriptors by which it waits are gone with the exec."""
    running = create(jails, config("sh", "-c", "ls -l /proc/self/fd | grep -c fifo"))
    lifecycle.start(running.name)
    assert running.wait().lines == ["0"]
    lifecycle.delete(running.name)
