"""The map controller → hierarchy, from the texts of every kind of host; where a jail goes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailrun.cgroups.hierarchy import Hierarchies, parse_hierarchies, parse_own_paths, place
from jailrun.errors import SpecError, UnsupportedError

ALLOW_ALL = {"linux": {"resources": {"devices": [{"allow": True, "access": "rwm"}]}}}


def test_v1(v1: Hierarchies) -> None:
    assert v1.kind == "v1"
    assert v1.unified is None
    memory, cpuacct = v1.of("memory"), v1.of("cpuacct")
    assert memory and (memory.version, memory.mount) == (1, "/sys/fs/cgroup/memory")
    assert cpuacct and cpuacct.id == "cpu,cpuacct"
    assert cpuacct is v1.of("cpu")
    assert v1.of("name=systemd") is None
    assert v1.version("io") == 0


def test_hybrid(hybrid: Hierarchies) -> None:
    assert hybrid.kind == "hybrid"
    assert hybrid.version("hugetlb") == 2
    assert hybrid.version("memory") == 1
    assert hybrid.unified and hybrid.unified.mount == "/sys/fs/cgroup/unified"
    assert hybrid.items[-1] is hybrid.unified


def test_v2(v2: Hierarchies) -> None:
    assert v2.kind == "v2"
    assert {v2.version(name) for name in ("memory", "cpu", "io", "pids", "cpuset")} == {2}
    assert v2.unified and v2.unified.own == "/user.slice/session-1.scope"


def test_nothing_is_mounted() -> None:
    found = parse_hierarchies("0::/\n", "", str)
    assert found.kind == "none"
    with pytest.raises(UnsupportedError, match="no cgroup hierarchy"):
        place({}, "web", found)


def test_bind_mount_of_a_nested_container() -> None:
    """In a container the mount's root is the container's cgroup: it is the root that we see."""
    mounts = (
        "40 31 0:40 /docker/abc /sys/fs/cgroup/memory ro,nosuid - cgroup cgroup rw,memory\n"
        "41 31 0:40 /docker/abc /run/cg/memory rw,nosuid - cgroup cgroup rw,memory\n"
    )
    found = parse_hierarchies("5:memory:/docker/abc\n", mounts, str)
    memory = found.of("memory")
    assert memory and memory.mount == "/run/cg/memory", "the writable one"
    assert memory.own == "/docker/abc"


def test_read_only_is_said() -> None:
    mounts = "40 31 0:40 / /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
    found = parse_hierarchies("5:memory:/\n", mounts, str)
    with pytest.raises(UnsupportedError, match="read-only") as raised:
        place(ALLOW_ALL, "web", found)
    assert raised.value.hint == "mount -o remount,rw /sys/fs/cgroup/memory"


def test_hidden_mounts_do_not_count() -> None:
    """A mount over another, or over a folder above it, hides it."""
    mount = "61 31 0:41 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    over = "70 61 0:50 / /sys/fs/cgroup/unified rw - tmpfs none rw\n"
    above = "71 31 0:51 / /sys/fs/cgroup rw - tmpfs none rw\n"
    beside = "72 31 0:51 / /sys/fs/cgroup/uni rw - tmpfs none rw\n"
    assert parse_hierarchies("0::/\n", mount + beside, lambda _: "").kind == "v2"
    assert parse_hierarchies("0::/\n", mount + over, lambda _: "").kind == "none"
    assert parse_hierarchies("0::/\n", mount + above, lambda _: "").kind == "none"


def test_optional_fields_and_escapes() -> None:
    mounts = (
        r"40 31 0:40 / /c\040g/mem\134ory rw master:3 shared:4 - cgroup cgroup rw,memory" + "\n"
    )
    memory = parse_hierarchies("5:memory:/a:b\n", mounts, str).of("memory")
    assert memory and memory.mount == r"/c g/mem\ory"
    assert memory.own == "/a:b"


@given(st.lists(st.sampled_from(["cpu", "memory", "pids", "name=x"]), unique=True, min_size=1))
def test_own_paths_of_any_grouping(names: list[str]) -> None:
    paths = parse_own_paths(f"3:{','.join(names)}:/a/b\n0::/\n")
    assert paths == dict.fromkeys(names, "/a/b") | {"": "/"}


def test_place_default(v1: Hierarchies, hybrid: Hierarchies, v2: Hierarchies) -> None:
    """Accounting and the device list always; the freezer only where v2 does not freeze."""
    root = "/sys/fs/cgroup"
    assert place({}, "web", v2) == {"unified": f"{root}/jailrun/web"}
    ids = ("cpu,cpuacct", "memory", "devices", "pids")
    joined = {one: f"{root}/{one}/jailrun/web" for one in ids}
    assert place({}, "web", hybrid) == joined | {"unified": f"{root}/unified/jailrun/web"}
    assert place({}, "web", v1) == joined | {"freezer": f"{root}/freezer/jailrun/web"}


def test_place_what_is_limited(hybrid: Hierarchies) -> None:
    resources = {"cpu": {"cpus": "0"}, "blockIO": {"weight": 100}, "devices": [{"allow": True}]}
    assert set(place({"linux": {"resources": resources}}, "web", hybrid)) == {
        "cpu,cpuacct", "memory", "pids", "cpuset", "blkio", "unified",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/kubepods/pod1/c1", "/sys/fs/cgroup/kubepods/pod1/c1"),
        ("//a///b/", "/sys/fs/cgroup/a/b"),
        ("group/web", "/sys/fs/cgroup/jailrun/group/web"),
        ("", "/sys/fs/cgroup/jailrun/web"),
    ],
)
def test_cgroups_path(v2: Hierarchies, path: str, expected: str) -> None:
    assert place({"linux": {"cgroupsPath": path}}, "web", v2) == {"unified": expected}


@pytest.mark.parametrize("path", ["/", "///", "/a/../b", "../x", "a/./b", "a\nb", "..", "a\0"])
def test_bad_cgroups_path(v2: Hierarchies, path: str) -> None:
    with pytest.raises(SpecError) as raised:
        place({"linux": {"cgroupsPath": path}}, "web", v2)
    assert raised.value.path == "linux.cgroupsPath"
