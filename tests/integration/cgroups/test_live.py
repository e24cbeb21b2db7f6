"""Limits changed while a process runs: order, undoing, joining a hierarchy later."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from jailrun.cgroups import control, live, stats
from jailrun.cgroups.hierarchy import Hierarchies
from jailrun.errors import CgroupError, JailError, NotFoundError, UnsupportedError

if TYPE_CHECKING:
    from tests.integration.cgroups.conftest import Cell

    MakeCell = Callable[..., Cell]

M = 1 << 20


def update(cell: Cell, resources: dict[str, Any]) -> None:
    cell.cgroups = live.widen(resources, cell.cgroups)
    live.update(resources, cell.cgroups)


def memory_of(cell: Cell) -> tuple[int, int]:
    memory = stats.stats(cell.cgroups)["memory"]
    return memory["usage"]["limit"], memory["swap"]["limit"]


def test_memory_and_swap_in_both_directions(make_cell: MakeCell) -> None:
    """v1 refuses memory above memory plus swap at every moment."""
    cell = make_cell({"memory": {"limit": 64 * M, "swap": 64 * M}})
    cell.hold()
    for limit, swap in ((128, 128), (32, 32), (32, 256), (200, 256), (40, 40)):
        update(cell, {"memory": {"limit": limit * M, "swap": swap * M}})
        assert memory_of(cell) == (limit * M, swap * M)


def test_quota_period_and_burst_in_both_directions(make_cell: MakeCell) -> None:
    cell = make_cell({"cpu": {"quota": 50000, "period": 100000, "burst": 40000}})
    cell.hold()
    for quota, period, burst in ((5000, 10000, 3000), (90000, 100000, 80000), (2000, 5000, 0)):
        update(cell, {"cpu": {"quota": quota, "period": period, "burst": burst}})
    update(cell, {"cpu": {"quota": -1}})


def test_what_is_not_named_stays(make_cell: MakeCell) -> None:
    cell = make_cell({"memory": {"limit": 64 * M}, "pids": {"limit": 9}})
    cell.hold()
    update(cell, {"pids": {"limit": 20}})
    assert stats.stats(cell.cgroups)["pids"]["limit"] == 20
    assert stats.stats(cell.cgroups)["memory"]["usage"]["limit"] == 64 * M


def test_a_refused_value_undoes_the_others(make_cell: MakeCell) -> None:
    cell = make_cell({"memory": {"limit": 64 * M, "swap": 64 * M}, "pids": {"limit": 9}})
    cell.hold()
    before = dict(cell.cgroups)
    wanted = {"memory": {"limit": 128 * M, "swap": 128 * M}, "pids": {"limit": 50}}
    with pytest.raises(JailError, match=r"cpu\.cpus to '4095'") as raised:
        update(cell, wanted | {"cpu": {"cpus": "4095"}})
    assert raised.value.hint
    assert memory_of(cell) == (64 * M, 64 * M)
    assert stats.stats(cell.cgroups)["pids"]["limit"] == 9
    added = set(cell.cgroups) - set(before)
    assert not any(Path(cell.cgroups[key]).exists() for key in added), "made for nothing: removed"


def test_below_what_is_used(make_cell: MakeCell, hierarchies: Hierarchies) -> None:
    cell = make_cell({"memory": {"limit": 64 * M, "swap": 64 * M}})
    cell.hold(f"b = bytearray({30 * M})")
    with pytest.raises(CgroupError) as raised:
        update(cell, {"memory": {"limit": M, "checkBeforeUpdate": True}})
    assert "in use" in str(raised.value)
    nowhere_to_swap = len(Path("/proc/swaps").read_text().splitlines()) == 1
    if hierarchies.version("memory") == 1 and nowhere_to_swap:
        with pytest.raises(CgroupError, match="busy") as raised:
            update(cell, {"memory": {"limit": M}})
        assert "uses more" in (raised.value.hint or "")
    assert memory_of(cell)[0] == 64 * M


def test_joining_a_hierarchy_later(make_cell: MakeCell, hierarchies: Hierarchies) -> None:
    """All processes are moved, frozen so that none is born beside it; the jail then goes on."""
    from tests.integration.cgroups.conftest import eventually

    cpu = max(os.sched_getaffinity(0))
    cell = make_cell({"pids": {"limit": 20}})
    child = cell.hold("import os\nif not os.fork():\n    os.read(0, 1)\n    os._exit(0)")
    if hierarchies.version("cpuset") == 1:
        assert "cpuset" not in cell.cgroups
    update(cell, {"cpu": {"cpus": str(cpu)}})
    pids = control.processes(cell.cgroups)
    assert len(pids) == 2
    assert all(os.sched_getaffinity(pid) == {cpu} for pid in pids)
    assert not control.is_frozen(cell.cgroups)
    assert child.stdin
    child.stdin.close()
    eventually(lambda: child.poll() is not None, "the child goes on")


def test_a_v2_controller_enabled_later(make_cell: MakeCell, hierarchies: Hierarchies) -> None:
    """And taken back with the last jail: the fixture looks."""
    if hierarchies.version("hugetlb") != 2:
        pytest.skip("needs hugetlb on v2")
    cell = make_cell()
    cell.hold()
    update(cell, {"hugepageLimits": [{"pageSize": "2MB", "limit": 2 * M}]})
    assert stats.stats(cell.cgroups)["hugetlb"]["2MB"]["limit"] == 2 * M


def test_a_frozen_jail_stays_frozen(make_cell: MakeCell) -> None:
    cell = make_cell()
    cell.hold()
    control.freeze(cell.cgroups)
    update(cell, {"cpu": {"cpus": "0"}})
    assert control.is_frozen(cell.cgroups)


def test_a_move_that_fails_is_undone(
    make_cell: MakeCell, hierarchies: Hierarchies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second process cannot be moved: the first goes back."""
    if hierarchies.version("cpuset") != 1:
        pytest.skip("needs cpuset on v1")
    cell = make_cell({"pids": {"limit": 20}})
    cell.hold("import os\nif not os.fork():\n    os.read(0, 1)\n    os._exit(0)")
    last = control.processes(cell.cgroups)[-1]
    write = control.write_text

    def refuse_the_last(path: str, text: str, what: str) -> None:
        if (text, "/cpuset/jailrun/" in path) == (str(last), True):
            raise CgroupError(f"cannot {what} {path}")
        write(path, text, what)

    monkeypatch.setattr(live, "write_text", refuse_the_last)
    with pytest.raises(CgroupError, match=f"move the process {last}"):
        update(cell, {"cpu": {"cpus": "0"}, "pids": {"limit": 30}})
    assert not Path(cell.cgroups["cpuset"]).exists()
    assert stats.stats(cell.cgroups)["pids"]["limit"] == 20
    assert not control.is_frozen(cell.cgroups)


def test_of_a_jail_that_is_gone(make_cell: MakeCell) -> None:
    cell = make_cell()
    control.release(cell.cgroups)
    with pytest.raises(NotFoundError, match="cgroups are gone"):
        update(cell, {"pids": {"limit": 3}})


def test_devices_are_fixed(make_cell: MakeCell) -> None:
    cell = make_cell()
    with pytest.raises(UnsupportedError, match="is fixed"):
        update(cell, {"devices": [{"allow": True}]})
