"""Hooks: at every moment, with the state on standard input, in the right namespaces."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jailrun.engine import lifecycle
from jailrun.engine.record import list_names, load
from jailrun.errors import JailError
from tests.integration.jails import Build, Config, Jails

EARLY = ("prestart", "createRuntime", "createContainer")


def hook(script: str, **more: Any) -> Config:
    """Return a hook that runs a shell script."""
    return {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"], **more}


def note(folder: Path, moment: str) -> Config:
    """Return a hook that notes the state that it is given, and its namespaces."""
    file = f"{folder}/{moment}"
    return hook(f"cat >{file}.json; readlink /proc/self/ns/mnt /proc/self/ns/net >{file}.ns")


@pytest.fixture
def notes(session_run: Path, tmp_path: Path) -> Iterator[Path]:
    """Return a folder in which any user of the jail's can write."""
    folder = session_run / f"notes-{tmp_path.name}"
    folder.mkdir()
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def test_every_moment(jails: Jails, config: Build, notes: Path) -> None:
    """Each runs once, in order, with the right state, where the specification says."""
    order = notes / "order"
    order.touch()
    order.chmod(0o666)
    host = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    hooks = {moment: [note(notes, moment), hook(f"echo {moment} >>{order}")] for moment in host}
    hooks["startContainer"] = [hook("cat >/state; readlink /proc/self/ns/mnt >/ns; echo in >>/log")]
    running = jails.start(
        config("sh", "-c", "cat /state; echo; cat /ns /log; cat", hooks=hooks),
        labels={"a": "b"}, bundle=str(notes), remove=False,
    )  # fmt: skip
    mount_namespace = str(Path(f"/proc/{running.pid}/ns/mnt").readlink())
    net_namespace = str(Path(f"/proc/{running.pid}/ns/net").readlink())
    pid = running.pid
    ended = running.wait()
    lifecycle.delete(running.name)
    assert order.read_text().split() == list(host)
    inside = json.loads(ended.lines[0])
    assert inside["status"] == "created"
    assert ended.lines[1] == mount_namespace
    statuses = {moment: json.loads((notes / f"{moment}.json").read_text()) for moment in host}
    for moment, state in statuses.items():
        assert state["id"] == running.name
        assert state["ociVersion"].startswith("1.")
        assert state["bundle"] == str(notes)
        assert state["annotations"] == {"a": "b"}
        assert ("pid" in state) == (moment != "poststop")
    assert {state.get("pid", pid) for state in statuses.values()} == {pid}
    assert statuses["prestart"]["status"] == statuses["createRuntime"]["status"] == "creating"
    assert statuses["poststart"]["status"] == "running"
    assert statuses["poststop"]["status"] == "stopped"
    namespaces = {moment: (notes / f"{moment}.ns").read_text().split() for moment in host}
    ours = [str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in ("mnt", "net")]
    assert namespaces["createContainer"] == [mount_namespace, net_namespace]
    for moment in set(host) - {"createContainer"}:
        assert namespaces[moment] == ours


@pytest.mark.parametrize("moment", [*EARLY, "startContainer"])
@pytest.mark.parametrize("hold", [False, True])
def test_failure_stops_the_start(
    jails: Jails, config: Build, tmp_path: Path, moment: str, hold: bool
) -> None:
    """A hook that fails early is the error, and no payload runs."""
    flag = tmp_path / "ran"
    hooks = {moment: [hook("exit 3"), hook(f"touch {flag}")], "poststop": [hook("true")]}
    built = config("sh", "-c", "echo ran", hooks=hooks)
    if hold and moment == "startContainer":
        running = jails.start(built, hold=True, remove=False)
        with pytest.raises(JailError, match=f"{moment} hook /bin/sh failed: exit status 3"):
            lifecycle.start(running.name)
        lifecycle.delete(running.name, force=True)
        running.first = False
        assert running.wait().stdout == ""
    else:
        with pytest.raises(JailError, match=f"{moment} hook /bin/sh failed: exit status 3"):
            jails.start(built, hold=hold)
    assert not flag.exists()
    assert list_names() == []


def test_time_out(jails: Jails, config: Build) -> None:
    """A hook that takes too long is killed, and the start with it."""
    hooks = {"prestart": [hook("exec sleep 1000", timeout=1)]}
    with pytest.raises(JailError, match="time-out of 1 s"):
        jails.start(config("true", hooks=hooks))


def test_does_not_read(jails: Jails, config: Build) -> None:
    """A hook that closes its input, or ends at once, is no failure."""
    hooks = {"prestart": [hook("exec <&-; exit 0"), {"path": "/bin/true"}]}
    assert jails.run(config("true", hooks=hooks)).status == 0


def test_missing_program(jails: Jails, config: Build) -> None:
    """A hook that is not there is named."""
    with pytest.raises(JailError, match="/no/such/hook"):
        jails.run(config("true", hooks={"createRuntime": [{"path": "/no/such/hook"}]}))


def test_failing_poststart_stops_the_jail(jails: Jails, config: Build) -> None:
    """A failing poststart hook is an error (runtime.md, "Lifecycle", since 1.2.1)."""
    hooks = {"poststart": [hook("exit 3")]}
    with pytest.raises(JailError, match="poststart hook /bin/sh failed"):
        jails.run(config("sh", "-c", "echo ready; cat", hooks=hooks))
    assert list_names() == []


def test_failing_poststop_is_no_failure(jails: Jails, config: Build, tmp_path: Path) -> None:
    """A failing poststop hook changes nothing of the end, and the next one still runs."""
    hooks = {"poststop": [hook("exit 3"), hook(f"touch {tmp_path}/next")]}
    ended = jails.run(config("echo", "ran", hooks=hooks))
    assert (ended.status, ended.stdout) == (0, "ran\n")
    assert (tmp_path / "next").exists()


def test_killed_hook(jails: Jails, config: Build) -> None:
    """A signal is said as one."""
    with pytest.raises(JailError, match="signal 9"):
        jails.run(config("true", hooks={"prestart": [hook("kill -9 $$")]}))


def test_hooks_get_no_descriptors(jails: Jails, config: Build, tmp_path: Path) -> None:
    """A hook has three streams and its own environment."""
    script = f"ls /proc/self/fd >{tmp_path}/fds; env >{tmp_path}/env"
    assert jails.run(config("true", hooks={"prestart": [hook(script)]})).status == 0
    assert (tmp_path / "fds").read_text().split() == ["0", "1", "2", "3"]  # and ls's own
    assert "JAILRUN" not in (tmp_path / "env").read_text()


def test_hooks_of_a_deleted_jail(jails: Jails, config: Build, tmp_path: Path) -> None:
    """poststop runs once, also where the jail was killed by force."""
    log = tmp_path / "log"
    hooks = {"poststop": [hook(f"echo stop >>{log}")]}
    running = jails.begin(config("sh", "-c", "echo ready; cat", hooks=hooks), remove=False)
    lifecycle.delete(running.name, force=True)
    running.first = False
    running.wait()
    assert log.read_text() == "stop\n"
    with pytest.raises(JailError):
        load(running.name)
