"""One more process in a running jail: in all its namespaces and cgroups, under its rules."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from jailrun.engine import lifecycle
from jailrun.errors import (
    CommandNotExecutableError,
    CommandNotFoundError,
    ConflictError,
    JailError,
    NotFoundError,
    SpecError,
)
from jailrun.kernel.execute import send_signal
from tests.integration.jails import Build, Jails, Running, mount_probe
from tests.probes.probe import parse_probe


@pytest.fixture
def jail(jails: Jails, config: Build, probe_program: Path) -> Running:
    """Return a running jail with the probe in it, and a time namespace of its own."""
    limits = {"pids": {"limit": 50}, "memory": {"limit": 64 << 20}}
    return jails.begin(
        config(
            *("sh", "-c", "echo ready; cat"),
            mounts=[mount_probe(probe_program)],
            namespaces={"time": None} if Path("/proc/self/ns/time").exists() else {},
            linux={"resources": limits},
            hostname="entered",
        )
    )


def test_same_namespaces_and_cgroups(jails: Jails, jail: Running) -> None:
    """It is where the jail's init is, in every namespace and every cgroup."""
    one = jails.enter(jail.name, "sh", "-c", "echo ready; cat")
    one.read_line()
    for kind in os.listdir("/proc/self/ns"):  # noqa: PTH208
        if kind.endswith("_for_children"):
            continue
        links = {Path(f"/proc/{pid}/ns/{kind}").readlink() for pid in (one.pid, jail.pid)}
        assert len(links) == 1, links
    cgroups = {Path(f"/proc/{pid}/cgroup").read_text() for pid in (one.pid, jail.pid)}
    assert len(cgroups) == 1
    assert Path(f"/proc/{one.pid}/root/etc").stat() == Path(f"/proc/{jail.pid}/root/etc").stat()
    one.wait()
    jail.wait()


def test_same_rights(jails: Jails, jail: Running) -> None:
    """Its rights are not more than those of a start with the same process."""
    names = ("ids", "status", "system", "fds", "mount_tmpfs", "keyctl")
    ended = jails.execute(jail.name, "/probe", *names)
    seen = parse_probe(ended.stdout)
    status = seen["status"]
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    first = Path(f"/proc/{jail.pid}/status").read_text()
    assert f"CapBnd:\t{status['CapBnd']}\n" in first
    assert f"CapEff:\t{status['CapEff']}\n" in first
    assert not seen["mount_tmpfs"].works
    assert not seen["keyctl"].works
    assert sorted(seen["fds"]["open"]) == ["0", "1", "2"]
    assert seen["system"]["hostname"] == "entered"
    assert seen["ids"]["ppid"] == 0  # its parent is outside
    jail.wait()


def test_what_was_asked_for(jails: Jails, jail: Running) -> None:
    """User, groups, environment, working directory and limits of its own."""
    ended = jails.execute(
        *(jail.name, "/probe", "ids", "environment", "system", "rlimits", "status"),
        user={"uid": 33, "gid": 34, "additionalGids": [35], "umask": 0o027},
        env=["PATH=/bin", "A=b"],
        cwd="/etc",
        rlimits=[{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60}],
    )
    seen = parse_probe(ended.stdout)
    ids = seen["ids"]
    assert (ids["uid"], ids["gid"], ids["groups"]) == (33, 34, [35])
    assert seen["environment"]["environment"] == ["PATH=/bin", "A=b"]
    assert seen["system"]["cwd"] == "/etc"
    assert seen["rlimits"]["RLIMIT_NOFILE"] == [50, 60]
    assert seen["status"]["Umask"] == "0027"
    jail.wait()


def test_statuses(jails: Jails, jail: Running) -> None:
    """Streams and statuses come back; the jail goes on."""
    running = jails.enter(jail.name, "sh", "-c", "cat; echo error >&2; exit 9")
    running.write("input")
    ended = running.wait()
    assert (ended.status, ended.stdout, ended.stderr) == (9, "input", "error\n")
    killed = jails.enter(jail.name, "sh", "-c", "echo ready; cat")
    killed.read_line()
    send_signal(killed.execution.pidfd, 9)
    assert killed.wait().status == 137
    jail.write("on\n")
    assert jail.wait().stdout == "on\n"


@pytest.mark.parametrize(
    ("args", "changes", "error"),
    [
        (["no-such-program"], {}, CommandNotFoundError),
        (["/etc"], {}, CommandNotExecutableError),
        ([""], {}, JailError),
        (["true"], {"cwd": "/no/such/folder"}, JailError),
        (["true"], {"cwd": "relative"}, SpecError),
        (["true"], {"user": {"uid": 70000}}, SpecError),
        (["true"], {"rlimits": [{"type": "RLIMIT_X", "soft": 1, "hard": 1}]}, SpecError),
    ],
)
def test_cannot_run(
    jails: Jails, jail: Running, args: list[str], changes: dict[str, Any], error: type[JailError]
) -> None:
    """What cannot be run is told, and the jail is none the worse."""
    with pytest.raises(error):
        jails.execute(jail.name, *args, **changes)
    assert jails.execute(jail.name, "true").status == 0
    jail.wait()


def test_not_running(jails: Jails, jail: Running) -> None:
    """Neither a missing jail, nor a paused one, nor one that has ended, can be entered."""
    with pytest.raises(NotFoundError, match="there is no jail 'jrt-none'"):
        jails.execute("jrt-none", "true")
    with pytest.raises(NotFoundError):
        jails.execute("../jails", "true")
    lifecycle.pause(jail.name)
    with pytest.raises(ConflictError, match="paused") as caught:
        jails.execute(jail.name, "true")
    assert "jailrun resume" in (caught.value.hint or "")
    lifecycle.resume(jail.name)
    assert jails.execute(jail.name, "true").status == 0
    jail.wait()


def test_ended(jails: Jails, config: Build) -> None:
    """A jail that has ended and was kept."""
    running = jails.start(config("true"), remove=False)
    running.wait()
    with pytest.raises(ConflictError, match="stopped"):
        jails.execute(running.name, "true")
    lifecycle.delete(running.name)


def test_dies_with_the_jail(jails: Jails, jail: Running) -> None:
    """When the init ends, so does whoever entered."""
    one = jails.enter(jail.name, "sh", "-c", "trap '' TERM HUP INT; echo ready; cat")
    one.read_line()
    send_signal(jail.execution.pidfd, 9)
    # In this order: the end of a pid namespace waits until its processes have been reaped.
    assert one.wait(end_input=False).status == 137
    assert jail.wait().status == 137


def test_counts_against_the_limits(jails: Jails, jail: Running) -> None:
    """A memory limit of the jail is one of who enters."""
    ended = jails.execute(jail.name, "sh", "-c", "head -c 200m /dev/zero | tail | wc -c; echo end")
    assert ended.lines != ["209715200", "end"]
    jail.wait()


def test_many_at_once(jails: Jails, jail: Running) -> None:
    """Several processes enter side by side."""
    entered = [jails.enter(jail.name, "sh", "-c", f"echo {number}; cat") for number in range(6)]
    assert [one.read_line() for one in entered] == [str(number) for number in range(6)]
    assert all(one.wait().status == 0 for one in entered)
    jail.wait()


def test_jail_without_namespaces(jails: Jails, config: Build) -> None:
    """Only the mount namespace is its own; entering that works, too."""
    running = jails.begin(
        config("sh", "-c", "echo ready; cat",
               without=("pid", "network", "ipc", "uts", "user", "cgroup"))
    )  # fmt: skip
    command = "ls -d /proc/self; id -u; ls /sys/fs/cgroup >/dev/null && echo ok"
    ended = jails.execute(running.name, "sh", "-c", command)
    assert ended.lines == ["/proc/self", "0", "ok"]
    running.wait()
