"""``jailrun exec``.  Out of scope: terminals (test_terminal.py), entering (tests of the engine)."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import pytest

from jailrun.engine import lifecycle
from jailrun.engine.record import list_names, load
from jailrun.errors import NotFoundError
from tests.integration.cli.command import assert_refused, jailrun, output_of
from tests.integration.cli.conftest import Start
from tests.integration.host import reap_orphans
from tests.integration.jails import eventually

OPTIONS = (
    *("-e", "A=jail", "-w", "/srv", "--cap-drop", "CHOWN", "--ulimit", "nofile=100"),
    *("--memory", "64M", "--hostname", "box"),
)


@pytest.fixture
def jail(name: str, no_jails_stay: None) -> Iterator[str]:
    """Return the name of a jail that runs."""
    output_of("run", "-d", "--rm", "--name", name, *OPTIONS, "busybox", "sleep", "1000")
    yield name
    with contextlib.suppress(NotFoundError):  # it has ended
        lifecycle.delete(name, force=True)


def inside(jail: str, *words: str) -> str:
    """Return what a script prints that runs in the jail."""
    *options, script = words
    return output_of("exec", *options, jail, "sh", "-c", script)


def end(jail: str) -> None:
    """End a jail in which a process runs that this one has adopted, as PID 1 would.

    The init of a pid namespace does not end before all in it have been reaped.
    """

    def is_removed() -> bool:
        reap_orphans()
        return not list_names()

    lifecycle.signal(jail, signal.SIGKILL)
    eventually(is_removed, "the jail is removed")


def test_it_has_what_the_jail_has(jail: str) -> None:
    script = (
        "echo $A; pwd; ulimit -n; hostname; grep -E '^(CapBnd|Seccomp|NoNewPrivs):' /proc/{}/status"
    )
    theirs = inside(jail, script.format("1")).splitlines()
    ours = inside(jail, script.format("self")).splitlines()
    assert ours == theirs
    assert ours[:4] == ["jail", "/srv", "100", "box"]


def test_it_is_in_the_jails_cgroups(jail: str) -> None:
    assert inside(jail, "cat /proc/self/cgroup") == inside(jail, "cat /proc/1/cgroup")


def test_options(jail: str) -> None:
    script = "id -u; id -g; echo $HOME $A $B; pwd"
    seen = inside(jail, "-u", "nobody", "-w", "/tmp", "-e", "B=more", script)
    assert seen == "65534\n65534\n/home jail more\n/tmp\n"


def test_user_of_the_running_jail(jail: str) -> None:
    """Names are those of the jail's files now, not of its image."""
    inside(jail, "echo me:x:1234:5678::/me:/bin/sh >> /etc/passwd; echo us:x:99:me >> /etc/group")
    assert inside(jail, "-u", "me", "id -u; id -G; echo $HOME") == "1234\n5678 99\n/me\n"


def test_passwd_leads_out_of_the_jail(jail: str) -> None:
    inside(jail, "rm /etc/passwd; ln -s ../../../../../../etc/passwd /etc/passwd")
    assert_refused(jailrun("exec", "-u", "nobody", jail, "true"), "cannot find user 'nobody'")


@pytest.mark.parametrize(
    "made", ["mkfifo /etc/passwd", "mkdir /etc/passwd", "ln -s /proc/1/fd/0 /etc/passwd"]
)
def test_passwd_is_no_file(jail: str, made: str) -> None:
    inside(jail, f"rm /etc/passwd; {made}")
    assert_refused(jailrun("exec", "-u", "nobody", jail, "true"), "cannot find user 'nobody'")


def test_streams(jail: str) -> None:
    done = jailrun("exec", "-i", jail, "sh", "-c", "cat; echo err >&2; exit 9", stdin="in\n")
    assert (done.returncode, done.stdout, done.stderr) == (9, "in\n", "err\n")
    assert output_of("exec", jail, "cat", stdin="in\n") == ""


def test_exit_statuses(jail: str) -> None:
    assert_refused(jailrun("exec", jail, "nosuch"), "cannot execute nosuch: not found", 127)
    assert_refused(jailrun("exec", jail, "/etc/passwd"), "permission denied", 126)
    assert jailrun("exec", jail, "sh", "-c", "kill -TERM $$").returncode == 128 + signal.SIGTERM


def test_signal(jail: str, start: Start) -> None:
    command = start("exec", jail, "sh", "-c", "echo ready >/tmp/ready; exec tail -f /tmp/ready")
    command.read_line()
    command.send(signal.SIGTERM)
    assert command.end()[0] == 128 + signal.SIGTERM
    assert inside(jail, "echo on") == "on\n"


def test_stubborn(jail: str, start: Start) -> None:
    """The third ends it, and not the jail."""
    command = start("exec", jail, "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")
    command.read_line()
    for _ in range(3):
        command.send(signal.SIGTERM)
    assert command.end()[0] == 128 + signal.SIGKILL
    assert inside(jail, "echo on") == "on\n"


def test_the_jail_ends(jail: str, start: Start) -> None:
    command = start("exec", jail, "sh", "-c", "echo ready >/tmp/ready; exec tail -f /tmp/ready")
    command.read_line()
    lifecycle.signal(jail, signal.SIGKILL)
    assert command.end()[0] == 128 + signal.SIGKILL


def test_jailrun_is_killed(jail: str, start: Start) -> None:
    """What it ran ends with it."""
    command = start("exec", jail, "sh", "-c", "echo ready; exec sleep 1234")
    command.read_line()
    command.process.kill()
    command.end()
    eventually(lambda: "1234" not in inside(jail, "ps -o args"), "the process is gone")
    end(jail)


def test_detached(jail: str) -> None:
    assert output_of("exec", "-d", jail, "sh", "-c", "echo lost; exec sleep 4321") == ""
    eventually(lambda: "4321" in inside(jail, "ps -o args"), "the process runs")
    end(jail)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("nosuch", "true"), "there is no jail 'nosuch'"),
        (("a/b", "true"), "there is no jail 'a/b'"),
        (("..", "true"), "there is no jail '..'"),
        (("-d", "-t", "x", "true"), "-d excludes -i and -t"),
        (("-it", "x", "true"), "needs a terminal"),
        (("x",), "missing argument"),
    ],
)
def test_bad_command_line(words: tuple[str, ...], text: str) -> None:
    assert_refused(jailrun("exec", *words), text)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("-u", "nobody-there"), "cannot find user 'nobody-there'"),
        (("-u", "99999"), "99999"),
        (("-w", "/nonexistent"), "/nonexistent"),
        (("-w", "relative"), "relative"),
        (("-e", "=x"), "'=x' is not a variable"),
    ],
)
def test_bad_value(jail: str, words: tuple[str, ...], text: str) -> None:
    assert_refused(jailrun("exec", *words, jail, "true"), text)


def test_not_running(name: str, no_jails_stay: None) -> None:
    output_of("run", "--name", name, "busybox", "true")
    assert_refused(jailrun("exec", name, "true"), f"cannot execute in jail {name}: it is stopped")
    lifecycle.delete(name)


def test_paused(jail: str) -> None:
    lifecycle.pause(jail)
    assert_refused(jailrun("exec", jail, "true"), "it is paused")
    lifecycle.resume(jail)
    assert load(jail).started
