"""``jailrun run``: streams, exit statuses, signals, names, the background, --explain.

Out of scope: terminals (test_terminal.py), options one by one (test_run_options.py), bad input
(test_run_errors.py).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from jailrun import paths
from jailrun.engine import lifecycle
from jailrun.engine.record import list_names, load
from tests.integration.cli.command import (
    PROGRAM,
    assert_clean,
    assert_refused,
    await_running,
    jailrun,
    output_of,
)
from tests.integration.cli.conftest import Start
from tests.integration.host import find_leftovers, read_host
from tests.integration.jails import eventually

IGNORE_TERM = "trap '' TERM; echo ready; while :; do sleep 1; done"


class TestStreams:
    """Standard input, output and errors are the caller's own."""

    def test_output_and_errors_are_apart(self) -> None:
        done = jailrun("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2")
        assert (done.returncode, done.stdout, done.stderr) == (0, "out\n", "err\n")

    def test_input_with_i(self) -> None:
        assert output_of("run", "--rm", "-i", "busybox", "cat", stdin="words\n") == "words\n"

    def test_no_input_without_i(self) -> None:
        assert output_of("run", "--rm", "busybox", "cat", stdin="words\n") == ""

    def test_no_other_descriptor(self) -> None:
        reader, writer = os.pipe()
        os.set_inheritable(reader, True)
        try:
            done = jailrun("run", "--rm", "busybox", "sh", "-c", "echo /proc/self/fd/*")
        finally:
            os.close(reader)
            os.close(writer)
        assert done.stdout.split() == [f"/proc/self/fd/{fd}" for fd in (0, 1, 2, 3)]  # 3: the glob

    def test_closed_streams(self) -> None:
        """The next file that jailrun opens must not become a stream of the jail's."""
        script = "exec $0 run --rm busybox ls -l /proc/self/fd/0 /proc/self/fd/2 <&- 2>&-"
        done = subprocess.run(
            ["/bin/sh", "-c", script, PROGRAM], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0
        assert done.stdout.count("-> /dev/null") == 2

    def test_signals_are_as_an_exec_should_find_them(self) -> None:
        lines = output_of("run", "--rm", "busybox", "grep", "^Sig[BIC]", "/proc/self/status")
        assert {line.split()[1] for line in lines.splitlines()} == {"0" * 16}


class TestExitStatus:
    """The payload's own, or a documented one of ours."""

    @pytest.mark.parametrize("status", [0, 7, 255])
    def test_own(self, status: int) -> None:
        assert jailrun("run", "--rm", "busybox", "sh", "-c", f"exit {status}").returncode == status

    def test_not_found(self) -> None:
        done = jailrun("run", "--rm", "busybox", "nosuch")
        assert_refused(done, "cannot execute nosuch: not found", 127)

    def test_not_executable(self) -> None:
        done = jailrun("run", "--rm", "busybox", "/etc/passwd")
        assert_refused(done, "cannot execute /etc/passwd: permission denied", 126)

    def test_folder_is_not_executable(self) -> None:
        assert_refused(jailrun("run", "--rm", "busybox", "/etc"), "cannot execute /etc", 126)

    def test_killed_inside(self) -> None:
        """A child of --init that a signal ends: 128 + its number."""
        done = jailrun("run", "--rm", "--init", "busybox", "sh", "-c", "kill -SEGV $$")
        assert done.returncode == 128 + signal.SIGSEGV

    def test_init_reaps_and_reports(self) -> None:
        script = "sh -c 'true & exec true' & wait; sleep 0 & wait; ps -o stat | grep -c Z; exit 9"
        done = jailrun("run", "--rm", "--init", "busybox", "sh", "-c", script)
        assert (done.returncode, done.stdout) == (9, "0\n")

    def test_init_without_command(self) -> None:
        done = jailrun("run", "--rm", "--init", "busybox", "nosuch")
        assert done.returncode == 127
        assert "Traceback" not in done.stderr


class TestSignals:
    """What jailrun gets, the payload gets."""

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
    def test_one_that_is_not_asked_for_ends_it(self, start: Start, number: int) -> None:
        """The first of a pid namespace would not even see it."""
        command = start(
            "run", "--rm", "busybox", "sh", "-c", "echo ready >/tmp/ready; exec tail -f /tmp/ready"
        )
        command.read_line()
        command.send(number)
        assert command.end()[0] == 128 + number
        assert list_names() == []

    def test_one_that_is_handled(self, start: Start) -> None:
        script = (
            "trap 'echo usr1' USR1; trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done"
        )
        command = start("run", "--rm", "busybox", "sh", "-c", script)
        command.read_line()
        command.send(signal.SIGUSR1)
        assert command.read_line() == "usr1"
        command.send(signal.SIGTERM)
        assert command.end()[0] == 5

    def test_one_that_is_ignored_three_times(self, start: Start) -> None:
        command = start("run", "--rm", "busybox", "sh", "-c", IGNORE_TERM)
        command.read_line()
        for _ in range(3):
            command.send(signal.SIGTERM)
        assert command.end()[0] == 128 + signal.SIGKILL
        assert list_names() == []

    def test_through_init(self, start: Start) -> None:
        script = ("sh", "-c", "echo ready >/tmp/ready; exec tail -f /tmp/ready")
        command = start("run", "--rm", "--init", "busybox", *script)
        command.read_line()
        command.send(signal.SIGTERM)
        assert command.end()[0] == 128 + signal.SIGTERM

    def test_without_a_pid_namespace(self, start: Start) -> None:
        script = "sleep 1000 & echo ready; wait"
        command = start("run", "--rm", "--pid", "host", "busybox", "sh", "-c", script)
        command.read_line()
        command.send(signal.SIGTERM)
        assert command.end()[0] == 128 + signal.SIGTERM

    def test_kill_leaves_nothing_after_the_next_command(self, start: Start) -> None:
        """SIGKILL of jailrun: the jail dies with it, and the next command clears up."""
        before = read_host()
        command = start("run", "busybox", "sh", "-c", "echo ready; sleep 1000")
        command.read_line()
        command.process.kill()
        assert command.end()[0] == -signal.SIGKILL
        output_of("run", "--rm", "busybox", "true")
        command.drop()
        assert list_names() == []
        assert find_leftovers(before) == []

    def test_killed_from_elsewhere(self, start: Start, name: str) -> None:
        command = start("run", "--name", name, "busybox", "sh", "-c", "echo ready; sleep 1000")
        command.read_line()
        await_running(name)
        lifecycle.signal(name, signal.SIGKILL)
        assert command.end()[0] == 128 + signal.SIGKILL

    def test_paused(self, start: Start, name: str) -> None:
        """A frozen payload does not die of SIGKILL before it is thawed (cgroup v1)."""
        command = start(
            "run", "--rm", "--name", name, "busybox", "sh", "-c", "echo ready; sleep 1000"
        )
        command.read_line()
        await_running(name)
        lifecycle.pause(name)
        command.send(signal.SIGTERM)
        assert command.end()[0] == 128 + signal.SIGTERM


class TestRecord:
    """What stays, and what does not."""

    def test_without_rm_it_stays(self, name: str, no_jails_stay: None) -> None:
        assert (
            jailrun("run", "--name", name, "-l", "a=b", "busybox", "sh", "-c", "exit 3").returncode
            == 3
        )
        output_of("run", "--rm", "busybox", "true")  # the next command does not take it for a ruin
        record = load(name)
        assert (record.status, record.labels, record.image) == (3, {"a": "b"}, "busybox")
        lifecycle.delete(name)

    def test_name_is_taken(self, start: Start, name: str) -> None:
        command = start(
            "run", "--rm", "--name", name, "busybox", "sh", "-c", "echo ready; sleep 1000"
        )
        command.read_line()
        done = jailrun("run", "--rm", "--name", name, "busybox", "true")
        assert_refused(done, f"the name {name} is taken")
        command.send(signal.SIGTERM)
        command.end()

    def test_two_at_once(self, start: Start, name: str) -> None:
        """One of two starts under one name gets it."""
        words = (
            "run",
            "--rm",
            "-i",
            "--name",
            name,
            "busybox",
            "sh",
            "-c",
            "echo ready; read line",
        )
        pair = [start(*words) for _ in range(2)]
        said = [command.read_some() for command in pair]
        assert sorted(said) == [b"", b"ready\n"]
        status, _, errors = pair[said.index(b"")].end()
        assert status == 125
        assert f"the name {name} is taken" in errors
        assert_clean(errors)
        assert pair[said.index(b"ready\n")].end()[0] == 1  # of read, at the end of its input


class TestDetached:
    """-d."""

    def test_prints_its_name(self, name: str, no_jails_stay: None) -> None:
        assert (
            output_of("run", "-d", "--rm", "--name", name, "busybox", "sleep", "1000")
            == f"{name}\n"
        )
        assert load(name).started
        lifecycle.delete(name, force=True)

    def test_json(self, name: str, no_jails_stay: None) -> None:
        words = ("run", "-d", "--format", "json", "--name", name, "busybox", "sleep", "1000")
        assert json.loads(output_of(*words)) == {"name": name, "pid": load(name).pid}
        lifecycle.delete(name, force=True)

    def test_output_is_in_the_log(self, name: str, no_jails_stay: None) -> None:
        output_of(
            "run", "-d", "--name", name, "busybox", "sh", "-c", "echo out; echo err >&2; exit 4"
        )
        assert lifecycle.wait(name) == 4
        assert Path(f"{paths.logs_dir()}/{name}.log").read_text() == "out\nerr\n"
        lifecycle.delete(name)

    def test_terminal(self, name: str, no_jails_stay: None) -> None:
        output_of("run", "-d", "-t", "--name", name, "busybox", "sh", "-c", "tty; exit 4")
        assert lifecycle.wait(name) == 4
        assert Path(f"{paths.logs_dir()}/{name}.log").read_bytes() == b"/dev/pts/0\r\n"
        lifecycle.delete(name)

    def test_rm(self, name: str, no_jails_stay: None) -> None:
        output_of("run", "-d", "--rm", "--name", name, "busybox", "true")
        eventually(lambda: not list_names(), "the jail is removed")

    def test_failure_is_told(self) -> None:
        assert_refused(jailrun("run", "-d", "busybox", "nosuch"), "not found in the jail", 127)
        assert list_names() == []


class TestExplain:
    """--explain."""

    def test_makes_nothing(self) -> None:
        folders = [Path(os.environ[each]) for each in ("JAILRUN_DATA", "JAILRUN_RUN")]
        before = [sorted(folder.rglob("*")) for folder in folders]
        done = output_of("run", "--explain", "--memory", "64M", "busybox", "echo", "said")
        assert [sorted(folder.rglob("*")) for folder in folders] == before
        assert "execve" in done.splitlines()[-1]
        assert "pivot_root" in done
        assert "\nsaid\n" not in done

    def test_json(self) -> None:
        words = ("--name", "one", "-t", "busybox")
        lines = json.loads(output_of("run", "--explain", "--format", "json", *words))
        assert lines == output_of("run", "--explain", *words).splitlines()

    def test_missing_image_is_not_made(self) -> None:
        assert_refused(jailrun("run", "--explain", "debian", "true"), "there is no image debian")
