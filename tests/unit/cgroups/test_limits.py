"""OCI resources as writes, compared as data, for both back ends; and every refusal by name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailrun.cgroups import v2 as back_end_v2
from jailrun.cgroups.hierarchy import Hierarchies
from jailrun.cgroups.limits import limited_controllers, plan_settings
from jailrun.cgroups.settings import Target
from jailrun.errors import SpecError, UnsupportedError

M = 1 << 20


def writes(
    resources: dict[str, Any],
    hierarchies: Hierarchies,
    features: tuple[str, ...] = (),
    **present: str,
) -> list[str]:
    """Return the settings as ``file=data``; ``present`` maps files, with _ for the dots."""
    texts = {file.replace("_", "."): text for file, text in present.items()}
    read = (lambda _controller, file: texts[file]) if present else None
    settings = plan_settings(resources, Target(hierarchies, frozenset(features), read))
    return [f"{setting.file}={setting.data}" for setting in settings]


CASES: list[tuple[dict[str, Any], list[str], list[str]]] = [
    (
        {"memory": {"limit": 64 * M, "swap": 96 * M, "reservation": 32 * M}},
        [
            f"memory.limit_in_bytes={64 * M}",
            f"memory.memsw.limit_in_bytes={96 * M}",
            f"memory.soft_limit_in_bytes={32 * M}",
        ],
        [f"memory.max={64 * M}", f"memory.swap.max={32 * M}", f"memory.low={32 * M}"],
    ),
    (
        {"memory": {"limit": -1}},
        ["memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=-1"],
        ["memory.max=max", "memory.swap.max=max"],
    ),
    (
        {"memory": {"limit": M, "swap": -1}},
        [f"memory.limit_in_bytes={M}", "memory.memsw.limit_in_bytes=-1"],
        [f"memory.max={M}", "memory.swap.max=max"],
    ),
    (
        {"memory": {"limit": M, "swap": M}},
        [f"memory.limit_in_bytes={M}", f"memory.memsw.limit_in_bytes={M}"],
        [f"memory.max={M}", "memory.swap.max=0"],
    ),
    ({"memory": {"limit": 0, "swap": 0, "kernel": 0, "useHierarchy": True}}, [], []),
    ({"cpu": {"shares": 1024}}, ["cpu.shares=1024"], ["cpu.weight=100"]),
    (
        {"cpu": {"quota": 50000, "period": 100000, "burst": 1000, "idle": 0}},
        [
            "cpu.cfs_period_us=100000",
            "cpu.cfs_quota_us=50000",
            "cpu.cfs_burst_us=1000",
            "cpu.idle=0",
        ],
        ["cpu.max=50000 100000", "cpu.max.burst=1000", "cpu.idle=0"],
    ),
    ({"cpu": {"quota": -1}}, ["cpu.cfs_quota_us=-1"], ["cpu.max=max 100000"]),
    ({"cpu": {"quota": 0, "period": 0, "shares": 0}}, [], []),
    (
        {"cpu": {"cpus": "0-1", "mems": "0"}},
        ["cpuset.cpus=0-1", "cpuset.mems=0"],
        ["cpuset.cpus=0-1", "cpuset.mems=0"],
    ),
    ({"pids": {"limit": 32}}, ["pids.max=32"], ["pids.max=32"]),
    ({"pids": {"limit": -1}}, ["pids.max=max"], ["pids.max=max"]),
    ({"pids": {"limit": 0}}, [], []),
    (
        {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * M}]},
        [f"hugetlb.2MB.limit_in_bytes={4 * M}", f"hugetlb.2MB.rsvd.limit_in_bytes={4 * M}"],
        [f"hugetlb.2MB.max={4 * M}", f"hugetlb.2MB.rsvd.max={4 * M}"],
    ),
    (
        {
            "blockIO": {
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1000}],
                "throttleWriteIOPSDevice": [
                    {"major": 8, "minor": 0, "rate": 10},
                    {"major": 8, "minor": 16, "rate": 0},
                ],
            }
        },
        [
            "blkio.throttle.read_bps_device=8:0 1000",
            "blkio.throttle.write_iops_device=8:0 10",
            "blkio.throttle.write_iops_device=8:16 0",
        ],
        ["io.max=8:0 rbps=1000 wiops=10", "io.max=8:16 wiops=max"],
    ),
]


@pytest.mark.parametrize(("resources", "on_v1", "on_v2"), CASES)
def test_both_back_ends(
    resources: dict[str, Any],
    on_v1: list[str],
    on_v2: list[str],
    v1: Hierarchies,
    v2: Hierarchies,
) -> None:
    assert writes(resources, v1) == on_v1
    assert writes(resources, v2) == on_v2


def test_v1_alone(v1: Hierarchies) -> None:
    memory = {"swappiness": 10, "disableOOMKiller": True, "kernelTCP": M}
    assert writes({"memory": memory}, v1) == [
        f"memory.kmem.tcp.limit_in_bytes={M}",
        "memory.swappiness=10",
        "memory.oom_control=1",
    ]
    realtime = {"realtimeRuntime": 5000, "realtimePeriod": 10000}
    assert writes({"cpu": realtime}, v1) == ["cpu.rt_period_us=10000", "cpu.rt_runtime_us=5000"]


def test_weights_take_the_scheduler_that_there_is(v1: Hierarchies, v2: Hierarchies) -> None:
    resources = {
        "blockIO": {"weight": 500, "weightDevice": [{"major": 8, "minor": 0, "weight": 1000}]}
    }
    assert writes(resources, v1) == ["blkio.weight=500", "blkio.weight_device=8:0 1000"]
    bfq = ("blkio.bfq.io_service_bytes",)
    assert writes(resources, v1, bfq) == [
        "blkio.bfq.weight=500",
        "blkio.bfq.weight_device=8:0 1000",
    ]
    assert writes(resources, v2) == ["io.bfq.weight=default 500", "io.bfq.weight=8:0 1000"]
    assert writes(resources, v2, ("io.cost.qos",)) == [
        "io.weight=default 4950",
        "io.bfq.weight=default 500",
        "io.weight=8:0 10000",
        "io.bfq.weight=8:0 1000",
    ]


def test_rdma(v2: Hierarchies) -> None:
    limits = {"rdma": {"mlx5_0": {"hcaHandles": 3, "hcaObjects": 100}, "mlx4_0": {"hcaObjects": 1}}}
    assert writes(limits, v2) == [
        "rdma.max=mlx5_0 hca_handle=3 hca_object=100",
        "rdma.max=mlx4_0 hca_object=1",
    ]


def test_an_update_on_v2_needs_what_is_there(v2: Hierarchies) -> None:
    """OCI's swap includes memory and quota goes with a period: v2 has to be asked for the other."""
    assert writes({"memory": {"swap": 96 * M}}, v2, memory_max=f"{64 * M}\n") == [
        f"memory.swap.max={32 * M}"
    ]
    assert writes({"cpu": {"quota": 5000}}, v2, cpu_max="max 20000\n") == ["cpu.max=5000 20000"]
    assert writes({"cpu": {"period": 9000}}, v2, cpu_max="5000 20000\n") == ["cpu.max=5000 9000"]
    with pytest.raises(SpecError, match="needs memory"):
        writes({"memory": {"swap": 96 * M}}, v2, memory_max="max\n")
    with pytest.raises(SpecError, match="below the present limit"):
        writes({"memory": {"swap": M}}, v2, memory_max=f"{64 * M}\n")


def test_mixed_host_goes_controller_by_controller(hybrid: Hierarchies) -> None:
    resources = {
        "memory": {"limit": M},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
        "unified": {"hugetlb.2MB.max": "0", "cgroup.max.descendants": "5"},
    }
    assert writes(resources, hybrid) == [
        f"memory.limit_in_bytes={M}",
        "hugetlb.2MB.max=0",
        "hugetlb.2MB.rsvd.max=0",
        "hugetlb.2MB.max=0",
        "cgroup.max.descendants=5",
    ]


@pytest.mark.parametrize(
    ("resources", "host", "path", "words"),
    [
        ({"memory": {"kernel": M}}, "v1", "memory.kernel", "Linux 5.16"),
        ({"memory": {"kernel": M}}, "v2", "memory.kernel", "cgroup v2"),
        ({"memory": {"useHierarchy": False}}, "v1", "memory.useHierarchy", "Linux 5.11"),
        ({"memory": {"useHierarchy": False}}, "v2", "memory.useHierarchy", "always true"),
        ({"memory": {"swappiness": 3}}, "v2", "memory.swappiness", "no such setting"),
        ({"memory": {"kernelTCP": M}}, "v2", "memory.kernelTCP", "no such setting"),
        ({"memory": {"disableOOMKiller": True}}, "v2", "memory.disableOOMKiller", "no such"),
        ({"cpu": {"realtimeRuntime": 5}}, "v2", "cpu.realtimeRuntime", "no such setting"),
        ({"blockIO": {"leafWeight": 10}}, "v1", "blockIO.leafWeight", "CFQ"),
        ({"blockIO": {"leafWeight": 10}}, "v2", "blockIO.leafWeight", "no such setting"),
        ({"network": {"classID": 1}}, "v2", "network.classID", "no net_cls cgroup controller"),
        (
            {"network": {"priorities": [{"name": "lo", "priority": 1}]}},
            "hybrid",
            "network.priorities",
            "net_prio",
        ),
        ({"rdma": {"mlx": {"hcaHandles": 1}}}, "hybrid", "rdma", "no rdma cgroup controller"),
        (
            {"unified": {"memory.high": "1"}},
            "hybrid",
            'unified["memory.high"]',
            "on cgroup v1 here, at /sys/fs/cgroup/memory",
        ),
        ({"unified": {"io.max": "1"}}, "hybrid", 'unified["io.max"]', "at /sys/fs/cgroup/blkio"),
        ({"unified": {"memory.high": "1"}}, "v1", 'unified["memory.high"]', "cgroup v1 only"),
        ({"unified": {"foo.max": "1"}}, "v2", 'unified["foo.max"]', "no foo cgroup controller"),
    ],
)
def test_what_the_host_cannot_enforce_is_refused_by_name(
    resources: dict[str, Any], host: str, path: str, words: str, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(UnsupportedError) as raised:
        writes(resources, request.getfixturevalue(host))
    assert str(raised.value).startswith(f"linux.resources.{path}: ")
    assert words in str(raised.value)
    assert raised.value.hint


@pytest.mark.parametrize(
    "file", ["../x", "a/b", "memory", "memory.", "", "cgroup.procs", "cgroup.kill"]
)
def test_unified_takes_limits_only(v2: Hierarchies, file: str) -> None:
    with pytest.raises(SpecError):
        writes({"unified": {file: "1"}}, v2)


def test_swap_includes_memory(v1: Hierarchies) -> None:
    with pytest.raises(SpecError, match="memory plus swap") as raised:
        writes({"memory": {"limit": 2 * M, "swap": M}}, v1)
    assert raised.value.path == "linux.resources.memory.swap"


@pytest.mark.parametrize(
    ("shares", "weight"),
    [(2, 1), (1, 1), (512, 59), (1024, 100), (2048, 174), (262144, 10000), (10**9, 10000)],
)
def test_cpu_weight(shares: int, weight: int) -> None:
    assert back_end_v2.weight_from_shares(shares) == weight


@given(st.integers(2, 262143))
def test_cpu_weight_never_falls(shares: int) -> None:
    one, two = back_end_v2.weight_from_shares(shares), back_end_v2.weight_from_shares(shares + 1)
    assert 1 <= one <= two <= 10000


def test_io_weight() -> None:
    assert [back_end_v2.io_weight(weight) for weight in (10, 500, 1000)] == [1, 4950, 10000]


def test_limited_controllers() -> None:
    assert limited_controllers({}) == set()
    assert limited_controllers({"cpu": {"cpus": "0"}}) == {"cpuset"}
    assert limited_controllers({"cpu": {"cpus": "", "shares": 5}}) == {"cpu"}
    assert limited_controllers({"unified": {"cgroup.max.depth": "1", "misc.max": ""}}) == {"misc"}
