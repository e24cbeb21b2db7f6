"""Each limit seen from inside: what a process in the cgroups can and cannot do."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from jailrun.cgroups import control, stats
from jailrun.cgroups.hierarchy import Hierarchies
from jailrun.cgroups.plan import plan_join
from jailrun.errors import CgroupError, JailError, UnsupportedError
from jailrun.kernel.execute import Execution
from jailrun.kernel.program import Program

if TYPE_CHECKING:
    from tests.integration.cgroups.conftest import Cell

    MakeCell = Callable[..., Cell]

M = 1 << 20
NO_DISK = {"blockIO": {"throttleReadBpsDevice": [{"major": 4095, "minor": 9, "rate": 1}]}}
CELL_OPEN = """
import os, errno
def attempt(path, flags):
    try:
        os.close(os.open(path, flags | os.O_NONBLOCK))
        return 'open'
    except OSError as error:
        return errno.errorcode[error.errno]
"""


def test_memory_beyond_the_limit_kills(make_cell: MakeCell) -> None:
    cell = make_cell({"memory": {"limit": 24 * M, "swap": 24 * M}})
    child = cell.run(f"b = bytearray({200 * M}); print('survived')")
    assert child.communicate(timeout=20)[0] == ""
    assert child.returncode == -signal.SIGKILL
    events = stats.read_events(cell.cgroups)
    assert events["oom_kill"] >= 1
    assert 20 * M < events["memory_peak"] <= 24 * M
    # Linux 6.18 leaves v1's failcnt at 0.
    assert "memory_max" in events


def test_memory_within_the_limit(make_cell: MakeCell) -> None:
    cell = make_cell({"memory": {"limit": 64 * M}})
    cell.hold(f"b = bytearray({8 * M})")
    usage = stats.stats(cell.cgroups)["memory"]["usage"]
    assert usage["limit"] == 64 * M
    assert 8 * M <= usage["usage"] <= 64 * M
    assert stats.read_events(cell.cgroups)["oom_kill"] == 0


def test_pids_beyond_the_limit_are_refused(make_cell: MakeCell) -> None:
    cell = make_cell({"pids": {"limit": 4}})
    answer = cell.answer(
        "import os, errno\n"
        "made = 0\n"
        "try:\n"
        "    for _ in range(10):\n"
        "        if not os.fork():\n"
        "            os.read(0, 1)\n"
        "            os._exit(0)\n"
        "        made += 1\n"
        "except OSError as error:\n"
        "    print(made, errno.errorcode[error.errno])\n"
    )
    assert answer == "3 EAGAIN\n"
    assert stats.read_events(cell.cgroups)["pids_max"] >= 1


def test_cpu_quota_throttles(make_cell: MakeCell) -> None:
    from tests.integration.cgroups.conftest import eventually

    cell = make_cell({"cpu": {"quota": 5000, "period": 50000}})
    cell.run("while True: pass")
    eventually(lambda: stats.read_events(cell.cgroups)["nr_throttled"] > 2, "throttling")
    assert stats.stats(cell.cgroups)["cpu"]["usage"]["total"] > 0


def test_cpuset_pins(make_cell: MakeCell) -> None:
    cpu = max(os.sched_getaffinity(0))
    cell = make_cell({"cpu": {"cpus": str(cpu)}})
    assert cell.answer("import os; print(os.sched_getaffinity(0))") == f"{{{cpu}}}\n"


def test_device_list_on_this_host(make_cell: MakeCell) -> None:
    """The default list: the harmless devices, not the kernel's log, not the disks."""
    cell = make_cell({"devices": [{"allow": False, "access": "rwm"}]})
    answer = cell.answer(
        CELL_OPEN
        + "print(attempt('/dev/null', 2), attempt('/dev/zero', 0), attempt('/dev/kmsg', 0))"
    )
    assert answer == "open open EPERM\n"


@pytest.mark.parametrize("back_end", ["this host's", "BPF"])
def test_device_list_with_an_addition(
    make_cell: MakeCell, hierarchies: Hierarchies, back_end: str
) -> None:
    """/dev/kmsg (1:11) to be read, not written."""
    if hierarchies.unified is None:
        pytest.skip("needs a v2 hierarchy")
    on = Hierarchies([hierarchies.unified]) if back_end == "BPF" else hierarchies
    rules = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"},
    ]
    cell = make_cell({"devices": rules}, on=on)
    answer = cell.answer(CELL_OPEN + "print(attempt('/dev/kmsg', 0), attempt('/dev/kmsg', 1))")
    assert answer == "open EPERM\n"


def test_bpf_device_list(make_cell: MakeCell, hierarchies: Hierarchies) -> None:
    """The v2 form, on the v2 hierarchy alone: same answers as the v1 controller's."""
    if hierarchies.unified is None:
        pytest.skip("needs a v2 hierarchy")
    cell = make_cell({"devices": []}, on=Hierarchies([hierarchies.unified]))
    answer = cell.answer(
        CELL_OPEN + "print(*(attempt(path, 0) for path in "
        "('/dev/null', '/dev/zero', '/dev/urandom', '/dev/full', '/dev/kmsg')))"
    )
    assert answer == "open open open open EPERM\n"


def test_huge_pages(make_cell: MakeCell, hierarchies: Hierarchies) -> None:
    if (
        not hierarchies.of("hugetlb")
        or not Path("/sys/kernel/mm/hugepages/hugepages-2048kB").exists()
    ):
        pytest.skip("needs the hugetlb controller")
    cell = make_cell({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * M}]})
    assert stats.stats(cell.cgroups)["hugetlb"]["2MB"]["limit"] == 4 * M


def test_disk_throttle_and_weight(make_cell: MakeCell, hierarchies: Hierarchies) -> None:
    disk = Path("/").stat().st_dev
    device = {"major": os.major(disk), "minor": os.minor(disk)}
    if not Path(f"/sys/dev/block/{os.major(disk)}:{os.minor(disk)}/queue").exists():
        pytest.skip("/ is not on a whole disk")
    throttles = {
        "throttleReadBpsDevice": [device | {"rate": 10 * M}],
        "throttleWriteIOPSDevice": [device | {"rate": 99}],
    }
    cell = make_cell({"blockIO": throttles})
    number = f"{os.major(disk)}:{os.minor(disk)}"
    if hierarchies.of("blkio"):
        assert cell.read("blkio", "blkio.throttle.read_bps_device") == f"{number} {10 * M}"
        assert cell.read("blkio", "blkio.throttle.write_iops_device") == f"{number} 99"
    else:
        assert cell.read("io", "io.max").startswith(f"{number} rbps={10 * M} wbps=max")


@pytest.mark.parametrize(
    ("resources", "words", "hint"),
    [
        ({"cpu": {"cpus": "4095"}}, "linux.resources.cpu.cpus to '4095'", "choose from"),
        ({"cpu": {"quota": 5}}, "linux.resources.cpu.quota to '5", "at least 1000"),
        ({"cpu": {"quota": 5000, "burst": 6000}}, "linux.resources.cpu.burst", "above quota"),
        ({"pids": {"limit": 1 << 40}}, "linux.resources.pids.limit", "4194304"),
        ({"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}, "hugepageLimits[0]", "page sizes"),
        (NO_DISK, "throttleReadBpsDevice[0]", "whole disk"),
    ],
)
def test_refused_by_the_kernel(
    make_cell: MakeCell, resources: dict[str, Any], words: str, hint: str
) -> None:
    """Each refusal names the JSON path, the value and the file, and says what to do."""
    with pytest.raises(JailError) as raised:
        make_cell(resources)
    assert isinstance(raised.value, (CgroupError, UnsupportedError))
    assert words in str(raised.value)
    assert "/sys/fs/cgroup" in str(raised.value)
    assert raised.value.hint
    assert hint in raised.value.hint


def test_every_figure_of_a_jail_is_there(make_cell: MakeCell) -> None:
    cell = make_cell({"pids": {"limit": 9}})
    cell.hold()
    found = stats.stats(cell.cgroups)
    assert found["pids"] == {"current": 1, "limit": 9}
    assert found["cpu"]["usage"]["total"] > 0
    assert found["memory"]["usage"]["usage"] > 0
    assert control.processes(cell.cgroups) == [cell.children[0].pid]


@pytest.mark.parametrize("executor", ["native", "ctypes"])
def test_the_child_of_a_program_is_in_all_of_them(
    make_cell: MakeCell, monkeypatch: pytest.MonkeyPatch, executor: str
) -> None:
    """By the plan's own joins, and on v2 by the clone: a new process, and one that comes later."""
    monkeypatch.setenv("JAILRUN_EXECUTOR", executor)
    cell = make_cell({"pids": {"limit": 5}})
    program = Program()
    joined = plan_join(program, cell.cgroups)
    program.child.announce_exec()
    program.child.execve("/bin/sleep", ["sleep", "60"], [])
    execution = Execution(program)
    execution.run_before()
    execution.spawn(cgroup=joined.cgroup_fd)
    try:
        assert execution.wait(20)
        lines = Path(f"/proc/{execution.pid}/cgroup").read_text().splitlines()
        inside = [line for line in lines if line.endswith(f"/jailrun/{cell.name}")]
        assert len(inside) == len(cell.cgroups)
    finally:
        execution.abandon()
        execution.close_opened()


def test_network_class(make_cell: MakeCell, hierarchies: Hierarchies) -> None:
    """Where net_cls is mounted; a refusal by name elsewhere."""
    resources = {"network": {"classID": 0x100001}}
    if hierarchies.of("net_cls"):
        assert make_cell(resources).read("net_cls", "net_cls.classid") == str(0x100001)
    else:
        with pytest.raises(UnsupportedError, match=r"network\.classID: this host has no net_cls"):
            make_cell(resources)
