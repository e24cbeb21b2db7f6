"""A jail's v1 cgroups as cgroupspy's nodes, and what it lacks beside them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jailrun.cgroups.hierarchy import Hierarchies
from jailrun.cgroups.inspect import read_nodes

if TYPE_CHECKING:
    from tests.integration.cgroups.conftest import Cell

    MakeCell = Callable[..., Cell]

M = 1 << 20


@pytest.fixture
def v1(hierarchies: Hierarchies) -> Hierarchies:
    """Return this host's hierarchies, if memory and blkio are on v1."""
    if (hierarchies.version("memory"), hierarchies.version("blkio")) != (1, 1):
        pytest.skip("needs cgroup v1")
    return hierarchies


def test_nodes(make_cell: MakeCell, v1: Hierarchies) -> None:
    cell = make_cell({"memory": {"limit": 64 * M}, "pids": {"limit": 9}, "cpu": {"cpus": "0"}})
    child = cell.hold()
    nodes = read_nodes(cell.cgroups)
    assert "unified" not in nodes
    assert nodes["memory"].controller.limit_in_bytes == 64 * M
    assert nodes["memory"].full_path.decode() == cell.cgroups["memory"]
    assert nodes["cpuset"].controller.cpus == {0}
    assert nodes["memory"].controller.procs == [child.pid]
    pids = nodes["pids"].controller
    assert (pids.max, pids.current, pids.events) == (9, 1, {"max": 0})
    pids.max = None
    assert cell.read("pids", "pids.max") == "max"


def test_throttles_that_cgroupspy_cannot_reach(make_cell: MakeCell, v1: Hierarchies) -> None:
    disk = Path("/").stat().st_dev
    major, minor = os.major(disk), os.minor(disk)
    if not Path(f"/sys/dev/block/{major}:{minor}/queue").exists():
        pytest.skip("/ is not on a whole disk")
    rate = [{"major": major, "minor": minor, "rate": M}]
    cell = make_cell({"blockIO": {"throttleWriteBpsDevice": rate}})
    controller = read_nodes(cell.cgroups)["blkio"].controller
    (entry,) = controller.throttle_write_bps_device
    assert (entry.major, entry.minor, entry.limit) == (major, minor, M)
    assert "throttle_write_bps_device" in controller.list_interfaces()
    assert "throttle_read_bps_device" in controller.list_interfaces()
