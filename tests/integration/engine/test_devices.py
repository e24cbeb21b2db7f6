"""Devices: what is in /dev, what can be made and opened, and the terminal."""

from __future__ import annotations

import array
import fcntl
import os
import select
import socket
import struct
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jailrun.errors import JailError, RootfsError
from jailrun.kernel.execute import send_signal
from tests.integration.jails import Build, Jails, Probe, Running

DEFAULT = {"full", "null", "random", "tty", "urandom", "zero"}
LINKS = {"fd", "ptmx", "stderr", "stdin", "stdout"}
FOLDERS = {"mqueue", "pts", "shm"}


@pytest.mark.parametrize("user", [True, False])
def test_what_is_there(probe: Probe, user: bool) -> None:
    """The nodes that every program expects, and no others."""
    seen = probe("system", without=[] if user else ["user"])
    assert set(seen["system"]["devices"]) == DEFAULT | LINKS | FOLDERS


@pytest.mark.parametrize("user", [True, False])
def test_they_work(jails: Jails, config: Build, user: bool) -> None:
    """For root and for others."""
    command = (
        "echo x >/dev/null; head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c;"
        "(echo x >/dev/full) 2>&1 | grep -c space; ls -l /dev | grep -c '^crw-rw-rw-'"
    )
    for uid in (0, 1000):
        process = {"user": {"uid": uid, "gid": uid}}
        without = [] if user else ["user"]
        ended = jails.run(config("sh", "-c", command, process=process, without=without))
        assert ended.lines == ["4", "4", "1", "6"], ended


@pytest.mark.parametrize("user", [True, False])
def test_no_others(probe: Probe, user: bool) -> None:
    """No device of the host's can be made or opened, with or without a user namespace."""
    opened = [f"mknod_open_{name}" for name in ("mem", "kmsg", "sda", "loop")]
    names = ("mknod_null", "mknod_fifo", *opened)
    sets = {kind: ["CAP_MKNOD"] for kind in ("bounding", "effective", "permitted")}
    seen = probe(
        *names, without=[] if user else ["user"], process={"capabilities": sets},
        jailrun={"seccomp": None},
    )  # fmt: skip
    assert {name for name, report in seen.items() if report.works} <= {"mknod_fifo", "mknod_null"}
    assert seen["mknod_fifo"].works


def test_device_of_the_config(jails: Jails, config: Build) -> None:
    """A device that is asked for is there; without its rule it cannot be opened."""
    device = {"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666}
    rule = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "rwm"}
    built = config("sh", "-c", "ls -l /dev/kmsg; exec 3>/dev/kmsg && echo opened", without=["user"])
    built["linux"]["devices"] = [device]
    denied = jails.run(built)
    assert "opened" not in denied.stdout
    built["linux"]["resources"]["devices"] = [*built["linux"]["resources"]["devices"], rule]
    allowed = jails.run(built)
    assert "opened" in allowed.stdout
    assert "1,  11" in allowed.stdout


def test_device_in_a_user_namespace(jails: Jails, config: Build) -> None:
    """There a device has the name, the owner and the mode that were asked for, and works."""
    script = "stat -c '%a %u %g %t:%T' /dev/other/zero; head -c 2 /dev/other/zero | od -An -tx1"
    built = config("sh", "-c", script)
    built["linux"]["devices"] = [
        {
            "path": "/dev/other/zero", "type": "c", "major": 1, "minor": 5,
            "fileMode": 0o640, "uid": 7, "gid": 8,
        }
    ]  # fmt: skip
    assert jails.run(built).lines == ["640 7 8 1:5", " 00 00"]


def test_device_that_the_host_lacks(jails: Jails, config: Build) -> None:
    """In a user namespace nobody can make one, so it is an error that says how it can be had."""
    built = config("true")
    built["linux"]["devices"] = [
        {"path": "/dev/jrt-missing", "type": "c", "major": 240, "minor": 199}
    ]
    with pytest.raises(RootfsError, match="/dev/jrt-missing: the host has no device c 240 199"):
        jails.run(built)


def test_fifo_device(jails: Jails, config: Build) -> None:
    """A FIFO of the config's, with its mode and owner."""
    built = config("stat", "-c", "%F %a %u:%g", "/run/fifo")
    built["linux"]["devices"] = [
        {"path": "/run/fifo", "type": "p", "fileMode": 0o640, "uid": 5, "gid": 6}
    ]
    assert jails.run(built).lines == ["fifo 640 5:6"]


# --- the terminal ---------------------------------------------------------------------------------
@pytest.fixture
def terminal() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return the two ends of the socket on which a terminal arrives."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    yield ours, theirs
    ours.close()
    theirs.close()


def receive(ours: socket.socket) -> int:
    """Return the terminal that arrives."""
    _data, control, _flags, _address = ours.recvmsg(100, socket.CMSG_SPACE(4))
    assert len(control) == 1
    fds = array.array("i", control[0][2])
    assert len(fds) == 1
    return fds[0]


def read_all(master: int) -> str:
    """Return all that a terminal says until its other side is closed."""
    said = b""
    while select.select([master], [], [], 60)[0]:
        try:
            data = os.read(master, 4096)
        except OSError:  # EIO: nobody has it open any more
            break
        if not data:
            break
        said += data
    return said.decode().replace("\r\n", "\n")


def start_on_terminal(
    jails: Jails, config: dict[str, Any], terminal: tuple[socket.socket, socket.socket]
) -> tuple[Running, int]:
    """Start a jail whose streams are a terminal of its own."""
    ours, theirs = terminal
    running = jails.start(config, console_fd=theirs.fileno())
    return running, receive(ours)


def test_terminal(
    jails: Jails, config: Build, terminal: tuple[socket.socket, socket.socket]
) -> None:
    """The streams are one terminal of the jail's devpts, its controlling one, of the given size."""
    process = {"terminal": True, "consoleSize": {"width": 100, "height": 30}}
    command = (
        "stty -echo; tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo all;"
        "ls -l /dev/console; read x </dev/tty; echo got $x"
    )
    built = config("sh", "-c", command, process=process)
    running, master = start_on_terminal(jails, built, terminal)
    os.write(master, b"word\n")
    said = read_all(master).removeprefix("word\n")
    os.close(master)
    assert running.wait().status == 0
    lines = said.splitlines()
    assert lines[:3] == ["/dev/pts/0", "30 100", "all"]
    assert lines[3].startswith("c")
    assert lines[-1] == "got word"


def test_terminal_signals(
    jails: Jails, config: Build, terminal: tuple[socket.socket, socket.socket]
) -> None:
    """^C reaches the payload, a new size is seen, hanging up ends it."""
    process = {"terminal": True}
    traps = "trap 'echo int' INT; trap 'stty size' WINCH; trap 'exit 9' HUP"
    built = config("sh", "-c", f"{traps}; echo ready; while :; do read x; done", process=process)
    running, master = start_on_terminal(jails, built, terminal)
    said = b""
    for key, word in ((b"", b"ready"), (b"\x03", b"int")):
        os.write(master, key)
        while word not in said:
            said += os.read(master, 4096)
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 11, 22, 0, 0))
    while b"11 22" not in said:
        said += os.read(master, 4096)
    os.close(master)
    assert running.wait().status == 9


def test_terminal_of_another_user(
    jails: Jails, config: Build, terminal: tuple[socket.socket, socket.socket]
) -> None:
    """It belongs to the payload's user, who can open it again."""
    process = {"terminal": True, "user": {"uid": 1000, "gid": 1000}}
    command = "stat -c %u $(tty); echo again >$(tty); echo console >/dev/console"
    built = config("sh", "-c", command, process=process)
    running, master = start_on_terminal(jails, built, terminal)
    said = read_all(master)
    os.close(master)
    assert running.wait().status == 0
    assert said.splitlines() == ["1000", "again", "console"]


def test_terminal_without_devpts(
    jails: Jails, config: Build, terminal: tuple[socket.socket, socket.socket]
) -> None:
    """A terminal needs a devpts of the jail's own: never the host's."""
    built = config("true", process={"terminal": True})
    built["mounts"] = [mount for mount in built["mounts"] if mount["destination"] != "/dev/pts"]
    with pytest.raises(JailError, match="terminal") as caught:
        jails.start(built, console_fd=terminal[1].fileno())
    assert "devpts" in (caught.value.hint or "")


def test_terminal_of_an_exec(
    jails: Jails, config: Build, terminal: tuple[socket.socket, socket.socket]
) -> None:
    """A process that enters can have a terminal of its own."""
    from jailrun.engine.enter import enter
    from jailrun.kernel.execute import reap
    from tests.integration.jails import build_config

    running = jails.begin(config("sh", "-c", "echo ready; cat"))
    process = build_config("sh", "-c", "tty; test -t 0; echo $?")["process"] | {"terminal": True}
    execution = enter(running.name, process, console_fd=terminal[1].fileno())
    master = receive(terminal[0])
    assert read_all(master).splitlines() == ["/dev/pts/0", "0"]
    os.close(master)
    assert reap(execution.pidfd) == 0
    running.wait()


def test_caller_keeps_its_terminal(
    jails: Jails, config: Build, terminal: tuple[socket.socket, socket.socket]
) -> None:
    """The jail's session is its own: it has no way to the caller's terminal."""
    running = jails.begin(config("sh", "-c", "echo ready; cat"))
    stat = Path(f"/proc/{running.pid}/stat").read_text().rpartition(")")[2].split()
    assert stat[4] == "0"  # no controlling terminal
    ended = jails.execute(running.name, "sh", "-c", "exec 3</dev/tty")
    assert ended.status != 0
    send_signal(running.execution.pidfd, 9)
    assert running.wait().status == 137
