"""The verbs that change what jails do: stop, kill, pause, resume, update, wait, rm."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from jailrun import paths
from jailrun.engine.record import list_names, load
from tests.integration.cli.command import assert_refused, jailrun, output_of
from tests.integration.cli.conftest import Start
from tests.integration.jails import eventually, new_name

pytestmark = pytest.mark.usefixtures("no_jails_stay")

ENDS_ON_TERM = "trap 'exit 7' TERM; echo ready; sleep 1000 & wait"
DEAF_TO_TERM = "trap : TERM; echo ready; while :; do sleep 0.01; done"


def start_detached(
    name: str, *words: str, options: tuple[str, ...] = (), image: str = "busybox"
) -> None:
    """Start a detached jail."""
    assert output_of("run", "-d", "--name", name, *options, image, *words) == f"{name}\n"


def start_ready(name: str, script: str, options: tuple[str, ...] = ()) -> None:
    """Start a detached jail, and return when its script has said so."""
    start_detached(name, "sh", "-c", script, options=options)
    eventually(lambda: "ready" in output_of("logs", name), "the payload is ready")


def status_of(name: str) -> str:
    """Return the state of a jail, as ls has it."""
    found = json.loads(output_of("ls", "--all", "--format", "json"))
    states: dict[str, str] = {one["name"]: one["status"] for one in found}
    return states[name]


class TestStop:
    """A jail is asked, and killed only if it does not listen."""

    def test_the_payload_hears_it(self, name: str) -> None:
        start_ready(name, ENDS_ON_TERM)
        assert output_of("stop", name) == f"{name}\n"
        assert output_of("wait", name) == "7\n"
        assert status_of(name) == "stopped"

    def test_what_does_not_end_is_killed(self, name: str) -> None:
        start_ready(name, DEAF_TO_TERM)
        assert output_of("stop", "--time", "0.05", name) == f"{name}\n"
        assert output_of("wait", name) == "137\n"

    def test_what_never_listened_is_killed(self, name: str) -> None:
        """Sleep as PID 1 gets no SIGTERM, ever: `stop` does not wait a minute for it."""
        start_detached(name, "sleep", "1000")
        assert output_of("stop", "--time", "1h", name) == f"{name}\n"
        assert output_of("wait", name) == "137\n"

    def test_init_hands_it_on(self, name: str) -> None:
        start_detached(name, "sleep", "1000", options=("--init",))
        assert output_of("stop", "--time", "1h", name) == f"{name}\n"
        assert output_of("wait", name) == "143\n"

    def test_other_signal(self, name: str) -> None:
        start_ready(name, "trap 'exit 4' HUP; echo ready; sleep 1000 & wait")
        assert output_of("stop", "--signal", "HUP", name) == f"{name}\n"
        assert output_of("wait", name) == "4\n"

    @pytest.mark.requires("freezer")
    def test_paused(self, name: str) -> None:
        start_ready(name, ENDS_ON_TERM)
        output_of("pause", name)
        output_of("stop", name)
        assert output_of("wait", name) == "7\n"

    def test_stopped_already(self, name: str) -> None:
        start_detached(name, "true")
        output_of("wait", name)
        assert output_of("stop", name) == f"{name}\n"

    def test_several_and_one_that_is_not_there(self, name: str) -> None:
        other = new_name()
        for one in (name, other):
            start_detached(one, "sleep", "1000")
        done = jailrun("stop", name, "nope", other)
        assert done.returncode == 125
        assert done.stdout == f"{name}\n{other}\n"
        assert done.stderr.startswith("jailrun: there is no jail 'nope'")
        assert {status_of(one) for one in (name, other)} == {"stopped"}

    def test_one_that_is_removed_at_its_end(self, name: str) -> None:
        start_detached(name, "sleep", "1000", options=("--rm",))
        assert output_of("stop", name) == f"{name}\n"
        eventually(lambda: name not in list_names(), "it is removed")


class TestKill:
    """Signals by name and number, to the first process or to all."""

    @pytest.mark.parametrize("word", ["HUP", "SIGHUP", "1"])
    def test_signal(self, name: str, word: str) -> None:
        start_ready(name, "trap 'exit 4' HUP; echo ready; sleep 1000 & wait")
        assert output_of("kill", "-s", word, name) == f"{name}\n"
        assert output_of("wait", name) == "4\n"

    def test_kill_without_words(self, name: str) -> None:
        start_detached(name, "sleep", "1000")
        output_of("kill", name)
        assert output_of("wait", name) == "137\n"

    def test_every_process(self, name: str) -> None:
        start_ready(name, "sleep 1000 & echo ready; wait; echo ended; sleep 1000")
        output_of("kill", "--signal", "TERM", "--all-processes", name)
        eventually(lambda: "ended" in output_of("logs", name), "the second process is gone")
        assert status_of(name) == "running"

    def test_stopped(self, name: str) -> None:
        start_detached(name, "true")
        output_of("wait", name)
        assert_refused(jailrun("kill", name), "it is stopped")


@pytest.mark.requires("freezer")
class TestPause:
    """Frozen and thawed."""

    def test_pause_and_resume(self, name: str) -> None:
        start_detached(name, "sleep", "1000")
        assert output_of("pause", name) == f"{name}\n"
        assert status_of(name) == "paused"
        assert_refused(jailrun("pause", name), "it is paused")
        assert output_of("resume", name) == f"{name}\n"
        assert status_of(name) == "running"
        assert_refused(jailrun("resume", name), "it is running")

    def test_stopped(self, name: str) -> None:
        start_detached(name, "true")
        output_of("wait", name)
        assert_refused(jailrun("pause", name), "it is stopped")
        assert_refused(jailrun("resume", name), "it is stopped")


class TestUpdate:
    """Limits of a jail that runs, as the kernel has them."""

    @staticmethod
    def limits(name: str) -> dict[str, Any]:
        """Return the limits in force."""
        (found,) = json.loads(output_of("inspect", name))
        limits: dict[str, Any] = found["limits"]
        return limits

    @pytest.mark.requires("cgroup:memory", "cgroup:cpu", "cgroup:pids")
    def test_limits(self, name: str) -> None:
        options = ("--memory", "64M", "--cpus", "0.5", "--pids", "32")
        start_detached(name, "sleep", "1000", options=options)
        before = self.limits(name)
        assert (before["memory_bytes"], before["cpus"], before["pids"]) == (64 << 20, 0.5, 32)
        words = ("--memory", "32M", "--cpus", "1", "--pids", "16")
        assert output_of("update", *words, name) == f"{name}\n"
        after = self.limits(name)
        assert (after["memory_bytes"], after["cpus"], after["pids"]) == (32 << 20, 1.0, 16)
        output_of("update", "--pids", "8", name)
        assert self.limits(name) == {**after, "pids": 8}

    @pytest.mark.requires("cgroup:cpuset", "cgroup:cpu")
    def test_cpuset_and_shares(self, name: str) -> None:
        start_detached(name, "sleep", "1000")
        output_of("update", "--cpuset", "0", "--cpu-shares", "512", name)
        found = self.limits(name)
        assert found["cpuset"] in ("0", [0])
        assert found.get("cpu_shares") == 512 or found.get("cpu_weight")

    @pytest.mark.requires("cgroup:memory", "cgroup:pids")
    @pytest.mark.parametrize(
        ("words", "text"),
        [
            ((), "no limit to change"),
            (("--memory", "0"), "too small"),
            (("--memory", "-1"), "is not a size"),
            (("--memory", "900000G"), "more than this host has"),
            (("--cpus", "9999"), "more than this host has"),
            (("--cpus", "0"), "too small"),
            (("--cpuset", "4000"), "CPUs that are not there"),
            (("--pids", "0"), "pids '0' is not valid"),
            (("--pids", "8", "--memory", "lots"), "is not a size"),
        ],
    )
    def test_bad_limits_change_nothing(self, name: str, words: tuple[str, ...], text: str) -> None:
        start_detached(name, "sleep", "1000", options=("--memory", "64M", "--pids", "32"))
        before = self.limits(name)
        assert_refused(jailrun("update", *words, name), text)
        assert self.limits(name) == before

    def test_stopped(self, name: str) -> None:
        start_detached(name, "true")
        output_of("wait", name)
        assert_refused(jailrun("update", "--pids", "8", name), "it is stopped")


class TestWait:
    """Exit statuses, one a line."""

    def test_several(self, name: str) -> None:
        other = new_name()
        start_detached(name, "sh", "-c", "exit 3")
        start_detached(other, "sh", "-c", "kill -9 $$; sleep 1000", options=("--init",))
        assert output_of("wait", name, other) == "3\n137\n"

    def test_while_it_runs(self, name: str, start: Start) -> None:
        start_ready(name, ENDS_ON_TERM)
        waiting = start("wait", name)
        output_of("stop", name)
        assert waiting.end() == (0, "7\n", "")

    def test_interrupted(self, name: str, start: Start) -> None:
        start_detached(name, "sleep", "1000")
        waiting = start("wait", name)
        wchan = Path(f"/proc/{waiting.process.pid}/syscall")
        eventually(lambda: wchan.read_text().split()[0] in ("7", "73", "271"), "it waits")
        waiting.send(signal.SIGINT)
        assert waiting.end() == (130, "", "")
        assert status_of(name) == "running"


class TestRemove:
    """What a jail had is gone, once."""

    def test_all_is_gone(self, name: str) -> None:
        start_detached(name, "sh", "-c", "echo x > /file; echo said")
        output_of("wait", name)
        record = load(name)
        assert output_of("rm", name) == f"{name}\n"
        assert not Path(record.folder).exists()
        assert record.log and not Path(record.log).exists()
        assert record.writable and not Path(record.writable).exists()
        assert list(Path(paths.jails_dir()).iterdir()) == []
        assert_refused(jailrun("rm", name), "there is no jail")

    def test_running_needs_force(self, name: str) -> None:
        start_detached(name, "sleep", "1000")
        assert_refused(jailrun("rm", name), "it is running")
        assert output_of("rm", "--force", name) == f"{name}\n"
        assert_refused(jailrun("rm", "--force", name), "there is no jail")

    @pytest.mark.requires("freezer")
    def test_paused_needs_force(self, name: str) -> None:
        start_detached(name, "sleep", "1000")
        output_of("pause", name)
        assert_refused(jailrun("rm", name), "it is paused")
        output_of("rm", "-f", name)

    def test_several(self, name: str) -> None:
        other = new_name()
        for one in (name, other):
            start_detached(one, "true")
            output_of("wait", one)
        done = jailrun("rm", name, "..", other)
        assert (done.returncode, done.stdout) == (125, f"{name}\n{other}\n")
        assert list_names() == []
