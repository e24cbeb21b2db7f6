"""SIGKILL of jailrun at every step: the next command puts the host right, and the name is free."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jailrun.engine import lifecycle
from jailrun.engine.launch import Request, launch
from jailrun.engine.monitor import launch_detached
from jailrun.engine.payload import Streams
from jailrun.engine.record import list_names, load
from jailrun.engine.state import read_status
from jailrun.errors import NotFoundError
from jailrun.kernel.execute import reap
from tests.faults.steps import run_killed
from tests.integration.host import read_processes, reap_orphans
from tests.integration.jails import Build, Config, Jails, eventually, new_name

MOST = 2000  # steps; more than any start has


def nothing() -> None:
    """Prepare nothing."""


def start(config: Config, name: str, **request: object) -> int:
    """Start a jail without input and output; return its pidfd."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    streams = Streams((null, null, null))
    return launch(config, Request(name, streams=streams, **request)).pidfd  # type: ignore[arg-type]


def kill_at_each_step(
    work: Callable[[], object],
    after: Callable[[int], None],
    *,
    prepare: Callable[[], object] = nothing,
    who: str = "parent",
    stride: int = 1,
) -> int:
    """Kill a process at each step of ``work`` and look ``after`` each; return the steps."""
    for last in range(0, MOST, stride):
        finished = run_killed(work, prepare, last, who)
        after(last)
        reap_orphans()
        if finished:
            return last
    raise AssertionError("it never came to its end")


def assert_clean(jails: Jails, config: Build, name: str, last: int) -> None:
    """Recover, and see that nothing is left and the name can be used."""
    lifecycle.recover()
    left = {one: read_status(load(one)) for one in list_names()}
    assert left == {}, f"killed after {last} steps"
    if last % 8 == 0:
        ended = jails.run(config("echo", "again"), name=name)
        assert ended.stdout == "again\n"


def test_attached_start(jails: Jails, config: Build, executor: str) -> None:
    """A start in the foreground: the jail dies with its caller, whenever that dies."""
    name = new_name()
    built = config("cat", "/dev/zero")
    built["process"]["args"] = ["sh", "-c", "while :; do :; done"]

    def after(last: int) -> None:
        assert_clean(jails, config, name, last)

    steps = kill_at_each_step(lambda: start(built, name, attached=True, remove=True), after)
    assert steps > 20


def test_created(jails: Jails, config: Build, executor: str) -> None:
    """A jail that is created: half made, it is removed; wholly made, it waits for its start."""
    name = new_name()

    def after(last: int) -> None:
        lifecycle.recover()
        for one in list_names():
            assert read_status(load(one)) == "created", f"killed after {last} steps"
            lifecycle.delete(one)
        assert_clean(jails, config, name, last)

    kill_at_each_step(lambda: start(config("true"), name, hold=True), after)


def test_start_of_a_created_jail(jails: Jails, config: Build, executor: str) -> None:
    """The start command is killed: the jail waits, runs, or is removed by the next command."""
    name = new_name()

    def after(last: int) -> None:
        lifecycle.recover()
        for one in list_names():
            assert read_status(load(one)) in ("created", "running", "stopped", "incomplete")
            lifecycle.delete(one, force=True)
        assert_clean(jails, config, name, last)

    kill_at_each_step(
        lambda: lifecycle.start(name),
        after,
        prepare=lambda: start(config("sh", "-c", "while :; do :; done"), name, hold=True),
    )


@pytest.mark.parametrize("remove", [True, False])
def test_finish(jails: Jails, config: Build, executor: str, remove: bool) -> None:
    """The end of a foreground jail is noted half: the rest is done by the next command."""
    name = new_name()

    def prepare() -> None:
        reap(start(config("true"), name, attached=True, remove=remove))

    def after(last: int) -> None:
        lifecycle.recover()
        for one in list_names():
            assert not remove, f"killed after {last} steps"
            assert read_status(load(one)) == "stopped"
            lifecycle.delete(one)
        assert_clean(jails, config, name, last)

    kill_at_each_step(lambda: lifecycle.finish(name, 0), after, prepare=prepare)


@pytest.mark.parametrize("running", [True, False])
def test_delete(jails: Jails, config: Build, executor: str, running: bool) -> None:
    """A removal that was cut short is taken up by the next one."""
    name = new_name()
    command = "while :; do :; done" if running else "true"

    def prepare() -> None:
        pidfd = start(config("sh", "-c", command), name)
        if not running:
            lifecycle.finish(name, reap(pidfd))

    def after(last: int) -> None:
        with contextlib.suppress(NotFoundError):  # it had come far enough
            lifecycle.delete(name, force=True)
        assert list_names() == [], f"killed after {last} steps"
        assert_clean(jails, config, name, last)

    kill_at_each_step(lambda: lifecycle.delete(name, force=True), after, prepare=prepare)


@pytest.mark.parametrize("who", ["parent", "child"])
def test_detached_start(
    jails: Jails, config: Build, executor: str, who: str, session_data: object
) -> None:
    """Whoever dies while a detached jail starts: it runs and is watched, or it is removed."""
    names = [new_name()]
    logs = f"{os.environ['JAILRUN_DATA']}/logs"
    built = config("sh", "-c", "while :; do :; done")

    def work() -> None:
        request = Request(names[0], log=f"{logs}/{names[0]}.log", remove=True)
        launch_detached(built, request)

    def after(last: int) -> None:
        own = Path("/proc/self/comm").read_text().strip()

        def settled() -> bool:
            # The other of the two goes on: until its end, or until it is the monitor.
            reap_orphans()
            return not any(process.endswith(f" {own}") for process in read_processes())

        eventually(settled, "whoever is left is done")
        lifecycle.recover()
        for one in list_names():
            assert read_status(load(one)) in ("running", "stopped"), f"killed after {last} steps"
            lifecycle.delete(one, force=True)
        eventually(lambda: not list_names(), "its monitor has seen its end")
        assert_clean(jails, config, names[0], last)
        names[0] = new_name()

    kill_at_each_step(work, after, who=who, stride=3 if who == "child" else 1)
