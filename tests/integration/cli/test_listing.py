"""The verbs that show jails: ls, ps, inspect, logs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from jailrun.engine.record import load
from tests.integration.cli.command import PROGRAM, assert_refused, jailrun, output_of
from tests.integration.cli.conftest import Start
from tests.integration.cli.test_servers import start_detached, start_ready
from tests.integration.jails import eventually

pytestmark = pytest.mark.usefixtures("no_jails_stay")


class TestLs:
    """Lists of jails."""

    def test_running_and_stopped(self, name: str) -> None:
        start_detached(name, "sleep", "1000", options=("--label", "tier=db"))
        heading, line = output_of("ls").splitlines()
        assert heading.split() == [
            "NAME",
            "IMAGE",
            "STATUS",
            "PID",
            "ADDRESS",
            "PORTS",
            "CREATED",
            "COMMAND",
        ]
        assert line.split()[:4] == [name, "busybox", "running", str(load(name).pid)]
        assert line.endswith("sleep 1000")
        assert output_of("ps") == output_of("ls")
        assert output_of("ls", "-q", "--filter", "label=tier=db") == f"{name}\n"
        assert output_of("ls", "-q", "--filter", "label=tier=web") == ""
        output_of("stop", name)
        assert output_of("ls", "-q") == ""
        assert output_of("ls", "-aq") == f"{name}\n"
        assert output_of("ls", "-q", "--filter", "status=stopped") == f"{name}\n"

    def test_json(self, name: str) -> None:
        start_detached(name, "sleep", "1000")
        (found,) = json.loads(output_of("ls", "--format", "json"))
        assert found["name"] == name
        assert found["pid"] == load(name).pid
        assert found["command"] == ["sleep", "1000"]

    def test_foreground_jail(self, name: str, start: Start) -> None:
        script = "echo ready >/tmp/ready; exec tail -f /tmp/ready"
        command = start("run", "--rm", "--name", name, "busybox", "sh", "-c", script)
        command.read_line()
        assert output_of("ls", "-q") == f"{name}\n"
        assert_refused(jailrun("logs", name), "runs in the foreground")
        output_of("stop", name)
        assert command.end()[0] == 137
        assert output_of("ls", "-aq") == ""


class TestPs:
    """The processes of one jail."""

    def test_pids_and_users(self, name: str) -> None:
        start_ready(name, "(exec sleep 999) & echo ready; wait", options=("--user", "7:8"))
        found = {
            " ".join(one["command"]): one
            for one in json.loads(output_of("ps", "--format", "json", name))
        }
        assert found["sleep 999"]["jail_pid"] == 2
        assert found["sleep 999"]["uid"] == 7
        assert found["sleep 999"]["pid"] != 2
        assert Path(f"/proc/{found['sleep 999']['pid']}").exists()
        lines = output_of("ps", name).splitlines()
        assert lines[0].split() == ["PID", "INSIDE", "USER", "STATE", "RSS", "TIME", "COMMAND"]
        assert len(lines) == 3
        assert lines[1].split()[:3] == [str(load(name).pid), "1", "7"]
        assert output_of("ps", "-q", name).split()[0] == str(load(name).pid)

    def test_name_that_would_move_the_cursor(self, name: str) -> None:
        script = "echo ready; exec sh -c 'sleep 1000; :' \"$(printf 'a\\033[2J')\""
        start_ready(name, script)
        eventually(lambda: "a\\x1b[2J" in output_of("ps", name), "it has its odd name")

    def test_stopped(self, name: str) -> None:
        start_detached(name, "true")
        output_of("wait", name)
        assert_refused(jailrun("ps", name), "it is stopped")


class TestInspect:
    """Everything, as JSON."""

    @pytest.mark.requires("cgroup:memory")
    def test_running_and_stopped(self, name: str) -> None:
        start_detached(
            name,
            "sleep",
            "1000",
            options=("--memory", "64M"),
        )
        (found,) = json.loads(output_of("inspect", name))
        assert found["status"] == "running"
        assert found["limits"]["memory_bytes"] == 64 << 20
        assert found["usage"]["memory"]["usage"]["limit"] == 64 << 20
        assert found["config"]["hostname"] == name
        assert all(Path(path).is_dir() for path in found["cgroups"].values())
        output_of("kill", name)
        output_of("wait", name)
        (found,) = json.loads(output_of("inspect", name))
        assert (found["status"], found["exit_status"]) == ("stopped", 137)
        assert found["limits"] is None
        assert "memory_peak" in found["events"]


class TestLogs:
    """What a detached jail has written, while it runs and after."""

    def test_both_streams(self, name: str) -> None:
        start_detached(name, "sh", "-c", "echo one; echo two >&2; printf three")
        output_of("wait", name)
        assert output_of("logs", name) == "one\ntwo\nthree"
        assert output_of("logs", "--tail", "2", name) == "two\nthree"

    def test_follow_ends_with_the_jail(self, name: str, start: Start) -> None:
        start_ready(name, "trap 'echo bye; exit' TERM; echo ready; sleep 1000 & wait")
        following = start("logs", "-f", name)
        assert following.read_line() == "ready"
        output_of("stop", name)
        assert following.end() == (0, "bye\n", "")

    def test_follow_sees_what_is_added(self, name: str, start: Start) -> None:
        start_ready(name, "trap 'echo again' HUP; echo ready; while :; do sleep 1000 & wait; done")
        following = start("logs", "-f", "--tail", "0", name)
        pid = following.process.pid
        eventually(lambda: has_inotify(pid), "it watches the log")
        output_of("kill", "-s", "HUP", name)
        assert following.read_line() == "again"
        following.send(signal.SIGINT)
        assert following.end() == (130, "", "")

    def test_follow_of_a_jail_that_is_removed_at_its_end(self, name: str, start: Start) -> None:
        script = "trap 'echo bye; exit' TERM; echo ready; sleep 1000 & wait"
        start_ready(name, script, options=("--rm",))
        following = start("logs", "-f", name)
        assert following.read_line() == "ready"
        output_of("stop", name)
        assert following.end() == (0, "bye\n", "")

    def test_reader_that_goes_away(self, name: str) -> None:
        start_detached(name, "sh", "-c", "echo ready >/tmp/ready; exec tail -f /tmp/ready")
        reader, writer = os.pipe()
        following = subprocess.Popen(
            [PROGRAM, "logs", "-f", name], stdout=writer, stderr=subprocess.PIPE, text=True
        )
        os.close(writer)
        assert os.read(reader, 100) == b"ready\n"
        os.close(reader)
        assert following.communicate(timeout=60)[1] == ""
        assert following.returncode == 141

    def test_full_disk(self, name: str) -> None:
        start_detached(name, "echo", "words")
        output_of("wait", name)
        with open("/dev/full", "w") as full:  # noqa: PTH123
            done = subprocess.run(
                [PROGRAM, "logs", name], stdout=full, stderr=subprocess.PIPE, text=True, check=False
            )
        assert done.returncode == 125
        assert "No space left on device" in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
    def test_closed_streams(self, name: str, closed: str) -> None:
        done = subprocess.run(
            ["/bin/sh", "-c", f'"$0" logs {name} {closed}', PROGRAM],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 125
        assert "Traceback" not in done.stderr


def has_inotify(pid: int) -> bool:
    """Return whether a process has an inotify descriptor."""
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if "inotify" in str(fd.readlink()):
                return True
        except OSError:
            continue
    return False
