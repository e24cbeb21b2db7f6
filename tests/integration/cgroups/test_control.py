"""Freezing, killing, listing, removing; on the v2 hierarchy and on v1's freezer alone."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jailrun.cgroups import check, control, stats
from jailrun.cgroups.hierarchy import PARENT, UNIFIED, Hierarchies, place
from jailrun.cgroups.plan import read_facts
from jailrun.errors import CgroupError, ConflictError, NotFoundError, UnsupportedError

if TYPE_CHECKING:
    from tests.integration.cgroups.conftest import Cell

    MakeCell = Callable[..., Cell]

FORKS = """
import os, time
while True:
    try:
        if not os.fork():
            while True:
                os.getppid()
    except OSError:
        print('full', flush=True)
        os.read(0, 1)
"""


def v1_only(hierarchies: Hierarchies) -> Hierarchies:
    """Return this host without its v2 hierarchy."""
    found = Hierarchies(item for item in hierarchies.items if item.version == 1)
    if not found.of("freezer"):
        pytest.skip("needs a v1 freezer")
    return found


@pytest.fixture(params=["this host", "v1 freezer"])
def on(request: pytest.FixtureRequest, hierarchies: Hierarchies) -> Hierarchies:
    """Return the hierarchies to use."""
    return hierarchies if request.param == "this host" else v1_only(hierarchies)


def used(cell: Cell) -> int:
    return int(stats.stats(cell.cgroups)["cpu"]["usage"]["total"])


def test_frozen_makes_no_progress(make_cell: MakeCell, on: Hierarchies) -> None:
    from tests.integration.cgroups.conftest import eventually

    cell = make_cell(on=on)
    cell.run("while True: pass")
    eventually(lambda: used(cell) > 20_000_000)
    control.freeze(cell.cgroups)
    assert control.is_frozen(cell.cgroups)
    before = used(cell)
    select.poll().poll(50)  # time in which it would run
    assert used(cell) == before
    control.freeze(cell.cgroups)
    control.thaw(cell.cgroups)
    assert not control.is_frozen(cell.cgroups)
    eventually(lambda: used(cell) > before)
    control.thaw(cell.cgroups)


@pytest.mark.parametrize("frozen", [False, True])
def test_kill_ends_all(make_cell: MakeCell, on: Hierarchies, frozen: bool) -> None:
    """Also those who fork as fast as they can, and who cannot run."""
    cell = make_cell({"pids": {"limit": 12}}, on=on)
    child = cell.run(FORKS)
    assert child.stdout
    assert child.stdout.readline() == "full\n"
    assert len(control.processes(cell.cgroups)) == 12
    if frozen:
        control.freeze(cell.cgroups)
    control.kill(cell.cgroups)
    assert control.processes(cell.cgroups) == []
    assert child.wait(20) == -signal.SIGKILL
    control.kill(cell.cgroups)


def test_release_takes_nested_cgroups_and_is_idempotent(make_cell: MakeCell) -> None:
    cell = make_cell()
    for path in cell.cgroups.values():
        (Path(path) / "a" / "b").mkdir(parents=True)
        (Path(path) / "c").mkdir()
    control.release(cell.cgroups)
    assert not any(Path(path).exists() for path in cell.cgroups.values())
    control.release(cell.cgroups)
    control.kill(cell.cgroups)


def test_release_of_a_half_made_record(make_cell: MakeCell) -> None:
    cell = make_cell()
    Path(cell.cgroups.get("memory") or cell.cgroups[UNIFIED]).rmdir()
    control.release(cell.cgroups | {"misc": "/sys/fs/cgroup/misc/jailrun/never-made"})
    assert not any(Path(path).exists() for path in cell.cgroups.values())


def test_release_kills_nobody(make_cell: MakeCell) -> None:
    cell = make_cell()
    child = cell.hold()
    with pytest.raises(CgroupError, match=f"processes {child.pid}"):
        control.release(cell.cgroups, seconds=0.05)
    assert child.poll() is None


def test_release_leaves_what_is_not_ours(make_cell: MakeCell, hierarchies: Hierarchies) -> None:
    """A parent that the configuration named stays; ours stays while another jail is in it."""
    outer = f"jailrun-test-outer-{os.getpid()}"
    cell = make_cell(path=f"/{outer}/web")
    parents = [Path(path).parent for path in cell.cgroups.values()]
    try:
        cell.end()
        assert all(parent.is_dir() for parent in parents)
    finally:
        for parent in parents:
            parent.rmdir()
    one, two = make_cell(), make_cell()
    one.end()
    assert all(Path(path).is_dir() for path in two.cgroups.values())


def test_relative_path_leaves_nothing(make_cell: MakeCell) -> None:
    group = f"jailrun-test-group-{os.getpid()}"
    cell = make_cell(path=f"{group}/web")
    assert all(path.endswith(f"/{PARENT}/{group}/web") for path in cell.cgroups.values())
    cell.end()
    assert not any(Path(path).parent.exists() for path in cell.cgroups.values())


def test_a_cgroup_that_exists_is_a_conflict(make_cell: MakeCell, hierarchies: Hierarchies) -> None:
    cell = make_cell()
    again = place(cell.config, cell.name, hierarchies)
    with pytest.raises(ConflictError, match="exists already"):
        read_facts(cell.config, hierarchies, again)
    with pytest.raises(ConflictError, match="File exists"):
        cell.make(look=False)
    assert all(Path(path).is_dir() for path in cell.cgroups.values())


def test_gone_cgroups(make_cell: MakeCell) -> None:
    cell = make_cell()
    control.release(cell.cgroups)
    with pytest.raises(NotFoundError, match="is gone"):
        control.freeze(cell.cgroups)
    assert control.processes(cell.cgroups) == []
    assert not control.is_frozen(cell.cgroups)
    with pytest.raises(UnsupportedError, match="cannot freeze"):
        control.freeze({})
    control.release({})


MANY = """
import sys
sys.path.insert(0, {root!r})
from jailrun.cgroups import control
from jailrun.cgroups.hierarchy import place, read_hierarchies
from jailrun.cgroups.plan import plan, read_facts
from jailrun.kernel.execute import Execution
from jailrun.kernel.program import Program
hierarchies = read_hierarchies()
config = {{"linux": {{"resources": {{"cpu": {{"cpus": "0"}}}}}}}}
for number in range(40):
    cgroups = place(config, "jailrun-test-{name}", hierarchies)
    program = Program()
    joined = plan(config, program, hierarchies, cgroups, read_facts(config, hierarchies, cgroups))
    execution = Execution(program)
    try:
        execution.run_before()
    finally:
        execution.close_opened()
        control.release(cgroups)
"""


def test_starts_and_ends_at_once(hierarchies: Hierarchies) -> None:
    """The parents come and go with the last jail, and no start finds its parent gone."""
    root = str(Path(control.__file__).parents[2])
    children = [
        subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-c",
                MANY.format(root=root, name=f"{os.getpid()}-many{number}"),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    assert [child.communicate(timeout=60)[1] for child in children] == [""] * 4


def test_check_host(hierarchies: Hierarchies) -> None:
    findings = {finding["subject"]: finding for finding in check.check_host()}
    assert findings["cgroups"]["state"] == "ok"
    assert findings["devices"]["state"] == "ok"
    for finding in findings.values():
        assert finding["state"] in ("ok", "missing")
        assert finding["hint"] or finding["state"] == "ok" or hierarchies.kind == "v2"
