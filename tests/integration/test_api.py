"""`import jailrun` on the real kernel: one command, and a jail for several."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import jailrun
from jailrun.engine.record import list_names
from tests.integration.jails import eventually, new_name

ROOT = Path(__file__).resolve().parents[2]
MEGABYTES = 10 << 20


@pytest.fixture(params=["native", "ctypes"])
def executor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with either executor."""
    monkeypatch.setenv("JAILRUN_EXECUTOR", request.param)
    return str(request.param)


# --- one command ----------------------------------------------------------------------------------
def test_run(executor: str) -> None:
    script = "cat; echo $A; id -un; pwd; echo err >&2; exit 3"
    result = jailrun.run(
        ["sh", "-c", script],
        input="in\n",
        env={"A": "b"},
        user="nobody",
        workdir="/tmp",
        memory="64M",
        cpus=0.5,
        pids=32,
    )
    assert result.text.split() == ["in", "b", "nobody", "/tmp"]
    assert (result.stderr, result.status, result.signal) == (b"err\n", 3, 0)
    assert result.cpu_seconds > 0
    assert result.memory_peak
    assert result.events["oom_kill"] == 0


def test_bytes_that_are_no_text() -> None:
    data = bytes(range(256))
    result = jailrun.run(["cat"], input=data)
    assert result.stdout == data
    assert "�" in result.text


def test_without_input_there_is_none() -> None:
    assert jailrun.run(["cat"], check=True).stdout == b""


def test_output_of_the_caller(capfd: pytest.CaptureFixture[str]) -> None:
    result = jailrun.run(["sh", "-c", "echo out; echo err >&2"], capture=False)
    assert (result.stdout, capfd.readouterr()) == (b"", ("out\n", "err\n"))


def test_much_in_and_out_at_once(executor: str) -> None:
    data = os.urandom(MEGABYTES)
    result = jailrun.run(["tee", "/dev/stderr"], input=data)
    assert result.stdout == data
    assert result.stderr == data


def test_command_that_reads_nothing() -> None:
    assert jailrun.run(["true"], input=bytes(MEGABYTES), check=True).stdout == b""


def test_timeout_kills_the_jail() -> None:
    script = "echo so far; echo and so >&2; sleep 1000 & wait"
    with pytest.raises(jailrun.JailTimeoutError) as caught:
        jailrun.run(["sh", "-c", script], timeout=1)
    assert (caught.value.stdout, caught.value.stderr) == (b"so far\n", b"and so\n")
    assert list_names() == []


def test_command_that_cannot_be_started(executor: str) -> None:
    with pytest.raises(jailrun.CommandNotFoundError, match="no-such: not found in the jail"):
        jailrun.run(["no-such"])
    with pytest.raises(jailrun.CommandNotExecutableError, match="permission denied"):
        jailrun.run(["/etc/passwd"])
    with jailrun.Jail() as jail:
        with pytest.raises(jailrun.CommandNotFoundError):
            jail.run(["no-such"])
        with pytest.raises(jailrun.CommandNotExecutableError):
            jail.start(["/etc/passwd"], stdin=jailrun.PIPE, stdout=jailrun.PIPE)
        assert jail.run(["true"]).status == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image": "no-such-image"}, "no-such-image"),
        ({"memory": 0}, "memory 0"),
        ({"cpus": 9999}, "cpus 9999"),
        ({"name": "a/b"}, "a/b"),
        ({"volumes": ["/none/there:/srv"]}, "/none/there"),
        ({"user": "no-such-user"}, "no-such-user"),
        ({"colour": "blue"}, "there is no option colour"),
    ],
)
def test_bad_requests(options: Any, words: str) -> None:
    for make in (jailrun.Jail, lambda **options: jailrun.run(["true"], **options)):
        with pytest.raises(jailrun.JailError, match=words):
            make(**options)
    assert list_names() == []


@pytest.mark.requires("cgroup:memory")
def test_events_say_why() -> None:
    result = jailrun.run(["tail", "/dev/zero"], memory="16M")
    assert (result.signal, result.status) == (9, 137)
    assert result.events["oom_kill"] >= 1
    with pytest.raises(jailrun.CommandFailedError, match="ran out of memory"):
        result.check()


def test_name_that_is_taken() -> None:
    name = new_name()
    with jailrun.Jail(name=name) as jail:
        with pytest.raises(jailrun.ConflictError, match="is taken"):
            jailrun.run(["true"], name=name)
        assert jail.run(["hostname"]).text == f"{name}\n"
    assert jailrun.run(["hostname"], name=name).text == f"{name}\n"


# --- a jail for several commands ------------------------------------------------------------------
def test_jail_keeps_its_files_and_users(executor: str) -> None:
    with jailrun.Jail(env={"A": "1", "B": "1"}) as jail:
        entry = "web:x:1234:1234::/home/web:/bin/sh"
        jail.run(["sh", "-c", f"echo {entry} >> /etc/passwd"], check=True)
        script = "id -u; id -g; echo $A$B $HOME; pwd"
        result = jail.run(["sh", "-c", script], user="web:12", env=["B=2"], cwd="/var")
        assert result.text.split("\n")[0] == "1234"
        assert result.text.split()[2:] == ["12", "/home/web", "/var"]
        assert Path(jail.path, "etc", "passwd").read_text().endswith("/home/web:/bin/sh\n")
        with pytest.raises(jailrun.SecurityError):
            jail.run(["true"], user="no-such-user")
    assert jail.state == "stopped"
    jail.close()
    with pytest.raises(jailrun.ConflictError, match="stopped"):
        jail.run(["true"])


def test_command_that_kills_itself_and_one_that_is_late() -> None:
    with jailrun.Jail() as jail:
        result = jail.run(["sh", "-c", "kill -9 $$"])
        assert (result.status, result.signal) == (137, 9)
        with pytest.raises(jailrun.JailTimeoutError) as caught:
            jail.run(["sh", "-c", "echo so far; exec sleep 1000"], timeout=1)
        assert caught.value.stdout == b"so far\n"
        assert jail.run(["true"]).status == 0


def test_command_that_leaves_one_behind() -> None:
    with jailrun.Jail() as jail:
        assert jail.run(["sh", "-c", "sleep 1000 & echo done"]).stdout == b"done\n"
        assert "sleep 1000" in jail.run(["ps"]).text


def test_process(executor: str) -> None:
    with jailrun.Jail() as jail:
        with jail.start(["cat"], stdin=jailrun.PIPE, stdout=jailrun.PIPE) as cat:
            assert cat.poll() is None
            assert cat.stdin is not None
            assert cat.stdout is not None
            cat.stdin.write(b"one\n")
            cat.stdin.flush()
            assert cat.stdout.readline() == b"one\n"
            with pytest.raises(jailrun.JailTimeoutError):
                cat.wait(0)
            cat.stdin.close()
        assert (cat.wait(), cat.poll(), cat.status) == (0, 0, 0)
        late = jail.start(["sleep", "1000"])
        late.terminate()
        assert late.wait() == 143
        late.kill()
        both = jail.start(
            ["sh", "-c", "echo a; echo b >&2"], stdout=jailrun.PIPE, stderr=jailrun.STDOUT
        )
        with both:
            assert both.stdout is not None
            assert both.stdout.read() == b"a\nb\n"
        left = jail.start(["sleep", "1000"])
    assert left.wait() == 137


def test_pause_update_stats_and_stop() -> None:
    with jailrun.Jail(memory="64M", pids=20) as jail:
        jail.pause()
        assert jail.state == "paused"
        with pytest.raises(jailrun.ConflictError, match="paused"):
            jail.run(["true"])
        jail.resume()
        jail.update(memory="32M", pids=30)
        assert jail.stats()["memory"]["usage"]["limit"] == 32 << 20
        assert jail.stats()["pids"]["limit"] == 30
        assert jail.events()["oom_kill"] == 0
        with pytest.raises(jailrun.JailError, match="more than this host has"):
            jail.update(cpus=9999)
        script = "trap 'echo term; exit 5' TERM; echo up; read x"
        polite = jail.start(["sh", "-c", script], stdin=jailrun.PIPE, stdout=jailrun.PIPE)
        assert polite.stdout is not None
        polite.stdout.readline()
        jail.signal(signal.SIGCONT)
        jail.pause()
        jail.stop()
        with polite:
            assert polite.stdout.read() == b"term\n"
        assert polite.status == 5
        jail.stop()


def test_paused_jail_is_closed() -> None:
    with jailrun.Jail() as jail:
        process = jail.start(["sleep", "1000"])
        jail.pause()
    assert process.status == 137


def test_jail_whose_init_was_ended_from_inside() -> None:
    with jailrun.Jail() as jail:
        jail.run(["kill", "1"])
        eventually(lambda: jail.state == "stopped", "its end")
        with pytest.raises(jailrun.ConflictError):
            jail.run(["true"])
        jail.stop()


def test_jail_that_is_dropped() -> None:
    jail = jailrun.Jail()
    assert list_names() == [jail.name]
    del jail
    assert list_names() == []


def test_jail_that_someone_removes() -> None:
    with jailrun.Jail() as jail:
        remove = "from jailrun.engine.lifecycle import delete; delete(sys.argv[1], force=True)"
        code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{remove}"
        subprocess.run([sys.executable, "-c", code, jail.name], check=True)
        with pytest.raises(jailrun.ConflictError):
            jail.run(["true"])
